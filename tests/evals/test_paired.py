"""The difference of two runs of a benchmark on the same documents: by hand, and by simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evals.report.paired import difference
from evals.report.sample_tables import difference_table
from evals.report.side_by_side import SampleSide, SideBySide
from evals.samples import Head, Sample, SampleFile
from model.errors import MicroStepError


def side(scores, name="gsm8k_cot", data="same", prompts=None):
    samples = tuple(
        Sample(i, prompts[i] if prompts else "?", score, {}, (), 1, 1, 0, 1.0, 0) for i, score in enumerate(scores)
    )
    return SampleSide("run", Path("run"), SampleFile(Head(name, None, len(samples), data), samples))


def of(a, b, **kwargs):
    return SideBySide((side([{"ours": x} for x in a], **kwargs), side([{"ours": x} for x in b], **kwargs)), "ours")


def test_a_difference_is_taken_document_by_document():
    a, b = [1.0, 0.0, 0.0, 1.0, 0.0, 1.0] * 5, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0] * 5
    found = difference(of(a, b))
    assert (found.documents, found.better, found.worse) == (30, 10, 5)
    assert (found.a, found.b) == (0.5, pytest.approx(4 / 6)) and found.gap.mean == pytest.approx(1 / 6)
    each = np.array(b) - np.array(a)
    half = 2.04523 * each.std(ddof=1) / np.sqrt(30)  # Student's t of 29 degrees; the skewness may only widen it
    assert found.gap.low <= 1 / 6 - half + 1e-4 and found.gap.high >= 1 / 6 + half - 1e-4
    assert found.gap.high - found.gap.low < 2.3 * half
    assert "on the same 30 documents" in found.spoken and "better on 10 and worse on 5" in found.spoken
    assert difference_table(of(a, b))["better"].tolist() == [10]


def test_runs_that_agree_everywhere_have_no_interval():
    found = difference(of([1.0, 0.0] * 10, [1.0, 0.0] * 10))
    assert found.gap.mean == 0 and not found.gap.known and "too few of them differ" in found.spoken


def test_ratios_are_of_the_sums_and_less_perplexity_is_better():
    a = side([{"perplexity": (4.0, 2.0)}, {"perplexity": (2.0, 4.0)}, {"perplexity": (3.0, 3.0)}] * 3, "wikitext")
    b = side([{"perplexity": (3.0, 2.0)}, {"perplexity": (2.0, 4.0)}, {"perplexity": (3.5, 3.0)}] * 3, "wikitext")
    found = difference(SideBySide((a, b), "perplexity"))
    assert found.gap.mean == pytest.approx(np.exp(8.5 / 9) - np.exp(1.0))
    assert (found.better, found.worse) == (3, 3)


def test_only_the_same_documents_are_paired():
    a, b = side([{"ours": 1.0}] * 4, data="x", prompts="abcd"), side([{"ours": 0.0}] * 4, data="y", prompts="abxy")
    assert difference(SideBySide((a, b), "ours")).documents == 2
    apart = SideBySide((a, side([{"ours": 0.0}] * 4, data="y", prompts="wxyz")), "ours")
    assert difference(apart) is None
    for beside in (apart, SideBySide((a,), "ours")):
        with pytest.raises(MicroStepError, match="same documents"):
            difference_table(beside)


def test_no_difference_is_rarely_claimed():
    """Two models of one quality on 40 documents, right together more often than chance: at most 7 in 100 claims."""
    draw = np.random.default_rng(0)
    hard = draw.beta(1, 1, (600, 40))
    a, b = (draw.random((600, 40)) < hard for _ in range(2))
    gaps = [difference(of(x.astype(float).tolist(), y.astype(float).tolist())).gap for x, y in zip(a, b, strict=True)]
    assert np.mean([gap.clear for gap in gaps]) <= 0.07
