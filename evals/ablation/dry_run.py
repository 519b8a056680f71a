"""Estimate a grid before it is run: the number of runs, how many are finished, and how long the rest will train."""

from dataclasses import dataclass
from pathlib import Path

from data.prepared import examples_file, read_prepared
from data.run_folder import RECIPE, Run, read_run
from data.yaml_config import read_yaml
from evals.ablation.grid import AblationGrid, GridRun, runs_of
from evals.ablation.run import is_made, stored_measures
from model.errors import TextError
from trainer.recipe import Recipe, same_recipe


@dataclass(frozen=True)
class GridPlan:
    runs: int
    trained: int
    begun: int  # runs with a log that are not finished
    measured: int
    steps: int  # steps of all runs together
    left: int  # steps that are still to be done
    seconds: float | None  # time for these steps; None if nothing of the grid was trained and its data is not prepared
    tasks: tuple[str, ...]  # benchmarks that models are evaluated on

    @property
    def text(self) -> str:
        lines = [
            f"runs     {self.runs:>7,}, {self.trained:,} trained, {self.begun:,} begun, {self.measured:,} measured",
            f"steps    {self.steps:>7,}, {self.left:,} left",
        ]
        if self.seconds is not None:
            lines.append(f"training {self.seconds / 60:>7.1f} min on this machine, from steps that were timed here")
        elif self.left:
            lines.append("training: the time is unknown until the data is prepared or a run has begun")
        if self.tasks:
            lines.append(f"then each model is evaluated on {', '.join(self.tasks)}")
        return "\n".join(lines)


def plan(grid: AblationGrid, out: Path, local: Path | None, device: str) -> GridPlan:
    """Inspect finished work; if nothing was trained yet and the data is prepared, time three steps."""
    runs = runs_of(grid)
    finished = [is_made(run.recipe, out) for run in runs]
    logs = [_log(run, out) for run in runs]
    each = [_steps_of(run.recipe, out, local, device) for run in runs]
    done = [steps if is_finished else _steps(log) for steps, is_finished, log in zip(each, finished, logs, strict=True)]
    total = sum(each)
    left = total - sum(done)
    decode = None if grid.decode is None else grid.decode.model_dump(mode="json")
    return GridPlan(
        runs=len(runs),
        trained=sum(finished),
        begun=sum(0 < steps < of_run for of_run, steps in zip(each, done, strict=True)),
        measured=sum(stored_measures(out / run.recipe.name, decode) is not None for run in runs),
        steps=total,
        left=left,
        seconds=None if (a_step := _a_step(logs, runs, out, local, device, left)) is None else a_step * left,
        tasks=tuple(dict.fromkeys(task for run in runs if run.evaluate for task in run.evaluate.tasks)),
    )


def _log(run: GridRun, out: Path) -> Run | None:
    """Return a run with the same recipe, finished or not; None if there is none."""
    folder = out / run.recipe.name
    try:
        return read_run(folder) if same_recipe(folder, run.recipe) else None
    except TextError:
        return None


def _steps_of(recipe: Recipe, out: Path, local: Path | None, device: str) -> int:
    """Return the steps of a run: its own where it has begun, those that fit a budget where its data is prepared."""
    folder = out / recipe.name
    if same_recipe(folder, recipe):
        return read_yaml(folder / RECIPE, Recipe).steps
    if recipe.flops is None:
        return recipe.steps
    from trainer.batches.dataset import rows_of
    from trainer.batches.loader import RowFeed
    from trainer.budgets.time_budget import fitted_to_flops, mean_flops
    from trainer.run import RunPaths
    from trainer.setup import build_model

    prepared = RunPaths(folder, local).prepared_for(recipe)
    if not examples_file(prepared).is_file():
        return recipe.steps
    try:
        rows = rows_of(read_prepared(prepared), recipe)
    except TextError:  # preparation was stopped
        return recipe.steps
    model, _, _ = build_model(recipe, device, lambda message, fraction: None, rows.train)
    feed = RowFeed(recipe, rows.train, rows.repeat, rows.held_out)
    return fitted_to_flops(recipe, mean_flops(model, feed)).steps


def _steps(run: Run | None) -> int:
    return run.lines[-1].step if run is not None and run.lines else 0


def _a_step(
    logs: list[Run | None], runs: list[GridRun], out: Path, local: Path | None, device: str, left: int
) -> float | None:
    """Return the seconds per step: of finished steps, or else of three steps of the first run."""
    if not left:
        return 0.0
    if steps := sum(map(_steps, logs)):
        return sum(run.lines[-1].seconds for run in logs if run is not None and run.lines) / steps
    from trainer.dry_run import plan as plan_run
    from trainer.run import RunPaths

    first = runs[0].recipe
    paths = RunPaths(out / first.name, local)
    if not examples_file(paths.prepared_for(first)).is_file():
        return None
    try:
        estimate = plan_run(first, paths, device, lambda message, fraction: None)
    except TextError:  # preparation was stopped
        return None
    return None if estimate.seconds is None else estimate.seconds / _steps_of(first, out, local, device)
