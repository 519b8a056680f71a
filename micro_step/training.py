"""`train`: from a recipe to a checkpoint, with the curves of its log."""

from __future__ import annotations

import time
from pathlib import Path

from analysis.answer import Result
from analysis.runs.curves import log_table
from analysis.runs.figures import FIGURES, draw
from analysis.runs.log import RunLog, read_log
from analysis.runs.provenance import origin
from analysis.runs.tables import remarks
from analysis.runs.view import RunsView
from analysis.score_registry import PER_NAT, Unit, significant
from model.arguments import checked
from model.errors import MicroStepError
from model.terminal import progress_bar
from trainer.recipe import Recipe, read_recipe
from trainer.run import RunPaths, run_recipe


@checked
def train(
    recipe: str | Path | Recipe,
    *,
    out: str | Path | None = None,
    local: str | Path | None = None,
    prepared: str | Path | None = None,
    states: str | Path | None = None,
    device: str = "auto",
    minutes: float | None = None,
    unit: Unit = "nats",
) -> Result[RunLog]:
    """Train from a recipe, or go on where a run was stopped.

    Args:
        recipe: a YAML file, the name of a recipe of the project, or a recipe.
        out: folder of the run. None: runs/NAME.
        local: folder with the sources' files. None: the hub.
        prepared: a folder that `micro-step data prepare` made. None: the data is prepared if it is not yet.
        states: of a draft or a teacher: where the base's states are kept.
        device: auto, cpu, cuda, cuda:N or mps.
        minutes: of training: as many steps as fit, instead of the recipe's.
        unit: bits or nats, of losses.

    Returns:
        A row a line of the log in `table`. `raw.look.checkpoints` are the folders that open as models, the final model
        last.

    Raises:
        MicroStepError: the recipe is wrong, the data cannot be had, or memory does not suffice.
    """
    chosen = recipe if isinstance(recipe, Recipe) else read_recipe(recipe)
    if minutes is not None:
        chosen = chosen.model_copy(update={"minutes": minutes})
    folder = Path(out) if out is not None else Path("runs") / chosen.name
    places = RunPaths(folder, _path(local), _path(prepared), _path(states))
    with progress_bar() as tell:
        done = run_recipe(chosen, places, device, tell)
    if done is None:
        raise MicroStepError("this is not the main process of the run, which alone has a result")
    log = read_log(done.path, done.path.name, time.time())
    return Result(
        "train",
        log,
        tuple(FIGURES),
        RunsView(unit=unit),
        lambda: log_table([log], unit),
        lambda: _finding(log, unit),
        lambda name, view: draw(name, [log], view),
        lambda _, view: origin([log], view),
        tuple(remarks(log)),
    )


def _finding(log: RunLog, unit: Unit) -> str:
    words = [f"{log.name}: {log.state}, {log.steps:,} of {log.facts.steps:,} steps"]
    for split in ("train", "validation"):
        if (line := log.last(split)) is not None:
            words.append(f"{split} loss {significant(line.token_loss * PER_NAT[unit])} {unit} per token")
    if log.look.checkpoints:
        words.append(str(log.look.checkpoints[-1].path))
    return ", ".join(words)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
