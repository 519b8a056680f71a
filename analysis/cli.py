"""`python -m analysis`: what the app shows, without it. Here its commands are put together."""

from __future__ import annotations

import typer

from analysis.attention import cli as attention_cli
from analysis.attention.evenness import cli as evenness_cli
from analysis.attention.micro import cli as micro_cli
from analysis.attribution import cli as attribution_cli
from analysis.corpus import cli as corpus_cli
from analysis.generation import cli as generating_cli
from analysis.runs import cli as runs_cli
from analysis.segmentation import cli as segment_cli
from analysis.segmentation import figure_cli as cutting_cli
from analysis.uncertainty import cli as compare_cli
from model.terminal import run

app = typer.Typer(
    help="Score texts, compare models, cut texts, follow training, make figures.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for each in (
    compare_cli,
    segment_cli,
    cutting_cli,
    corpus_cli,
    generating_cli,
    runs_cli,
    attention_cli,
    micro_cli,
    evenness_cli,
    attribution_cli,
):
    app.add_typer(each.commands)


def main() -> None:
    """Run the command line."""
    run(app)
