"""Cuts and what is said of them, against values worked out by hand; figures made again by their bundle's command."""

import shlex

import numpy as np
import pandas as pd
import pytest

from analysis.segmentation.comparison import compare_strategies, value_range, why_words
from analysis.segmentation.corpus_view import StoreSides
from analysis.segmentation.figures import FIGURES, draw
from analysis.segmentation.provenance import origin
from analysis.segmentation.request import Answered, CutRequest, FeatureQuery, ScoresQuery
from analysis.segmentation.segmented_text import (
    REASONS,
    MemoCache,
    SegmentedText,
    TokenizedText,
    agree,
    cuts,
    mean_length,
    reasons,
)
from analysis.segmentation.strategy import WIDTH, Segmenter, Strategy, labels
from analysis.segmentation.value_figures import MOST_POINTS, _outline
from analysis.segmentation.view import CutView
from model.errors import MicroStepError, TextError
from model.hub.loading import ModelSpec, load
from model.segmentation.features import Feature, FeatureOptions
from model.segmentation.segment import RULES, SegmentInputs, segment
from model.segmentation.solver import length_curve, solve
from model.text.document import Document, Message, TextInput
from tests.support.command import call

TEXT = 'the cat "sat", <b>on</b>\nthe mat 🦆 12 + 30 = 42; the dog sleeps on and on'
HOW = FeatureOptions()


def side(entropy, key="A", prompt=None, start=None, **more):
    n = len(entropy)
    start = np.arange(n, dtype=np.int32) if start is None else np.array(start, dtype=np.int32)
    end = np.append(start[1:], start[-1] + 1).astype(np.int32)
    return TokenizedText(
        key=key,
        facts=None,
        text="x" * int(end[-1]),
        start=start,
        end=end,
        continuation=np.zeros(n, dtype=bool),
        display=("x",) * n,
        role=np.array(["text"] * n),
        inputs=SegmentInputs(
            entropy=np.array(entropy, dtype=np.float32),
            prompt=None if prompt is None else np.array(prompt, dtype=bool),
            **more,
        ),
    )


def cut_of(one, word, max_length=4):
    (found,) = cuts([one], [Segmenter(Strategy.parse(word), max_length, HOW)], MemoCache())
    return found


def test_a_strategy_is_one_word_and_back():
    for word in ("entropy:threshold=1.2", "limited_history:threshold=1.5,window=32", "word", "router"):
        strategy = Strategy.parse(word)
        assert Strategy.parse(str(strategy)) == strategy and hash(strategy) == hash(Strategy.parse(str(strategy)))
    assert str(Strategy.parse("entropy")) == "entropy:threshold=1.5" and str(Strategy.parse("word")) == "word"
    exact = Strategy.of("entropy", {"threshold": 0.1 + 0.2})
    assert Strategy.parse(str(exact)).parameters["threshold"] == 0.1 + 0.2
    assert Strategy.parse("entropy:threshold=1").title("bits") == "Entropy, threshold 1.44 bits"
    assert Strategy.parse("entropy_combined").others == {"rise": 0.0}
    assert labels([Strategy.parse(w) for w in ("word", "entropy", "word")]) == ["words", "entropy", "words 2"]
    wrong = {"entrpy": "did you mean", "entropy:threshold": "is written as", "entropy:threshold=99": "from 0 to 16",
             "entropy:x=1": "no parameter", "fixed:k=nan": "from 1"}  # fmt: skip
    for word, said in wrong.items():
        with pytest.raises(MicroStepError, match=said):
            Strategy.parse(word)


def test_reasons_by_hand():
    # tokens   0: no score  1: first score  2, 3, 4: low  5: the cap (M = 4)  6: high
    one = cut_of(side([np.nan, 0.1, 0.2, 0.2, 0.2, 0.2, 3.0]), "entropy:threshold=1")
    said = [REASONS[code] for code in reasons(one)]
    assert said == ["first", "after unscored", "joins", "joins", "joins", "cap", "rule"]
    chat = cut_of(side([3.0, 0.1, 0.1, 0.1], prompt=[1, 1, 0, 0]), "entropy:threshold=1")
    assert [REASONS[code] for code in reasons(chat)] == ["prompt", "prompt", "after prompt", "joins"]
    words = why_words(one, "bits")
    assert words[REASONS.index("rule")] == "entropy above 1.44 bits" and "4 tokens" in words[REASONS.index("cap")]


