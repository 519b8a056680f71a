"""The token strip of a generation, and of a sweep over tau."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.figures.figure import visible
from analysis.generation.result import BASE, Answer, Generation
from analysis.generation.sweep import Sweep
from analysis.generation.tables import why_ended
from analysis.score_registry import PER_NAT, Unit, significant
from analysis.token_strip.rows import Detail, Legend, Note, Strip, TokenRow, TopK

SMALLEST = 0.001  # probability that is still shown as a number
NOTE = "probability of each token under the model that wrote it; a notch starts a macro step"


def generation_strip(generation: Generation, unit: Unit) -> Strip:
    """The answer with its segments, and the base's answer: below it if the texts are equal, else after it."""
    micro, base = generation.micro, generation.base
    aligned = base is None or base.text == micro.text
    rows = [_segmented(generation, "micro", generation.facts.name, unit, None if aligned else micro.text)]
    if base is not None:
        rows.append(_base(generation, base, unit, None if aligned else base.text))
    return Strip(micro.text if aligned else "", tuple(rows), legend(), aligned)


def sweep_strip(sweep: Sweep, unit: Unit) -> Strip:
    """A row for each run: below each other if all texts are equal, else one after another."""
    one = sweep.one_text
    rows = [
        _segmented(
            each,
            f"τ {sweep.name_of(each)}",
            f"tau {sweep.name_of(each)}: {significant(each.tokens_per_macro_step)} tokens per macro step",
            unit,
            None if one else each.micro.text,
            labelled=not one,
        )
        for each in sweep.generations
    ]
    return Strip(sweep.generations[0].micro.text if one else "", tuple(rows), legend(), one)


def _segmented(
    generation: Generation, key: str, title: str, unit: Unit, text: str | None, labelled: bool = True
) -> TokenRow:
    """The row of a micro_step model's answer."""
    answer, segments = generation.micro, generation.segments
    of = segments.of_token
    starts = np.zeros(len(answer), dtype=bool)
    starts[segments.starts] = True
    writers = sorted(set(generation.written_by))
    return TokenRow(
        key=key,
        title=title,
        start=answer.start,
        end=answer.end,
        value=1 - answer.probability,
        scale="sequential",
        details=(
            *_details(answer, unit),
            Detail("macro step", of + 1, digits=0),
            Detail("micro position", segments.micro_position, digits=0),
        ),
        notes=(
            Note("written by", np.array([writers.index(who) for who in generation.written_by]), tuple(writers)),
            Note("segment ended", of, tuple(_ending(generation, i) for i in range(len(segments)))),
        ),
        topk=_topk(generation, answer),
        display=tuple(answer.display),
        boundary=starts,
        labels=tuple(map(str, (of + 1).tolist())) if labelled else None,
        text=text,
    )


def _base(generation: Generation, answer: Answer, unit: Unit, text: str | None) -> TokenRow:
    """The row of the base's own answer."""
    return TokenRow(
        key="base",
        title="the base alone: one macro step per token",
        start=answer.start,
        end=answer.end,
        value=1 - answer.probability,
        scale="sequential",
        details=_details(answer, unit),
        notes=(Note("written by", np.zeros(len(answer), dtype=np.int64), (BASE,)),),
        topk=_topk(generation, answer),
        display=tuple(answer.display),
        text=text,
    )


def _details(answer: Answer, unit: Unit) -> tuple[Detail, ...]:
    return (
        Detail("probability", answer.probability, digits=3),
        Detail(f"−ln p under the base, {unit}", (answer.nll * PER_NAT[unit]).astype(np.float32)),
    )


def _ending(generation: Generation, segment: int) -> str:
    """Why a segment ended, and which token was refused."""
    segments = generation.segments
    reason, refused = why_ended(generation, segment), int(segments.refused_ids[segment])
    if refused < 0:
        return reason
    p = float(segments.refused_probability[segment])
    chance = f"p {p:.3f}" if p >= SMALLEST else f"p < {SMALLEST}"
    chance += " under the base" if segments.why[segment] == "disagreed" else ""
    return f"{reason}: “{visible(generation.strings.get(refused, ''), 20)}”, {chance}"


def _topk(generation: Generation, answer: Answer) -> TopK | None:
    if not answer.topk_ids.size:
        return None
    ids = np.array(sorted(generation.strings), dtype=np.int64)
    places: NDArray[np.int32] = np.searchsorted(ids, np.maximum(answer.topk_ids, ids[0])).astype(np.int32)
    return TopK(places, answer.topk_probability, tuple(generation.strings[i] for i in ids.tolist()))


def legend() -> Legend:
    """The legend of a strip that shows probabilities."""
    return Legend("1, sure", "0, unsure", NOTE, beside="numbers count macro steps")
