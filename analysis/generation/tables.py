"""The tables of a generation: a row for each token, each segment, or each run of a sweep.

Columns that start with `seconds` or `tokens_per_second`, and `speed_ratio`, belong to one run on one machine. They
stand last. All other columns are the same in every run.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.generation.result import BASE, Answer, Generation
from analysis.generation.sweep import Sweep
from analysis.score_registry import PER_NAT, Unit
from model.decoding.stopping import REASONS

TIMED = ("seconds", "tokens_per_second", "speed_ratio")  # columns with these prefixes differ between runs


def is_timed(column: str) -> bool:
    """Whether a column differs between runs of one request."""
    return column.startswith(TIMED)


def why_ended(generation: Generation, segment: int) -> str:
    """Why a segment ended, in words, without the refused token."""
    why = generation.segments.why[segment]
    return "the run was stopped here" if why is None else REASONS[why]


def answer_table(generation: Generation, unit: Unit = "nats") -> pd.DataFrame:
    """A row for each token of both answers; `answer` names the model.

    `segment` and `macro_step` count from 1, `micro_position` from 0; `why_ended` and `refused` belong to the segment.
    Each of the base's own tokens is a macro step. `nll` is under the base, in `unit`.
    """
    segments = generation.segments
    of = segments.of_token
    micro = _tokens(generation.micro, "micro_step", unit).assign(
        segment=of + 1,
        micro_position=segments.micro_position,
        written_by=generation.written_by,
        why_ended=[why_ended(generation, i) for i in of.tolist()],
        refused_id=pd.array([_id(generation, i) for i in of.tolist()], dtype="Int64"),
        refused=[_refused(generation, i) for i in of.tolist()],
        refused_probability=segments.refused_probability[of].astype(np.float64),
        seconds=generation.micro.seconds,
    )
    if generation.base is None:
        return micro
    base, count = generation.base, len(generation.base)
    alone = _tokens(base, "base", unit).assign(
        segment=np.arange(count) + 1,
        micro_position=0,
        written_by=BASE,
        why_ended="",
        refused_id=pd.array([pd.NA] * count, dtype="Int64"),
        refused="",
        refused_probability=np.nan,
        seconds=base.seconds,
    )
    return pd.concat([micro, alone], ignore_index=True)


def segment_table(generation: Generation) -> pd.DataFrame:
    """A row for each segment: text, number of tokens, why it ended, and the refused token."""
    segments, answer = generation.segments, generation.micro
    lengths = segments.lengths
    last = segments.starts + lengths - 1
    start, end = answer.start[segments.starts], answer.end[last]
    return pd.DataFrame(
        {
            "segment": np.arange(len(segments)) + 1,
            "text": [answer.text[a:b] for a, b in zip(start.tolist(), end.tolist(), strict=True)],
            "tokens": lengths,
            "start": start,
            "end": end,
            "least_probability": [
                float(answer.probability[a : b + 1].min())
                for a, b in zip(segments.starts.tolist(), last.tolist(), strict=True)
            ],
            "why": [why or "stopped" for why in segments.why],
            "why_ended": [why_ended(generation, i) for i in range(len(segments))],
            "refused_id": pd.array([_id(generation, i) for i in range(len(segments))], dtype="Int64"),
            "refused": [_refused(generation, i) for i in range(len(segments))],
            "refused_probability": segments.refused_probability.astype(np.float64),
            "seconds": answer.seconds[last],
        }
    )


def timeline_table(generation: Generation) -> pd.DataFrame:
    """A row for each token of both answers: the tokens and base passes so far, and the time."""
    table = answer_table(generation)[["answer", "position", "token", "segment", "micro_position", "written_by"]]
    table = table.rename(columns={"segment": "base_passes"})
    table.loc[table["answer"] == "micro_step", "base_passes"] = generation.passes_by_then
    table.insert(2, "tokens", table["position"] + 1)
    seconds = [generation.micro.seconds, *([generation.base.seconds] if generation.base else [])]
    return table.assign(seconds=np.concatenate(seconds))


def sweep_table(sweep: Sweep, unit: Unit = "nats") -> pd.DataFrame:
    """A row for each eps and tau: tokens per macro step, cache, agreement with the base, NLL under the base, speed.

    `agreement` and `first_difference` compare two greedy answers, and are missing if both are sampled. `likeliest` is
    the share of tokens that the base finds likeliest at their place.
    """
    rows = []
    for each in sweep.generations:
        assert each.base is not None
        agreed = each.agreement
        rows.append(
            {
                "tau": each.how.tau,
                "eps": each.how.eps,
                "tokens": len(each.micro),
                "macro_steps": each.macro_steps,
                "micro_steps": each.micro_steps,
                "tokens_per_macro_step": each.tokens_per_macro_step,
                "cache_saved": each.cache_saved,
                "agreement": agreed.share,
                "first_difference": pd.NA if agreed.first is None else agreed.first,
                "likeliest": each.micro.likeliest,
                "likeliest_base": each.base.likeliest,
                "nll": each.micro.mean_nll * PER_NAT[unit],
                "nll_base": each.base.mean_nll * PER_NAT[unit],
                "nll_ratio": each.nll_ratio,
                "unit": unit,
                "tokens_per_second": each.micro.tokens_per_second,
                "tokens_per_second_base": each.base.tokens_per_second,
                "speed_ratio": each.speed_ratio,
            }
        )
    return pd.DataFrame(rows).astype({"first_difference": "Int64"})


def sweep_token_table(sweep: Sweep) -> pd.DataFrame:
    """A row for each token of the answer for each eps and tau."""
    parts = []
    for each in sweep.generations:
        table = answer_table(each)
        parts.append(
            table[table["answer"] == "micro_step"].drop(columns="answer").assign(tau=each.how.tau, eps=each.how.eps)
        )
    joined = pd.concat(parts, ignore_index=True)
    return joined[["tau", "eps", *(name for name in joined if name not in ("tau", "eps"))]]


def _tokens(answer: Answer, whose: str, unit: Unit) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "answer": whose,
            "position": np.arange(len(answer)),
            "token_id": answer.ids,
            "token": pd.Series(answer.display, dtype="str"),
            "start": answer.start,
            "end": answer.end,
            "probability": answer.probability.astype(np.float64),
            "nll": answer.nll.astype(np.float64) * PER_NAT[unit],
            "unit": unit,
        }
    )


def _id(generation: Generation, segment: int) -> object:
    found = int(generation.segments.refused_ids[segment])
    return pd.NA if found < 0 else found


def _refused(generation: Generation, segment: int) -> str:
    return generation.strings.get(int(generation.segments.refused_ids[segment]), "")
