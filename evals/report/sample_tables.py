"""Samples as tables, for a reader and for a file: documents, tokens, scores and costs, and what could not be read."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from analysis.score_registry import significant
from evals.aggregate import EXPONENTIATED
from evals.report.paired import difference
from evals.report.side_by_side import (
    KEYS,
    SampleSide,
    Show,
    SideBySide,
    failed,
    invalid,
    per_step,
    read,
    scores,
    segments,
    target,
    value,
)
from evals.samples import Sample, WrittenAnswer
from model.errors import MicroStepError


def document_table(beside: SideBySide, show: Show = "all") -> pd.DataFrame:
    """A row for each document that is shown: scores, what was read, why nothing was, and tokens."""
    columns: dict[str, Callable[[Sample], object]] = {
        "score": lambda sample: value(sample, beside.score),
        "tokens_per_macro_step": per_step,
        "read": lambda sample: _joined(read(sample, beside.score)),
        "invalid": lambda sample: _joined([why for _, why in invalid(sample, beside.score)]),
        "tokens": lambda sample: sample.tokens,
    }
    rows = []
    for number in beside.documents(show):
        found = beside.of(number)
        row: dict[str, object] = {"document": number, "target": target(found)}
        for name, make in columns.items():
            for key, sample in zip(KEYS, found, strict=False):
                row[f"{name}_{key}"] = None if sample is None else make(sample)
        rows.append(row)
    names = ["document", "target", *(f"{name}_{key}" for name in columns for key, _ in _keyed(beside))]
    return pd.DataFrame(rows, columns=names)


def difference_table(beside: SideBySide) -> pd.DataFrame:
    """One row: B minus A over the documents that both runs have, with its 95% interval.

    Raises:
        MicroStepError: there is one run, or no document that both were asked.
    """
    found = difference(beside)
    if found is None:
        raise MicroStepError("a difference needs two runs that were asked the same documents; give A and B")
    row = {"score": found.score, "documents": found.documents, "a": found.a, "b": found.b}
    row |= {"difference": found.gap.mean, "low": found.gap.low, "high": found.gap.high}
    return pd.DataFrame([{**row, "better": found.better, "worse": found.worse}])


def _keyed(beside: SideBySide) -> list[tuple[str, SampleSide]]:
    return list(zip(KEYS, beside.sides, strict=False))


def _joined(said: Sequence[str | None]) -> str:
    return "; ".join(dict.fromkeys(each for each in said if each is not None))


def fact_table(beside: SideBySide, document: int) -> pd.DataFrame:
    """What is known of a document's samples, in words: a row a fact, a column a run."""
    told = [{} if sample is None else _facts(sample, scores(beside.sides)) for sample in beside.of(document)]
    names = dict.fromkeys(name for each in told for name in each)
    return pd.DataFrame(
        [{"fact": name, **{key: each.get(name, "") for key, each in zip(KEYS, told, strict=False)}} for name in names],
        columns=["fact", *(key for key, _ in _keyed(beside))],
    )


def _facts(sample: Sample, known: Sequence[str]) -> dict[str, str]:
    out = {"right answer": str(sample.detail["target"])} if "target" in sample.detail else {}
    for name in known:
        given = sample.scores.get(name)
        if given is None:
            continue
        out[name] = significant(value(sample, name))
        if isinstance(given, tuple) and name not in EXPONENTIATED:
            out[name] += f" ({given[0]:g} of {given[1]:g})"
        if reads := read(sample, name):
            out[f"{name}: read"] = _joined(reads) or "nothing"
        if whys := invalid(sample, name):
            out[f"{name}: invalid"] = _joined([why for _, why in whys])
    if whys := failed(sample):
        out["failed"] = _joined([why for _, why in whys])
    likely = sample.detail.get("log_likelihood")
    for letter, each in zip("ABCDEFGHIJ", likely if isinstance(likely, list) else (), strict=False):
        out[f"log-likelihood of {letter}, nats"] = significant(float(each)) if isinstance(each, int | float) else ""
    out |= {
        "tokens": f"{sample.tokens:,}",
        "macro steps": f"{sample.macro_steps:,}",
        "tokens per macro step": significant(per_step(sample)),
        "micro steps": f"{sample.micro_steps:,}",
        "seconds": significant(sample.seconds),
    }
    if sample.answers:
        out["ended"] = ", ".join("by itself" if each.ended else "cut off" for each in sample.answers)
    if sample.cut:
        out["prompt tokens left out"] = f"{sample.cut:,}"
    return out


def token_table(beside: SideBySide, document: int, answer: int = 1) -> pd.DataFrame:
    """A row a token of an answer (from 1) of each run: segment, text, probability."""
    parts = [
        _tokens(sample.answers[answer - 1]).assign(run=key)
        for key, sample in zip(KEYS, beside.of(document), strict=False)
        if sample is not None and len(sample.answers) >= answer
    ]
    table = (
        pd.concat(parts, ignore_index=True)
        if parts
        else _tokens(WrittenAnswer("", (), (), (), None, True)).assign(run="")
    )
    return table[["run", "token", "segment", "micro_position", "id", "text", "probability"]]


def _tokens(piece: WrittenAnswer) -> pd.DataFrame:
    count = len(piece.tokens)
    segment, position = segments(piece)
    return pd.DataFrame({
        "token": np.arange(count),
        "segment": segment + 1,
        "micro_position": position,
        "id": np.array(piece.ids, dtype=np.int64),
        "text": list(piece.tokens),
        "probability": np.full(count, np.nan) if piece.probability is None else np.array(piece.probability),
    })  # fmt: skip


def invalid_table(side: SampleSide, way: str) -> pd.DataFrame:
    """A row for each answer that could not be read in a way: why, what would have been right, and its text."""
    rows = [
        (
            sample.document,
            number,
            why,
            target([sample]),
            "".join(each.text for each in sample.answers[number - 1 : number]),
        )
        for sample in sorted(side.file.samples, key=lambda sample: sample.document)
        for number, why in invalid(sample, way)
    ]
    return pd.DataFrame(rows, columns=["document", "answer", "reason", "right_answer", "text"])
