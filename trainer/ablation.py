"""`python -m trainer.ablation GRID.yaml`: variants of one recipe, each with several seeds, and one table at the end.

A grid names a recipe and, for each variant, what is another value in it. Every run is a run like any other, in a folder
of its own: a stopped grid goes on where it was, and a finished run is not made again.
"""

from __future__ import annotations

import copy
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field, ValidationError

from data.recipe import Part, dump_yaml, read_yaml
from data.runs import RECIPE, Run, read_run
from model.errors import MicroStepError, TextError
from model.terminal import Tell, one_line, run
from trainer.recipe import Recipe, read_recipe

FOLDER = Path(__file__).parent / "ablations"
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}  # 97.5% of Student's t

app = typer.Typer(name="python -m trainer.ablation", add_completion=False, pretty_exceptions_enable=False)


class Decode(Part):
    """How the trained models are made to write, for their tokens a macro step."""

    prompts: Annotated[int, Field(ge=1)] = 24
    """Of the held-out examples, the first ones."""
    confidence: Annotated[float, Field(ge=0)] = 0.5
    max_new_tokens: Annotated[int, Field(ge=1)] = 64


class Grid(Part):
    """Variants of a recipe."""

    name: str
    recipe: str
    """A recipe's name, or a path."""
    common: dict[str, Any] = Field(default={})
    """Keys of the recipe that are other values in every run."""
    variants: Annotated[dict[str, dict[str, Any]], Field(min_length=1)]
    """Of each, keys of the recipe that are other values. The first is what the others are compared with."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    decode: Decode | None = Decode()
    """None: only validation figures, for runs that train no micro_step model."""


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, and half of its 95% interval by Student's t; NaN of one seed."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if math.isnan(self.half) else f"{self.mean:.3f} ± {self.half:.3f}"


def interval(values: Sequence[float]) -> Interval:
    """Of one value a seed."""
    n = len(values)
    mean = sum(values) / n
    if n < 2:
        return Interval(mean, math.nan)
    spread = math.sqrt(sum((value - mean) ** 2 for value in values) / (n - 1))
    return Interval(mean, _T.get(n - 1, 1.96) * spread / math.sqrt(n))


@dataclass(frozen=True)
class Row:
    """A variant: measures over the seeds, and their differences from the first variant's, seed by seed."""

    variant: str
    measures: dict[str, Interval]
    differences: dict[str, Interval]


def read_grid(path: str) -> Grid:
    """Read a grid: a YAML file, or the name of one that comes with the project.

    Raises:
        MicroStepError: there is none, or it is wrong.
    """
    shipped = FOLDER / f"{path}.yaml"
    return read_yaml(shipped if not Path(path).exists() and shipped.is_file() else Path(path), Grid)


def recipe_of(grid: Grid, variant: str, seed: int) -> Recipe:
    """The recipe of one run.

    Raises:
        MicroStepError: a key or value is wrong.
    """
    said = read_recipe(grid.recipe).model_dump(mode="json")
    for change in (grid.common, grid.variants[variant]):
        said = _changed(said, change)
    slug = re.sub(r"[^A-Za-z0-9._]+", "-", f"{grid.name}-{variant}").strip("-")
    said |= {"name": f"{slug}-{seed}", "seed": seed}
    try:
        return Recipe.model_validate_json(json.dumps(said))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise MicroStepError(f"the variant {variant!r} of the grid {grid.name}: {place}: {first['msg']}") from None


def _changed(said: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Mappings are changed key by key, everything else is put in the old one's place."""
    out = copy.deepcopy(said)
    for key, value in change.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict) and key not in ("parameters", "adapter")
        out[key] = _changed(out[key], value) if both else value
    return out


