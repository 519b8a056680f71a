"""How training runs are looked at, and where a figure of them comes from: the manifest, and the command.

An export holds the logs themselves, as they were read: a run that goes on does not change what is made again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from analysis.export import Files
from analysis.provenance import Provenance
from analysis.query import command_line
from analysis.runs.curves import AXES, Axis, check_smoothing, curve
from analysis.runs.log import RunLog, RunStatus
from analysis.runs.positions import MEASURES, Measure
from analysis.runs.tables import recipe, remarks
from analysis.score_registry import Unit
from analysis.view import Theme
from data.run_folder import FACTS, LOG, RECIPE, facts_json, to_line
from model.errors import MicroStepError, TextError

FOLDER, SEEN = "runs", "seen.json"  # of an export: the logs, and what the folders of the runs said
SMOOTHING = 0.6


@dataclass(frozen=True)
class RunsView:
    """How runs are looked at.

    Raises:
        MicroStepError: a value that does not exist.
    """

    curves: tuple[str, ...] = ("loss",)
    x: Axis = "step"
    smoothing: float = SMOOTHING
    log: bool = False
    measure: Measure = "accuracy"
    unit: Unit = "bits"
    theme: Theme = "light"

    def __post_init__(self) -> None:
        if not self.curves:
            raise MicroStepError("no curve is chosen; choose at least one")
        for name in self.curves:
            curve(name)
        check_smoothing(self.smoothing)
        for given, known in ((self.x, AXES), (self.measure, MEASURES)):
            if given not in known:
                raise MicroStepError(f"unknown choice {given!r}; use one of {', '.join(map(str, known))}")


def origin(runs: Sequence[RunLog], view: RunsView) -> Provenance:
    """Where a figure of these runs comes from."""
    return Provenance(
        command=lambda figure, out: command(figure, runs, view, out),
        request={"runs": {run.name: dataclasses.asdict(run.facts) for run in runs}},
        view=dataclasses.asdict(view),
        models={},
        notes={run.name: tuple(said) for run in runs if (said := remarks(run))},
        files=_files(runs),
    )


def command(figure: str, runs: Sequence[RunLog], view: RunsView, out: str) -> str:
    """The command line that makes the same figure, in a folder that holds the origin's files."""
    words = ["runs-figure", figure, *(f"{FOLDER}/{run.name}" for run in runs), "--folder", FOLDER, "--seen", SEEN]
    words += ["--curves", " ".join(view.curves), "--x", view.x, "--smoothing", repr(view.smoothing)]
    words += ["--log"] if view.log else []
    return command_line([*words, "--measure", view.measure, "--unit", view.unit, "--theme", view.theme, "--out", out])


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
    """What an export says of the folders of its runs, by their names.

    Raises:
        TextError: it is no such file.
    """
    try:
        said = json.loads(path.read_text("utf-8"))
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
