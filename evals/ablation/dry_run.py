"""What a grid would take, before it is run: how many runs, what of them is there, and how long the rest trains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from data.prepared import examples_file
from data.run_folder import Run, read_run
from evals.ablation.grid import AblationGrid, GridRun, runs_of
from evals.ablation.run import is_made, kept
from model.errors import TextError
from trainer.recipe import same_recipe


@dataclass(frozen=True)
class GridPlan:
    """An estimate."""

    runs: int
    trained: int
    begun: int
    """Not ended, but with a log."""
    measured: int
    steps: int
    """That all runs have together."""
    left: int
    """Steps that are still to be made."""
    seconds: float | None
    """Of these; None where nothing of the grid was trained and its data is not prepared."""
    tasks: tuple[str, ...]
    """That models are evaluated on."""

    @property
    def text(self) -> str:
        """For a terminal."""
        lines = [
            f"runs     {self.runs:>7,}, {self.trained:,} trained, {self.begun:,} begun, {self.measured:,} measured",
            f"steps    {self.steps:>7,}, {self.left:,} left",
        ]
        if self.seconds is not None:
            lines.append(f"training {self.seconds / 60:>7.1f} min on this machine, from steps that were timed here")
        elif self.left:
            lines.append("training: its time is known once the data is prepared, or a run has begun")
        if self.tasks:
            lines.append(f"then each model is evaluated on {', '.join(self.tasks)}")
        return "\n".join(lines)


def plan(grid: AblationGrid, out: Path, local: Path | None, device: str) -> GridPlan:
    """Look at what is there; where nothing was trained yet and the data is prepared, time three steps.

    Raises:
        MicroStepError: the grid is wrong, or the base cannot be had.
    """
    runs = runs_of(grid)
    made = [is_made(each.recipe, out) for each in runs]
    logs = [_log(each, out) for each in runs]
    done = [each.recipe.steps if whole else _steps(log) for each, whole, log in zip(runs, made, logs, strict=True)]
    total = sum(each.recipe.steps for each in runs)
    left = total - sum(done)
    how = None if grid.decode is None else grid.decode.model_dump(mode="json")
    return GridPlan(
        runs=len(runs),
        trained=sum(made),
        begun=sum(0 < steps < each.recipe.steps for each, steps in zip(runs, done, strict=True)),
        measured=sum(kept(out / each.recipe.name, how) is not None for each in runs),
        steps=total,
        left=left,
        seconds=None if (a_step := _a_step(logs, runs, out, local, device, left)) is None else a_step * left,
        tasks=tuple(dict.fromkeys(task for each in runs if each.evaluate for task in each.evaluate.tasks)),
    )


def _log(asked: GridRun, out: Path) -> Run | None:
    """A run of the same recipe, ended or not."""
    folder = out / asked.recipe.name
    try:
        return read_run(folder) if same_recipe(folder, asked.recipe) else None
    except TextError:
        return None


def _steps(run: Run | None) -> int:
    return run.lines[-1].step if run is not None and run.lines else 0


def _a_step(
    logs: list[Run | None], runs: list[GridRun], out: Path, local: Path | None, device: str, left: int
) -> float | None:
    """Seconds of a step: of what was trained, or of three steps of the first run."""
    if not left:
        return 0.0
    if steps := sum(map(_steps, logs)):
        return sum(run.lines[-1].seconds for run in logs if run is not None and run.lines) / steps
    from trainer.dry_run import plan as plan_run
    from trainer.run import RunPaths

    first = runs[0].recipe
    places = RunPaths(out / first.name, local)
    if not examples_file(places.prepared_for(first)).is_file():
        return None
    try:
        found = plan_run(first, places, device, lambda message, fraction: None)
    except TextError:  # preparing was stopped
        return None
    return None if found.seconds is None else found.seconds / first.steps
