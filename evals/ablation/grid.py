"""A grid: variants of one recipe and of its evaluation, each with several seeds. YAML in ablations/.

It imports neither torch nor the harness, so an invalid grid is reported at once.
"""

from __future__ import annotations

import copy
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from data.mixes import read_mix
from data.yaml_config import StrictModel, as_model, read_yaml
from model.errors import MicroStepError
from trainer.recipe import Recipe, mix_of, read_recipe

FOLDER = Path(__file__).parents[1] / "ablations"
EVALUATE = "evaluate"  # the only key of a variant that does not belong to the recipe
Positive = Annotated[int, Field(ge=1)]


class Decode(StrictModel):
    """How the trained models generate, to measure their tokens per macro step."""

    prompts: Positive = 24  # number of prompts, from the first held-out examples
    confidence: Annotated[float, Field(ge=0)] = 0.5
    max_new_tokens: Positive = 64


class Evaluate(StrictModel):
    """The benchmarks for the trained models, and their options; the keys are those of `micro-step eval run`."""

    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    confidence: Annotated[tuple[Annotated[float, Field(ge=0)], ...], Field(min_length=1)] = (0.8,)
    """Values of tau; above 1, only the base generates. A plain model has none and runs once."""
    limit: Positive | None = None  # use only this many documents of each benchmark, the first ones
    chat: bool = False
    system: str | None = None
    multiturn: bool = False
    batch_rows: Positive = 8
    max_new_tokens: Positive | None = None
    repeats: Positive = 1
    temperature: Annotated[float, Field(ge=0)] = 0.0
    seed: Annotated[int, Field(ge=0)] = 0  # seed for sampling; separate from the run's
    likelihood: Literal["own", "base"] = "own"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


class AblationGrid(StrictModel):
    name: str
    recipe: str  # name or path of a recipe
    common: dict[str, Any] = Field(default={})  # keys of the recipe that are changed in every run
    variants: dict[str, dict[str, Any]] = Field(default={})
    """For each variant, changed keys of the recipe, and under `evaluate` changed keys of the evaluation. The others are
    compared with the first variant."""
    leave_out: Literal["sources"] | None = None
    """Instead of variants: one run with all sources of the mix, and one without each."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    decode: Decode | None = Decode()  # None: skipped, for runs that train no micro_step model
    documents: tuple[str, ...] = ()
    """Mixes on whose held-out documents bits per byte are measured, with intervals over documents; of the same examples
    as the recipe's. Thresholds stay those of the recipe's mix."""
    evaluate: Evaluate | None = None  # None: no benchmark is run, unless a variant sets it

    @model_validator(mode="after")
    def _consistent(self) -> AblationGrid:
        if bool(self.variants) == (self.leave_out is not None):
            raise ValueError("give either variants, or `leave_out: sources`")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is given twice")
        return self


@dataclass(frozen=True)
class GridRun:
    variant: str
    seed: int
    recipe: Recipe
    evaluate: Evaluate | None


def read_grid(path: str) -> AblationGrid:
    """Read a grid: a YAML file, or the name of a bundled one."""
    shipped, given = FOLDER / f"{path}.yaml", Path(path)
    if not given.is_file() and not shipped.is_file():
        names = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise MicroStepError(f"there is no grid {path!r}; give a YAML file or one of {names}")
    grid = read_yaml(given if given.is_file() else shipped, AblationGrid)
    return grid if grid.leave_out is None else _leaving_out(grid)


def runs_of(grid: AblationGrid) -> list[GridRun]:
    """Return every run, with the seeds of a variant together."""
    runs = [
        GridRun(variant, seed, _recipe(grid, variant, change, seed), _evaluation(grid, variant, change))
        for variant, change in grid.variants.items()
        for seed in grid.seeds
    ]
    for run in runs:
        mix_of(run.recipe)
    names = [run.recipe.name for run in runs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise MicroStepError(f"two variants of the grid {grid.name} have the same folder, {twice[0]}; rename one")
    return runs


def _leaving_out(grid: AblationGrid) -> AblationGrid:
    mix = read_mix(_recipe(grid, "all", {}, grid.seeds[0]).data.mix)
    names = [use.name for use in mix.sources]
    if len(names) < 2:
        raise MicroStepError(f"the grid {grid.name} leaves sources out, but the mix {mix.name} has only one")
    without = {f"without {name}": {"data": {"without": [name]}} for name in names}
    return grid.model_copy(update={"variants": {"all": {}, **without}, "leave_out": None})


def _recipe(grid: AblationGrid, variant: str, change: dict[str, Any], seed: int) -> Recipe:
    values = _changed(read_recipe(grid.recipe).model_dump(mode="json"), grid.common)
    values = _changed(values, {key: value for key, value in change.items() if key != EVALUATE})
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", f"{grid.name}-{variant}").strip("-")
    return as_model(values | {"name": f"{slug}-{seed}", "seed": seed}, Recipe, _place(grid, variant))


def _evaluation(grid: AblationGrid, variant: str, change: dict[str, Any]) -> Evaluate | None:
    if EVALUATE not in change:
        return grid.evaluate
    changed = change[EVALUATE]
    if changed is None:
        return None
    if not isinstance(changed, dict):
        raise MicroStepError(f"{_place(grid, variant)}: evaluate must hold keys and values, or be null")
    common = {} if grid.evaluate is None else grid.evaluate.model_dump(mode="json")
    return as_model(common | changed, Evaluate, f"{_place(grid, variant)}, evaluate")


def _place(grid: AblationGrid, variant: str) -> str:
    return f"the variant {variant!r} of the grid {grid.name}"


def _changed(values: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Change mappings key by key; replace all other values."""
    out = copy.deepcopy(values)
    for key, value in change.items():
        both = (
            isinstance(value, dict)
            and isinstance(out.get(key), dict)
            and key not in ("parameters", "adapter", "config")
        )
        out[key] = _changed(out[key], value) if both else value
    return out
