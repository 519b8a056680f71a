"""The command line of the benchmarks. Here its commands are put together."""

from __future__ import annotations

import typer

from benchmarks import (
    account_cli,
    attention,
    decode_cli,
    drafts_cli,
    families_cli,
    harness,
    score_cli,
    segment,
    train_cli,
)
from model.terminal import run

app = typer.Typer(
    help="Measure speed and memory beside the alternatives.", no_args_is_help=True, pretty_exceptions_enable=False
)
for each in (score_cli, segment, decode_cli, account_cli, drafts_cli, harness, train_cli, attention, families_cli):
    app.add_typer(each.commands)


def main() -> None:
    """Run the command line."""
    run(app)
