"""What rules need beyond the scores is gathered once; limited history is studied; a whole study is one command."""

import json

import numpy as np
import pandas as pd
import pytest

from analysis.corpus.history import history, history_table
from analysis.corpus.report import report, strategies_for
from analysis.corpus.study import TABLES
from analysis.segmentation.single import gather
from analysis.segmentation.strategy import Segmenter, Strategy
from data.corpus.documents import CorpusEntry, CorpusSpec, open_corpus
from data.corpus.features import COMPLETE, FOLDER, FeatureSpec, compute_features, gathers, read_gathered
from data.corpus.options import CorpusOptions
from data.corpus.rule_inputs import CorpusSource, with_gathered
from data.corpus.scoring import score_corpus
from data.corpus.store import open_store
from data.corpus.windows import TokenizeOptions, character_windows, tokenized_windows
from model.errors import ExportError, MicroStepError, TextError
from model.hub.loading import ModelSpec, load
from model.scoring.limited_history import limited_history
from model.segmentation.attention_features import attention_shares, router_turns
from model.segmentation.features import Feature
from model.segmentation.segment import segment
from model.text.document import Document, TextInput
from tests.support.tiny import BOS, CORPUS

pytestmark = pytest.mark.slow

TEXTS = ["\n".join(CORPUS), "", " ".join(CORPUS[:3]), *CORPUS]


def forbidden():
    raise AssertionError("the model is loaded though nothing is left to compute")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), "utf-8")
    return path


@pytest.fixture(scope="module")
def loaded(models):
    return {name: load(ModelSpec(str(models[name]))) for name in ("base", "other")}


@pytest.fixture
def store(loaded, data, tmp_path):
    """Of the model with BOS, in windows of characters."""
    return made(loaded["other"], data, tmp_path / "store")


def made(model, data, path, **options):
    options = CorpusOptions(**{"window_characters": 120, **options})
    return score_corpus(lambda: model, open_corpus(CorpusSpec(str(data))), path, options)


@pytest.fixture
def call(command):
    """Run `python -m analysis` here."""
    return command


# --- windows of characters


@pytest.mark.parametrize(
    "text", ["", "a", "one two three", "x" * 50, "line\n" * 20, "word " * 30, "ab\n\ncd  ef\n" * 9]
)
@pytest.mark.parametrize("most", [1, 2, 7, 20, 1000])
def test_windows_of_characters_cover_a_text_and_are_no_longer_than_asked(text, most):
    spans = character_windows(text, most)
    assert "".join(text[a:b] for a, b in spans) == text
    assert all(0 < b - a <= most for a, b in spans) or spans == [(0, 0)]


def test_windows_of_characters_end_at_a_line_or_a_space():
    text = "one two three\nfour five six seven"
    assert [text[a:b] for a, b in character_windows(text, 16)] == ["one two three", "\nfour five six", " seven"]
    assert character_windows("abcdefgh", 3) == [(0, 3), (3, 6), (6, 8)]


def test_windows_of_characters_are_the_same_texts_under_both_models(loaded, data):
    corpus, found = open_corpus(CorpusSpec(str(data))), []
    for name in ("base", "other"):
        reading = TokenizeOptions(loaded[name].tokenizer, 10**6, CorpusOptions(max_tokens=500, window_characters=50))
        every = list(tokenized_windows(corpus, reading, (0, 0)))
        assert next(tokenized_windows(corpus, reading, (0, 3))).text == every[3].text
        found.append([(piece.document, piece.number, *piece.text) for piece in every])
        for i, text in enumerate(TEXTS):
            mine = [piece for piece in every if piece.document == i]
            assert "".join(piece.text[0] for piece in mine) == text
            assert [piece.at for piece in mine] == np.cumsum([0, *(piece.n for piece in mine)])[:-1].tolist()
            assert {piece.document_tokens for piece in mine} == {sum(piece.n for piece in mine)}
    assert found[0] == found[1] and len(found[0]) > 2 * len(TEXTS)


def test_a_conversation_has_no_windows_of_characters(loaded, tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps({"text": [{"role": "user", "content": "Hi"}]}))
    with pytest.raises(TextError, match="document 0 is a conversation; windows of characters are for plain texts"):
        made(loaded["base"], path, tmp_path / "store")
    assert CorpusEntry(0, Document.plain("a"), None, None).document.text == "a"


