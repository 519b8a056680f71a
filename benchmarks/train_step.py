"""Time and memory of forward and backward through a micro_step model, beside the base's own training step.

The same tokens for all: rows of one prompt token and N response tokens, cut into segments of random lengths. Time: all
in one process and in rounds, each once a round in turning order. Memory: each in a process of its own, by how much
resident memory grew at its peak over the loaded model, gradients included.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import highest, in_fresh_process, in_turn, resident, seconds_of, spread, version
from benchmarks.score import bundled_text
from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.causal_lm.forward import body
from model.errors import TextError
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.terminal import Tell

MOST = 4  # M
PRECISIONS = ("float32", "bfloat16")  # bfloat16: autocast, weights and gradients in float32


@dataclass(frozen=True)
class TrainBatch:
    """What every step reads."""

    ids: Tensor  # [B, 1 + N]
    labels: Tensor  # [B, 1 + N], -100 at the prompt token
    starts: Tensor  # [B, 1 + N] bool


@dataclass(frozen=True)
class Step:
    """One way to take the loss of a batch."""

    name: str
    computes: str
    loss: Callable[[MicroStepForCausalLM, TrainBatch], Tensor]
    frozen: bool = False  # the base's weights get no gradient


def _whole(model: MicroStepForCausalLM, batch: TrainBatch) -> Tensor:
    loss: Tensor = model.base(input_ids=batch.ids, labels=batch.labels, use_cache=False).loss
    return loss


def _lean(model: MicroStepForCausalLM, batch: TrainBatch) -> Tensor:
    states = body(model.base)(input_ids=batch.ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
    target = batch.labels[:, 1:].flatten()
    return chunked_lm_head_loss(model.base, states, target, torch.full((len(target),), 1 / len(target))).loss


def _segments(model: MicroStepForCausalLM, batch: TrainBatch) -> Tensor:
    loss: Tensor = model(batch.ids, segment_starts=batch.starts, labels=batch.labels).loss
    return loss


STEPS = (
    Step("base", "model(input_ids, labels=labels).loss.backward(), as transformers does it", _whole),
    Step("base, lean", "the same, with the cross-entropy in our chunks", _lean),
    Step("micro_step", "base, merger, micro decoder and stop head are trained", _segments),
    Step("micro_step, frozen base", "merger, micro decoder and stop head are trained", _segments, frozen=True),
)


def train_step(
    name: str,
    rows: int = 8,
    tokens: int = 512,
    length: float = 2.0,
    precision: str = "float32",
    repeats: int = 3,
    memory: bool = True,
    tell: Tell = lambda message, fraction: None,
) -> dict[str, Any]:
    """Measure one model: what was run on what, and a row a step.

    Args:
        name: of the base, around which fresh modules are put.
        rows: B.
        tokens: N response tokens of each row.
        length: mean length of a segment, from 1 to 4.
        precision: one of `PRECISIONS`.
        repeats: rounds of the timing.
        memory: measure it as well.
        tell: told what is being done.
    """
    given = (name, rows, tokens, length, precision)
    report = in_fresh_process(timed_steps, *given, repeats)
    for row in report["rows"]:
        tell(f"memory of {row['step']}", None)
        row["peak_bytes"] = in_fresh_process(peak_of_step, *given, row["step"]) if memory else None
    base = report["rows"][0]["peak_bytes"]
    for row in report["rows"]:
        row["peak_ratio"] = row["peak_bytes"] / base if base else None
    return report


def cut(count: int, mean: float, chance: random.Random) -> list[bool]:
    """Where segments of 1 to M tokens start in a row of so many: random lengths of this mean, the first of one token.

    Each token after the first goes on with one probability until the segment has M.
    """
    low, high = 0.0, 1.0
    for _ in range(40):  # 1 + p + p^2 + p^3 = mean
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**i for i in range(MOST)) < mean else (low, middle)
    starts, length = [True, True], 1
    while len(starts) < count:
        goes_on = length < MOST and chance.random() < low
        starts.append(not goes_on)
        length = length + 1 if goes_on else 1
    return starts[:count]


# --- in the fresh process


def timed_steps(name: str, rows: int, tokens: int, length: float, precision: str, repeats: int) -> dict[str, Any]:
    """All but the peaks of a report."""
    model, batch = _ready(name, rows, tokens, length)
    seconds: dict[str, list[float]] = {step.name: [] for step in STEPS}
    small = TrainBatch(batch.ids[:1, :32], batch.labels[:1, :32], batch.starts[:1, :32])
    for step in STEPS:
        _take(step, model, small, precision)
    for turn in range(repeats):
        for step in (STEPS[i] for i in in_turn(turn, len(STEPS))):
            seconds[step.name].append(_take(step, model, batch, precision))
    first = seconds[STEPS[0].name]
    return {
        "benchmark": "train-step",
        "model": name,
        "precision": precision,
        "rows_of_batch": rows,
        "response_tokens": tokens,
        "mean_length": rows * (tokens + 1) / int(batch.starts.sum()),
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "versions": {package: version(package) for package in ("torch", "transformers")},
        "rows": [
            {
                "step": step.name,
                "computes": step.computes,
                "seconds": spread(seconds[step.name]),
                "ratio": spread([a / b for a, b in zip(seconds[step.name], first, strict=True)]),
                "peak_bytes": None,
            }
            for step in STEPS
        ],
    }


def peak_of_step(name: str, rows: int, tokens: int, length: float, precision: str, step: str) -> int:
    """Bytes by which resident memory grows at a step's peak over the loaded model."""
    model, batch = _ready(name, rows, tokens, length)
    (chosen,) = (known for known in STEPS if known.name == step)
    with torch.no_grad():
        chosen.loss(model, TrainBatch(batch.ids[:1, :32], batch.labels[:1, :32], batch.starts[:1, :32]))
    gc.collect()
    before = resident()
    _take(chosen, model, batch, precision)
    return max(0, highest() - before)


def _ready(name: str, rows: int, tokens: int, length: float) -> tuple[MicroStepForCausalLM, TrainBatch]:
    loaded = load(ModelSpec(name, dtype="float32", device="cpu"))
    torch.manual_seed(0)
    model = MicroStepForCausalLM.from_base(loaded.model, loaded.tokenizer, max_segment_length=MOST)
    model.train()
    count = rows * (tokens + 1)
    text = bundled_text(count)
    ids = loaded.tokenizer(text, add_special_tokens=False)["input_ids"][:count]
    if len(ids) < count:
        raise TextError(f"the bundled text has {len(ids)} tokens, and {count} are needed; use fewer rows or tokens")
    chance = random.Random(0)
    batched = torch.tensor(ids).view(rows, tokens + 1)
    labels = batched.clone()
    labels[:, 0] = -100
    return model, TrainBatch(batched, labels, torch.tensor([cut(tokens + 1, length, chance) for _ in range(rows)]))


def _take(step: Step, model: MicroStepForCausalLM, batch: TrainBatch, precision: str) -> float:
    """Seconds of one forward and backward pass."""
    model.trainable(*(("new",) if step.frozen else ("new", "base")))
    model.zero_grad(set_to_none=True)
    gc.collect()

    def run() -> None:
        context: AbstractContextManager[Any] = nullcontext()
        if precision == "bfloat16":
            context = torch.autocast("cpu", torch.bfloat16)
        with context:
            loss = step.loss(model, batch)
        loss.backward()  # type: ignore[no-untyped-call]

    seconds, _ = seconds_of(run)
    model.zero_grad(set_to_none=True)
    return seconds
