"""Reports on corpora: counts by hand, identities with the report on one text, intervals over documents."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.corpus.counts import count, pairs
from analysis.corpus.report import Candidate, cut_corpus, report, strategies_for
from analysis.corpus.tables import curve_table, length_table, pair_table, strategy_table, transfer_table
from analysis.corpus.transfer import transfer
from analysis.intervals import Units
from analysis.segmentation.comparison import store_bench
from analysis.segmentation.corpus_view import StoreSides
from analysis.segmentation.metrics import agreement, statistics
from analysis.segmentation.request import CutRequest
from analysis.segmentation.segmented_text import MemoCache, agree, cuts
from analysis.segmentation.strategy import Segmenter, Strategy
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.rule_inputs import CorpusSource, continuation
from data.corpus.scoring import score_corpus
from model.errors import MicroStepError
from model.hub.loading import ModelSpec, load
from model.scoring.token_scores import score
from model.segmentation.segment import SegmentInputs, segment
from model.text.document import Document, TextInput
from model.text.encoding import encode
from tests.support.command import call
from tests.support.tiny import CORPUS

TEXTS = [*CORPUS, "", *(text[: 7 * i] for i, text in enumerate(reversed(CORPUS), 1)), "a"]


@pytest.fixture(scope="module")
def sources(models, tmp_path_factory):
    """Stores of one corpus under two models of different tokenizers, and of its fourth text alone; loaded models."""
    folder = tmp_path_factory.mktemp("report")
    found = {}
    for name, texts in (("corpus", TEXTS), ("one", TEXTS[3:4])):
        data = folder / f"{name}.jsonl"
        data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
        for model in ("base", "other"):
            loaded = load(ModelSpec(str(models[model])))
            store = score_corpus(
                lambda loaded=loaded: loaded, open_corpus(CorpusSpec(str(data))), folder / f"{name}-{model}"
            )
            found[name, model] = CorpusSource.read(store)
            found[model] = loaded
    return found


def units_of_rows(rows):
    return Units.in_runs(rows, "documents")


# --- counting


def test_counts_by_hand():
    """Two rows of 5 and 3 positions. The first of each row is a boundary under every rule, and is not counted."""
    a = np.array([1, 0, 1, 1, 0, 1, 1, 0], bool)
    b = np.array([1, 0, 1, 0, 1, 1, 0, 0], bool)
    offsets, units = np.array([0, 5, 8]), units_of_rows(2)
    found = count(np.stack([a, b]), offsets, np.ones((2, 2), bool), units)
    assert found.own[:, 0, 1].tolist() == [2, 1] and found.own[:, 1, 0].tolist() == [2, 0]
    assert found.shared[:, 0, 1].tolist() == [1, 0] and found.positions[:, 0, 1].tolist() == [4, 2]
    # a has 5 segments of 8 positions: windows reach half of 1.6, rounded to 1; 4 in the first row, 2 in the other
    assert found.reach[0, 1] == 1 and found.windows[:, 0, 1].tolist() == [4, 2]
    assert found.differ[:, 0, 1].tolist() == found.split[:, 0, 1].tolist() == [2, 1]
    met = pairs(found, units)
    assert met.f1.mean[0, 1] == pytest.approx(2 * 1 / (3 + 2)) == met.f1.mean[1, 0]
    assert met.precision.mean[0, 1] == 1 / 2 and met.recall.mean[0, 1] == pytest.approx(1 / 3)
    assert met.window_diff.mean[0, 1] == 3 / 6 and met.pk.mean[0, 1] == 3 / 6
    assert met.chance[0, 1] == pytest.approx(2 * 3 * 2 / (6 * 5))  # 3 and 2 of 6 places: 1 shared is to be expected
    assert met.mean_f1.mean.tolist() == pytest.approx([0.4, 0.4])


def test_a_row_in_which_one_is_unknown_is_left_out_of_the_pair_alone():
    starts = np.array([[1, 1, 1, 1, 1, 1], [1, 0, 1, 0, 0, 0]], bool)
    known = np.array([[True, True], [True, False]])
    found = count(starts, np.array([0, 3, 6]), known, units_of_rows(2))
    assert found.own[:, 0, 0].tolist() == [2, 2] and found.own[:, 0, 1].tolist() == [2, 0]
    assert found.positions[:, 0, 1].tolist() == [2, 0] and found.windows[:, 1, 1].tolist() == [2, 0]


@pytest.mark.parametrize("seed", range(4))
def test_one_row_is_as_agreement_has_it(seed):
    draw = np.random.default_rng(seed)
    starts = draw.random((3, 40)) < draw.random((3, 1))
    starts[:, 0] = True
    met = pairs(count(starts, np.array([0, 40]), np.ones((3, 1), bool), units_of_rows(1)), units_of_rows(1))
    for i in range(3):
        for j in range(3):
            one = agreement(starts[i], starts[j])
            for name in ("precision", "recall", "f1", "window_diff", "pk"):
                assert getattr(met, name).mean[i, j] == pytest.approx(getattr(one, name), nan_ok=True), name
    assert np.isnan(met.f1.low).all(), "one document tells no interval"


# --- intervals


def test_a_document_left_out_is_as_counted_without_it(sources):
    source = sources["corpus", "base"]
    found = report(source, strategies_for(source, ["entropy", "margin"], target=2.0))
    rows, cuts, units = source.tokens.rows, [each.cut for each in found.strategies], found.units
    assert units.kind == "documents" and units.count == len(rows) == len(TEXTS)
    again = []
    for out in range(len(rows)):
        kept = [np.concatenate([cut.starts[slice(*rows.offsets[i : i + 2])] for i in range(len(rows)) if i != out])
                for cut in cuts]  # fmt: skip
        lengths = np.delete(np.diff(rows.offsets), out)
        first = np.zeros(len(kept[0]), bool)
        first[np.concatenate([[0], np.cumsum(lengths)])[:-1][lengths > 0]] = True
        a, b = (each & ~first for each in kept)
        again.append([2 * (a & b).sum() / (a.sum() + b.sum()), len(first) / kept[0].sum()])
    words = np.ones(source.tokens.rows.offsets[-1], bool)
    counts = count(np.stack([*(cut.starts for cut in cuts), words]), rows.offsets, np.ones((3, len(rows)), bool), units)
    shared, own = units.left_out(counts.shared)[1:], units.left_out(counts.own)[1:]
    f1 = 2 * shared[:, 0, 1] / (own[:, 0, 1] + own[:, 1, 0])
    np.testing.assert_allclose(f1, [each[0] for each in again])
    first, table = found.strategies[0], strategy_table(found)
    assert first.mean_length.low < first.mean_length.mean < first.mean_length.high
    assert table.mean_length_low[0] == first.mean_length.low and table.pair_f1[0] == found.pairs.f1.mean[0, 1]


# --- the report


@pytest.mark.parametrize("model", ["base", "other"])
def test_the_inputs_of_a_store_are_those_of_its_texts(sources, model):
    source, loaded = sources["corpus", model], sources[model]
    whole, rows = source.tokens.inputs, source.tokens.rows
    split = continuation(rows)
    for i, text in enumerate(TEXTS):
        encoded = encode(TextInput.plain(text), loaded.tokenizer)
        piece = slice(*rows.offsets[i : i + 2].tolist())
        np.testing.assert_array_equal(split[piece], encoded.continuation)
        (scores,) = score(loaded.model, [encoded.ids], prefix=encoded.prefix)
        expected = SegmentInputs.of(scores, encoded)
        np.testing.assert_array_equal(whole.word_start[piece], expected.word_start)
        np.testing.assert_allclose(whole.entropy[piece], expected.entropy, atol=1e-4)
    assert whole.row_starts.sum() == sum(bool(text) for text in TEXTS)


@pytest.mark.parametrize("model", ["base", "other"])
@pytest.mark.parametrize("rule", ["entropy", "entropy_relative", "confidence_product", "word", "fixed"])
def test_one_document_is_as_statistics_has_it(sources, model, rule):
    source = sources["one", model]
    found = report(source, [Candidate(rule)])
    cut = segment(rule, source.tokens.inputs)
    one, (mine,) = statistics(cut, source.tokens.inputs), found.strategies
    assert (mine.tokens, mine.segments, mine.documents) == (one.tokens, one.segments, 1)
    assert (mine.mean_length.mean, mine.singletons.mean) == pytest.approx((one.mean_length, one.singletons))
    np.testing.assert_array_equal(mine.histogram, one.histogram)
    for name in ("precision", "recall", "f1", "window_diff", "pk"):
        assert getattr(found.words, name).mean[1, 0] == pytest.approx(getattr(one.words, name), nan_ok=True), name
    assert np.isnan(mine.mean_length.low)


def test_strategies_are_solved_for_their_length_and_the_curve_goes_through_it(sources):
    source = sources["corpus", "base"]
    assert {"limited_history", "router", "attention_mass", "refined"}.isdisjoint(source.rules())
    found = report(source, strategies_for(source, target=1.5))
    table = strategy_table(found).set_index("strategy")
    assert (table.loc[["entropy", "confidence", "surprisal"], "mean_length"] - 1.5).abs().max() < 0.02
    assert np.isnan(table.loc["word", "target_length"]) and table.loc["word", "word_f1"] > 0.9
    lengths = length_table(found)
    assert lengths.groupby("strategy").share.sum().to_numpy() == pytest.approx(1)
    curves = curve_table(found)
    entropy = curves[curves.strategy == "entropy"]
    assert (np.diff(entropy.value) > 0).all() and (np.diff(entropy.mean_length) >= -1e-9).all()
    assert entropy[entropy.solution].mean_length.item() == table.loc["entropy", "mean_length"]
    assert len(pair_table(found)) == len(table) * (len(table) - 1)
    assert any(note.startswith("95% intervals by Student's t over") for note in found.notes)


def test_settings_are_kept_and_strays_are_told(sources):
    source = sources["corpus", "base"]
    one, other = strategies_for(source, ["entropy_relative", "entropy"], {"eps": 0.5, "threshold": 2.0}, 1.5)
    assert (one.parameters, one.target_length) == ({"eps": 0.5}, 1.5)
    assert (other.parameters, other.target_length) == ({"threshold": 2.0}, None)
    cut = cut_corpus(source, other)
    np.testing.assert_array_equal(cut.starts, segment("entropy", source.tokens.inputs, threshold=2.0).starts)
    with pytest.raises(MicroStepError, match="no chosen strategy has a parameter 'tau'; they have threshold"):
        strategies_for(source, ["entropy"], {"tau": 0.5})
    with pytest.raises(MicroStepError, match=r"limited_history needs window, .*corpus gather"):
        report(source, [Candidate("limited_history")])
    with pytest.raises(MicroStepError, match="no strategy to judge"):
        report(source, [])


def test_the_prompt_is_left_out_as_in_the_report_on_one_text(models, tmp_path):
    turns = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": CORPUS[6]}]
    data = tmp_path / "chat.jsonl"
    data.write_text(json.dumps({"text": turns}) + "\n")
    loaded = load(ModelSpec(str(models["sft"])))
    options = CorpusOptions(chat=True)
    store = score_corpus(lambda: loaded, open_corpus(CorpusSpec(str(data))), tmp_path / "store", options)
    source = CorpusSource.read(store)
    encoded = encode(TextInput(Document(tuple(_messages(turns))), chat=True), loaded.tokenizer)
    (scores,) = score(loaded.model, [encoded.ids])
    inputs = SegmentInputs.of(scores, encoded, prompt_apart=True)
    np.testing.assert_array_equal(source.tokens.inputs.prompt, inputs.prompt)
    one = statistics(segment("entropy", inputs, threshold=3.0), inputs)
    (mine,) = report(source, [Candidate("entropy", {"threshold": 3.0})]).strategies
    assert (mine.tokens, mine.segments) == (one.tokens, one.segments) and mine.tokens < len(encoded)
    np.testing.assert_array_equal(mine.histogram, one.histogram)


def _messages(turns):
    from model.text.document import Message

    return [Message(**turn) for turn in turns]


def test_the_report_the_page_and_the_figure_count_alike(models, tmp_path, monkeypatch, capsys):
    """Over a store the page and the figure counted every document's first token as agreement, and windows crossed."""
    data = tmp_path / "short.jsonl"
    texts = [text[3 * i : 3 * i + 30] for text in CORPUS for i in range(5)]
    data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
    loaded = load(ModelSpec(str(models["base"])))
    store = score_corpus(lambda: loaded, open_corpus(CorpusSpec(str(data))), tmp_path / "store")
    settings = {"entropy": {"threshold": 5.0}, "surprisal": {"threshold": 5.0}}
    told = report(CorpusSource.read(store), [Candidate(rule, given) for rule, given in settings.items()])
    strategies = tuple(Strategy.of(rule, given) for rule, given in settings.items())
    request = CutRequest((), None, strategies, store=str(store.path))
    bench = store_bench(request, StoreSides.read(store.path), MemoCache())
    out = tmp_path / "agreement.csv"
    chosen = [each for rule in settings for each in ("--strategy", f"{rule}:threshold=5")]
    assert call(monkeypatch, "segment", "--figure", "agreement", "--store", store.path, *chosen, "--out", out) == 0
    drawn = pd.read_csv(out)
    first, second = bench.judged
    page, _ = bench.agreement(first, second)
    figure = drawn[(drawn["reference"] == first.name) & (drawn["hypothesis"] == second.name)].iloc[0]
    for name in ("precision", "recall", "f1", "window_diff", "pk"):
        mine = getattr(told.pairs, name).mean[0, 1]
        assert mine == pytest.approx(getattr(page, name)) == pytest.approx(figure[name]), name
        words = getattr(told.words, name).mean[2, 0]
        assert words == pytest.approx(getattr(bench.statistics(first).words, name)), name
    assert 0 < page.f1 < 1 and np.isfinite(page.window_diff)
    mine, length = told.strategies[0].mean_length, bench.mean_length(first)
    assert (mine.mean, mine.low, mine.high) == (length.mean, length.low, length.high)


