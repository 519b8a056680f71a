"""Agreement against worked examples, lengths, stability; the solver against every threshold there is."""

import time

import numpy as np
import pytest

from analysis.segmentation.metrics import agreement, stability, statistics
from analysis.segmentation.single import finding
from model.errors import MicroStepError
from model.segmentation.segment import RULES, SegmentInputs, segment
from model.segmentation.solver import solve
from tests.segmentation.test_segment import inputs_of


def starts(word):
    """`|ab|c` style: a bar before each token that starts a segment."""
    return np.array([word[i - 1] == "|" for i in range(len(word)) if word[i] != "|"])


# --- agreement


def test_precision_recall_f1_by_hand():
    # boundaries before c, e, h and before c, g, h: two of three are shared, in both directions
    found = agreement(starts("|ab|cd|efg|h"), starts("|ab|cdef|g|h"))
    assert (found.precision, found.recall, found.f1) == (2 / 3, 2 / 3, 2 / 3)
    found = agreement(starts("|ab|cd|ef"), starts("|ab|cdef"))
    assert (found.precision, found.recall, found.f1) == (1, 1 / 2, 2 / 3)


def test_window_diff_and_pk_by_hand():
    # 12 tokens, reference segments of 4: k = 2, ten windows (i, i + 2).
    reference, hypothesis = starts("|abcd|efgh|ijkl"), starts("|abcde|fgh|i|jkl")
    found = agreement(reference, hypothesis)
    # boundaries in (i, i + 2]   i:  0 1 2 3 4 5 6 7 8 9
    #   reference, before 4 and 8:   0 0 1 1 0 0 1 1 0 0
    #   hypothesis, 5, 8 and 9:      0 0 0 1 1 0 1 2 1 0
    assert found.k == 2
    assert found.window_diff == 4 / 10  # i = 2, 4, 7, 8
    assert found.pk == 3 / 10  # i = 2, 4, 8


def test_a_near_miss_costs_less_than_a_far_one():
    reference = starts("|abcdef|ghijkl")
    near, far = starts("|abcdefg|hijkl"), starts("|a|bcdefghijkl")
    assert agreement(reference, near).window_diff < agreement(reference, far).window_diff
    assert agreement(reference, near).f1 == agreement(reference, far).f1 == 0


def test_agreement_at_the_ends():
    same = agreement(starts("|ab|c"), starts("|ab|c"))
    assert (same.f1, same.window_diff, same.pk) == (1, 0, 0)
    none = agreement(starts("|abc"), starts("|abc"))
    assert none.f1 == 1 and np.isnan([none.precision, none.recall]).all()
    assert agreement(starts("|abc"), starts("|a|bc")).recall != 0  # there was nothing to recall: not 0 but missing
    assert np.isnan(agreement(starts("|a"), starts("|a")).window_diff)
    assert agreement(np.zeros(0, bool), np.zeros(0, bool)).f1 == 1
    with pytest.raises(ValueError, match=r"\(2,\) and \(3,\)"):
        agreement(starts("|ab"), starts("|abc"))


def test_what_every_rule_starts_is_neither_agreement_nor_disagreement():
    """Two texts: their first tokens, which all rules start, used to be counted as agreed on, and windows to cross."""
    reference, hypothesis = starts("|ab|cd|ef|gh"), starts("|a|bcd|ef|gh")
    offsets = np.array([0, 4, 8])
    found = agreement(reference, hypothesis, offsets)
    assert (found.precision, found.recall, found.f1) == (1 / 2, 1 / 2, 1 / 2)  # end to end it would be 2 / 3
    # segments of 2: windows of reach 1, three in each text; c and b differ
    assert (found.k, found.window_diff, found.pk) == (1, 2 / 6, 2 / 6)
    forced = np.zeros(8, dtype=bool)
    forced[6] = True  # the first with a score of the second text: g, which both start
    found = agreement(reference, hypothesis, offsets, forced)
    assert (found.precision, found.recall, found.f1) == (0, 0, 0)
    assert agreement(reference, hypothesis, offsets, np.ones(8, dtype=bool)).f1 == 1, "there was nothing to agree on"


# --- statistics


