"""Run a grid: train what is missing, measure, evaluate, and compare.

Each run is an ordinary run in a folder of its own, with its measures and evaluations inside:

    RUN/measures.json         measures on the held-out examples
    RUN/evaluated-DIGEST/     samples of the benchmarks under one set of options

A stopped grid resumes; finished runs, measures and samples are not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from data.run_folder import Run, is_finished, read_run
from evals.ablation.grid import AblationGrid, Decode, GridRun, runs_of
from evals.ablation.table import AblationRow, rows_of
from model.atomic_files import as_json, atomic_write
from model.errors import MicroStepError
from model.progress import Tell, silent
from model.reading.json_text import parse_json
from model.reading.regular_files import read_text
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
    """Do every missing run, measure and evaluate all, and compare.

    Raises:
        MicroStepError: the grid is invalid, a benchmark cannot be read, or a run is not possible.
        KeyboardInterrupt: the user stopped it.
    """
    runs = runs_of(grid)
    if evaluations := [run.evaluate for run in runs if run.evaluate is not None]:
        from evals.ablation.evaluate import check

        check(evaluations, local, isolation)
    measures: dict[str, list[dict[str, float]]] = {variant: [] for variant in grid.variants}
    for number, grid_run in enumerate(runs, 1):
        done = _made(grid_run.recipe, out, local, device, tell)
        measured = _measured(done, grid_run.recipe, grid.decode, local, device, tell)
        measures[grid_run.variant].append(measured | _evaluated(done, grid_run, local, device, isolation, tell))
        tell(f"{grid.name}: run {number} of {len(runs)} ({grid_run.recipe.name}) is finished", number / len(runs))
    return rows_of(measures)


def trained_part(grid: AblationGrid, out: Path) -> AblationGrid:
    """Return the grid of the variants whose runs are all trained.

    Raises:
        MicroStepError: the first variant's are not, with which the others are compared.
    """
    missing = {run.variant for run in runs_of(grid) if not is_made(run.recipe, out)}
    first = next(iter(grid.variants))
    if first in missing:
        raise MicroStepError(f"{out} lacks a trained run of the variant {first!r}, with which the others are compared")
    kept = {name: change for name, change in grid.variants.items() if name not in missing}
    return grid.model_copy(update={"variants": kept})


def is_made(recipe: Recipe, out: Path) -> bool:
    return is_finished(out / recipe.name) and same_recipe(out / recipe.name, recipe)


def _made(recipe: Recipe, out: Path, local: Path | None, device: str, tell: Tell) -> Run:
    if is_made(recipe, out):
        return read_run(out / recipe.name)
    from trainer.run import RunPaths, run_recipe

    run = run_recipe(recipe, RunPaths(out / recipe.name, local), device, tell)
    if run is None:
        raise MicroStepError("a grid must be run by one process")
    return run


def _measured(
    done: Run, recipe: Recipe, decode: Decode | None, local: Path | None, device: str, tell: Tell
) -> dict[str, float]:
    settings = None if decode is None else decode.model_dump(mode="json")
    if (stored := stored_measures(done.path, settings)) is not None:
        return stored
    tell(f"measuring {recipe.name} on the held-out examples", None)
    measures = _measures(done, recipe, decode, local, device)
    atomic_write(done.path / MEASURES, as_json({"format": _FORMAT, "decode": settings, "measures": measures}))
    return measures


def stored_measures(run: Path, decode: Mapping[str, object] | None) -> dict[str, float] | None:
    """Return the stored measures of a run with the same settings, or None."""
    try:
        stored = parse_json(read_text(run / MEASURES))
        if stored["format"] == _FORMAT and stored["decode"] == decode:
            return {str(name): float(value) for name, value in stored["measures"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def _measures(done: Run, recipe: Recipe, decode: Decode | None, local: Path | None, device: str) -> dict[str, float]:
    from trainer.final_eval import bits_per_byte, decoding, nll_by_source
    from trainer.run import RunPaths, prepared_data

    last = done.validated
    if last is None:
        raise MicroStepError(f"{recipe.name} held nothing out, so there is nothing to compare; set held_out in its mix")
    measures = {"nll": last.token_loss, "accuracy": last.accuracy}
    for slot, value in enumerate(last.position_accuracy):
        if value is not None:
            measures[f"accuracy at {slot}"] = value  # named as in logs and evaluations: 0 is the base's own
    if last.stop_accuracy is not None:
        measures["stop accuracy"] = last.stop_accuracy
    prepared = prepared_data(recipe, RunPaths(done.path, local), device, lambda message, fraction: None)
    if recipe.objective != "draft":  # a draft reads each token at several places, which gives no likelihood of the text
        measures["bits per byte"] = bits_per_byte(done, recipe, prepared)
    measures |= {f"nll {name}": nll for name, nll in nll_by_source(done, recipe, prepared, device).items()}
    if decode is not None:
        how = (decode.prompts, decode.confidence, decode.max_new_tokens)
        measures |= decoding(done, recipe, prepared, device, *how)
    return measures


def _evaluated(
    done: Run, grid_run: GridRun, local: Path | None, device: str, isolation: Isolation | None, tell: Tell
) -> dict[str, float]:
    if grid_run.evaluate is None:
        return {}
    from evals.ablation.evaluate import evaluated

    return evaluated(done, grid_run.evaluate, local, device, isolation, tell)
