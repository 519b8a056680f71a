"""The page Corpus: a ranking of documents, filters, and the way from a document to its tokens."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from analysis.ranking.answer import open_pair, rank
from analysis.ranking.stored_document import opening_notes
from analysis.ranking.view import RankView
from analysis.uncertainty.request import ComparisonQuery
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.scoring import score_corpus
from data.corpus.store import open_store
from model.hub.loading import ModelSpec, load
from model.text.document import Document, Message
from tests.analysis.ranking.random_stores import SHIPPED, add_column, save_store
from tests.support import pages
from tests.support.templates import DATED
from tests.support.tiny import save_tiny

pytestmark = pytest.mark.slow
PAIR = {"a": Path("tiny-base"), "b": Path("tiny-sft")}


def opened(**query: Any) -> AppTest:
    return pages.opened(PAIR, "", "corpus", a="a", b="b", fresh=False, **query)


def documents(at: AppTest) -> list[int]:
    """The documents of the table, in order."""
    numbers: list[int] = at.dataframe(key="ranking_table").value["document"].tolist()
    return numbers


def test_a_first_visit_shows_the_shipped_stores_a_page_at_a_time() -> None:
    at = opened()
    assert not at.exception and not at.error
    expected = rank(open_pair(SHIPPED / "tiny-base", SHIPPED / "tiny-sft"), RankView(unit="bits"))
    assert documents(at) == expected.table["document"].tolist()[:25]
    assert [each.label for each in at.metric] == ["documents", "A: mean entropy", "B: mean entropy", "B − A"]
    at.button(key="rank_page_next").click().run()
    assert documents(at) == expected.table["document"].tolist()[25:]
    at.button_group(key="changed").set_value("falls").run()
    assert not at.exception and (at.dataframe(key="ranking_table").value["difference"] < 0).all()
    at.selectbox(key="store_b").set_value("no second store").run()
    assert not at.exception and [each.label for each in at.metric] == ["documents", "A: mean entropy"]


def test_a_document_opens_under_the_models_of_its_stores() -> None:
    at = opened(sort_by="document")
    at.selectbox(key="document_on_page").set_value(19).run()
    at.button(key="open_document").click().run()
    assert not at.exception and not at.error
    now = at.session_state["submission"]
    assert (now.a, now.b, now.chat) == ("tiny-base", "tiny-sft", True)
    assert [each.role for each in now.document().messages] == ["user", "assistant"]
    assert now.text == "What is the capital of France?"
    assert at.query_params["answer"] == "The capital of France is Paris."
    assert any("France" in str(each.value) for each in at.text_area)


def test_the_strip_of_an_opened_document_has_the_numbers_of_the_stores(tmp_path: Path) -> None:
    """The template's arguments and its date, BOS and the precision decide the tokens and their scores."""
    data = tmp_path / "texts.jsonl"
    data.write_text('{"text": [{"role": "user", "content": "The fox?"}, {"role": "assistant", "content": "A dog"}]}\n')
    how = CorpusOptions(
        chat=True, force_bos=True, template=(("mood", '"a \\"sad\\" day"'),), template_date="2024-01-31"
    )
    for seed, name in enumerate("ab"):
        save_tiny(tmp_path / f"model-{name}", "llama", chat=True, seed=seed)
        (tmp_path / f"model-{name}" / "chat_template.jinja").write_text("{{ mood }}, " + DATED)
        spec = ModelSpec(str(tmp_path / f"model-{name}"), dtype="bfloat16")
        score_corpus(lambda spec=spec: load(spec), open_corpus(CorpusSpec(str(data))), tmp_path / "s" / name, how)  # type: ignore[misc]
    at = opened(stores=str(tmp_path / "s"), store_a="a", store_b="b")
    at.button(key="open_document").click().run()
    assert not at.exception and not at.error
    (a, b, text) = at.session_state["inputs"].ready()
    shown = ComparisonQuery(a, b, text).run(load)
    for side, name in ((shown.a, "a"), (shown.b, "b")):
        (row,) = open_store(tmp_path / "s" / name).rows()
        np.testing.assert_array_equal(side.encoded.ids, row.ids)
        np.testing.assert_allclose(side.scores.surprisal, row.surprisal, rtol=1e-6)
        np.testing.assert_allclose(side.scores.entropy, row.entropy, rtol=1e-6)
        assert "31 Jan 2024" in side.encoded.text and 'a "sad" day' in side.encoded.text


def test_what_makes_the_strip_differ_from_the_stores_is_said(tmp_path: Path) -> None:
    a, b = (save_store(tmp_path / name, 3) for name in "ab")
    pair = open_pair(a, b)
    assert opening_notes(pair) == ()
    parameters = {**pair.a.store.manifest["parameters"], "windows": True, "force_bos": True}
    store = replace(pair.a.store, manifest={**pair.a.store.manifest, "parameters": parameters})
    told = " ".join(opening_notes(replace(pair, a=replace(pair.a, store=store, cut=pair.a.cut | True))))
    assert "windows" in told and "forced BOS" in told and "the part" in told


@pytest.mark.parametrize(
    "document",
    [
        Document.plain("a long text " * 400),
        Document((Message("user", "hi"), Message("assistant", "hello"), Message("user", "and now?"))),
    ],
    ids=["long", "rounds"],
)
def test_what_no_link_can_hold_opens_in_the_session(monkeypatch: pytest.MonkeyPatch, document: Document) -> None:
    monkeypatch.setattr("app.corpus.opening.stored_document", lambda *_: document)
    at = opened()
    assert any("this session only" in each.value for each in at.caption)
    at.button(key="open_document").click().run()
    now = at.session_state["submission"]
    assert not at.exception and now.document().messages == document.messages
    assert now.not_in_link() and "text" not in at.query_params


def test_groups_of_a_column_and_what_cannot_be_read(tmp_path: Path) -> None:
    a, b = (save_store(tmp_path / "stores" / name, 30, seed=seed) for seed, name in enumerate("ab"))
    add_column(a, "domain", ["<b>news</b>", "code", "![x](y)"] * 10)
    at = opened(stores=str(tmp_path / "stores"), store_a="a", store_b="b", values="code", open="column_means")
    assert not at.exception and not at.error
    assert set(at.dataframe(key="ranking_table").value["domain"]) == {"code"}
    folded = [each.label for each in at.expander if each.label.startswith("**Means")]
    assert folded == ["**Means by domain**", "**Means by role**"] and len(pages.charts(at)) == 1
    (b / "shard-00000.parquet").write_bytes(b"x" * (b / "shard-00000.parquet").stat().st_size)
    (error,) = opened(stores=str(tmp_path / "stores"), store_a="a", store_b="b").error
    assert "damaged" in error.value
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "none"):
        at = opened(stores=str(tmp_path / folder))
        assert not at.error and at.info and "corpus score" in at.code[0].value


def test_reading_can_be_stopped_and_taken_up(tmp_path: Path) -> None:
    path = save_store(tmp_path / "store", 20)
    at = opened(stores=str(path))
    at.session_state["stopped_stores"] = {path}
    from app.cache import read_stores

    read_stores.clear()
    at.run()
    assert "stopped" in at.info[0].value and not at.dataframe
    at.button(key="read_store").click().run()
    assert not at.exception and len(documents(at)) == 20
