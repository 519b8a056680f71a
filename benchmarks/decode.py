"""Speed and quality of a micro_step model's answers beside its base's own, on the same prompts.

All ways write in one process and in rounds, batch by batch, each once a round and batch in turning order, so that what
else the machine does falls on all alike. Speeds are new tokens per second of wall-clock time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from benchmarks.decode_timing import Run, timed
from benchmarks.decode_ways import RIVALS, Batch, Rival, Rows, Ways, batches
from benchmarks.measure import spread, version
from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.causal_lm.finite import check_finite
from model.causal_lm.forward import body, vocabulary
from model.decoding.generation_config import end_ids, ends_of
from model.errors import ModelError
from model.hub.fetch import fetch
from model.hub.loading import ModelSpec, load
from model.hub.wrap_base import Wrapped, wrap
from model.micro_step.configuration import MicroStepConfig
from model.terminal import Tell


@dataclass(frozen=True)
class Setting:
    """A loaded model, its base, and the prompts."""

    ways: Ways
    batches: list[Batch]
    facts: dict[str, Any]  # what a report says of them


def setting(
    name: str,
    prompts: Sequence[str],
    new_tokens: int,
    batch_size: int = 1,
    dtype: str = "float32",
    device: str = "cpu",
    base: str | None = None,
    draft_words: int = 0,
) -> Setting:
    """Load what is compared.

    Args:
        name: a micro_step model, or a base, around which fresh modules are put.
        prompts: texts, put under the chat template where there is one.
        new_tokens: T of each answer at most.
        batch_size: prompts that are answered together.
        dtype: of the weights.
        device: where they are.
        base: whose own answers these are compared with; None: the model's base, as it was before an adapter that was
            trained with it.
        draft_words: let lossless decoding draft only so many words, the first of the vocabulary; 0: as trained.

    Raises:
        ModelError: the two do not share a vocabulary.
    """
    loaded = load(ModelSpec(name, dtype=cast("Any", dtype), device=device))
    micro = wrap(loaded)
    model = micro.model
    if draft_words:
        model.config.draft_vocabulary = list(range(min(draft_words, vocabulary(model.base))))
    other = base or _before_adapter(name, micro)
    own = model.base if other is None else load(ModelSpec(other, dtype=cast("Any", dtype), device=device)).model
    if vocabulary(own) != vocabulary(model.base):
        raise ModelError(f"{other} has {vocabulary(own):,} words and the base of {name} {vocabulary(model.base):,}")
    facts = {
        "model": loaded.facts.name,
        "base": other or micro.facts.base or loaded.facts.name,
        "untrained": micro.facts.untrained,
        "dtype": loaded.facts.dtype,
        "device": str(model.device),
        "threads": torch.get_num_threads(),
        "prompts": len(prompts),
        "batch_size": batch_size,
        "max_new_tokens": new_tokens,
        "versions": {package: version(package) for package in ("torch", "transformers")},
    }
    made = batches(prompts, loaded.tokenizer, model.base, batch_size, new_tokens)
    ends = ends_of(model)  # the base's answers end where the model's do
    return Setting(Ways(own, model, new_tokens, tuple(end_ids(model)), ends["pad_token_id"]), made, facts)


def _before_adapter(name: str, micro: Wrapped) -> str | None:
    """The base's name, if the model's own base holds an adapter that was merged when it was loaded."""
    if micro.facts.untrained or micro.facts.base is None:
        return None
    config = MicroStepConfig.from_pretrained(fetch(name))
    return micro.facts.base if config.adapter is not None else None


def decode(
    made: Setting,
    rule: str = "confidence",
    confidence: float = 0.8,
    verify: bool | None = None,
    repeats: int = 3,
    rivals: Sequence[Rival] = RIVALS,
    tell: Tell = lambda message, fraction: None,
) -> dict[str, Any]:
    """Answers as a user would have them written: their speed over the base's, and how good they are by the base.

    Returns:
        `tokens_per_macro_step`; `speedup`, the median over rounds of our new tokens per second over the base's;
        `agreement`, the share of our tokens that the base would choose itself after what stands before them;
        `nll_ratio`, their negative log-likelihood per token under the base over that of the base's own answers; and
        a row a way.
    """
    ways = made.ways

    def ours(batch: Batch) -> Any:
        return ways.segments(batch, rule=rule, confidence=confidence, verify=verify)

    runs: dict[str, Run] = {"base": ways.plain, "micro_step": ours}
    for rival in rivals:
        if all(len(batch.input_ids) == 1 for batch in made.batches):
            runs[rival.name] = rival.on(ways)
    timings = timed(runs, made.batches, repeats, tell)
    tell("judging the answers", None)
    prompts = [prompt for batch in made.batches for prompt in batch.prompts]
    own = Judged.of(ways.base, prompts, timings["base"].rows)
    rows = []
    computes = {"base": "generate(do_sample=False)", "micro_step": f"generate_segments({rule}, {confidence:g})"}
    for name, what in (computes | {rival.name: rival.computes for rival in rivals}).items():
        row = {"way": name, "computes": what, "note": None, **dict.fromkeys(_MEASURED)}
        if name not in timings:
            row["note"] = "not run: it takes one prompt at a time"
        else:
            timing = timings[name]
            judged = Judged.of(ways.base, prompts, timing.rows)
            row |= {
                "tokens_per_second": spread(timing.rate),
                "speedup": timing.over(timings["base"]),
                "agreement": judged.agreement,
                "identical": timing.identical(timings["base"]),
                "nll": judged.nll,
                "nll_ratio": judged.nll / own.nll if own.nll else None,
            }
        rows.append(row)
    mine: dict[str, Any] = rows[1]
    return {
        "benchmark": "decode",
        **made.facts,
        "rule": rule,
        "confidence": confidence,
        "verify": timings["micro_step"].answers[0].verified,
        "repeats": repeats,
        "tokens_per_macro_step": timings["micro_step"].tokens_per_macro_step,
        "speedup": mine["speedup"]["median"],
        "agreement": mine["agreement"],
        "nll_ratio": mine["nll_ratio"],
        "parts": timings["micro_step"].parts,
        "rows": rows,
    }


_MEASURED = ("tokens_per_second", "speedup", "agreement", "identical", "nll", "nll_ratio")


@dataclass(frozen=True)
class Judged:
    """Answers, by the base."""

    nll: float  # nats per token
    agreement: float  # share of tokens that it would choose itself

    @classmethod
    def of(cls, base: Any, prompts: Rows, answers: Rows) -> Judged:
        """Of the answer to each prompt, read after it."""
        nll, agreed, count = 0.0, 0, 0
        for prompt, answer in zip(prompts, answers, strict=True):
            ids = torch.tensor([prompt + answer], device=base.device)
            with torch.inference_mode():
                states = body(base)(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[0, len(prompt) - 1 :]
                told = chunked_lm_head_loss(
                    base, states, ids[0, len(prompt) :], torch.ones(len(answer), device=base.device)
                )
            check_finite(base, told.nll.isnan())
            nll += float(told.nll.double().sum())
            agreed += int(told.correct.sum())
            count += len(answer)
        return cls(nll / max(1, count), agreed / max(1, count))