@pytest.mark.parametrize("word", ["entropy_budget:budget=0.5", "entropy_relative", "fixed:k=2", "entropy_combined"])
def test_a_start_is_by_the_cap_only_where_the_rule_would_have_joined(word):
    random = np.random.default_rng(0).exponential(0.4, 400).astype(np.float32)
    one = side(random)
    capped, free = cut_of(one, word, 3), cut_of(one, word, 400)
    found = reasons(capped)
    assert set(np.flatnonzero(capped.found.starts)) == set(np.flatnonzero(found != 0))
    for t in np.flatnonzero(found == REASONS.index("cap")).tolist():
        before = np.flatnonzero(capped.found.starts[:t])[-1]
        alone = segment(
            capped.strategy.name, SegmentInputs(entropy=random[before : t + 1]), 400, **capped.strategy.parameters
        )
        # the second token of a row is the first with a score, and so forced only where the first has none
        assert t - before == 3 and not alone.starts[-1]
    assert not (reasons(free) == REASONS.index("cap")).any()


def test_agreement_outside_the_prompt_between_tokens_or_characters():
    a = cut_of(side([0, 0, 3, 0, 3, 0], prompt=[1, 1, 0, 0, 0, 0]), "entropy:threshold=1")  # | | |.|.
    same = cut_of(side([0, 0, 3, 0, 0, 0], key="B", prompt=[1, 1, 0, 0, 0, 0]), "entropy:threshold=1")
    found, between = agree(a, same)
    assert between == "tokens" and (found.precision, found.recall) == (pytest.approx(np.nan, nan_ok=True), 0.0)
    # B's tokens start at characters 0, 3 and 4 of the same six
    other = cut_of(side([0, 3, 3], key="B", start=[0, 3, 4]), "entropy:threshold=1")
    whole = cut_of(side([0, 0, 0, 0, 3, 3]), "entropy:threshold=1")  # starts 0, 4, 5
    found, between = agree(whole, other)
    assert between == "characters" and found.recall == 1.0 and found.precision == 0.5  # up to character 5


def test_mean_lengths_and_their_intervals():
    found = mean_length(cut_of(side([3, 0, 3, 0, 3, 0, 0, 3]), "entropy:threshold=1"))
    assert found.mean == 8 / 4 and not found.known, "four segments are too few"
    found = mean_length(cut_of(side([3, 0, 3, 0, 3, 0, 0, 3] * 5), "entropy:threshold=1"))
    assert found.mean == 2 and 1 <= found.low < 2 < found.high
    rows = np.zeros(40, dtype=bool)
    rows[::4] = True
    entropies = np.tile([3.0, 0, 3, 0], 10)
    documents = mean_length(cut_of(side(entropies, row_start=rows), "entropy:threshold=1"))
    assert documents.mean == 2 and not documents.known, "every document has segments of 2: nothing varies"
    entropies[3] = 3.0
    documents = mean_length(cut_of(side(entropies, row_start=rows), "entropy:threshold=1"))
    assert documents.mean == 40 / 21 and documents.low < 40 / 21 < documents.high


def test_extras_are_asked_for_once_and_only_where_needed():
    spec = ModelSpec("x")
    words = ["entropy", "limited_history:window=8", "limited_history:threshold=2,window=8", "attention_mass",
             "attention_sparsity", "router:layer=1"]  # fmt: skip
    request = CutRequest((("A", spec), ("B", spec)), TextInput.plain("x"), tuple(map(Strategy.parse, words)))
    assert request.scores() == [
        ScoresQuery("A", spec, TextInput.plain("x")),
        ScoresQuery("B", spec, TextInput.plain("x")),
    ]
    extras = [asked.feature for asked in request.extras()]
    assert (
        extras == [Feature("window", window=8), Feature("attention", width=WIDTH), Feature("hidden", layer=1)] * 2
        and len(set(request.extras())) == 6
    )
    assert Segmenter(Strategy.of("attention_mass"), 40).feature == Feature("attention", width=40) and WIDTH >= 4
    passes = [Feature("window", 32, method).passes for method in ("exact", "strided", "banded")]
    assert passes[0] == 32 and passes[1] < 3 and passes[2] == 1
    other = request.in_other_precision(["float32", "bfloat16"])
    assert [spec.dtype for _, spec in other.models] == ["bfloat16", "float32"]


