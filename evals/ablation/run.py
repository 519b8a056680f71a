"""Running a grid: train what is not there, measure, evaluate, and compare.

Every run is a run like any other, in a folder of its own, with what was measured and evaluated of it inside:

    RUN/measures.json         what the held-out examples gave
    RUN/evaluated-DIGEST/     samples of the benchmarks under one set of options

A stopped grid goes on where it was; a finished run, its measures and its samples are not made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from data.run_folder import Run, is_finished, read_run
from evals.ablation.grid import AblationGrid, Decode, GridRun, runs_of
from evals.ablation.table import AblationRow, rows_of
from model.atomic_files import as_json, atomic_write
from model.errors import MicroStepError
from model.progress import Tell, silent
from trainer.recipe import Recipe, same_recipe

if TYPE_CHECKING:
    from evals.sandbox.runner import Isolation

MEASURES = "measures.json"
_FORMAT = "micro_step measures 2"


def ablate(
    grid: AblationGrid,
    out: Path,
    local: Path | None = None,
    device: str = "auto",
    isolation: Isolation | None = None,
    tell: Tell = silent,
) -> list[AblationRow]:
    """Make every run that is not there yet, measure and evaluate all, and compare.

    Args:
        grid: which runs.
        out: folder of the runs, and of the data that they share.
        local: folder with the files of sources and benchmarks; None: the hub.
        device: as `ModelSpec.device`.
        isolation: of programs that a benchmark has written; None: they are not run.
        tell: told about the progress.

    Raises:
        MicroStepError: the grid is wrong, a benchmark cannot be had, or a run cannot be made.
        KeyboardInterrupt: asked to stop.
    """
    runs = runs_of(grid)
    if evaluations := [each.evaluate for each in runs if each.evaluate is not None]:
        from evals.ablation.evaluate import check

        check(evaluations, local, isolation)
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in grid.variants}
    for number, asked in enumerate(runs, 1):
        done = _made(asked.recipe, out, local, device, tell)
        measured = _measured(done, asked.recipe, grid.decode, local, device, tell)
        found[asked.variant].append(measured | _evaluated(done, asked, local, device, isolation, tell))
        tell(f"{grid.name}: run {number} of {len(runs)} ({asked.recipe.name}) is there", number / len(runs))
    return rows_of(found)


def is_made(recipe: Recipe, out: Path) -> bool:
    """Whether a run of this recipe has ended there."""
    return is_finished(out / recipe.name) and same_recipe(out / recipe.name, recipe)


def _made(recipe: Recipe, out: Path, local: Path | None, device: str, tell: Tell) -> Run:
    if is_made(recipe, out):
        return read_run(out / recipe.name)
    from trainer.run import RunPaths, run_recipe

    made = run_recipe(recipe, RunPaths(out / recipe.name, local), device, tell)
    if made is None:
        raise MicroStepError("a grid is run by one process")
    return made


def _measured(
    done: Run, recipe: Recipe, decode: Decode | None, local: Path | None, device: str, tell: Tell
) -> dict[str, float]:
    """What the held-out examples give, kept beside the run."""
    how = None if decode is None else decode.model_dump(mode="json")
    if (there := kept(done.path, how)) is not None:
        return there
    tell(f"measuring {recipe.name} on what is held out", None)
    found = _measures(done, recipe, decode, local, device)
    atomic_write(done.path / MEASURES, as_json({"format": _FORMAT, "decode": how, "measures": found}))
    return found


def kept(run: Path, decode: Mapping[str, object] | None) -> dict[str, float] | None:
    """What was measured of a run in the same way; None where nothing was."""
    try:
        said = json.loads((run / MEASURES).read_text("utf-8"))
        if said["format"] == _FORMAT and said["decode"] == decode:
            return {str(name): float(value) for name, value in said["measures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _measures(done: Run, recipe: Recipe, decode: Decode | None, local: Path | None, device: str) -> dict[str, float]:
    from trainer.final_eval import bits_per_byte, decoding, nll_by_source
    from trainer.run import RunPaths, prepared_data

    last = done.validated
    if last is None:
        raise MicroStepError(f"{recipe.name} held nothing out, so there is nothing to compare; set held_out in its mix")
    found = {"nll": last.token_loss, "accuracy": last.accuracy}
    for slot, value in enumerate(last.position_accuracy):
        if value is not None:
            found[f"accuracy at {slot}"] = value  # as logs and evaluations call it: 0 is the base's own
    if last.stop_accuracy is not None:
        found["stop accuracy"] = last.stop_accuracy
    prepared = prepared_data(recipe, RunPaths(done.path, local), device, lambda message, fraction: None)
    if recipe.objective != "draft":  # which reads each token at several places, and is no likelihood of the text
        found["bits per byte"] = bits_per_byte(done, recipe, prepared)
    found |= {f"nll {name}": nll for name, nll in nll_by_source(done, recipe, prepared, device).items()}
    if decode is not None:
        how = (decode.prompts, decode.confidence, decode.max_new_tokens)
        found |= decoding(done, recipe, prepared, device, *how)
    return found


def _evaluated(
    done: Run, asked: GridRun, local: Path | None, device: str, isolation: Isolation | None, tell: Tell
) -> dict[str, float]:
    if asked.evaluate is None:
        return {}
    from evals.ablation.evaluate import evaluated

    return evaluated(done, asked.evaluate, local, device, isolation, tell)
