"""`micro-step runs`: training runs from their logs, as tables and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.options import Out, check_output, figure_option, print_notes, print_or_save, save_drawn
from analysis.runs.view import RunOptions, RunsView
from model.command_options import flatten_options

if TYPE_CHECKING:
    from analysis.runs.log import RunLog

FIGURE_NAMES = ("curves", "positions", "position_curves", "runs", "facts")
DEFAULT = Path("runs")  # of the working directory: where the trainer writes


@flatten_options
def runs_command(
    options: RunOptions,
    view: RunsView,
    runs: Annotated[
        list[Path] | None, typer.Argument(metavar="RUN...", help="Folders of runs, or that hold runs. Default: runs")
    ] = None,
    table: Annotated[
        Literal["runs", "curves", "positions", "facts"],
        typer.Option(help="A row is a run; a line of the logs; a micro position at the last validation; a fact."),
    ] = "runs",
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """Training runs from their logs: how far they are, their curves, accuracy per micro position, their facts.

    Writes a table, or with --figure draws a figure.
    """
    from analysis.runs import curves, positions, tables

    check_output(out, figure, FIGURE_NAMES)
    found = _read(options, runs)
    if figure is not None:
        _draw(found, view, figure, out)
    elif table == "curves":
        print_or_save(curves.log_table(found, view.unit), out, f"one row per line of the logs; losses in {view.unit}")
    elif table == "positions":
        caption = f"one row per micro position; nll in {view.unit}, 95% intervals"
        print_or_save(positions.position_table(found, view.unit), out, caption)
    elif table == "facts":
        print_or_save(tables.facts_table(found), out, "one row per fact, one column per run")
    else:
        caption = f"one row per run; losses in {view.unit}"
        print_or_save(tables.runs_table(found, view.unit), out, caption, turned=len(found) < 4)


def _read(options: RunOptions, paths: list[Path] | None) -> list[RunLog]:
    """The runs, all that can be read."""
    from time import time

    from analysis.runs.discovery import find_all
    from analysis.runs.log import read_log
    from analysis.runs.provenance import read_seen
    from analysis.runs.tables import remarks
    from model.errors import TextError

    places = find_all(paths or [DEFAULT], None if options.folder is None else Path(options.folder))
    looks = read_seen(Path(options.seen)) if options.seen is not None else {}
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


def _draw(found: list[RunLog], view: RunsView, figure: str, out: Path | None) -> None:
    from analysis.runs.discovery import MOST_SHOWN
    from analysis.runs.figures import draw
    from analysis.runs.provenance import origin
    from model.errors import MicroStepError

    if len(found) > MOST_SHOWN and figure != "runs":
        raise MicroStepError(f"at most {MOST_SHOWN} runs are drawn together, got {len(found)}; name those to compare")
    save_drawn(draw(figure, found, view), out, origin(found, view))