def test_what_is_not_asked_for_again_is_let_go():
    kept, made = MemoCache(), []

    def get(key, value):
        return kept.get(key, lambda: (made.append(value), value)[1])

    assert (get("a", 1), get("b", 2)) == (1, 2)
    kept.turn()
    assert get("a", 3) == 1
    kept.turn()
    assert get("b", 4) == 4
    assert made == [1, 2, 4]


def test_a_curve_in_the_picture_keeps_its_extremes():
    values = np.random.default_rng(0).normal(size=50_000)
    values[[7, 31_234]] = 99, -99
    kept = _outline(values)
    assert len(kept) <= MOST_POINTS and {7, 31_234} <= set(kept) and (np.diff(kept) > 0).all()
    assert _outline(values[:100]).tolist() == list(range(100))


def test_the_curve_is_that_of_the_solver():
    one = SegmentInputs(entropy=np.random.default_rng(1).exponential(1, 500))
    solved = solve("entropy", one, 2.0)
    values, there = length_curve("entropy", one)
    np.testing.assert_array_equal(values, solved.curve_parameter)
    np.testing.assert_array_equal(there, solved.curve_length)


def test_values_lie_within_their_fixed_scale_where_the_registry_says_probability():
    for rule in RULES.values():
        low, high = value_range(rule, "bits", 4)
        assert low < high and (high == 1 or rule.unit not in ("probability", "share", "yes or no"))


WORDS = ("entropy:threshold=3.5", "confidence:tau=0.6", "attention_mass", "router:layer=1", "limited_history:window=6")


@pytest.fixture(scope="module")
def bench(models):
    specs = (("A", ModelSpec(str(models["base"]))), ("B", ModelSpec(str(models["other"]))))
    request = CutRequest(
        specs, TextInput.plain(TEXT), tuple(map(Strategy.parse, WORDS)), history=Feature("window", window=6)
    )
    return compare_strategies(request, load, other=True)


@pytest.mark.parametrize("name", FIGURES)
def test_no_figure_holds_markup_of_the_text(bench, name):
    drawn = draw(name, bench, CutView("nats", "dark", pinned=3, chosen=1, metric="pk", change=0.1))
    assert "<b>" not in drawn.figure.to_json().replace("<br>", "")


def test_a_side_equals_what_the_command_segment_gathers(models, bench):
    from analysis.segmentation.single import gather

    loaded = load(ModelSpec(str(models["base"])))
    for found in bench.shown:
        if found.side.key == "A":
            strategy = found.strategy
            ready = gather(loaded, TextInput.plain(TEXT), Segmenter(strategy))
            alone = segment(strategy.name, ready.inputs, **strategy.parameters)
            np.testing.assert_array_equal(alone.starts, found.found.starts)
    assert {found.name for found in bench.shown} >= {"A entropy", "B router"}
    assert bench.others[0].facts.dtype == "bfloat16"


def test_a_prompt_is_not_merged_and_not_judged(models):
    chat = Document((Message("user", "the cat sat"), Message("assistant", "on and on, the dog sleeps")))
    request = CutRequest(
        (("B", ModelSpec(str(models["sft"]))),), TextInput(chat, chat=True), (Strategy.parse("confidence:tau=0"),)
    )
    bench = compare_strategies(request, load)
    (found,) = bench.shown
    assert found.name == "confidence" and any("not merged" in note for note in found.side.notes)
    assert found.found.starts[~found.side.counted].all() and bench.statistics(found).mean_length > 2
    assert "prompt, which is not merged" in set(bench.token_table("bits")["why"])