# --- two models


def test_transfer_of_one_document_is_as_the_page_has_it(sources):
    a, b = sources["one", "base"], sources["one", "other"]
    candidate = Candidate("entropy", {"threshold": 2.5})
    (found,) = transfer(a, [cut_corpus(a, candidate)], b, [cut_corpus(b, candidate)])
    sides = [StoreSides.read(source.store.path).shown(0) for source in (a, b)]
    strategy = Strategy.of("entropy", {"threshold": 2.5})
    one, between = agree(*cuts(sides, [Segmenter(strategy)], MemoCache()))
    for name in ("precision", "recall", "f1", "window_diff", "pk"):
        assert getattr(found, name).mean == pytest.approx(getattr(one, name)), name
    assert found.characters == len(TEXTS[3]) and found.rows == 1 and between == "characters"


def test_a_model_transfers_to_itself_and_another_one_less(sources):
    a, b = sources["corpus", "base"], sources["corpus", "other"]
    chosen = strategies_for(a, ["entropy", "fixed"], target=2.0)
    cuts_a, cuts_b = ([cut_corpus(each, one) for one in chosen] for each in (a, b))
    same = transfer(a, cuts_a, a, cuts_a)
    assert [each.f1.mean for each in same] == [1, 1] and same[0].ceiling == 1
    other = transfer(a, cuts_a, b, cuts_b)
    assert 0 < other[0].chance < 1 and other[0].f1.low < other[0].f1.mean < other[0].f1.high < other[0].ceiling
    assert other[0].rows == sum(bool(text) for text in TEXTS)
    table = transfer_table(other)
    assert table.strategy.tolist() == ["entropy", "fixed"] and table.f1[0] == other[0].f1.mean
    with pytest.raises(MicroStepError, match="have no text in common; score the same corpus"):
        transfer(a, [], sources["one", "base"], [])
