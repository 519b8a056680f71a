"""The command line of the benchmarks. Torch waits until a benchmark is run."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import typer

from analysis.options import flatten_options
from benchmarks import options
from benchmarks.families import cli as families_cli
from benchmarks.options import Out
from benchmarks.report import check_out, show, write
from benchmarks.speed import cli as speed_cli
from model.terminal import progress_bar, run

MEASURED: dict[str, tuple[str, type]] = {  # command: the module whose `measure` takes the options
    "score": ("score", options.ScoreOptions),
    "segment": ("segment", options.SegmentTimingOptions),
    "drafts": ("speed.drafts", options.DraftsOptions),
    "harness": ("harness", options.HarnessOptions),
    "train-step": ("train_step", options.TrainStepOptions),
    "train": ("train", options.TrainOptions),
    "attention": ("attention", options.AttentionOptions),
}

app = typer.Typer(
    help="Measure speed and memory beside the alternatives.", no_args_is_help=True, pretty_exceptions_enable=False
)


def main() -> None:
    """Run the command line."""
    run(app)


def command(module: str, kind: type) -> Callable[..., None]:
    """The command that measures, shows the reports, and writes them."""

    def measure(given: Any, out: Out = None) -> None:
        check_out(out)
        with progress_bar() as tell:
            report = import_module(f"{__package__}.{module}").measure(given, tell)
        for each in report if isinstance(report, list) else [report]:
            show(each)
        write(report, out)

    measure.__doc__, measure.__annotations__ = kind.__doc__, {"given": kind, "out": Out, "return": None}
    return flatten_options(measure)


for name, (module, kind) in MEASURED.items():
    app.command(name)(command(module, kind))
for each in (speed_cli, families_cli):
    app.add_typer(each.commands)
