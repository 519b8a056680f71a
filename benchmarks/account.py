"""The account of trained models: speed, agreement, likelihood and memory of their answers over tau, beside the base's.

All ways write the same prompts in one process, batch by batch, in turning order, once with one prompt at a time and
once with several. Intervals are of 95%, over prompts; of speeds, over batches. Where these are too few there is none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.account_kept import Kept, Measured
from benchmarks.account_ratio import ratio
from benchmarks.decode_ways import Batch, Rows, Ways, padded, prompt_ids
from benchmarks.measure import in_turn, seconds_of, version
from data.prepared import Prepared
from data.sources.reading import readings
from data.sources.registry import source
from evals.loglikelihood import by_base
from model.causal_lm.fast_linear import with_fast_linear
from model.causal_lm.forward import vocabulary
from model.causal_lm.kv_cache import growing_cache, keeps_all
from model.decoding.generation_config import end_ids, ends_of
from model.decoding.output import SegmentedGeneration
from model.decoding.stopping import RULES
from model.errors import ModelError, TextError
from model.hub.loading import LoadedModel
from model.hub.memory import slot_bytes
from model.hub.wrap_base import wrap
from model.terminal import Tell
from trainer.batches.dataset import training_rows

QUESTIONS = "gsm8k_test"  # measured on, never trained on
BASE = "base"
WARM_TOKENS = 16  # that a way writes before it is measured
JUDGED_AT_ONCE = 8


@dataclass(frozen=True)
class Way:
    """One way to write: a model at one tau."""

    model: str
    decoding: str  # merged, lossless, or plain
    rule: str | None  # when a segment ends
    tau: float | None
    write: Callable[[Batch, int | None], SegmentedGeneration | Rows]  # so many new tokens; None: all


@dataclass(frozen=True)
class Answers:
    """What a way wrote to the prompts."""

    seconds: list[float]  # a batch
    rows: Rows  # a prompt
    tokens: list[int]  # a batch
    passes: list[int]  # a prompt; of the base


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

    All answers end where one of the models ends its own, so that they can be compared.

    Raises:
        ModelError: a model that shares no vocabulary with the base.
    """
    ends = tuple(sorted({end for loaded in (base, *models) for end in end_ids(loaded.model)}))
    pad = ends_of(base.model)["pad_token_id"]
    shared = Ways(base.model, cast("Any", None), tokens, ends, pad)
    found = [_plain(BASE, base, shared)]
    for loaded in models:
        name, saved = loaded.facts.name, loaded.facts.micro_step
        if vocabulary(loaded.model) != vocabulary(base.model):
            raise ModelError(f"{name} has {vocabulary(loaded.model):,} words, the base {vocabulary(base.model):,}")
        if saved is None:
            found.append(_plain(name, loaded, shared))
            continue
        ways = replace(shared, model=wrap(loaded).model)
        for rule, tau in product(rules, taus):
            if saved.stop_head or not RULES[rule].needs_stop_head:
                found.append(Way(name, saved.decoding, rule, tau, _at(ways, rule, tau)))
    return found


def _plain(name: str, loaded: LoadedModel, shared: Ways) -> Way:
    """Transformers' own `generate`, with the layers and the cache that make micro_step models quick, too."""
    ways = replace(shared, base=with_fast_linear(loaded.model))

    def write(batch: Batch, most: int | None) -> Rows:
        options = {"past_key_values": growing_cache(loaded.model.config)} if keeps_all(loaded.model) else {}
        return replace(ways, new_tokens=most or shared.new_tokens).plain(batch, **options)

    return Way(name, "plain", None, None, write)


def _at(ways: Ways, rule: str, tau: float) -> Callable[[Batch, int | None], SegmentedGeneration]:
    def write(batch: Batch, most: int | None) -> SegmentedGeneration:
        return replace(ways, new_tokens=most or ways.new_tokens).segments(batch, rule=rule, confidence=tau)

    return write


