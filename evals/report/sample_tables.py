"""Samples as tables, for readers and files: documents, tokens, scores and costs, and invalid answers."""

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


def document_table(comparison: SideBySide, show: Show = "all") -> pd.DataFrame:
    """Return a row for each selected document: scores, values read, reasons for invalid answers, and tokens."""
    columns: dict[str, Callable[[Sample], object]] = {
        "score": lambda sample: value(sample, comparison.score),
        "tokens_per_macro_step": per_step,
        "read": lambda sample: _joined(read(sample, comparison.score)),
        "invalid": lambda sample: _joined([why for _, why in invalid(sample, comparison.score)]),
        "tokens": lambda sample: sample.tokens,
    }
    rows = []
    for number in comparison.documents(show):
        samples = comparison.of(number)
        row: dict[str, object] = {"document": number, "target": target(samples)}
        for name, make in columns.items():
            for key, sample in zip(KEYS, samples, strict=False):
                row[f"{name}_{key}"] = None if sample is None else make(sample)
        rows.append(row)
    names = ["document", "target", *(f"{name}_{key}" for name in columns for key, _ in _keyed(comparison))]
    return pd.DataFrame(rows, columns=names)


def difference_table(comparison: SideBySide) -> pd.DataFrame:
    """Return one row: B minus A over the documents that both runs have, with its 95% interval."""
    result = difference(comparison)
    if result is None:
        raise MicroStepError("a difference needs two runs on the same documents; give A and B")
    row = {"score": result.score, "documents": result.documents, "a": result.a, "b": result.b}
    row |= {"difference": result.gap.mean, "low": result.gap.low, "high": result.gap.high}
    return pd.DataFrame([{**row, "better": result.better, "worse": result.worse}])


def _keyed(comparison: SideBySide) -> list[tuple[str, SampleSide]]:
    return list(zip(KEYS, comparison.sides, strict=False))


def _joined(texts: Sequence[str | None]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text is not None))


def fact_table(comparison: SideBySide, document: int) -> pd.DataFrame:
    """Return the facts about a document's samples in words: one row per fact, one column per run."""
    facts = [{} if sample is None else _facts(sample, scores(comparison.sides)) for sample in comparison.of(document)]
    names = dict.fromkeys(name for run_facts in facts for name in run_facts)
    return pd.DataFrame(
        [
            {"fact": name, **{key: run_facts.get(name, "") for key, run_facts in zip(KEYS, facts, strict=False)}}
            for name in names
        ],
        columns=["fact", *(key for key, _ in _keyed(comparison))],
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
        out["ended"] = ", ".join("by itself" if each.ended else "truncated" for each in sample.answers)
    if sample.cut:
        out["prompt tokens left out"] = f"{sample.cut:,}"
    return out


def token_table(comparison: SideBySide, document: int, answer: int = 1) -> pd.DataFrame:
    """Return one row per token of an answer (counted from 1) of each run: segment, text, probability."""
    parts = [
        _tokens(sample.answers[answer - 1]).assign(run=key)
        for key, sample in zip(KEYS, comparison.of(document), strict=False)
        if sample is not None and len(sample.answers) >= answer
    ]
    table = (
        pd.concat(parts, ignore_index=True)
        if parts
        else _tokens(WrittenAnswer("", (), (), (), None, True)).assign(run="")
    )
    return table[["run", "token", "segment", "micro_position", "id", "text", "probability"]]


def _tokens(answer: WrittenAnswer) -> pd.DataFrame:
    count = len(answer.tokens)
    segment, position = segments(answer)
    return pd.DataFrame({
        "token": np.arange(count),
        "segment": segment + 1,
        "micro_position": position,
        "id": np.array(answer.ids, dtype=np.int64),
        "text": list(answer.tokens),
        "probability": np.full(count, np.nan) if answer.probability is None else np.array(answer.probability),
    })  # fmt: skip


def invalid_table(side: SampleSide, way: str) -> pd.DataFrame:
    """Return one row per invalid answer: the reason, the right answer, and its text."""
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
