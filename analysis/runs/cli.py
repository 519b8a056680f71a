"""`python -m analysis runs` and `runs-figure`: training runs from their logs, as tables and figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.options import UNIT, FigureOut, Out, Theme, Unit, check_table, flatten_options, print_notes, print_or_save

if TYPE_CHECKING:
    from analysis.runs.log import RunLog

commands = typer.Typer()

FIGURE_NAMES = ("curves", "positions", "position_curves", "runs", "facts")
DEFAULT = Path("runs")  # of the working directory: where the trainer writes
Runs = Annotated[
    list[Path] | None, typer.Argument(metavar="RUN...", help="Folders of runs, or that hold runs. Default: runs")
]


@dataclass(frozen=True)
class RunOptions:
    """How runs are named, and taken from an export."""

    folder: Annotated[Path | None, typer.Option(help="Runs are named by their paths from there.")] = None
    seen: Annotated[
        Path | None, typer.Option(help="seen.json of an export: what the folders said then, instead of now.")
    ] = None

    def read(self, paths: list[Path] | None) -> list[RunLog]:
        """The runs, all that can be read.

        Raises:
            TextError: no run can be read.
        """
        from time import time

        from analysis.runs.discovery import find_all
        from analysis.runs.log import read_log
        from analysis.runs.provenance import read_seen
        from analysis.runs.tables import remarks
        from model.errors import TextError

        places = find_all(paths or [DEFAULT], self.folder)
        looks = read_seen(self.seen) if self.seen is not None else {}
        found, problems = [], []
        for place in places:
            try:
                found.append(read_log(place.path, place.name, time(), look=looks.get(place.name)))
            except TextError as error:
                problems.append(str(error))
        if not found:
            raise TextError(problems[0])
        print_notes("", tuple(problems))
        for run in found:
            print_notes(f"{run.name}: ", tuple(remarks(run)))
        return found


@commands.command("runs")
@flatten_options
def runs_table(
    options: RunOptions,
    runs: Runs = None,
    table: Annotated[
        Literal["runs", "curves", "positions", "facts"],
        typer.Option(help="A row a run; a line of the logs; a micro position at the last validation; a fact."),
    ] = "runs",
    unit: Unit = UNIT,
    out: Out = None,
) -> None:
    """Tables of training runs: how far they are, their curves, accuracy per micro position, their facts."""
    from analysis.runs import curves, positions, tables

    check_table(out)
    found = options.read(runs)
    if table == "curves":
        print_or_save(curves.log_table(found, unit), out, f"a row a line of the logs; losses in {unit}")
    elif table == "positions":
        print_or_save(
            positions.position_table(found, unit), out, f"a row a micro position; nll in {unit}, 95% intervals"
        )
    elif table == "facts":
        print_or_save(tables.facts_table(found), out, "a row a fact, a column a run")
    else:
        print_or_save(tables.runs_table(found, unit), out, f"a row a run; losses in {unit}", turned=len(found) < 4)


@commands.command("runs-figure")
@flatten_options
def runs_figure(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(FIGURE_NAMES)}.")],
    options: RunOptions,
    out: FigureOut,
    runs: Runs = None,
    curves: Annotated[str, typer.Option(help='Curves to draw, as in "loss accuracy".')] = "loss",
    x: Annotated[Literal["step", "tokens", "seconds"], typer.Option(help="What they run over.")] = "step",
    smoothing: Annotated[float, typer.Option(help="Of training, from 0 to .99.")] = 0.6,
    log: Annotated[bool, typer.Option("--log", help="Logarithmic axes, for losses, gradient norm and rates.")] = False,
    measure: Annotated[Literal["accuracy", "nll"], typer.Option(help="Of position_curves.")] = "accuracy",
    unit: Unit = UNIT,
    theme: Theme = "light",
) -> None:
    """Draw training runs, or give the data behind the figure: the command that export bundles name."""
    from analysis.export import FIGURE_FORMATS, check_out, save_figure
    from analysis.figures.figure import check_figure
    from analysis.runs.discovery import MOST_SHOWN
    from analysis.runs.figures import draw
    from analysis.runs.provenance import RunsView, origin
    from model.errors import MicroStepError

    check_figure(name, FIGURE_NAMES)
    check_out(out, FIGURE_FORMATS)
    view = RunsView(tuple(curves.replace(",", " ").split()), x, smoothing, log, measure, unit, theme)
    found = options.read(runs)
    if len(found) > MOST_SHOWN and name != "runs":
        raise MicroStepError(f"at most {MOST_SHOWN} runs are drawn together, got {len(found)}; name those to compare")
    save_figure(draw(name, found, view), out, origin(found, view))
    print(out)