def test_statistics_by_hand():
    inputs = SegmentInputs(entropy=np.array([9, 0, 9, 9, 0, 0, 0], np.float32), word_start=starts("|ab|cd|efg"))
    found = statistics(segment("entropy", inputs, max_length=3, threshold=1.0), inputs)
    # |ab|c|def|g: the cap cuts before g
    assert (found.tokens, found.segments, found.mean_length, found.singletons) == (7, 4, 7 / 4, 2 / 4)
    assert found.histogram.tolist() == [0, 2, 1, 1]
    assert (found.words.precision, found.words.recall) == (1 / 3, 1 / 2)


def test_the_prompt_is_left_out_of_the_lengths():
    inputs = SegmentInputs(entropy=np.zeros(7, np.float32), prompt=np.arange(7) < 3)
    found = statistics(segment("entropy", inputs), inputs)
    assert (found.tokens, found.segments, found.mean_length, found.singletons) == (4, 1, 4, 0)
    solved = solve("fixed", inputs, 2)
    assert (solved.value, solved.mean_length) == (2, 2)


# --- stability


def test_stability_by_hand():
    h = np.array([5, 1.0, 0.995, 1.2, 0.2], np.float32)
    found = stability("entropy", SegmentInputs(h), SegmentInputs(h + 0.01), threshold=1.0, change=0.01)
    assert found.by_scores.tolist() == [False, True, True, False, False]
    assert found.by_parameter.tolist() == [False, True, True, False, False]  # both are above 0.99
    np.testing.assert_allclose(found.distance, [4, 0, 0.005, 0.2, 0.8], atol=1e-6)
    assert found.near.tolist() == [False, True, True, False, False]


def test_a_parameter_of_nothing_changes_by_a_number():
    """A share of 0 is 0: no boundary ever flipped there (605 of 2,000 do at .005 nats)."""
    h = np.cumsum(np.random.default_rng(0).normal(0, 0.006, 2000)).astype(np.float32)
    rise = np.diff(h, prepend=h[0])
    found = stability("entropy_rise", SegmentInputs(h), max_length=10**6, threshold=0.0, change=0.005)
    flipped = (np.abs(rise[1:]) < 0.005) & (np.abs(rise[1:]) > 0)
    np.testing.assert_array_equal(found.by_parameter[1:], flipped)
    np.testing.assert_array_equal(found.near[1:], flipped | (rise[1:] == 0))
    assert 500 < flipped.sum() < 1500


def test_stability_of_rules_without_a_threshold():
    inputs = inputs_of(np.random.default_rng(0), 50)
    for rule in ("word", "fixed", "entropy_spike"):
        found = stability(rule, inputs, inputs)
        assert not found.by_scores.any() and found.by_parameter.any() == (rule != "word")
    assert not stability("entropy", inputs).by_scores.any()
    with pytest.raises(ValueError, match="50, 10"):
        stability("entropy", inputs, inputs_of(np.random.default_rng(0), 10))


# --- the solver


def candidates(rule, inputs, max_length):
    """Every value that the rule could compare, those just beside it, and the ends of the range."""
    h, c = inputs.entropy.astype(np.float64), inputs.confidence.astype(np.float64)
    if rule == "entropy_budget":
        values = [h[s : s + j].sum() for j in range(1, max_length + 1) for s in range(len(h))]
    elif rule == "confidence_product":
        values = [np.prod(c[s : s + j]) for j in range(1, max_length + 1) for s in range(len(c))]
    else:
        values = segment(rule, inputs, max_length).value.astype(np.float64)
    parameter = RULES[rule].parameter(RULES[rule].solves)
    if parameter.integer:
        return np.arange(parameter.low, parameter.high + 1).astype(int)
    ends = [parameter.low, parameter.high]
    values = np.concatenate([values, np.nextafter(values, -99), np.nextafter(values, 999), ends])
    return np.unique(values[(values >= parameter.low) & (values <= parameter.high)])


