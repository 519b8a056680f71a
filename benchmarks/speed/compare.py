"""Speed, likelihood, agreement and memory of models' greedy answers, beside the base's own on the same prompts.

Intervals are of 95%, over prompts; of speeds, over batches. Where these are too few there is none.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.ratio import ratio
from benchmarks.speed.batch_log import BatchLog
from benchmarks.speed.decoders import BASE, MERGED, RELAXED, ComparedModels, Decoder, plain_decoder, segment_decoders
from benchmarks.speed.measure import Measurements, measure
from benchmarks.speed.options import DecodeOptions
from benchmarks.speed.prompts import Rows, mixed
from benchmarks.timing import environment, spread
from evals.loglikelihood import by_base
from model.causal_lm.forward import context_length
from model.errors import TextError, TooLarge
from model.hub.memory import slot_bytes
from model.progress import Tell, silent

SCORED_AT_ONCE = 8  # answers that the base reads in one batch


def compare(
    models: ComparedModels,
    by_source: dict[str, Rows],
    options: DecodeOptions,
    baselines: Sequence[Decoder] = (),
    tell: Tell = silent,
) -> dict[str, Any]:
    """Let every model write and compare what it wrote.

    Returns:
        `rows`, one for each batch size and decoder; and of the first micro_step model, rule, tau and batch size
        `tokens_per_macro_step`; `speedup`, the median over rounds of our new tokens per second over the base's;
        `agreement`, the share of our tokens that the base would choose itself after what stands before them; and
        `nll_ratio`, their negative log-likelihood per token under the base over that of the base's own answers.
    """
    prompts = mixed(by_source)
    check_prompts(models, prompts, options.max_new_tokens)
    decoders = [plain_decoder(BASE, models.base, models, options.fast_base)]
    decoders += segment_decoders(models, options)
    decoders += [plain_decoder(each.facts.name, each.model, models, options.fast_base) for each in models.controls]
    decoders += baselines  # last, since they are left out of batches of several prompts
    settings = {
        **facts_of(models),
        "max_new_tokens": options.max_new_tokens,
        "repeats": options.repeats,
        "clock": options.clock,
        "prompts_sha256": hashlib.sha256(json.dumps(prompts).encode()).hexdigest(),
    }
    layout = {"sizes": options.sizes, "decoders": [_label(each, 1) + each.computes for each in decoders]}
    batch_log, scorer = BatchLog(options.keep, settings | layout), _AnswerScorer(models.base)
    rows: list[dict[str, Any]] = []
    for size, most in options.sizes:
        chosen = prompts[:most]
        able = [each for each in decoders if size == 1 or not each.one_at_a_time]
        measured = measure(able, chosen, size, options, batch_log, tell)
        tell(f"{size} at a time: the base reads the answers", None)
        answers = [Answers(each, scorer.scores(chosen, each.rows), chosen) for each in measured]
        rows += [
            _row(decoder, size, each, answers[0], models.base) for decoder, each in zip(able, answers, strict=True)
        ]
        rows += [_not_run(decoder, size, rows[0]) for decoder in decoders if decoder not in able]
    ours = next(row for row in rows if row["tau"] is not None)
    return {
        "benchmark": "decode",
        **settings,
        "prompts": {name: len(each) for name, each in by_source.items()},
        "sittings": batch_log.sittings,
        "crossed": options.cross,
        "intervals": "95% over prompts; of speeds over batches",
        "tokens_per_macro_step": ours["tokens_per_macro_step"][0],
        "speedup": ours["speedup_by_round"]["median"],
        "agreement": ours["agreement"][0],
        "nll_ratio": ours["nll_ratio"][0],
        "rows": rows,
    }


def check_prompts(models: ComparedModels, prompts: Rows, new_tokens: int) -> None:
    """See that there are prompts, and that the base's context holds them and their answers."""
    if not prompts:
        raise TextError("there are no prompts")
    limit, longest = context_length(models.base), max(map(len, prompts))
    if limit is not None and longest + new_tokens > limit:
        raise TooLarge(
            f"a prompt of {longest} tokens and {new_tokens} new ones do not fit the context of {limit}; ask for fewer"
            " new tokens"
        )


def facts_of(models: ComparedModels) -> dict[str, Any]:
    return {
        "base": models.base_name,
        "models": [[each.loaded.facts.name, each.loaded.facts.revision] for each in models.micro],
        "untrained": any(each.facts.untrained for each in models.micro),
        "controls": [[each.facts.name, each.facts.revision] for each in models.controls],
        "dtype": str(models.base.dtype).removeprefix("torch."),
        "device": str(models.base.device),
        **environment("torch", "transformers"),
    }


