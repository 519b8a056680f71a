"""The account of trained models: speed, agreement, likelihood and memory of their answers over tau, beside the base's.

All ways write the same prompts in one process, batch by batch, in turning order, once with one prompt at a time and
once with several. Intervals are 95% bootstraps over prompts; of speeds, over batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice, product
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.account_ratio import ratio
from benchmarks.decode import Judged
from benchmarks.decode_ways import Batch, Rows, Ways, padded, prompt_ids
from benchmarks.measure import in_turn, seconds_of, version
from data.prepared import Prepared
from data.reading import readings
from data.sources import source
from model.cost import slot_bytes
from model.errors import ModelError, TextError
from model.forward import vocabulary
from model.loading import LoadedModel
from model.stopping import RULES
from model.terminal import Tell
from model.wrapping import wrapped
from model.written import SegmentedGeneration
from trainer.rows import training_rows

QUESTIONS = "gsm8k_test"  # measured on, never trained on
BASE = "base"


@dataclass(frozen=True)
class Way:
    """One way to write: a model at one tau."""

    model: str
    decoding: str  # merged, lossless, or plain
    rule: str | None  # when a segment ends
    tau: float | None
    write: Callable[[Batch], SegmentedGeneration | Rows]


@dataclass
class Answers:
    """What a way wrote to the prompts, a batch after the other."""

    seconds: list[float] = field(default_factory=list)  # a batch
    rows: Rows = field(default_factory=list)  # a prompt
    tokens: list[int] = field(default_factory=list)  # a batch
    passes: list[int] = field(default_factory=list)  # a prompt; of the base

    def add(self, seconds: float, answer: SegmentedGeneration | Rows) -> None:
        """Put a batch at the end."""
        if isinstance(answer, SegmentedGeneration):
            rows = [row.ids for row in answer.rows]
            self.passes += [row.macro_steps for row in answer.rows]
        else:
            rows = answer
            self.passes += [len(row) for row in rows]
        self.seconds.append(seconds)
        self.tokens.append(sum(map(len, rows)))
        self.rows += rows


def questions(tokenizer: Any, count: int, local: Path | None) -> Rows:
    """The ids of the first test questions of GSM8K, as prompts under the chat template.

    Raises:
        TextError: they cannot be had.
    """
    if not count:
        return []
    asked = (each.messages[0].content for each in readings(source(QUESTIONS), local) if each.messages is not None)
    return [prompt_ids(text, tokenizer) for text in islice(asked, count)]


def held_out_prompts(prepared: Prepared, name: str, count: int) -> Rows:
    """The ids of held-out prompts of one source of prepared data.

    Raises:
        TextError: there are none.
    """
    rows = training_rows(prepared, None).held_out
    names = [prepared.sources[place] for place in prepared.origin[rows.example]]
    chosen = [i for i in range(len(rows)) if names[i] == name][:count]
    if not chosen and count:
        held = sorted(set(names))
        raise TextError(f"{prepared.path} holds out no prompts of {name!r}; it does of {', '.join(held) or 'none'}")
    return [rows.prompt(i) for i in chosen]


def ways_of(
    models: Sequence[LoadedModel], base: LoadedModel, rules: Sequence[str], taus: Sequence[float], tokens: int
) -> list[Way]:
    """The base, and every model by every rule that it can follow at every tau; a model without segments once.

    Raises:
        ModelError: a model that shares no vocabulary with the base.
    """
    found = [_plain(BASE, base, tokens)]
    for loaded in models:
        name, saved = loaded.facts.name, loaded.facts.micro_step
        if vocabulary(loaded.model) != vocabulary(base.model):
            raise ModelError(f"{name} has {vocabulary(loaded.model):,} words, the base {vocabulary(base.model):,}")
        if saved is None:
            found.append(_plain(name, loaded, tokens))
            continue
        ways = Ways(base.model, wrapped(loaded).model, tokens)
        for rule, tau in product(rules, taus):
            if saved.stop_head or not RULES[rule].needs_stop_head:
                found.append(Way(name, saved.decoding, rule, tau, _at(ways, rule, tau)))
    return found


def _plain(name: str, loaded: LoadedModel, tokens: int) -> Way:
    return Way(name, "plain", None, None, Ways(loaded.model, cast("Any", None), tokens).plain)


def _at(ways: Ways, rule: str, tau: float) -> Callable[[Batch], SegmentedGeneration]:
    return lambda batch: ways.segments(batch, rule=rule, confidence=tau)


def answered(ways: Sequence[Way], prompts: Rows, size: int, device: torch.device, tell: Tell) -> list[Answers]:
    """Let every way answer all prompts in batches of `size`, longest last, in turning order."""
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i)) if size > 1 else range(len(prompts))
    sorted_prompts = [prompts[i] for i in order]
    parts = [sorted_prompts[i : i + size] for i in range(0, len(prompts), size)]
    found = [Answers() for _ in ways]
    for way in ways:
        way.write(padded(parts[0], device))
    for number, part in enumerate(parts):
        tell(f"{size} at a time: batch {number + 1} of {len(parts)}", number / len(parts))
        for which in in_turn(number, len(ways)):
            batch = padded(part, device)
            found[which].add(*seconds_of(lambda which=which, batch=batch: ways[which].write(batch)))  # type: ignore[misc]
    for each in found:  # back into the order of the prompts
        back = np.argsort(np.array(order))
        each.rows, each.passes = [each.rows[i] for i in back], [each.passes[i] for i in back]
    return found


def account(
    models: Sequence[LoadedModel],
    base: LoadedModel,
    by_source: dict[str, Rows],
    taus: Sequence[float],
    rules: Sequence[str] = ("confidence",),
    tokens: int = 256,
    sizes: Sequence[tuple[int, int | None]] = ((1, 24), (8, None)),
    tell: Tell = lambda message, fraction: None,
) -> dict[str, Any]:
    """Measure all.

    Args:
        models: micro_step models, and controls without segments, in the base's precision and place.
        base: whose own answers they stand beside.
        by_source: the prompts' ids by the name of their source.
        taus: of the rules.
        rules: when a segment ends; see `model.stopping`.
        tokens: of an answer at most.
        sizes: prompts at a time, and how many of the prompts at that (None: all).
        tell: told about the progress.

    Returns:
        a report with a row a way and a size.
    """
    prompts = _mixed(by_source)
    ways = ways_of(models, base, rules, taus, tokens)
    rows: list[dict[str, Any]] = []
    for size, most in sizes:
        chosen = prompts[:most]
        found = answered(ways, chosen, size, base.model.device, tell)
        tell(f"{size} at a time: judging the answers", None)
        own = _judged(base.model, chosen, found[0].rows)
        for way, answers in zip(ways, found, strict=True):
            judged = own if way.model == BASE else _judged(base.model, chosen, answers.rows)
            rows.append(_row(way, size, answers, found[0], judged, own, chosen, base.model))
    return {
        "benchmark": "account",
        "base": base.facts.name,
        "models": [loaded.facts.name for loaded in models],
        "dtype": base.facts.dtype,
        "device": str(base.model.device),
        "threads": torch.get_num_threads(),
        "prompts": {name: len(each) for name, each in by_source.items()},
        "max_new_tokens": tokens,
        "versions": {package: version(package) for package in ("torch", "transformers")},
        "rows": rows,
    }


def _mixed(by_source: dict[str, Rows]) -> Rows:
    """Prompts of all sources, in turns by their shares, so that the first n hold as much of each as all do."""
    every = [((i + 0.5) / len(rows), name, row) for name, rows in by_source.items() for i, row in enumerate(rows)]
    return [row for _, _, row in sorted(every, key=lambda each: each[:2])]


@dataclass(frozen=True)
class _Told:
    """Answers by the base, a prompt."""

    nll: NDArray[np.float64]  # [P] nats, of the whole answer
    agreed: NDArray[np.float64]  # [P] tokens that the base would choose
    count: NDArray[np.float64]  # [P] tokens


def _judged(base: Any, prompts: Rows, answers: Rows) -> _Told:
    each = [Judged.of(base, [prompt], [answer]) for prompt, answer in zip(prompts, answers, strict=True)]
    count = np.array([len(answer) for answer in answers], dtype=np.float64)
    return _Told(np.array([one.nll for one in each]) * count, np.array([one.agreement for one in each]) * count, count)


def _row(
    way: Way, size: int, answers: Answers, plain: Answers, judged: _Told, own: _Told, prompts: Rows, base: Any
) -> dict[str, Any]:
    """The figures of a way; each with its interval."""
    passes = np.array(answers.passes, dtype=np.float64)
    seconds, theirs = np.array(answers.seconds), np.array(plain.seconds)
    tokens, their_tokens = np.array(answers.tokens, dtype=np.float64), np.array(plain.tokens, dtype=np.float64)
    same = np.array([float(a == b) for a, b in zip(answers.rows, plain.rows, strict=True)])
    equal = np.array([_common(a, b) for a, b in zip(answers.rows, plain.rows, strict=True)], dtype=np.float64)
    slots = passes if way.decoding == "merged" else judged.count
    read = np.array([len(prompt) for prompt in prompts], dtype=np.float64)
    return {
        "model": way.model,
        "decoding": way.decoding,
        "rule": way.rule,
        "tau": way.tau,
        "at_a_time": size,
        "prompts": len(prompts),
        "tokens": int(judged.count.sum()),
        "tokens_per_macro_step": ratio((judged.count, passes)),
        "speedup": ratio((tokens, seconds), (their_tokens, theirs)),
        "agreement": ratio((judged.agreed, judged.count)),
        "same_prefix": ratio((equal, own.count)),
        "identical": ratio((same, np.ones_like(same))),
        "nll": ratio((judged.nll, judged.count)),
        "nll_ratio": ratio((judged.nll, judged.count), (own.nll, own.count)),
        "cache_bytes_a_token": ratio((slots * slot_bytes(base), judged.count)),
        "cache_of_base": ratio((read + slots, read + own.count)),
        "seconds": float(seconds.sum()),
    }


def _common(a: list[int], b: list[int]) -> int:
    """Tokens up to the first that differs."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
