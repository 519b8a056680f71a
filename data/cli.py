"""`python -m data`: what can be trained on, cleaned, answered by the base itself, and scored. Torch waits."""

from __future__ import annotations

import typer

from data import held_out_cli, prepare_cli
from data.cleaning import cli as cleaning_cli
from data.distill import cli as distill_cli
from model.terminal import run

app = typer.Typer(
    name="python -m data",
    help="Training data: sources, mixes, cleaning, self-distillation, preparation.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for each in (cleaning_cli, distill_cli, held_out_cli, prepare_cli):
    app.add_typer(each.commands)


def main() -> None:
    """Run the command line."""
    run(app)
