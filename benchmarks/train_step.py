"""Time and memory of forward and backward through a micro_step model, beside the base's own training step.

The same tokens for all: rows of one prompt token and N response tokens, in segments of random lengths. Time: all
in one process and in rounds, each once a round in turning order. Memory: each in a process of its own, by how much
resident memory grew at its peak over the loaded model, gradients included.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.options import TrainStepOptions
from benchmarks.texts import bundled_ids
from benchmarks.timing import Method, MethodSet, environment, measure_methods
from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.causal_lm.forward import body
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell

MAX_LENGTH = 4  # M


@dataclass(frozen=True)
class TrainBatch:
    ids: Tensor  # [B, 1 + N]
    labels: Tensor  # [B, 1 + N], -100 at the prompt token
    starts: Tensor  # [B, 1 + N] bool

    @property
    def start(self) -> TrainBatch:
        """The first 32 tokens of the first row, to warm up with."""
        return TrainBatch(self.ids[:1, :32], self.labels[:1, :32], self.starts[:1, :32])


@dataclass(frozen=True)
class Step:
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


def measure(options: TrainStepOptions, tell: Tell) -> dict[str, Any]:
    """What was run on what, and a row a step. Fresh modules are put around the model."""
    report = measure_methods(options.model, prepare, (options,), options.repeats, tell, options.memory)
    base = report["rows"][0]["peak_bytes"]
    rows = [
        {"step": row.pop("method"), **row, "peak_ratio": row["peak_bytes"] / base if base else None}
        for row in report["rows"]
    ]
    return {"benchmark": "train-step", **report, "rows": rows}


def random_starts(count: int, mean: float, chance: random.Random) -> list[bool]:
    """[count] Where segments of 1 to M tokens start: random lengths of this mean, the first segment of one token.

    Each token after the first goes on with one probability until the segment has M.
    """
    low, high = 0.0, 1.0  # of p, the probability that a segment goes on
    for _ in range(40):  # 1 + p + p^2 + p^3 = mean
        middle = (low + high) / 2
        low, high = (middle, high) if sum(middle**i for i in range(MAX_LENGTH)) < mean else (low, middle)
    starts, length = [True, True], 1
    while len(starts) < count:
        goes_on = length < MAX_LENGTH and chance.random() < low
        starts.append(not goes_on)
        length = length + 1 if goes_on else 1
    return starts[:count]


def prepare(options: TrainStepOptions) -> MethodSet:
    """The steps, ready to be taken."""
    model, batch = _ready(options)
    facts = {
        "model": options.model,
        "precision": options.precision,
        "rows_of_batch": options.rows,
        "response_tokens": options.tokens,
        "mean_length": batch.starts.numel() / int(batch.starts.sum()),
        **environment("torch", "transformers"),
    }
    take = partial(_take, model, options.precision)
    return MethodSet(
        facts,
        {
            step.name: Method(step.computes, partial(take, step, batch), partial(take, step, batch.start))
            for step in STEPS
        },
    )


def _ready(options: TrainStepOptions) -> tuple[MicroStepForCausalLM, TrainBatch]:
    loaded = load(ModelSpec(options.model, dtype="float32", device="cpu"))
    torch.manual_seed(0)
    model = MicroStepForCausalLM.from_base(loaded.model, loaded.tokenizer, max_segment_length=MAX_LENGTH)
    model.train()
    rows, width = options.rows, options.tokens + 1
    ids = torch.tensor(bundled_ids(loaded.tokenizer, rows * width)).view(rows, width)
    labels = ids.clone()
    labels[:, 0] = -100
    chance = random.Random(0)
    starts = [random_starts(width, options.length, chance) for _ in range(rows)]
    return model, TrainBatch(ids, labels, torch.tensor(starts))


def _take(model: MicroStepForCausalLM, precision: str, step: Step, batch: TrainBatch) -> None:
    """One forward and backward pass; the gradients of the one before are dropped."""
    model.zero_grad(set_to_none=True)
    model.trainable(*(("new",) if step.frozen else ("new", "base")))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
        loss = step.loss(model, batch)
    loss.backward()  # type: ignore[no-untyped-call]
