"""Tokens per second of training, beside transformers' own Trainer doing plain fine-tuning on the same batches.

Whole runs of both, as a user would start them, a few steps each, in rounds: optimizer, clipping and logging included;
loading, checkpoints and the first step are not. The rows are of one length, so that nobody pads. A tokens per second
counts all tokens of the rows, prompts included. A draft reads no rows but positions of them; it is charged with the
positions that it takes of the same rows, and its states are stored before.
"""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.options import TrainOptions
from benchmarks.texts import bundled_ids
from benchmarks.timing import device_name, environment, in_fresh_process, in_rounds, ratios, spread
from benchmarks.train_step import random_starts
from data.run_folder import RunFacts, StageFacts
from data.states.files import Parts
from data.training_rows import TokenRows
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell
from model.quiet import quiet
from trainer.batches.hidden_state_cache import States, positions
from trainer.batches.loader import Chosen, DraftFeed, RowFeed
from trainer.draft_objective import DraftObjective
from trainer.loop import Trainer, accelerator_for
from trainer.objectives import objective_over_rows
from trainer.recipe import Recipe
from trainer.setup import RunSetup, build_model

RATE = 1e-4
TRAINER = "Trainer"  # transformers' own


@dataclass(frozen=True)
class Contender:
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


def measure(options: TrainOptions, tell: Tell) -> dict[str, Any]:
    tell(f"{options.model}: {options.repeats} rounds of {options.steps} steps", None)
    report: dict[str, Any] = in_fresh_process(timed, options)
    return report


# --- in the fresh process


def timed(options: TrainOptions) -> dict[str, Any]:
    rows = _rows(options)
    with tempfile.TemporaryDirectory() as folder:
        new_folder = (Path(folder) / f"run-{number}" for number in count())
        runs: dict[str, Callable[[], float]] = {TRAINER: lambda: _theirs(options, rows, next(new_folder))}
        for each in CONTENDERS:
            ours = _ours(each, options, rows)
            runs[each.name] = lambda ours=ours: ours(next(new_folder))  # type: ignore[misc]
        rates = in_rounds(runs, options.repeats)
    computes = {each.name: each.computes for each in CONTENDERS}
    computes[TRAINER] = "transformers' Trainer: plain fine-tuning, all weights"
    return {
        "benchmark": "train",
        "model": options.model,
        "precision": options.precision,
        "device": device_name(options.device),
        "rows_of_step": options.rows,
        "prompt_tokens": options.prompt,
        "response_tokens": options.tokens,
        "mean_length": rows.mean_length,
        "steps": options.steps,
        "repeats": options.repeats,
        **environment("torch", "transformers", "accelerate"),
        "rows": [
            {
                "way": name,
                "computes": computes[name],
                "tokens_per_second": spread(rate),
                "ratio": ratios(rate, rates[TRAINER]),
            }
            for name, rate in rates.items()
        ],
    }


def _rows(options: TrainOptions) -> TokenRows:
    number, width = options.rows * (options.steps + 1), options.width
    ids = bundled_ids(load(ModelSpec(options.model)).tokenizer, number * width)
    chance = random.Random(0)
    starts = [
        [True] * (options.prompt - 1) + random_starts(options.tokens + 1, options.length, chance) for _ in range(number)
    ]
    loss_mask = np.tile(np.arange(width) >= options.prompt, number)
    return TokenRows(
        np.array(ids), loss_mask, np.array(starts).ravel(), np.arange(number + 1) * width, np.arange(number)
    )