# --- gathering


def test_what_is_gathered_is_what_the_model_gives_for_each_row(loaded, store):
    model = loaded["other"].model
    attention = compute_features(lambda: loaded["other"], store, FeatureSpec(Feature("attention", width=3), every=2))
    hidden = compute_features(lambda: loaded["other"], store, FeatureSpec(Feature("hidden", layer=1)))
    strided = FeatureSpec(Feature("window", window=4, method="strided", stride=2), every=3)
    window = compute_features(lambda: loaded["other"], store, strided)
    rows = list(store.rows())
    for found, every in ((attention, 2), (hidden, 1), (window, 3)):
        assert found.rows.tolist() == list(range(0, len(rows), every))
        for k, i in enumerate(found.rows):
            ids, piece = rows[i].ids.astype(np.int64), slice(*found.offsets[k : k + 2])
            if found is attention:
                shares = attention_shares(model, ids, (BOS,), width=3)
                expected = {"attention_mass": shares.mass, "attention_sparsity": shares.sparsity}
            elif found is hidden:
                expected = {"router": router_turns(model, ids, 1, (BOS,))}
            else:
                expected = {"limited_entropy": limited_history(model, ids, 4, "strided", 2, (BOS,)).scores.entropy}
            for name, values in expected.items():
                np.testing.assert_array_equal(found.values[name][piece], values)
    assert {each.name for each in gathers(store)} == {each.spec.name for each in (attention, hidden, window)}


def test_gathering_begins_where_a_window_is_a_limit_and_goes_on_where_it_stopped(loaded, store, monkeypatch):
    monkeypatch.setattr("data.corpus.features.PART_TOKENS", 100)
    what = FeatureSpec(Feature("window", window=3, method="exact"), begin=6)
    found = compute_features(lambda: loaded["other"], store, what)
    for k, row in enumerate(store.rows()):
        mine = found.values["limited_entropy"][slice(*found.offsets[k : k + 2])]
        full = limited_history(loaded["other"].model, row.ids.astype(np.int64), 3, prefix=(BOS,)).scores.entropy
        assert np.isnan(mine[:6]).all()
        np.testing.assert_allclose(mine[6:], full[6:], rtol=1e-5, atol=1e-5)
    folder = store.path / FOLDER / what.name
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert len(before) > 4
    compute_features(forbidden, store, what)
    (folder / COMPLETE).unlink()
    (folder / "part-00001.parquet").unlink()
    with pytest.raises(TextError, match="gather it first"):
        read_gathered(store, what)
    assert gathers(store) == []
    compute_features(lambda: loaded["other"], store, what)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_mistakes_in_gathering(loaded, store):
    with pytest.raises(ExportError, match="scored by another model or precision: revision"):
        compute_features(lambda: loaded["base"], store, FeatureSpec(Feature("hidden")))
    assert gathers(store) == [] and not (store.path / FOLDER).exists()
    with pytest.raises(MicroStepError, match="'scores' is no feature"):
        Feature("scores")
    compute_features(lambda: loaded["other"], store, FeatureSpec(Feature("hidden", layer=1)))
    source = CorpusSource.read(store)
    assert source.ready("router", {})[1] == {"layer": 1}
    with pytest.raises(MicroStepError, match="router needs hidden of layer 2, which was not gathered"):
        source.ready("router", {"layer": 2})


def test_a_report_compares_what_was_gathered_for_some_rows_on_those_rows(loaded, store):
    compute_features(lambda: loaded["other"], store, FeatureSpec(Feature("attention"), every=2))
    source = CorpusSource.read(store)
    assert {"attention_mass", "attention_sparsity"} <= set(source.rules())
    found = report(source, strategies_for(source, ["entropy", "attention_sparsity"], target=1.5))
    whole, part = found.strategies
    lengths = np.diff(source.tokens.rows.offsets)
    assert (whole.tokens, part.tokens) == (lengths.sum(), lengths[::2].sum())
    assert abs(part.mean_length.mean - 1.5) < 0.05
    both = [each.cut.starts[np.repeat(part.cut.known, lengths)] for each in found.strategies]
    first = source.tokens.inputs.row_starts[np.repeat(part.cut.known, lengths)]
    a, b = (each & ~first for each in both)
    assert found.pairs.f1.mean[0, 1] == pytest.approx(2 * (a & b).sum() / (a.sum() + b.sum()))
    sub = with_gathered(source.tokens, source.gathered[0])
    assert sub.rows.text == source.tokens.rows.text[::2]
    np.testing.assert_array_equal(sub.inputs.entropy, source.tokens.rows.entropy[np.repeat(part.cut.known, lengths)])