@pytest.mark.parametrize("kind", ["random", "ties", "equal"])
@pytest.mark.parametrize("rule", [name for name, rule in RULES.items() if rule.solves and rule.monotone])
def test_no_threshold_comes_nearer(rule, kind):
    for n, max_length in ((60, 4), (7, 3), (60, 9)):
        inputs = inputs_of(np.random.default_rng(n), n, kind, lead=True)
        tried = {
            float(value): n / segment(rule, inputs, max_length, **{RULES[rule].solves: value}).starts.sum()
            for value in candidates(rule, inputs, max_length)
        }
        lengths = np.array([tried[value] for value in sorted(tried)])
        turns = np.diff(lengths) if RULES[rule].opens == "above" else -np.diff(lengths)
        assert (turns >= 0).all(), "the mean length turns back"
        for target in (1, 1.5, 2, 2.7, max_length):
            solved = solve(rule, inputs, target, max_length, points=9)
            assert solved.exact and solved.rule == rule
            assert n / segment(rule, inputs, max_length, **solved.parameters).starts.sum() == solved.mean_length
            assert abs(solved.mean_length - target) == np.abs(lengths - target).min()


@pytest.mark.parametrize("rule", ["entropy_relative", "attention_mass", "refined"])
def test_rules_that_turn_back_say_so_and_tell_what_they_reach(rule):
    inputs = inputs_of(np.random.default_rng(0), 300, lead=True)
    for target in (1.5, 2, 3):
        solved = solve(rule, inputs, target)
        assert not solved.exact and abs(solved.mean_length - target) < 0.1
        assert 300 / segment(rule, inputs, **solved.parameters).starts.sum() == solved.mean_length


@pytest.mark.parametrize(
    ("rule", "target", "entropies", "obstacle", "said"),
    [
        ("entropy", 2, [1, 2, 3, 4], "none", "2 segments of 2.0000 tokens"),
        ("entropy", 1.6, [1, 2, 3, 4], "whole segments", "2.5 segments"),
        ("fixed", 1.5, [1] * 9, "whole parameter", "whole number"),
        ("entropy", 3, [9, 1, 1, 1, 2, 2, 2, 2], "ties", "the same value"),
        ("entropy", 4, [1] * 6, "range", "the longest is 3 tokens (2 segments). 6 tokens make at least 2"),
        ("entropy", 4, [np.nan, 1, 1, 1, 1, 1], "range", "of which 2 start one under every strategy"),
        ("entropy_spike", 1, [1] * 6, "range", "No value of k gives less"),
    ],
)
def test_the_solver_says_what_cannot_be_reached_and_why(rule, target, entropies, obstacle, said):
    solved = solve(rule, SegmentInputs(np.array(entropies, np.float32)), target)
    assert solved.obstacle == obstacle and said in finding(solved)
    assert ("cannot be reached" in finding(solved)) == (obstacle != "none")


def test_the_curve_is_what_segmenting_gives():
    inputs = inputs_of(np.random.default_rng(0), 200)
    solved = solve("entropy_combined", inputs, 2, rise=-1.0)
    assert solved.parameters["rise"] == -1.0 and (np.diff(solved.curve_parameter) > 0).all()
    for value, length in zip(solved.curve_parameter, solved.curve_length, strict=True):
        assert 200 / segment("entropy_combined", inputs, threshold=value, rise=-1.0).starts.sum() == length


def test_rows_are_solved_together():
    rows = [inputs_of(np.random.default_rng(seed), n) for seed, n in enumerate((80, 1, 120))]
    solved = solve("entropy", SegmentInputs.join(rows), 2.0)
    cuts = [segment("entropy", row, **solved.parameters).starts for row in rows]
    assert 201 / sum(cut.sum() for cut in cuts) == solved.mean_length


def test_the_solver_refuses_what_cannot_be():
    inputs = inputs_of(np.random.default_rng(0), 20)
    for call, said in (
        (lambda: solve("word", inputs, 2), "no parameter"),
        (lambda: solve("entropy", inputs, 5), "from 1 to .* 4, got 5"),
        (lambda: solve("entropy", inputs, 0.5), "got 0.5"),
        (lambda: solve("entropy", inputs, 2, threshold=1.0), "do not set it"),
        (lambda: solve("entropy", inputs_of(np.random.default_rng(0), 0), 2), "no token"),
        (lambda: solve("entrpy", inputs, 2), "did you mean"),
    ):
        with pytest.raises(MicroStepError, match=said):
            call()


def test_a_hundred_thousand_scores_are_solved_in_seconds():
    """The exact figure is benchmarks/segment.py's: this only notices what has become many times slower."""
    inputs = inputs_of(np.random.default_rng(0), 100_000)
    begin = time.process_time()
    solve("entropy", inputs, 2.5)
    solve("entropy_budget", inputs, 2.5)
    assert time.process_time() - begin < 20