def _theirs(options: TrainOptions, rows: TokenRows, out: Path) -> float:
    from transformers import Trainer as TheirTrainer
    from transformers import TrainerCallback, TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    class StepClock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ends.append(time.monotonic())

    ids, loss_mask = (values.reshape(-1, options.width) for values in (rows.ids, rows.loss_mask))
    examples = [
        {"input_ids": row.tolist(), "attention_mask": [1] * len(row), "labels": label.tolist()}
        for row, label in zip(ids, np.where(loss_mask, ids, -100), strict=True)
    ]
    model = load(ModelSpec(options.model, dtype="float32", device=options.device)).model.requires_grad_(True)
    clock = StepClock()
    arguments = TrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=options.rows,
        max_steps=options.steps + 1,
        learning_rate=RATE,
        bf16=options.precision == "bfloat16",
        use_cpu=options.device == "cpu",
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
    return options.rows * options.width * options.steps / (clock.ends[-1] - clock.ends[0])


@dataclass(frozen=True)
class _InOrder(RowFeed):
    """The same rows in the same order as the other trainer reads them."""

    size: int = 1

    def steps(self) -> Iterator[Chosen]:
        yield from (np.arange(a, a + self.size) for a in range(0, len(self.train), self.size))

    def held_out(self) -> Sequence[Chosen]:
        return []


@dataclass(frozen=True)
class _PositionsInOrder(DraftFeed):
    size: int

    def steps(self) -> Iterator[Chosen]:
        for a in range(0, len(self.train.rows), self.size):
            inside = np.flatnonzero((self.train.row >= a) & (self.train.row < a + self.size))
            yield inside[:: self.recipe.draft.every]

    def held_out(self) -> Sequence[Chosen]:
        return []


@torch.inference_mode()
def _states(model: MicroStepForCausalLM, rows: TokenRows) -> States:
    """The states of a draft's base, in memory."""
    row, token = positions(rows)
    found = []
    for i in range(len(rows)):
        ids = torch.as_tensor(rows.ids[rows.offsets[i] : rows.offsets[i + 1]], device=model.device)[None]
        position = torch.arange(ids.shape[1], device=ids.device)[None]
        context = model.macro(model.get_input_embeddings()(ids), torch.ones_like(ids), position).context[0]
        found.append(context[token[row == i] - rows.offsets[i]].to(torch.bfloat16).cpu())
    return States(rows, Parts((torch.cat(found),)), np.arange(len(row)), row, token)


def _ours(contender: Contender, options: TrainOptions, rows: TokenRows) -> Callable[[Path], float]:
    """What gives the tokens per second of our trainer, run in a new folder."""
    given = dict(contender.recipe)
    stage = {"name": "only", "steps": options.steps + 1, "rates": given.pop("rates"), "decay": "constant", "warmup": 0}
    fixed = {
        "name": "benchmark",
        "base": {"name": options.model},
        "data": {"mix": "bundled"},
        "stages": (stage,),
        "precision": options.precision,
        "log_every": 1,
        "checkpoint": {"every": 10**9},
        "batch": {"tokens": 10**9},
    }
    recipe = Recipe.model_validate(fixed | given, strict=False)
    silent = lambda message, fraction: None  # noqa: E731

    def run(out: Path) -> float:
        model, tokenizer, _ = build_model(recipe, options.device, silent, rows)
        objective: torch.nn.Module
        once = np.ones(len(rows), dtype=np.int64)
        feed: Any = _InOrder(recipe, rows, once, rows, size=options.rows)
        if recipe.objective != "draft":
            objective = objective_over_rows(model)
        else:
            assert isinstance(model, MicroStepForCausalLM)
            stored = _states(model, rows)
            draft = DraftObjective(model)
            objective, feed = draft, _PositionsInOrder(recipe, stored, once, stored, draft.drafted, options.rows)
        max_length = getattr(model.config, "max_segment_length", 1)
        stages = (StageFacts("only", 1, options.steps + 1, {}),)
        facts = RunFacts(
            "benchmark", recipe.objective, options.model, None, "bundled", "", options.steps + 1, stages, {}, 0.0, 0, {}
        )
        built = RunSetup(recipe, objective, model, tokenizer, feed, facts, (), max_length)
        done = Trainer(built, out, accelerator_for(recipe, options.device), silent).run()
        seconds = done.lines[-1].seconds - done.lines[0].seconds
        return float(options.rows * options.width * options.steps / seconds)

    return run