def ablate(grid: Grid, out: Path, local: Path | None, device: str, tell: Tell) -> list[Row]:
    """Make every run that is not there yet, measure all, and compare.

    Raises:
        MicroStepError: a recipe is wrong, or a run cannot be made.
    """
    recipes = {(v, s): recipe_of(grid, v, s) for v in grid.variants for s in grid.seeds}
    found: dict[str, list[dict[str, float]]] = {variant: [] for variant in grid.variants}
    for number, ((variant, _), recipe) in enumerate(recipes.items(), 1):
        done = _made(recipe, out, local, device, tell)
        tell(f"{grid.name}: run {number} of {len(recipes)} ({recipe.name}) is there", number / len(recipes))
        found[variant].append(_measures(done, recipe, grid, out, local, device))
    first = found[next(iter(grid.variants))]
    rows = []
    for variant, seeds in found.items():
        measures = {name: interval([each[name] for each in seeds]) for name in seeds[0]}
        shared = [name for name in seeds[0] if name in first[0]]
        differences = {
            name: interval([a[name] - b[name] for a, b in zip(seeds, first, strict=True)]) for name in shared
        }
        rows.append(Row(variant, measures, differences))
    return rows


def _made(recipe: Recipe, out: Path, local: Path | None, device: str, tell: Tell) -> Run:
    from trainer.run import Places, run_recipe

    folder = out / recipe.name
    try:
        if (done := read_run(folder)).finished and (folder / RECIPE).read_text("utf-8") == dump_yaml(recipe):
            return done
    except TextError:
        pass
    made = run_recipe(recipe, Places(folder, local), device, tell)
    if made is None:
        raise MicroStepError("a grid is run by one process")
    return made


def _measures(done: Run, recipe: Recipe, grid: Grid, out: Path, local: Path | None, device: str) -> dict[str, float]:
    """What a run came to."""
    from trainer.measure import bits_per_byte, decoding

    last = done.validated
    if last is None:
        raise MicroStepError(f"{recipe.name} held nothing out, so there is nothing to compare; set held_out in its mix")
    found = {"nll": last.token_loss, "accuracy": last.accuracy}
    for j, value in enumerate(last.position_accuracy):
        if value is not None:
            found[f"accuracy {j + 1}"] = value
    if last.stop_accuracy is not None:
        found["stop accuracy"] = last.stop_accuracy
    found["bits per byte"] = bits_per_byte(done, recipe, out, local, device)
    if grid.decode is not None:
        found |= decoding(done, recipe, grid.decode, out, local, device)
    return found


def as_markdown(grid: Grid, rows: Sequence[Row]) -> str:
    """A table of measures, and one of differences from the first variant."""
    names = list(dict.fromkeys(name for row in rows for name in row.measures))
    head = f"| {grid.name} | {' | '.join(names)} |\n|{'---|' * (len(names) + 1)}"
    told = [f"| {row.variant} | {' | '.join(str(row.measures.get(name, '-')) for name in names)} |" for row in rows]
    other = [
        f"| {row.variant} | {' | '.join(str(row.differences.get(name, '-')) for name in names)} |" for row in rows[1:]
    ]
    parts = [head, *told]
    if other:
        parts += ["", f"Differences from {rows[0].variant}, seed by seed:", "", head, *other]
    return "\n".join(parts)


@app.command()
def command(
    grid: Annotated[str, typer.Argument(help="A YAML file, or the name of a grid of the project.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs/ablations"),
    local: Annotated[Path | None, typer.Option(help="Folder with the sources' files; without it, the hub.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    table: Annotated[Path | None, typer.Option(help="A .md file to write the table to as well.")] = None,
) -> None:
    """Run a grid; stopped, the same command goes on. Prints the table: means over seeds with 95% intervals."""
    chosen = read_grid(grid)
    if table is not None and (table.suffix != ".md" or not table.parent.is_dir()):
        raise MicroStepError(f"{table} cannot be written: give a .md file in a folder that is there")
    for variant in chosen.variants:
        recipe_of(chosen, variant, chosen.seeds[0])  # a mistake is told before anything is trained
    told = as_markdown(chosen, ablate(chosen, out, local, device, _tell))
    print(told)
    if table is not None:
        from data.corpus.store_write import put

        put(table, (told + "\n").encode())


def _tell(message: str, fraction: float | None) -> None:
    print(one_line(message), file=sys.stderr, flush=True)


if __name__ == "__main__":
    run(app)