def test_a_side_refuses_an_extra_of_other_tokens(models):
    spec = ModelSpec(str(models["base"]))
    request = CutRequest((("A", spec),), TextInput.plain("the cat"), (Strategy.parse("router:layer=1"),))
    scored = request.scores()[0].run(load)
    (asked,) = request.extras()
    longer = FeatureQuery(ScoresQuery("A", spec, TextInput.plain("the cat sat on the mat")), asked.feature).run(load)
    with pytest.raises(MicroStepError, match="shorten the text"):
        Answered(request, (scored,), {asked: longer}).sides(MemoCache())
    sides = Answered(request, (scored,), {}).sides(MemoCache())
    assert isinstance(sides[0], TokenizedText)
    assert cuts(sides, request.segmenters(), MemoCache()) == ()


@pytest.fixture(scope="module")
def store(models, tmp_path_factory):
    from data.corpus.documents import CorpusSpec, open_corpus
    from data.corpus.scoring import score_corpus

    folder = tmp_path_factory.mktemp("store")
    texts = folder / "texts.txt"
    texts.write_text("\n".join(f"the cat {i} sat on the mat and {i} dogs sleep" for i in range(12)), "utf-8")
    score_corpus(
        lambda: load(ModelSpec(str(models["base"]))),
        open_corpus(CorpusSpec(str(texts), documents="line")),
        folder / "s",
    )
    return folder / "s"


def test_a_store_is_judged_whole_and_shown_by_document(store, monkeypatch, tmp_path):
    monkeypatch.setattr("analysis.export.chrome", lambda: None)
    request = CutRequest(
        (), None, tuple(map(Strategy.parse, ("entropy:threshold=3", "word"))), store=str(store), number=3
    )
    bench = compare_strategies(request, load)
    (whole, _), (shown, _) = bench.judged, bench.shown
    read = StoreSides.read(store)
    assert bench.sides[0].text == "the cat 3 sat on the mat and 3 dogs sleep" and "the cat 3" in read.title(3)
    ends = read.source.tokens.rows.offsets
    np.testing.assert_array_equal(whole.found.starts[ends[3] : ends[4]], shown.found.starts)
    assert bench.statistics(whole).tokens == len(whole.side) > len(shown.side)
    with pytest.raises(TextError, match="12 documents"):
        read.shown(12)
    for name in ("segments", "statistics", "agreement", "curves"):
        before, view = draw(name, bench, CutView()).data, CutView()
        command = shlex.split(origin(bench, view).command(name, str(tmp_path / "x.csv")))
        assert command[0] == "micro-step" and call(monkeypatch, *command[1:]) == 0
        assert len(pd.read_csv(tmp_path / "x.csv")) == len(before) > 0


def test_wrong_options_end_with_one_line(monkeypatch, capsys, tmp_path, models):
    out = tmp_path / "x.csv"
    base = ["segment", "--figure", "values", "--strategy", "entropy", "--out", out]
    wrong = [
        (["segment", "--figure", "pie", "--strategy", "word", "--out", out], "segments, values"),
        (base, "--store"),
        ([*base, "--a", "x", "--store", "y", "--text", "z"], "--store"),
        ([*base, "--store", tmp_path, "--text", "z"], "its own texts"),
        ([*base, "--store", tmp_path], "holds no store"),
        ([*base, "--a", models["base"], "--text", TEXT, "--chosen", 1], "strategy 1"),
        ([*base[:4], "entropy=3", "--out", out, "--a", "x", "--text", "y"], "no segmentation rule"),
    ]
    for words, said in wrong:
        assert call(monkeypatch, *words) != 0
        error = capsys.readouterr().err.strip().splitlines()
        assert error[-1].startswith("Error:") and said in error[-1], (words, error)
    assert not list(tmp_path.iterdir())


def test_a_cut_is_told_by_its_identity():
    one = cut_of(side([1, 2]), "entropy")
    assert isinstance(one, SegmentedText) and one != cut_of(side([1, 2]), "entropy") and hash(one) == hash(one)
