"""The tables of training runs: a row for each run, and facts and settings side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import pandas as pd
import yaml

from analysis.runs.curves import unfinite
from analysis.runs.log import RunLog
from analysis.score_registry import PER_NAT, Unit
from data.run_folder import RECIPE
from data.yaml_config import load_yaml
from model.reading.regular_files import open_regular

LONGEST_RECIPE = 200_000  # bytes
MOST_SETTINGS = 500
RUNS = {
    **dict.fromkeys(("run", "state", "objective", "base", "data"), "str"),
    **dict.fromkeys(("steps", "planned"), "int64"),
    "stage": "str",
    **dict.fromkeys(("loss", "validation_loss", "validation_accuracy", "tokens_per_second"), "float64"),
    "seen": "int64",
    "seconds": "float64",
}


def runs_table(runs: Sequence[RunLog], unit: Unit = "nats") -> pd.DataFrame:
    """A row for each run: what was trained, how far it is, and its latest numbers; losses in `unit`."""
    rows = []
    for run in runs:
        train, validation = run.last("train"), run.last("validation")
        last = run.lines[-1] if run.lines else None
        facts = run.facts
        rows.append(
            (
                run.name,
                run.state,
                facts.objective,
                facts.base,
                facts.data,
                run.steps,
                facts.steps,
                last.stage if last else "",
                train.loss * PER_NAT[unit] if train else float("nan"),
                validation.loss * PER_NAT[unit] if validation else float("nan"),
                validation.accuracy if validation else float("nan"),
                float("nan") if run.speed is None else run.speed,
                max((line.seen for line in run.lines), default=0),
                last.seconds if last else 0.0,
            )
        )
    return pd.DataFrame(rows, columns=list(RUNS)).astype(RUNS).assign(unit=unit)


def facts_table(runs: Sequence[RunLog]) -> pd.DataFrame:
    """A row for each fact and a column for each run: model, data, packages, and every setting of the recipe.

    `differs` marks rows in which the runs differ; a missing fact is empty.
    """
    columns = [dict(facts(run)) for run in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    table = pd.DataFrame({"fact": pd.Series(names, dtype="str")})
    differs = [len({column.get(name, "") for column in columns}) > 1 for name in names]
    table["differs"] = pd.Series(differs, dtype="bool")
    for run, column in zip(runs, columns, strict=True):
        table[_free(run.name, table)] = pd.Series([column.get(name, "") for name in names], dtype="str")
    return table


def facts(run: RunLog) -> Iterator[tuple[str, str]]:
    """The facts of a run, in words."""
    of = run.facts
    yield "name", of.name
    yield "objective", of.objective
    yield "base", of.base
    yield "base revision", of.base_revision or "none"
    yield "data", of.data
    yield "data hash", of.data_hash
    yield "seed", str(of.seed)
    yield "steps planned", f"{of.steps:,}"
    yield "labelled tokens per step", f"{of.tokens_per_step:,.0f}"
    for stage in of.stages:
        yield f"stage {stage.name}", f"steps {stage.first:,} to {stage.last:,}"
        for group, rate in stage.rates.items():
            yield f"stage {stage.name}, peak learning rate of {group}", f"{rate:g}"
    for group, count in of.parameters.items():
        yield f"parameters, {group}", f"{count:,}"
    for package, version in of.packages.items():
        yield f"package {package}", version
    yield from _settings(recipe(run.path) or "")


def recipe(path: Path) -> str | None:
    """The recipe of the run in a folder, as text; None if there is none or it cannot be read."""
    try:
        with open_regular(path / RECIPE) as file:
            return file.read(LONGEST_RECIPE).decode("utf-8", "replace")
    except OSError:
        return None


def remarks(run: RunLog) -> list[str]:
    """Notes for the reader of a run's log."""
    said = list(run.damage)
    if not run.lines:
        said.append("nothing is logged yet")
    if run.repeated:
        said.append(f"{run.repeated:,} lines are left out: their steps were repeated after the run was resumed")
    if (count := unfinite(run)) > 0:
        said.append(f"{count:,} lines have an infinite or missing loss")
    return said


def unlike(runs: Sequence[RunLog]) -> str:
    """Why the losses of the runs cannot be compared; empty if they can."""
    kinds = (
        ("objectives", {run.facts.objective for run in runs}),
        ("data", {run.facts.data_hash for run in runs}),
        ("bases", {(run.facts.base, run.facts.base_revision) for run in runs}),
    )
    apart = [name for name, values in kinds if len(values) > 1]
    if apart:
        return f"These runs differ in {' and '.join(apart)}: compare their losses with care."
    if len({_parts(run) for run in runs}) > 1:
        return "The losses of these runs have different parts or weights: compare their loss per token."
    return ""


def _parts(run: RunLog) -> tuple[bool, bool, str]:
    """The parts of a run's loss: stops, a teacher, and the recipe's weights of them."""
    line, said = (run.lines[-1] if run.lines else None), dict(_settings(recipe(run.path) or ""))
    names = ("token_weight", "stop_weight", "teacher_weight", "hidden_weight")
    weights = [f"{key} {value}" for key, value in said.items() if key.endswith(names)]
    return (
        line is not None and line.stop_loss is not None,
        line is not None and line.teacher_loss is not None,
        str(weights),
    )


def _settings(text: str) -> list[tuple[str, str]]:
    """The settings of a recipe; empty if it is damaged."""
    try:
        settings = load_yaml(text)
        return list(islice(_flat(settings, "recipe: "), MOST_SETTINGS)) if isinstance(settings, dict) else []
    except (yaml.YAMLError, RecursionError, ValueError):  # nested too deeply, or dates that do not exist
        return []


def _flat(settings: object, name: str) -> Iterator[tuple[str, str]]:
    """Nested settings as name.name, lists of plain values in one."""
    if isinstance(settings, dict) and settings:
        for key, value in settings.items():
            yield from _flat(value, f"{name}{key}" if name.endswith(" ") else f"{name}.{key}")
    elif isinstance(settings, list) and any(isinstance(each, dict | list) for each in settings):
        for i, value in enumerate(settings):
            yield from _flat(value, f"{name}[{i}]")
    else:
        yield name, ", ".join(map(str, settings)) if isinstance(settings, list) else str(settings)


def _free(name: str, table: pd.DataFrame) -> str:
    """A column name that is not used yet."""
    while name in table:
        name += " "
    return name