def answered(
    ways: Sequence[Way], prompts: Rows, size: int, device: torch.device, kept: Kept, tell: Tell
) -> list[Answers]:
    """Let every way answer all prompts in batches of `size`, longest last, in turning order.

    Batches that are kept are not measured again.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i)) if size > 1 else range(len(prompts))
    sorted_prompts = [prompts[i] for i in order]
    parts = [sorted_prompts[i : i + size] for i in range(0, len(prompts), size)]
    warm = set[int]()
    for number, part in enumerate(parts):
        for turn, which in enumerate(in_turn(number, len(ways))):
            if kept.get(size, which, number) is not None:
                continue
            done = number * len(ways) + turn
            tell(f"{size} at a time: batch {number + 1} of {len(parts)}", done / (len(parts) * len(ways)))
            way = ways[which]
            if which not in warm:
                way.write(padded(parts[0], device), WARM_TOKENS)
                warm.add(which)
            batch = padded(part, device)
            kept.put(size, which, number, _measured(*seconds_of(lambda way=way, batch=batch: way.write(batch, None))))  # type: ignore[misc]
    found = []
    back = np.argsort(np.array(order))  # into the order of the prompts
    for which in range(len(ways)):
        batches = [cast("Measured", kept.get(size, which, number)) for number in range(len(parts))]
        rows = [row for each in batches for row in each.rows]
        passes = [count for each in batches for count in each.passes]
        found.append(
            Answers(
                [each.seconds for each in batches],
                [rows[i] for i in back],
                [sum(map(len, each.rows)) for each in batches],
                [passes[i] for i in back],
            )
        )
    return found


def _measured(seconds: float, answer: SegmentedGeneration | Rows) -> Measured:
    if isinstance(answer, SegmentedGeneration):
        return Measured(seconds, [row.ids for row in answer.rows], [row.macro_steps for row in answer.rows])
    return Measured(seconds, answer, [len(row) for row in answer])


def account(
    models: Sequence[LoadedModel],
    base: LoadedModel,
    by_source: dict[str, Rows],
    taus: Sequence[float],
    rules: Sequence[str] = ("confidence",),
    tokens: int = 256,
    sizes: Sequence[tuple[int, int | None]] = ((1, 24), (8, None)),
    tell: Tell = lambda message, fraction: None,
    keep: Path | None = None,
) -> dict[str, Any]:
    """Measure all.

    Args:
        models: micro_step models, and controls without segments, in the base's precision and place.
        base: whose own answers they stand beside.
        by_source: the prompts' ids by the name of their source.
        taus: of the rules.
        rules: when a segment ends; see `model.decoding.stopping`.
        tokens: of an answer at most.
        sizes: prompts at a time, and how many of the prompts at that (None: all).
        tell: told about the progress.
        keep: file of the batches as they are measured; one that was begun is gone on with.

    Returns:
        a report with a row a way and a size.
    """
    prompts = _mixed(by_source)
    ways = ways_of(models, base, rules, taus, tokens)
    settings = {
        "models": [[each.facts.name, each.facts.revision] for each in (base, *models)],
        "dtype": base.facts.dtype,
        "device": str(base.model.device),
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in ("torch", "transformers")},
        "max_new_tokens": tokens,
        "ways": [[way.model, way.rule, way.tau] for way in ways],
        "prompts_sha256": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
        "sizes": sizes,
    }
    kept, judge = Kept(keep, settings), _Judge(base.model)
    rows: list[dict[str, Any]] = []
    for size, most in sizes:
        chosen = prompts[:most]
        found = answered(ways, chosen, size, base.model.device, kept, tell)
        tell(f"{size} at a time: judging the answers", None)
        own = judge.told(chosen, found[0].rows)
        for way, answers in zip(ways, found, strict=True):
            judged = judge.told(chosen, answers.rows)
            rows.append(_row(way, size, answers, found[0], judged, own, chosen, base.model))
    return {
        "benchmark": "account",
        "base": base.facts.name,
        **settings,
        "prompts": {name: len(each) for name, each in by_source.items()},
        "sittings": kept.sittings,
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


class _Judge:
    """The base, reading answers after their prompts; the same answer only once."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._there: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, float]] = {}

    def told(self, prompts: Rows, answers: Rows) -> _Told:
        """Of each answer."""
        pairs = [(tuple(prompt), tuple(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
        new = sorted({pair for pair in pairs if pair not in self._there}, key=lambda pair: sum(map(len, pair)))
        for a in range(0, len(new), JUDGED_AT_ONCE):
            some = new[a : a + JUDGED_AT_ONCE]
            scored = by_base(self._base, [prompt for prompt, _ in some], [answer for _, answer in some])
            for pair, one in zip(some, scored, strict=True):
                self._there[pair] = -one.total, float(one.correct.sum())
        nll, agreed = np.array([self._there[pair] for pair in pairs]).T
        return _Told(nll, agreed, np.array([len(answer) for _, answer in pairs], dtype=np.float64))


def _row(
    way: Way, size: int, answers: Answers, plain: Answers, judged: _Told, own: _Told, prompts: Rows, base: Any
) -> dict[str, Any]:
    """The figures of a way; each with its interval."""
    passes = np.array(answers.passes, dtype=np.float64)
    seconds, theirs = np.array(answers.seconds), np.array(plain.seconds)
    tokens, their_tokens = np.array(answers.tokens, dtype=np.float64), np.array(plain.tokens, dtype=np.float64)
    same = np.array([float(a == b) for a, b in zip(answers.rows, plain.rows, strict=True)])
    equal = np.array([_common(a, b) for a, b in zip(answers.rows, plain.rows, strict=True)], dtype=np.float64)
    slots = passes if way.decoding == "merged" else judged.count  # of tokens that are read again
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
        "cache_of_base": ratio((read + slots - 1, read + own.count - 1)),  # what is written last never enters
        "seconds": float(seconds.sum()),
    }


def _common(a: list[int], b: list[int]) -> int:
    """Tokens up to the first that differs."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
