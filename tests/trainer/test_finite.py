"""Training that diverges is stopped with one sentence, and its last good checkpoint is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from data.prepared import Prepared
from data.run_folder import read_run
from model.causal_lm.finite import damaged_weights
from model.errors import NumericalError
from model.hub.loading import ModelSpec, load
from tests.support.training import recipe
from trainer import checkpoint
from trainer.loop import Trainer, accelerator_for
from trainer.setup import RunSetup, build


def quiet(message: str, fraction: float | None) -> None:
    """Says nothing."""


def trainer(model: Path, prepared: Prepared, out: Path, **more: Any) -> Trainer:
    chosen = recipe(model, **more)
    built: RunSetup = build(chosen, prepared, out.parent / "states", "cpu", quiet)
    return Trainer(built, out, accelerator_for(chosen, "cpu"), quiet)


def poison(run: Trainer, monkeypatch: pytest.MonkeyPatch, at: int, where: str) -> None:
    """Let one number of a step be infinite: of its loss, of a gradient, or of a weight after the step."""
    step, backward = run._step, run.accelerator.backward

    def spoilt(module: Any, adam: Any, chosen: Any, number: int, sums: Any) -> int:
        if where == "loss" and number == at:
            monkeypatch.setattr(run.accelerator, "backward", lambda loss: backward(loss * torch.inf))
        found = step(module, adam, chosen, number, sums)
        if where == "weight" and number == at:
            with torch.no_grad():
                run.built.model.merger.out.weight[0, 0] = torch.nan
        return found

    monkeypatch.setattr(run, "_step", spoilt)


@pytest.mark.parametrize("where", ["loss", "weight"])
def test_a_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(
    where: str, model: Path, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It used to go on: with a line of NaN in the log, and in the end a model and only checkpoints of NaN."""
    run = trainer(model, prepared, tmp_path / "run", checkpoint={"every": 2, "keep": 1})
    poison(run, monkeypatch, 3, where)
    with pytest.raises(NumericalError) as told:
        run.run()
    last = tmp_path / "run" / "checkpoints" / "step-00000002"
    assert "NaN or infinite at step 4" in str(told.value) and "\n" not in str(told.value)
    assert f"the last good checkpoint is {last}" in str(told.value)
    assert checkpoint.newest(tmp_path / "run" / "checkpoints") == last
    assert all(line.step < 4 or where == "weight" for line in read_run(tmp_path / "run").lines)
    assert damaged_weights(load(ModelSpec(str(last / "model"))).model) is None


def test_a_learning_rate_that_is_far_too_high_is_told(model: Path, prepared: Prepared, tmp_path: Path) -> None:
    stages = [{"name": "only", "steps": 6, "rates": {"base": 1e30}, "warmup": 1}]
    run = trainer(model, prepared, tmp_path / "run", objective="control", stages=stages)
    with pytest.raises(NumericalError, match="so the run in .*run was stopped: .*; lower the learning rate"):
        run.run()
    assert not (tmp_path / "run" / "model").exists()
