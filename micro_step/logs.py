"""`runs`: training runs from their logs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from time import time

from analysis.answer import Result
from analysis.runs.discovery import find_all
from analysis.runs.figures import FIGURES, draw
from analysis.runs.log import RunLog, read_log
from analysis.runs.provenance import origin
from analysis.runs.tables import remarks, runs_table
from analysis.runs.view import RunsView
from analysis.score_registry import Unit
from model.arguments import checked


@checked
def runs(
    folders: str | Path | Sequence[str], *, folder: str | Path | None = None, unit: Unit = "nats"
) -> Result[tuple[RunLog, ...]]:
    """Read training runs from their logs.

    Args:
        folders: of a run or of several runs, or a list of such folders.
        folder: runs are named by their paths below it. None: below the innermost folder that holds them all.
        unit: bits or nats, of losses.

    Returns:
        A row a run in `table`. Figures take curves, x, smoothing, log and measure.

    Raises:
        MicroStepError: there is no run, or a log cannot be read.
    """
    listed = [folders] if isinstance(folders, str | Path) else list(folders)
    places = find_all([Path(each) for each in listed], None if folder is None else Path(folder))
    found = tuple(read_log(place.path, place.name, time()) for place in places)
    return Result(
        "runs",
        found,
        tuple(FIGURES),
        RunsView(unit=unit),
        lambda: runs_table(found, unit),
        lambda: f"{len(found):,} training runs: {', '.join(run.name for run in found)}",
        lambda name, view: draw(name, found, view),
        lambda _, view: origin(found, view),
        tuple(f"{run.name}: {note}" for run in found for note in remarks(run)),
    )
