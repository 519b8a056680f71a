"""Every rule against a slow reading of its formula, on random values and on real scores; batches, caps, errors."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import MicroStepError
from model.scoring.limited_history import limited_history
from model.scoring.token_scores import score
from model.segmentation.attention_features import attention_shares, router_turns
from model.segmentation.byte_features import byte_features
from model.segmentation.segment import (
    RULES,
    Segmentation,
    SegmentInputs,
    entropy_bound,
    find_rule,
    segment,
    segment_rows,
    word_starts,
)
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode
from tests.support.tiny import tiny_model, tiny_tokenizer

NAN = float("nan")
WIDTH = 8  # of the tables
SETTINGS = ("window", "layer")


# --- the reference: one token after the other, from the formulas of the design


def opens(rule, row, begin, t, p):
    """Whether token t, before which the segment holds tokens begin .. t - 1, starts a segment."""
    h, c = row.get("entropy"), row.get("confidence")
    if rule == "fixed":
        return t - begin >= p["k"]
    if rule == "word":
        return bool(row["word_start"][t])
    if rule == "entropy":
        return above(h[t], p["threshold"])
    if rule == "entropy_rise":
        return above(h[t] - h[t - 1], p["threshold"])
    if rule == "entropy_combined":
        return above(h[t], p["threshold"]) and above(h[t] - h[t - 1], p["rise"])
    if rule == "entropy_spike":
        before = [x for x in h[max(0, t - p["k"]) : t] if not math.isnan(x)]
        return not before or above(h[t], max(before))
    if rule == "entropy_relative":
        return not (h[t] < p["eps"] or h[t] < p["rho"] * largest(h[begin:t]))
    if rule == "entropy_groups":
        return above(h[t], p["threshold"]) or above(h[t - 1], p["threshold"])
    if rule == "entropy_budget":
        return above(sum(h[begin : t + 1]), p["budget"])
    if rule == "limited_history":
        return above(row["limited_entropy"][t], p["threshold"])
    if rule == "confidence":
        return below(c[t], p["tau"])
    if rule == "margin":
        return below(row["margin"][t], p["tau"])
    if rule == "confidence_product":
        return below(math.prod(c[begin : t + 1]), p["tau"])
    if rule == "surprisal":
        return above(row["surprisal"][t], p["threshold"])
    if rule == "attention_mass":
        return below(row["attention_mass"][t][t - begin - 1], p["tau"])
    if rule == "attention_sparsity":
        return above(row["attention_sparsity"][t], p["tau"])
    if rule == "router":
        return not below(row["router"][t], p["threshold"])
    if rule in ("byte_entropy", "byte_entropy_rise"):
        return above(row["byte_entropy" if rule == "byte_entropy" else "byte_rise"][t], p["threshold"])
    if rule == "refined":
        return below(row["micro_confidence"][t][t - begin - 1], p["tau"])
    raise AssertionError(rule)


def above(x, bar):
    return math.isnan(x) or x > bar


def below(x, bar):
    return math.isnan(x) or x < bar


def largest(values):
    return NAN if any(math.isnan(x) for x in values) else max(values)


def slow(rule, inputs, max_length, p):
    """b of one row."""
    row = {name: array.tolist() for name, array in inputs._arrays.items()}
    n, missing, prompt = len(inputs), inputs.missing, row.get("prompt", [False] * len(inputs))
    found, begin, scored = [], 0, 0
    for t in range(n):
        scored += not missing[t]
        forced = t == 0 or missing[t] or scored == 1 or prompt[t] or prompt[t - 1]
        found.append(forced or t - begin >= max_length or opens(rule, row, begin, t, p))
        begin = t if found[-1] else begin
    return found


# --- random inputs


def inputs_of(rng, n, kind="random", lead=False, prompt=False, width=WIDTH):
    """All that rules look at; `ties` draws from few values, `equal` from one, so that comparisons meet equality."""

    def values(top, *shape):
        if kind == "random":
            return (rng.gamma(0.7, 1.8, shape) if top > 1 else rng.random(shape)).astype(np.float32)
        few = [0.25] if kind == "equal" else [0.0, 0.25, 0.5, 1.0]
        return rng.choice(few, shape).astype(np.float32)

    scores = {name: values(top, n) for name, top in zip(("entropy", "confidence", "margin"), (9, 1, 1), strict=True)}
    arrays = {**scores, "surprisal": values(9, n), "limited_entropy": values(9, n), "byte_entropy": values(9, n)}
    if lead and n:
        for array in arrays.values():
            array[0] = NAN
    return SegmentInputs(
        **arrays,
        window=None,
        word_start=rng.random(n) < 0.6,
        attention_mass=values(1, n, width),
        attention_sparsity=values(1, n),
        router=values(1, n),
        micro_confidence=values(1, n, width),
        byte_rise=values(1, n) - np.float32(0.5),
        prompt=np.arange(n) < n // 3 if prompt else None,
    )


def some_parameters(rng, rule):
    """Defaults, or values that meet those of `inputs_of` exactly."""
    drawn = {}
    for parameter in RULES[rule].parameters:
        if parameter.name in SETTINGS or rng.random() < 0.3:
            continue
        values = [1, 2, 3, 5, 40] if parameter.integer else [0.0, 0.25, 0.5, 0.75, 1.0, rng.random()]
        drawn[parameter.name] = type(parameter.default)(rng.choice(values))
    return drawn


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(0, 300),
    kind=st.sampled_from(["random", "ties", "equal"]),
    lead=st.booleans(),
    prompt=st.booleans(),
    max_length=st.sampled_from([1, 2, 4, 7, 9, 33, 64, 1000]),
)
def test_every_rule_equals_its_formula(rule, seed, n, kind, lead, prompt, max_length):
    rng = np.random.default_rng(seed)
    tables = rule in ("attention_mass", "refined")
    max_length = min(max_length, WIDTH + 1) if tables else max_length
    inputs = inputs_of(rng, n, kind, lead, prompt)
    found = segment(rule, inputs, max_length, **some_parameters(rng, rule))
    assert found.starts.tolist() == slow(rule, inputs, max_length, found.parameters)
    assert found.value.dtype == np.float32 and found.lengths.max(initial=0) <= max_length
    assert found.lengths.sum() == n and (n == 0 or found.segment[-1] == len(found.lengths) - 1)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("max_length", [1, 4, 9])
def test_rows_together_equal_rows_alone(rule, max_length):
    rng = np.random.default_rng(3)
    rows = [inputs_of(rng, n, "ties", lead=True, prompt=True) for n in (0, 1, 50, 2, 0, 300, 1)]
    together = segment_rows(rule, rows, max_length)
    for row, found in zip(rows, together, strict=True):
        alone = segment(rule, row, max_length)
        np.testing.assert_array_equal(found.starts, alone.starts)
        np.testing.assert_array_equal(found.value, alone.value)
    assert segment_rows(rule, [], max_length) == []


@pytest.mark.parametrize("rule", ["entropy_budget", "confidence_product", "entropy_relative", "fixed"])
@pytest.mark.parametrize("n", [31, 32, 33, 63, 64, 65, 66, 129, 700])
def test_segments_longer_than_those_grown_together(rule, n):
    """They go one by one: none may be cut where the two ways meet."""
    inputs = SegmentInputs(
        entropy=np.full(n, 2**-8, np.float32) * (np.arange(n) % 97 != 90), confidence=np.full(n, 0.999, np.float32)
    )
    wide = {"entropy_budget": {"budget": 0.5}, "confidence_product": {"tau": 0.9}, "fixed": {"k": 64}}
    p = wide.get(rule, {"eps": 0.0, "rho": 2.0})
    for max_length in (32, 33, 64, 200, 10_000):
        found = segment(rule, inputs, max_length, **p)
        assert found.starts.tolist() == slow(rule, inputs, max_length, found.parameters)


def test_a_nan_in_the_middle_starts_a_segment_and_so_does_what_cannot_be_compared():
    h = np.array([1, 0, NAN, 0, 0], np.float32)
    assert segment("entropy", SegmentInputs(h), threshold=2).starts.tolist() == [True, False, True, False, False]
    assert segment("entropy_rise", SegmentInputs(h), threshold=2).starts.tolist() == [True, False, True, True, False]


def test_values_are_what_was_compared():
    h = np.array([1, 2, 0.5, 4, 1], np.float32)
    inputs = SegmentInputs(entropy=h, confidence=h / 4)
    budget = segment("entropy_budget", inputs, budget=3.5)
    assert budget.starts.tolist() == [True, False, False, True, True]
    assert np.isnan(budget.value[0]) and budget.value[1:].tolist() == [3, 3.5, 7.5, 5]
    assert segment("entropy_rise", inputs).value[1:].tolist() == [1, -1.5, 3.5, -3]
    relative = segment("entropy_relative", inputs, rho=0.3)
    np.testing.assert_allclose(relative.value[1:], [2, 0.25, 2, 0.25])
    assert segment("entropy_spike", inputs, k=2).value[1:].tolist() == [1, -1.5, 2, -3]
    assert segment("fixed", inputs, k=2).value[1:].tolist() == [2, 3, 2, 3]


def test_float32_scores_meet_their_thresholds_in_float64():
    """0.1 in float32 is above 0.1: comparing in float32 would call them equal."""
    assert segment("entropy", SegmentInputs(np.full(2, 0.1, np.float32)), threshold=0.1).starts.tolist() == [True, True]


# --- real scores


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "qwen2"])
@pytest.mark.parametrize("prefix", [(), (1,), (1, 7)])
def test_every_rule_on_real_scores(family, prefix):
    model, ids = tiny_model(family), np.random.default_rng(1).integers(5, 400, 60)
    (scores,) = score(model, [ids], prefix=prefix)
    shares = attention_shares(model, ids, prefix, layers=[0, 2], width=4)
    inputs = SegmentInputs(
        entropy=scores.entropy,
        confidence=scores.confidence,
        margin=scores.margin,
        surprisal=scores.surprisal,
        limited_entropy=limited_history(model, ids, 6, prefix=prefix).scores.entropy,
        window=6,
        word_start=ids % 3 == 0,
        attention_mass=shares.mass,
        attention_sparsity=shares.sparsity,
        router=router_turns(model, ids, 2, prefix),
        layer=2,
        micro_confidence=np.random.default_rng(2).random((60, 4)),
        **byte_features([bytes([i % 256]) * (i % 3) for i in ids.tolist()]),
    )
    for rule in RULES:
        middle = {
            parameter.name: float(np.nanmedian(segment(rule, inputs).value))
            for parameter in RULES[rule].parameters
            if parameter.name in ("threshold", "tau", "budget", "rho") and rule != "limited_history"
        }
        p = {"window": 6, "threshold": 1.0} if rule == "limited_history" else middle
        for max_length in (1, 4, 5):
            found = segment(rule, inputs, max_length, **p)
            assert found.starts.tolist() == slow(rule, inputs, max_length, found.parameters), rule
            assert found.starts[0] and (found.starts[1] or bool(prefix))


def test_a_confidence_bounds_the_entropy():
    bound = entropy_bound(np.array([1, 0.25, 0.7, NAN]), 4)
    np.testing.assert_allclose(bound, [0, math.log(4), -0.7 * math.log(0.7) - 0.3 * math.log(0.1), NAN])
    model, ids = tiny_model("llama"), np.random.default_rng(1).integers(5, 400, 60)
    (scores,) = score(model, [ids], prefix=(1,))
    assert (scores.entropy <= entropy_bound(scores.confidence, 400) + 1e-4).all()


# --- words, prompts


def test_words():
    text = "the  cat,\n\nsat\tdown🦆 \u3000on"
    pieces = ["the", " ", " cat", ",", "\n", "\n", "sat", "\t", "do", "wn", "🦆", "🦆", " ", "\u3000", "on"]
    start, at = [], 0
    for i, piece in enumerate(pieces):
        start.append(at)
        at += 0 if i == 10 else len(piece)  # the duck is split over two tokens
    continuation = np.arange(len(pieces)) == 11
    found = word_starts(text, np.array(start, np.int32), continuation)
    expected = [True, True, True, False, True, True, True, True, True, False, False, False, True, True, True]
    assert found.tolist() == expected


def test_a_split_character_after_a_space_stays_in_its_word():
    assert word_starts(" 🦆", np.array([0, 1, 1], np.int32), np.array([False, True, True])).tolist() == [
        True,
        False,
        False,
    ]


def test_every_token_outside_the_answer_is_a_segment():
    tokenizer, model = tiny_tokenizer(chat=True), tiny_model("llama")
    chat = Document((Message("user", "the quick brown fox"), Message("assistant", "jumps over the lazy dog, and on")))
    encoded = encode(TextInput(chat, chat=True), tokenizer)
    (scores,) = score(model, [encoded.ids], prefix=encoded.prefix)
    inputs = SegmentInputs.of(scores, encoded, prompt_apart=True)
    found = segment("confidence", inputs, tau=0.0)
    answer = encoded.role == "assistant"
    first = int(answer.argmax())
    assert found.starts[~answer].all() and found.starts[first] and not found.starts[first + 1 : first + 4].any()
    assert SegmentInputs.of(scores, encoded).prompt is None


# --- the registry and its errors


def test_the_registry_describes_every_rule():
    described = "fixed word entropy entropy_rise entropy_combined entropy_spike entropy_relative entropy_groups"
    described += " entropy_budget limited_history confidence margin confidence_product surprisal attention_mass"
    described += " attention_sparsity router byte_entropy byte_entropy_rise refined"
    assert described.split() == list(RULES)
    for rule in RULES.values():
        assert rule.title and rule.meaning and rule.source and rule.value and rule.unit and "\n" not in rule.meaning
        for parameter in rule.parameters:
            assert parameter.low <= parameter.default <= parameter.high and parameter.meaning and parameter.unit
        if rule.solves is not None:
            assert rule.parameter(rule.solves)
    assert not RULES["surprisal"].causal and RULES["entropy"].causal and RULES["refined"].needs == {"micro_step"}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda i: segment("entrpy", i), "did you mean 'entropy'"),
        (lambda i: find_rule("zzz"), "choose from fixed, word"),
        (lambda i: segment("entropy", i, treshold=1), "did you mean 'threshold'"),
        (lambda i: segment("word", i, k=1), "it takes none"),
        (lambda i: segment("confidence", i, tau=1.5), "from 0 to 1, got 1.5"),
        (lambda i: segment("confidence", i, tau=NAN), "from 0 to 1, got nan"),
        (lambda i: segment("fixed", i, k=2.5), "whole number, got 2.5"),
        (lambda i: segment("entropy", i, 0), "from 1 to .*, got 0"),
        (lambda i: segment("margin", i), "margin of every token"),
        (lambda i: segment("word", i), "the text of the tokens"),
        (lambda i: segment("refined", i), "trained micro_step model"),
        (lambda i: segment("limited_history", i, window=9), "window 9 .*window 6"),
        (lambda i: segment("router", i, layer=9), "layer 9 .*layer 2"),
        (lambda i: segment("attention_mass", i, 5), "at most 3 tokens, not 5"),
    ],
)
def test_mistakes_are_told(call, said):
    five = np.ones(5, np.float32)
    inputs = SegmentInputs(
        entropy=five,
        confidence=five,
        limited_entropy=five,
        window=6,
        router=five,
        layer=2,
        attention_mass=np.ones((5, 2), np.float32),
    )
    with pytest.raises(MicroStepError, match=said):
        call(inputs)


def test_shapes_are_checked():
    one, two = np.ones(1, np.float32), np.ones(2, np.float32)
    for wrong in (
        lambda: SegmentInputs(),
        lambda: SegmentInputs(one, two),
        lambda: SegmentInputs(attention_mass=two),
        lambda: SegmentInputs(two, row_start=np.zeros(2, bool)),
        lambda: SegmentInputs.join([]),
        lambda: SegmentInputs.join([SegmentInputs(one), SegmentInputs(one, one)]),
        lambda: Segmentation(np.ones(2, bool), one, "entropy", {}, 4),
        lambda: Segmentation(np.zeros(2, bool), two, "entropy", {}, 4),
    ):
        with pytest.raises(ValueError):
            wrong()


def test_the_rules_need_no_torch():
    code = "import sys, model.segmentation; assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
