"""Several processes train as one does, each with all weights or with a part of them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from data.prepared import Prepared
from data.run_folder import read_run
from model.errors import MicroStepError
from tests.support.training import recipe, same_curve, train_in_processes, write_recipe
from trainer.run import RunPaths, run_recipe

pytestmark = pytest.mark.slow

STAGES = [
    {"name": "new", "steps": 3, "rates": {"new": 3e-3}, "warmup": 2},
    {"name": "all", "steps": 4, "rates": {"new": 1e-3, "base": 1e-3}, "warmup": 2},
]


def quiet(message: str, fraction: float | None) -> None:
    """Says nothing."""


@pytest.mark.parametrize("shard", [False, True])
def test_processes_follow_the_curve_of_one(prepared: Prepared, model: Path, tmp_path: Path, shard: bool) -> None:
    """With sharded weights also after a stop in the second stage, on another number of processes."""
    chosen = recipe(model, stages=STAGES, batch={"tokens": 512, "accumulate": 2})
    one = run_recipe(chosen, RunPaths(tmp_path / "one", prepared=prepared.path), "cpu", quiet)
    assert one is not None
    file, out = write_recipe(chosen, tmp_path / "r.yaml"), tmp_path / "several"
    train_in_processes(file, out, prepared.path, 2, *["--shard"] * shard)
    same_curve(one.lines, read_run(out).lines)
    if shard:
        assert not list(out.glob("checkpoints/*/model"))  # nothing was gathered before the end
        shutil.rmtree(out / "model")
        last = max((out / "checkpoints").iterdir())
        assert len(list(last.glob("weights/*.safetensors"))) == 2
        shutil.rmtree(last)
        train_in_processes(file, out, prepared.path, 3, "--shard")
        same_curve(one.lines, read_run(out).lines)
    a, b = (load_file(next(path.glob("model/*.safetensors"))) for path in (tmp_path / "one", out))
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].float().sub(b[name].float()).abs().max() <= 0.02 * a[name].float().abs().max()


def test_what_cannot_be_sharded_is_refused(prepared: Prepared, model: Path, tmp_path: Path) -> None:
    places = RunPaths(tmp_path / "run", prepared=prepared.path)
    with pytest.raises(MicroStepError, match="torchrun"):
        run_recipe(recipe(model), places, "cpu", quiet, shard=True)
    with pytest.raises(MicroStepError, match="teacher"):
        run_recipe(recipe(model, "draft"), places, "cpu", quiet, shard=True)
    with pytest.raises(MicroStepError, match="minutes"):
        run_recipe(recipe(model, minutes=1), places, "cpu", quiet, shard=True)
