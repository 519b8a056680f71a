"""A generation in sentences, the same on the page and on the command line."""

from __future__ import annotations

import math

from analysis.generation.result import Generation
from analysis.score_registry import significant
from model.text.encoding import EncodedText


def counted(number: int, thing: str) -> str:
    """A number with its noun: "1 token", "2 tokens"."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def finding(found: Generation) -> str:
    """One sentence: what the answer cost, and how far it agrees with the base's."""
    return f"{cost(found)}; {agreement(found)}."


def cost(found: Generation) -> str:
    """Tokens per macro step, cache slots and speed."""
    written = f"{counted(len(found.micro), 'token')} in {counted(found.macro_steps, 'macro step')}"
    parts = [f"{written}, {significant(found.tokens_per_macro_step)} per step"]
    if found.cache_slots and not found.verified:
        parts.append(f"{found.cached_tokens - found.cache_slots} of {found.cached_tokens} cache slots saved")
    if found.base is not None:
        parts.append(f"{significant(found.speed_ratio)} times the base's speed in these two runs")
    return "; ".join(parts)


def judged(found: Generation, why: str = "") -> str:
    """How many drafts were kept or what the text costs, and why; nothing where the base has not answered."""
    why = why and f": {why}"
    if found.lossless and found.drafted:
        return f"The base kept {found.accepted} of {counted(found.drafted, 'drafted token')}{why}."
    if not math.isnan(found.nll_ratio):
        ratio = significant(found.nll_ratio)
        return f"The base gives this text {ratio} times the nats per token of its own{why}."
    return ""


def agreement(found: Generation) -> str:
    """How far the answer agrees with the base's own."""
    agreed = found.agreement
    if found.base is not None and found.how.sampled:
        return (
            "both answers were sampled, so they are not compared token by token:"
            f" {significant(100 * found.micro.likeliest)}% of the tokens are the base's likeliest,"
            f" {significant(100 * found.base.likeliest)}% of its own"
        )
    if found.base is None or not agreed.tokens:
        return "the base has not answered"
    if agreed.equal:
        return "the answer is the base's own, token for token"
    return (
        f"from token {(agreed.first or 0) + 1} on it differs from the base's own answer"
        f" ({significant(100 * agreed.share)}% of tokens equal)"
    )


def promise(found: Generation) -> str:
    """What the base's check of drafts guarantees, and whether it held; "" for merged decoding."""
    if not found.verified:
        return ""
    if not found.lossless:
        return (
            f"Relaxed: the base kept {found.accepted} of {counted(found.drafted, 'drafted token')}, {found.relaxed} of"
            f" them only because it gives them at least {significant(found.how.eps)} of its likeliest token's"
            f" probability. The answer is not the base's. {judged(found)}".rstrip()
        )
    if found.how.sampled:
        return (
            "Lossless: sampled from the base's own distribution. The words differ, since drafting draws other"
            " random numbers."
        )
    if found.base is None or not found.finished:
        return "Lossless: the output must equal the base's; the run was stopped before that was checked."
    if found.lossless_failed:
        first = found.agreement.first or 0
        gap = found.base.topk_probability[min(first, len(found.base) - 1)]
        near = f" The base's two likeliest tokens there have p {gap[0]:.4f} and {gap[1]:.4f}." if len(gap) > 1 else ""
        return (
            f"Lossless decoding failed: from token {first + 1} on, the output is not the base's.{near}"
            " If these are nearly tied, rounding decides; otherwise this is a defect."
        )
    return f"Lossless: the output equals the base's, checked on all of its {len(found.micro)} tokens."


def kind(found: Generation) -> str:
    """How it was decoded: decoding, rule, tau and M."""
    how = found.how
    decoding = (
        "merged" if not found.verified else "lossless" if found.lossless else f"relaxed to eps {significant(how.eps)}"
    )
    return f"{decoding}, {how.rule} at tau {significant(how.tau)}, segments of up to {how.max_segment_length} tokens"


def read(prompt: EncodedText) -> str:
    """The prompt as the model reads it, and how many tokens it has."""
    before = len(prompt.prefix)
    first = f"{before} tokens that the tokenizer adds" if before > 1 else "BOS"
    return f"{counted(len(prompt), 'token')}{f', {first} before it' if before else ''}"
