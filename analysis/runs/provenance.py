"""Where a figure of training runs comes from: what a bundle holds, and the command that redraws the figure.

An export holds the logs themselves, as they were read: a run that goes on does not change what is reproduced.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from analysis.export import Files
from analysis.provenance import Provenance, drawing_lines, told
from analysis.runs.log import RunLog, RunStatus
from analysis.runs.tables import recipe, remarks
from analysis.runs.view import RunOptions, RunsView
from data.run_folder import FACTS, LOG, RECIPE, facts_json, to_line
from model.command_options import figure_command
from model.errors import TextError
from model.reading.json_text import parse_json
from model.reading.regular_files import read_text

FOLDER, SEEN = "runs", "seen.json"  # of an export: the logs, and what the folders of the runs said


def origin(runs: Sequence[RunLog], view: RunsView) -> Provenance:
    """Where a figure of these runs comes from."""
    return Provenance(
        command=figure_command("runs", RunOptions(FOLDER, SEEN), view, names=[f"{FOLDER}/{run.name}" for run in runs]),
        request={"runs": {run.name: dataclasses.asdict(run.facts) for run in runs}},
        view=dataclasses.asdict(view),
        models={},
        notes={run.name: tuple(said) for run in runs if (said := remarks(run))},
        files=_files(runs),
        python=drawing_lines([], _call(runs), told(view)),
    )


def _call(runs: Sequence[RunLog]) -> str:
    """The call of the face that reads the logs where they are, as they are then."""
    places = [str(run.path.resolve()) for run in runs]
    depth = len(Path(runs[0].name).parts) if runs else 0
    folder = str(runs[0].path.resolve().parents[depth - 1]) if depth else "."
    return f"runs({places!r}, folder={folder!r})"


def _files(runs: Sequence[RunLog]) -> Files:
    """The logs, what was seen of their folders, and the recipes that there are."""
    make: dict[str, Callable[[], bytes]] = {SEEN: partial(_seen, runs)}
    for run in runs:
        folder = f"{FOLDER}/{run.name}"
        make[f"{folder}/{FACTS}"] = partial(facts_json, run.facts)
        make[f"{folder}/{LOG}"] = partial(_log, run)
        if recipe(run.path) is not None:
            make[f"{folder}/{RECIPE}"] = partial(_recipe, run)
    return Files(make)


def read_seen(path: Path) -> dict[str, RunStatus]:
    """What an export says of the folders of its runs, by their names."""
    try:
        said = parse_json(read_text(path))
        return {name: RunStatus(bool(each["finished"]), age=float(each["age"])) for name, each in said.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise TextError(f"{path} does not say what was seen of runs; take {SEEN} of an export") from None


def _log(run: RunLog) -> bytes:
    return "".join(map(to_line, run.lines)).encode()


def _recipe(run: RunLog) -> bytes:
    return (recipe(run.path) or "").encode()


def _seen(runs: Sequence[RunLog]) -> bytes:
    looks = {run.name: {"finished": run.look.finished, "age": run.look.age} for run in runs}
    return json.dumps(looks, indent=1).encode()
