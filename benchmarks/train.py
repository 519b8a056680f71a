"""Tokens per second of training, beside transformers' own Trainer doing plain fine-tuning on the same batches.

Whole runs of both, as a user would start them, a few steps each, in rounds: optimizer, clipping and logging included;
loading, checkpoints and the first step are not. The rows are of one length, so that nobody pads. A tokens per second
counts all tokens of the rows, prompts included. A draft reads no rows but positions of them; it is charged with the
positions that it takes of the same rows, and its states are stored before.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import device_name, in_fresh_process, spread, version
from benchmarks.score import bundled_text
from benchmarks.train_step import cut
from data.run_folder import RunFacts, StageFacts
from data.training_rows import TokenRows
from model.errors import TextError
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.quiet import quiet
from trainer.batches.hidden_state_cache import states_of
from trainer.batches.loader import Chosen, DraftFeed, RowFeed
from trainer.draft_objective import DraftObjective
from trainer.loop import Trainer, accelerator_for
from trainer.recipe import Recipe
from trainer.setup import RunSetup, build_model, objective_over_rows

RATE = 1e-4


@dataclass(frozen=True)
class Contender:
    """One way to train."""

    name: str
    computes: str
    recipe: dict[str, Any]


_NEW: dict[str, Any] = {"objective": "micro_step", "rates": {"new": RATE}}
_DRAFT: dict[str, Any] = {"objective": "draft", "rates": {"new": RATE}}
CONTENDERS = (
    Contender("control", "our trainer: the base alone, all weights", {"objective": "control", "rates": {"base": RATE}}),
    Contender("joint", "merger, micro decoder, stop head, base", {**_NEW, "rates": {"new": RATE, "base": RATE}}),
    Contender("frozen base", "merger, micro decoder, stop head", _NEW),
    Contender("draft", "micro decoder, every 2nd position, all words", {**_DRAFT, "draft": {"every": 2}}),
    Contender(
        "draft, 16k words",
        "micro decoder, every 2nd position, 16,384 words",
        {**_DRAFT, "draft": {"every": 2, "vocabulary": 16_384}},
    ),
)


def train(
    name: str,
    rows: int = 8,
    prompt: int = 64,
    tokens: int = 192,
    length: float = 2.0,
    precision: str = "bfloat16",
    steps: int = 3,
    repeats: int = 3,
    device: str = "cpu",
) -> dict[str, Any]:
    """Measure one base: what was run on what, and a row a contender.

    Args:
        name: of the base.
        rows: of a step.
        prompt: tokens of each that are not learnt.
        tokens: of each that are.
        length: mean length of a segment.
        precision: float32 or bfloat16 (autocast).
        steps: that are timed in each round, after one that is not.
        repeats: rounds.
        device: cpu or cuda.
    """
    given = (name, rows, prompt, tokens, length, precision, steps, repeats, device)
    report: dict[str, Any] = in_fresh_process(timed, *given)
    return report


# --- in the fresh process


def timed(
    name: str,
    rows: int,
    prompt: int,
    tokens: int,
    length: float,
    precision: str,
    steps: int,
    repeats: int,
    device: str,
) -> dict[str, Any]:
    """The report."""
    made = _rows(name, rows * (steps + 1), prompt, tokens, length)
    rates: dict[str, list[float]] = {each: [] for each in ("Trainer", *(each.name for each in CONTENDERS))}
    with tempfile.TemporaryDirectory() as folder:
        ways: list[tuple[str, Callable[[Path], float]]] = [
            ("Trainer", lambda out: _theirs(name, made, rows, precision, steps, device, out))
        ]
        for each in CONTENDERS:
            ways.append((each.name, _ours(each, name, made, rows, precision, steps, device, Path(folder) / "states")))
        for turn in range(repeats):
            for i, (who, run) in enumerate(ways[turn % 2 :] + ways[: turn % 2]):
                rates[who].append(run(Path(folder) / f"{turn}-{i}"))
    first = rates["Trainer"]
    told = {each.name: each.computes for each in CONTENDERS}
    told["Trainer"] = "transformers' Trainer: plain fine-tuning, all weights"
    return {
        "benchmark": "train",
        "model": name,
        "precision": precision,
        "device": device_name(device),
        "rows_of_step": rows,
        "prompt_tokens": prompt,
        "response_tokens": tokens,
        "mean_length": made.mean_length,
        "steps": steps,
        "repeats": repeats,
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in ("torch", "transformers", "accelerate")},
        "rows": [
            {
                "way": who,
                "computes": told[who],
                "tokens_per_second": spread(rates[who]),
                "ratio": spread([a / b for a, b in zip(rates[who], first, strict=True)]),
            }
            for who in rates
        ],
    }


def _rows(name: str, count: int, prompt: int, tokens: int, length: float) -> TokenRows:
    tokenizer = load(ModelSpec(name)).tokenizer
    width = prompt + tokens
    ids = tokenizer(bundled_text(count * width), add_special_tokens=False)["input_ids"][: count * width]
    if len(ids) < count * width:
        raise TextError(f"the bundled text has {len(ids)} tokens, {count * width} are needed; use fewer rows or tokens")
    chance = random.Random(0)
    starts = [[True] * (prompt - 1) + cut(tokens + 1, length, chance) for _ in range(count)]
    learnt = np.tile(np.arange(width) >= prompt, count)
    return TokenRows(np.array(ids), learnt, np.array(starts).ravel(), np.arange(count + 1) * width, np.arange(count))


def _theirs(name: str, made: TokenRows, rows: int, precision: str, steps: int, device: str, out: Path) -> float:
    """Tokens per second of transformers' Trainer."""
    from transformers import Trainer as TheirTrainer
    from transformers import TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        ends: list[float] = []  # noqa: RUF012

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.monotonic())

    width = int(made.lengths[0])
    examples = []
    for i in range(len(made)):
        ids, learnt = (values.reshape(-1, width)[i] for values in (made.ids, made.learnt))
        labels = np.where(learnt, ids, -100)
        examples.append({"input_ids": ids.tolist(), "attention_mask": [1] * width, "labels": labels.tolist()})
    model = load(ModelSpec(name, dtype="float32", device=device)).model.requires_grad_(True)
    clock = Clock()
    clock.ends = []
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=rows,
        max_steps=steps + 1,
        learning_rate=RATE,
        bf16=precision == "bfloat16",
        use_cpu=device == "cpu",
        report_to=[],
        save_strategy="no",
        logging_strategy="steps",
        logging_steps=1,
        disable_tqdm=True,
        max_grad_norm=1.0,
        train_sampling_strategy="sequential",
    )
    with quiet():
        theirs = TheirTrainer(model=model, args=arguments, train_dataset=examples, callbacks=[clock])
        theirs.remove_callback(PrinterCallback)
        theirs.train()
    return rows * width * steps / (clock.ends[-1] - clock.ends[0])