def test_refined_works_on_a_store_of_a_trained_micro_step_model_and_on_no_other(loaded, store, data, tmp_path, call):
    with pytest.raises(MicroStepError, match="trained micro_step model"):
        CorpusSource.read(store).ready("refined", {})
    with pytest.raises(MicroStepError, match="trained micro_step model"):
        compute_features(lambda: loaded["other"], store, FeatureSpec(Feature("micro_step")))
    micro = load(ModelSpec("micro-step-tiny"))
    score_corpus(lambda: micro, open_corpus(CorpusSpec(str(data))), tmp_path / "micro", CorpusOptions())
    with pytest.raises(MicroStepError, match="corpus gather"):
        CorpusSource.read(open_store(tmp_path / "micro")).ready("refined", {})
    assert call("corpus", "gather", tmp_path / "micro", "--model", "micro-step-tiny", "--strategy", "refined")[0] == 0
    source = CorpusSource.read(open_store(tmp_path / "micro"))
    tokens, parameters = source.ready("refined", {"tau": 0.3})
    found = segment("refined", tokens.inputs, 4, **parameters)
    row = list(source.store.rows())[-1]
    text = TextInput.plain(TEXTS[-1])
    alone = gather(micro, text, Segmenter(Strategy.of("refined", parameters)))
    np.testing.assert_array_equal(found.starts[-len(row.ids) :], segment("refined", alone.inputs, 4, tau=0.3).starts)
    report_words = ["corpus", "report", tmp_path / "micro", "--strategy", "refined", "--out", tmp_path / "r.csv"]
    assert call(*report_words)[0] == 0
    assert set(pd.read_csv(tmp_path / "r.csv")["strategy"]) == {"refined"}


# --- limited history


def test_history_is_judged_on_the_same_tokens_and_without_a_limit_differs_in_nothing(loaded, store):
    for window in (2, 6, 400):
        compute_features(lambda: loaded["other"], store, FeatureSpec(Feature("window", window=window), begin=6))
    source = CorpusSource.read(store)
    points = history(source, [1.5])
    assert [point.spec.feature.window for point in points] == [2, 6, 400]
    assert len({point.tokens for point in points}) == 1
    assert points[0].tokens == np.maximum(np.diff(source.tokens.rows.offsets) - 6, 0).sum()
    narrow, _, whole = points
    assert abs(whole.excess.mean) < 1e-5 and whole.correlation.mean == pytest.approx(1)
    # a token whose entropy is the solved threshold itself may fall on its other side by rounding
    assert whole.boundaries[0].f1.mean > 0.995 > narrow.boundaries[0].f1.mean
    found = with_gathered(
        source.tokens, next(each for each in source.gathered if each.spec.feature.window == 2), begin=6
    )
    x, y = (getattr(found.inputs, name).astype(float) for name in ("entropy", "limited_entropy"))
    assert narrow.excess.mean == pytest.approx((y - x).mean())
    assert narrow.distance.mean == pytest.approx(np.abs(y - x).mean())
    assert narrow.correlation.mean == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert narrow.excess.low < narrow.excess.mean < narrow.excess.high
    assert history_table(points).window.tolist() == [2, 6, 400]
    with pytest.raises(MicroStepError, match="no limited history was gathered"):
        history(CorpusSource(source.store, source.tokens, ()))


# --- the commands