class _AnswerScorer:
    """The base, reading answers after their prompts; each answer only once."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._known: dict[tuple[tuple[int, ...], tuple[int, ...]], tuple[float, float]] = {}

    def scores(self, prompts: Rows, answers: Rows) -> NDArray[np.float64]:
        """[P, 2] of each answer its negative log-likelihood in nats, and how many of its tokens the base would choose.

        The base would choose a token if it is the likeliest after all that stands before it.
        """
        pairs = [(tuple(prompt), tuple(answer)) for prompt, answer in zip(prompts, answers, strict=True)]
        new = sorted({pair for pair in pairs if pair not in self._known}, key=lambda pair: sum(map(len, pair)))
        for a in range(0, len(new), SCORED_AT_ONCE):
            some = new[a : a + SCORED_AT_ONCE]
            scored = by_base(self._base, [prompt for prompt, _ in some], [answer for _, answer in some])
            for pair, one in zip(some, scored, strict=True):
                self._known[pair] = -one.total, float(one.correct.sum())
        return np.array([self._known[pair] for pair in pairs])


@dataclass(frozen=True)
class Answers:
    """What a decoder wrote, and what the base says of it."""

    measured: Measurements
    scores: NDArray[np.float64]  # [P, 2]: nats, and tokens that the base would choose
    prompts: Rows

    @property
    def count(self) -> NDArray[np.float64]:
        """[P] tokens of each answer."""
        return np.array([len(row) for row in self.measured.rows], float)


def _row(decoder: Decoder, size: int, answers: Answers, base: Answers, base_model: Any) -> dict[str, Any]:
    """The figures of a decoder, each with its interval."""
    mine, theirs = answers.measured, base.measured
    passes, count, (nll, agreed) = mine.passes, answers.count, answers.scores.T
    read = np.array([len(prompt) for prompt in answers.prompts], float)
    slots = count  # of the answer in the cache; what is written last never enters, but counts here
    if decoder.decoding == MERGED and mine.slots is not None:
        slots = mine.slots - read + 1
    equal = np.array([_common(a, b) for a, b in zip(mine.rows, theirs.rows, strict=True)], float)
    return {
        "way": _label(decoder, size),
        "model": decoder.model,
        "decoding": decoder.decoding,
        "computes": decoder.computes,
        "rule": decoder.rule,
        "tau": decoder.tau,
        "eps": decoder.eps,
        "max_segment_length": decoder.max_segment_length,
        "by_cost": decoder.by_cost,
        "at_a_time": size,
        "prompts": len(answers.prompts),
        "tokens": int(count.sum()),
        "tokens_per_macro_step": None if passes is None else ratio((count, passes)),
        "tokens_per_second": spread(mine.rates),
        "speedup": ratio((mine.tokens.sum(0), mine.seconds.sum(0)), (theirs.tokens.sum(0), theirs.seconds.sum(0))),
        "speedup_by_round": mine.faster(theirs),
        "agreement": ratio((agreed, count)),
        "same_prefix": ratio((equal, base.count)),
        "identical": ratio((mine.identical(theirs), np.ones_like(count))),
        "nll": ratio((nll, count)),
        "nll_ratio": ratio((nll, count), (base.scores[:, 0], base.count)),
        "cache_bytes_a_token": ratio((slots * slot_bytes(base_model), count)),
        "cache_of_base": ratio((read + slots - 1, read + base.count - 1)),
        "seconds": float(mine.seconds.sum()),
        "parts": mine.parts,
    }


def _not_run(decoder: Decoder, size: int, like: dict[str, Any]) -> dict[str, Any]:
    """The row of a decoder that cannot write several answers together, with the keys of another row."""
    given = {"way": _label(decoder, size), "model": decoder.model, "decoding": decoder.decoding, "at_a_time": size}
    return {**dict.fromkeys(like), **given, "computes": "not run: it takes one prompt at a time"}


def _label(decoder: Decoder, size: int) -> str:
    rule = "" if decoder.tau is None else f", {decoder.rule} {decoder.tau:g}"
    rule += f", eps {decoder.eps:g}" if decoder.decoding == RELAXED else ""
    rule += "" if decoder.max_segment_length is None else f", M {decoder.max_segment_length}"
    rule += ", by cost" if decoder.by_cost else ""
    return f"{decoder.model}, {decoder.decoding}{rule}; {size} at a time"


def _common(a: list[int], b: list[int]) -> int:
    """Tokens before the first that differs."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