@dataclass(frozen=True)
class _InOrder(RowFeed):
    """The same rows in the same order as the other trainer reads them."""

    size: int = 1

    def steps(self) -> Iterator[Chosen]:
        """See `Feed`."""
        yield from (np.arange(a, a + self.size) for a in range(0, len(self.train), self.size))

    def held_out(self) -> Sequence[Chosen]:
        """None."""
        return []


@dataclass(frozen=True)
class _PositionsInOrder(DraftFeed):
    """The positions of these rows."""

    size: int

    def steps(self) -> Iterator[Chosen]:
        """See `Feed`."""
        for a in range(0, len(self.train.rows), self.size):
            inside = np.flatnonzero((self.train.row >= a) & (self.train.row < a + self.size))
            yield inside[:: self.recipe.draft.every]

    def held_out(self) -> Sequence[Chosen]:
        """None."""
        return []


def _ours(
    who: Contender, name: str, made: TokenRows, rows: int, precision: str, steps: int, device: str, states: Path
) -> Callable[[Path], float]:
    """What gives the tokens per second of our trainer."""
    said = dict(who.recipe)
    stage = {"name": "only", "steps": steps + 1, "rates": said.pop("rates"), "decay": "constant", "warmup": 0}
    recipe = Recipe.model_validate(
        {
            "name": "benchmark", "base": {"name": name}, "data": {"mix": "bundled"}, "stages": (stage,),
            "precision": precision, "log_every": 1, "checkpoint": {"every": 10**9}, "batch": {"tokens": 10**9}, **said,
        },
        strict=False,
    )  # fmt: skip

    def run(out: Path) -> float:
        silent = lambda message, fraction: None  # noqa: E731
        model, tokenizer, _ = build_model(recipe, device, silent, made)
        objective: torch.nn.Module
        once = np.ones(len(made), dtype=np.int64)
        feed: Any = _InOrder(recipe, made, once, made, size=rows)
        if recipe.objective != "draft":
            objective = objective_over_rows(model)
        else:
            assert isinstance(model, MicroStepForCausalLM)
            stored = states_of(model, made, states, {"rows": len(made)}, silent)
            draft = DraftObjective(model)
            objective, feed = draft, _PositionsInOrder(recipe, stored, once, stored, draft.drafted, rows)
        most = getattr(model.config, "max_segment_length", 1)
        facts = RunFacts(
            "benchmark", recipe.objective, name, None, "bundled", "", steps + 1,
            (StageFacts("only", 1, steps + 1, {}),), {}, 0.0, 0, {},
        )  # fmt: skip
        built = RunSetup(recipe, objective, model, tokenizer, feed, facts, (), most)
        done = Trainer(built, out, accelerator_for(recipe, device), silent).run()
        seconds = done.lines[-1].seconds - done.lines[0].seconds
        return float(rows * int(made.lengths[0]) * steps / seconds)

    return run