def test_reports_from_the_command_line(models, loaded, data, tmp_path, call):
    stores = [tmp_path / name for name in ("base", "other")]
    for name, path in zip(("base", "other"), stores, strict=True):
        made(loaded[name], data, path)
    out = tmp_path / "x.csv"
    for table in ("strategies", "pairs", "lengths", "curves"):
        words = ("--strategy", "entropy", "--strategy", "word", "--target-length", 1.5, "--table", table, "--out", out)
        code, said, _ = call("corpus", "report", stores[0], *words)
        assert (code, said) == (0, f"{out}\n")
        found = pd.read_csv(out)
        assert len(found) >= 1 + (table != "curves")
    for words in (("margin", "--set", "tau=0.25"), ("margin:tau=0.25",)):
        code, said, _ = call("corpus", "report", stores[0], "--strategy", *words)
        assert code == 0 and "tau=0.25" in said and "over" in said.splitlines()[-1]
    words = ("corpus", "report", stores[0], "--against", stores[1], "--strategy", "entropy", "--target-length", 2)
    code = call(*words, "--out", out)[0]
    assert (code, pd.read_csv(out).strategy.tolist()) == (0, ["entropy"])
    words = ("corpus", "gather", stores[1], "--model", models["other"], "--strategy", "limited_history", "--window", 4)
    assert call(*words, "--every", 2, "--begin", 2)[0] == 0
    code = call("corpus", "report", stores[1], "--table", "history", "--out", tmp_path / "x.json")[0]
    assert code == 0 and json.loads((tmp_path / "x.json").read_text())[0]["window"] == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--strategy", "entropi"), "did you mean 'entropy'"),
        (("--set", "tau=x"), "--set takes parameter=number"),
        (("--set", "beta=1"), "no chosen strategy has a parameter 'beta'"),
        (("--target-length", 9), "must be from 1 to the maximum segment length 4, got 9"),
        (("--table", "transfer"), "goes with --against"),
        (("--strategy", "router"), "corpus gather"),
        (("--out", "x.txt"), "unknown format"),
        (("--against", "nowhere"), "holds no store of scores"),
    ],
)
def test_mistakes_end_with_one_line(loaded, data, tmp_path, call, words, message):
    made(loaded["base"], data, tmp_path / "store", limit_tokens=50)
    code, said, lines = call("corpus", "report", tmp_path / "store", *words)
    assert (code, said, len(lines)) == (1, "", 1) and lines[0].startswith("Error: ") and message in lines[0]


def test_a_study_is_one_command_and_is_gone_on_with(models, data, tmp_path, call):
    novel = tmp_path / "novel.txt"
    novel.write_text("\n".join(CORPUS[4:] + CORPUS[:4]) * 2, "utf-8")
    out = tmp_path / "study"
    words = ["corpus", "study", "--data", data, "--data", novel, "--out", out, "--a", models["base"], "--b"]
    words += [models["other"], "--limit-tokens", 300, "--window-characters", 200, "--every", 2, "--history-every", 1]
    words += ["--history-window", 4, "--history-window", 8, "--target-length", 1.5]
    code, said, lines = call(*words)
    assert (code, said) == (0, f"{out / 'study.md'}\n"), lines
    files = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert {f"{name}.csv" for name in TABLES} <= {str(path) for path in files}
    strategies = pd.read_csv(out / "strategies.csv")
    assert set(strategies.corpus) == {"texts", "novel"} and set(strategies.model) == {"base", "other"}
    assert {"router", "attention_mass", "limited_history"} <= set(strategies.strategy)
    text = (out / "study.md").read_text("utf-8")
    assert "### novel" in text and "| all | all |" in text and "windows" in text.split("## Notes")[1]
    assert len(pd.read_csv(out / "history.csv")) == 2 * 2 * 3
    gathered = next((out / "stores" / "novel-other" / FOLDER).glob("hidden-*"))
    (gathered / COMPLETE).unlink()
    (gathered / "part-00000.parquet").unlink()
    (out / "study.md").unlink()
    assert call(*words)[0] == 0
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == files
    code, said, lines = call(*words, "--limit-tokens", 200)
    assert (code, said) == (1, "") and "was begun with something else: limit_tokens (300 there, 200 now)" in lines[-1]
    words[words.index("--history-window") + 1] = 16  # in the same folder: windows of the study before are not read
    assert call(*words)[0] == 0
    assert set(pd.read_csv(out / "history.csv").window) == {8, 16, 216}
