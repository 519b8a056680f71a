"""On a CUDA device: scores, answers, checked drafts and training are those of the processor, within rounding."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from data.distill.run import DistillOptions, Prompt, distill, read_distilled
from data.run_folder import Run
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.scoring.token_scores import score
from model.text.document import Message
from tests.support.tiny import save_tiny
from tests.support.training import make_prepared, recipe
from trainer.loop import Trainer, accelerator_for
from trainer.recipe import Recipe
from trainer.setup import build

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
FAMILIES = ("llama", "qwen3", "gemma3_text", "gpt2")
TOLERANCE = {"float32": 2e-4, "bfloat16": 0.3, "float16": 0.04}  # nats


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {family: save_tiny(folder / family, family, seed=3, chat=True) for family in FAMILIES}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_are_those_of_a_float64_reference(models: dict[str, Path], family: str, dtype: str) -> None:
    model = load(ModelSpec(str(models[family]), dtype=dtype, device="cuda")).model  # type: ignore[arg-type]
    exact = load(ModelSpec(str(models[family]), dtype=dtype, device="cpu")).model.double()  # type: ignore[arg-type]
    rows = [np.random.default_rng(n).integers(5, 100, n) for n in (3, 30, 17)]
    for row, found in zip(rows, score(model, rows, prefix=(1,)), strict=True):
        ids = torch.tensor([[1, *row.tolist()]])
        with torch.no_grad():
            log_p = exact(ids).logits[0, :-1].log_softmax(-1)
        surprisal, entropy = -log_p.gather(1, ids[0, 1:, None])[:, 0], -(log_p.exp() * log_p).sum(-1)
        for mine, theirs in ((found.surprisal, surprisal), (found.entropy, entropy)):
            torch.testing.assert_close(torch.from_numpy(mine).double(), theirs, atol=TOLERANCE[dtype], rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_those_of_generate_and_of_a_checked_draft(models: dict[str, Path], family: str) -> None:
    base = load(ModelSpec(str(models[family]), dtype="float32", device="cuda")).model
    ids = torch.randint(5, 100, (3, 9), device="cuda", generator=torch.Generator("cuda").manual_seed(1))
    ones = torch.ones_like(ids)
    theirs = base.generate(
        ids, attention_mask=ones, do_sample=False, max_new_tokens=20, eos_token_id=[], pad_token_id=3
    )
    micro = MicroStepForCausalLM.from_base(base, decoding="lossless").eval()
    for options in ({"confidence": 2.0, "verify": False}, {"confidence": 0.0, "verify": True}):
        ours = micro.generate_segments(ids, ones, max_new_tokens=20, eos_token_id=[], **options)
        assert [list(row.ids) for row in ours.rows] == theirs[:, 9:].tolist()


def test_answers_are_those_of_the_processor(models: dict[str, Path], tmp_path: Path) -> None:
    prompts = [Prompt("made", i, (Message("user", f"Say {i} and {word}."),)) for i, word in enumerate("abcdef")]
    texts = []
    for device in ("cpu", "cuda"):
        spec = ModelSpec(str(models["llama"]), dtype="float32", device=device)
        distill(lambda spec=spec: load(spec), prompts, tmp_path / device, DistillOptions(16))  # type: ignore[misc]
        texts.append([answer.text for answer in read_distilled(tmp_path / device)])
    assert texts[0] == texts[1]


def trained(chosen: Recipe, folder: Path, data: Path, device: str) -> Run:
    from accelerate.state import AcceleratorState

    from data.prepared import read_prepared

    AcceleratorState._reset_state(True)  # of a process; the first run's device would be the second one's too
    built = build(chosen, read_prepared(data), folder / "states", device, lambda message, fraction: None)
    tell = lambda message, fraction: None  # noqa: E731
    return Trainer(built, folder / "run", accelerator_for(chosen, device), tell).run()


@pytest.mark.parametrize("objective", ["micro_step", "draft", "control"])
def test_a_run_follows_the_curve_of_the_processor(objective: str, models: dict[str, Path], tmp_path: Path) -> None:
    data = make_prepared(tmp_path / "data", models["llama"]).path
    chosen = recipe(models["llama"], objective, teacher=objective != "control", batch={"tokens": 256, "accumulate": 2})
    here, there = (trained(chosen, tmp_path / device, data, device) for device in ("cpu", "cuda"))
    for a, b in zip(here.lines, there.lines, strict=True):
        assert (a.step, a.tokens, a.stops) == (b.step, b.tokens, b.stops)
        assert a.loss == pytest.approx(b.loss, rel=1e-3)


def test_steps_of_a_draft_wait_for_nothing(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step once read its loss, its counts and its norm, and so waited for the device three times and more.

    One wait is left, and is not ours: transformers looks whether the micro decoder's mask hides anything.
    """
    import transformers.masking_utils

    from trainer import optimizer
    from trainer.batches.prefetch import prepared_steps

    data = make_prepared(tmp_path / "data", models["llama"])
    chosen = recipe(models["llama"], "draft", teacher=True)
    built = build(chosen, data, tmp_path / "states", "cuda", lambda message, fraction: None)
    built.objective.to("cuda")
    groups = optimizer.choose(built.objective, "draft", {"new": 1e-3})
    adam = optimizer.build(groups, chosen.stages[0], chosen.optimizer)
    steps = prepared_steps(built.feed, 0, 0, 1, 1, torch.device("cuda"))
    monkeypatch.setattr(transformers.masking_utils, "fast_all", lambda mask: True, raising=False)
    for number, step in enumerate(islice(steps, 4)):
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error" if number > 1 else "default")  # the first ones make what is kept
        try:
            loss, tally = built.objective(step.parts[0].to(torch.device("cuda")), step.averaged_over)
            loss.backward()
            torch.nn.utils.clip_grad_norm_([p for group in groups.values() for p in group], 1.0)
            adam.step()
            adam.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert tally.tokens > 0
