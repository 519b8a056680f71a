"""Reports read a store in pieces: no number depends on where it is divided, or on what stays in memory."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest

from analysis.corpus.change import change_table, changes
from analysis.corpus.history import history, history_table
from analysis.corpus.report import cut_corpus, report, strategies_for
from analysis.corpus.stored_pieces import RowReader, StoredPieces, row_pieces
from analysis.corpus.tables import REPORT_TABLES, transfer_table
from analysis.corpus.transfer import transfer
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.features import FeatureSpec, compute_features
from data.corpus.options import CorpusOptions
from data.corpus.rule_inputs import CorpusSource
from data.corpus.scored_rows import ScoredRows
from data.corpus.scoring import score_corpus
from model.errors import MicroStepError
from model.hub.loading import ModelSpec, load
from model.segmentation import solver
from model.segmentation.features import Feature
from model.segmentation.segment import SegmentInputs
from model.segmentation.solver import solve, solve_in_parts
from tests.support.tiny import CORPUS

HISTORY = (FeatureSpec(Feature("window", 4), every=2), FeatureSpec(Feature("window", 4), begin=5))
DIVIDED = [(30, 3000)]  # tokens of a piece, bytes in memory: the first pieces stay there
RULES = ["entropy", "entropy_relative", "limited_history", "word"]


@pytest.fixture(scope="module")
def stores(models, tmp_path_factory):
    """Models' scores of texts and of conversations, with empty documents at both ends, in several shards."""
    folder, found = tmp_path_factory.mktemp("pieces"), {}
    turns = [
        [{"role": "user", "content": text[:9]}, {"role": "assistant", "content": text[9:40]}] for text in CORPUS[:4]
    ]
    texts = ["", *(text[:60] for text in CORPUS[:5]), ""]
    for kind, name, documents in (
        ("texts", "base", texts), ("texts", "other", texts), ("chats", "base", turns), ("chats", "more", turns)
    ):  # fmt: skip
        data = folder / f"{kind}.jsonl"
        data.write_text("".join(json.dumps({"text": each}) + "\n" for each in documents))
        loaded = load(ModelSpec(str(models[name.replace("more", "base")])))
        window = 40 if kind == "texts" else None
        options = CorpusOptions(chat=kind == "chats", window_characters=window, shard_tokens=50)
        score = partial(score_corpus, lambda loaded=loaded: loaded, open_corpus(CorpusSpec(str(data))))
        found[kind, name] = store = score(folder / f"{kind}-{name}", options)
        for spec in HISTORY if (kind, name) == ("texts", "base") else ():
            compute_features(lambda loaded=loaded: loaded, store, spec)
    return found


@pytest.mark.parametrize("kind", ["texts", "chats"])
def test_a_report_does_not_depend_on_the_pieces(stores, kind):
    store = stores[kind, "base"]
    whole = CorpusSource.read(store)
    rules = RULES if kind == "texts" else ["entropy", "word"]
    judged = report(whole, strategies_for(whole, rules))
    for tokens, memory in DIVIDED:
        pieces = StoredPieces(store, memory=memory, piece_tokens=tokens)
        assert len(list(pieces.pieces())) > 1
        other = report(pieces, strategies_for(pieces, rules))
        for name, tabulate in REPORT_TABLES.items():
            pd.testing.assert_frame_equal(tabulate(other), tabulate(judged), check_exact=True, obj=f"{name} {tokens}")
        assert other.notes == judged.notes and other.units.meaning == judged.units.meaning
        assert [each.cut.starts.tolist() for each in other.strategies] == [
            each.cut.starts.tolist() for each in judged.strategies
        ]


def test_transfer_and_history_do_not_depend_on_the_pieces(stores):
    a, b = (CorpusSource.read(stores["texts", name]) for name in ("base", "other"))
    chosen = strategies_for(a, ["entropy", "word"])
    expected = transfer_table(transfer(a, [cut_corpus(a, s) for s in chosen], b, [cut_corpus(b, s) for s in chosen]))
    windows = history_table(history(a, (2.0,)))
    for tokens, memory in DIVIDED:
        c = StoredPieces(stores["texts", "base"], memory=memory, piece_tokens=tokens)
        d = StoredPieces(stores["texts", "other"], memory=memory, piece_tokens=3 * tokens)
        found = transfer(c, [cut_corpus(c, s) for s in chosen], d, [cut_corpus(d, s) for s in chosen])
        pd.testing.assert_frame_equal(transfer_table(found), expected, check_exact=True)
        pd.testing.assert_frame_equal(history_table(history(c, (2.0,))), windows, rtol=1e-12)
    with pytest.raises(MicroStepError, match="no text in common"):
        transfer(c, [], StoredPieces(stores["chats", "base"]), [])


def test_a_change_does_not_depend_on_the_pieces(stores):
    a, b = stores["chats", "base"], stores["chats", "more"]
    expected, units = changes(a, b)
    assert len({each.role for each in expected}) > 2
    for tokens, _ in DIVIDED:
        found, other = changes(a, b, tokens)
        assert other.meaning == units.meaning
        pd.testing.assert_frame_equal(change_table(found), change_table(expected), check_exact=True)


def test_rows_come_in_pieces_of_at_most_so_many_tokens(stores):
    store = stores["texts", "base"]
    whole = store.arrays()
    for tokens in (1, 37, 10**6):
        parts = list(row_pieces(store, tokens))
        assert all(part.offsets[-1] <= tokens or (np.diff(part.offsets) > 0).sum() == 1 for part in parts)
        joined = ScoredRows.join(parts)
        assert joined.text == whole.text and joined.ids.tolist() == whole.ids.tolist()
        assert joined.offsets.tolist() == whole.offsets.tolist()
    reader = RowReader(store)
    assert reader.take(3).text == whole.text[:3] and not reader.ended()
    assert reader.take(len(whole) - 3).text == whole.text[3:] and reader.ended() and reader.take(1) is None


def test_a_bisection_of_more_values_than_are_held_at_once_finds_the_same_segments(monkeypatch):
    random = np.random.default_rng(5)
    rows = [SegmentInputs(entropy=random.gamma(1.2, 1.5, 400).astype(np.float32)) for _ in range(7)]
    expected = {rule: solve(rule, SegmentInputs.join(rows), 2.3) for rule in ("entropy", "entropy_budget", "fixed")}
    monkeypatch.setattr(solver, "_MOST_LEVELS", 30)
    monkeypatch.setattr(solver, "_SAMPLE", 50)
    for rule, one in expected.items():
        found = solve_in_parts(rule, rows, 2.3)
        assert (found.mean_length, found.obstacle, found.tokens) == (one.mean_length, one.obstacle, one.tokens)
        assert (found.forced, found.fewest, found.exact) == (one.forced, one.fewest, one.exact)
