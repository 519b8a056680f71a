"""Rankings of documents equal a direct computation from the tokens, and texts are found in two stores."""

from __future__ import annotations

import json
import math
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import micro_step as ms
from analysis.corpus.change import changes
from analysis.ranking.answer import TABLES, finding, open_pair, origin, rank
from analysis.ranking.columns import column_names, corpus_file, grouping_columns
from analysis.ranking.document_scores import document_scores
from analysis.ranking.pairing import pairing
from analysis.ranking.ranking import ranking
from analysis.ranking.stored_document import stored_document
from analysis.ranking.view import RANKED, RankView
from analysis.score_registry import PER_NAT
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.scored_rows import ROLE_NAMES
from data.corpus.scoring import score_corpus
from data.corpus.store import CorpusStore, open_store
from data.corpus.text_files import column_names_of
from model.errors import MicroStepError, TextError
from model.hub.loading import ModelSpec, load
from tests.analysis.ranking.random_stores import SHIPPED, add_column, add_columns, save_store
from tests.support.command import call, repeat
from tests.support.tiny import CORPUS, save_tiny

TALKS = [
    [{"role": "user", "content": text[:20].strip()}, {"role": "assistant", "content": text[20:].strip()}]
    for text in CORPUS
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Conversations and a plain text under two models with one tokenizer; another tokenizer; windows; other texts."""
    folder = tmp_path_factory.mktemp("ranking")
    corpora = {
        "all": [*TALKS, CORPUS[0]],
        "other": [*TALKS[3:1:-1], "Another text."],
        "pieces": CORPUS,
        "whole": CORPUS,
    }
    chat = CorpusOptions(chat=True)
    options = {"all": chat, "other": chat, "pieces": CorpusOptions(window_characters=30), "whole": CorpusOptions()}
    found = {}
    for name, how in (("a", {}), ("b", {"seed": 1}), ("c", {"vocab_size": 380})):
        model = load(ModelSpec(str(save_tiny(folder / f"model-{name}", "llama", chat=True, **how))))  # type: ignore[arg-type]
        for corpus, texts in corpora.items():
            data = folder / f"{corpus}.jsonl"
            data.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), "utf-8")
            out = folder / f"{corpus}-{name}"
            score_corpus(lambda m=model: m, open_corpus(CorpusSpec(str(data))), out, options[corpus])  # type: ignore[misc]
            found[out.name] = out
    return found


def direct(path: Path, score: str, roles: tuple[str, ...], unit: str) -> dict[int, float]:
    """The mean of each document, token by token in double precision."""
    totals: dict[int, list[float]] = {}
    for row in open_store(path).rows():
        taken = [0.0, 0.0]
        reached = -1
        for i in range(len(row.ids)):
            role = ROLE_NAMES[row.role[i]]
            start, end = max(int(row.start[i]), reached), int(row.end[i])
            reached = max(reached, end)
            if role == "template" or (roles and role not in roles) or math.isnan(row.surprisal[i]):
                continue
            if score == "bits_per_byte":
                taken[0] += float(row.surprisal[i]) / math.log(2)
                taken[1] += len(row.text[start - row.text_start : end - row.text_start].encode())
            else:
                factor = PER_NAT[unit] if score != "confidence" else 1  # type: ignore[index]
                taken[0] += float(getattr(row, score)[i]) * factor
                taken[1] += 1
        have = totals.setdefault(row.document, [0.0, 0.0])
        have[0] += taken[0]
        have[1] += taken[1]
    return {number: total / weight for number, (total, weight) in totals.items() if weight}


@pytest.mark.parametrize("score", RANKED)
@pytest.mark.parametrize(("corpus", "roles"), [("all", ()), ("all", ("assistant",)), ("pieces", ())])
def test_the_ranking_is_that_of_a_direct_computation(
    stores: dict[str, Path], score: str, corpus: str, roles: tuple[str, ...]
) -> None:
    a, b = stores[f"{corpus}-a"], stores[f"{corpus}-b"]
    found = rank(open_pair(a, b), RankView(score, roles=roles, unit="bits")).table
    x, y = (direct(path, score, roles, "bits") for path in (a, b))
    expected = sorted(x, key=lambda number: -abs(y[number] - x[number]))
    assert found["document"].tolist() == expected and len(expected) >= 1
    np.testing.assert_allclose(found["a"], [x[number] for number in expected], rtol=1e-6)
    np.testing.assert_allclose(found["b"], [y[number] for number in expected], rtol=1e-6)
    np.testing.assert_allclose(found["difference"], found["b"] - found["a"], rtol=1e-9)


def test_orders_and_filters(stores: dict[str, Path]) -> None:
    pair = open_pair(stores["all-a"], stores["all-b"])

    def table(**view: object) -> pd.DataFrame:
        return rank(pair, RankView(**view)).table  # type: ignore[arg-type]

    assert table(sort="a")["a"].is_monotonic_decreasing and table(sort="b")["b"].is_monotonic_decreasing
    assert table(score="confidence", sort="a")["a"].is_monotonic_increasing  # the least sure first
    assert table(sort="document")["document"].is_monotonic_increasing
    assert table(reverse=True)["document"].tolist() == table()["document"].tolist()[::-1]
    rises, falls = table(show="rises"), table(show="falls")
    assert (rises["difference"] > 0).all() and (falls["difference"] < 0).all()
    assert len(rises) + len(falls) == len(table()) == len(TALKS) + 1
    alone = rank(open_pair(stores["all-a"], None), RankView()).table
    assert "b" not in alone and alone["a"].is_monotonic_decreasing


def test_means_by_role_are_those_of_corpus_change(stores: dict[str, Path]) -> None:
    a, b = stores["all-a"], stores["all-b"]
    known = {(each.role, each.score): each for each in changes(open_store(a), open_store(b))[0]}
    for score in ("entropy", "confidence", "surprisal"):
        found = ranking(open_pair(a, b), RankView(score))
        groups = {group.group: group for group in found.by_role()} | {"content": found.overall}
        assert {"user", "assistant", "template", "content"} == set(groups)
        for role, group in groups.items():
            other = known[role, score]
            assert (group.documents, group.tokens) == (other.documents, other.tokens)
            for name in ("a", "b", "difference"):
                mine, theirs = getattr(group, name), getattr(other, name)
                ends = [(each.mean, each.low, each.high) for each in (mine, theirs)]
                np.testing.assert_allclose(ends[0], ends[1], rtol=1e-6)


def test_documents_are_matched_by_their_text(stores: dict[str, Path]) -> None:
    pair = open_pair(stores["all-a"], stores["other-c"])
    assert pair.a.number[pair.at_a].tolist() == [2, 3] and pair.b is not None
    assert pair.b.number[pair.at_b].tolist() == [1, 0]
    assert (pair.only_a, pair.only_b, pair.other_text) == (len(TALKS) - 1, 1, 0)
    assert any("match" in note for note in pair.notes) and any("tokenizers" in note for note in pair.notes)
    table = rank(pair, RankView("bits_per_byte")).table
    expected = direct(stores["other-c"], "bits_per_byte", (), "nats")
    assert {row.document_b: pytest.approx(row.b) for row in table.itertuples()} == {0: expected[0], 1: expected[1]}
    pieces = open_pair(stores["pieces-a"], stores["whole-c"])
    assert pieces.at_a.tolist() == pieces.at_b.tolist() == list(range(len(CORPUS)))


def test_copies_of_a_text_match_in_order_and_stores_without_a_common_text_are_refused(tmp_path: Path) -> None:
    one = document_scores(open_store(save_store(tmp_path / "one", 6)))
    copied = pairing(*(_with_keys(one, keys) for keys in (b"xxyzxw", b"xqxxyy")))
    assert copied.at_a.tolist() == [0, 1, 2, 4] and copied.at_b.tolist() == [0, 2, 4, 3]
    with pytest.raises(MicroStepError, match="in common"):
        pairing(_with_keys(one, b"abcdef"), _with_keys(one, b"uvwxyz"))


def _with_keys(side: object, keys: bytes) -> object:
    import dataclasses

    return dataclasses.replace(side, key=tuple(bytes([key]) for key in keys))  # type: ignore[type-var]


@pytest.mark.parametrize("number", range(len(TALKS) + 1))
def test_a_document_comes_back_as_it_was_read(stores: dict[str, Path], number: int) -> None:
    found = stored_document(open_store(stores["all-a"]), number)
    said = [(each.role, each.content) for each in found.messages]
    expected = [("text", CORPUS[0])] if number == len(TALKS) else [(m["role"], m["content"]) for m in TALKS[number]]
    assert said == expected
    pieces = stored_document(open_store(stores["pieces-a"]), number % len(CORPUS))
    assert pieces.text == CORPUS[number % len(CORPUS)]
    with pytest.raises(TextError):
        stored_document(open_store(stores["all-a"]), 99)


def test_means_by_a_column_of_the_corpus(tmp_path: Path) -> None:
    domains = ["news", "fiction", "news", "code", None, "fiction"] * 5
    a, b = (save_store(tmp_path / name, 30, seed=seed) for seed, name in enumerate("ab"))
    add_column(a, "domain", domains)
    assert column_names(open_store(a)) == ("domain",)
    pair = open_pair(a, b)
    x, y = (direct(path, "entropy", (), "nats") for path in (a, b))
    groups = {group.group: group for group in ranking(pair, RankView(column="domain")).by_column()}
    assert set(groups) == {"news", "fiction", "code", ""}
    for domain, group in groups.items():
        here = [number for number, value in enumerate(domains) if (value or "") == domain]
        assert group.documents == len(here) and group.difference is not None
        assert group.difference.mean == pytest.approx(np.mean([y[n] - x[n] for n in here]), rel=1e-5)
        assert group.difference.low < group.difference.mean < group.difference.high
    only = rank(pair, RankView(column="domain", values=["code"])).table
    assert set(only["domain"]) == {"code"} and len(only) == 5
    for view in (RankView(column="genre"), RankView(column="domain", values=["poems"])):
        with pytest.raises(MicroStepError):
            rank(pair, view)
    with pytest.raises(MicroStepError, match="columns"):
        ranking(open_pair(b, a), RankView(column="domain"))


def test_columns_with_our_names_and_many_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A column called text took the place of the text, and each of 10,000 columns was read by itself, for minutes."""
    a = save_store(tmp_path / "a", 6)
    add_column(a, "text", ["x", "y"] * 3)
    pair = open_pair(a, None)
    table = rank(pair, RankView(column="text", values=["y"])).table
    assert set(table["corpus_text"]) == {"y"} and set(table["text"]) <= set(pair.a.beginning)
    means = rank(pair, RankView(column="text"), "columns").table
    assert means["corpus_text"].tolist() == ["x", "y"] and means["documents"].tolist() == [3, 3]
    read: list[object] = []
    columns_of = CorpusStore.columns_of
    monkeypatch.setattr(CorpusStore, "columns_of", lambda *given: (read.append(given), columns_of(*given))[1])
    add_columns(a, [{f"c{i}": (i + j) % 2 for i in range(300)} for j in range(6)])
    assert len(grouping_columns(document_scores(open_store(a)))) == 300 and len(read) == 1


def test_columns_are_read_from_the_very_file_that_was_scored(tmp_path: Path) -> None:
    pair = open_pair(SHIPPED / "tiny-base", SHIPPED / "tiny-sft")
    assert grouping_columns(pair.a) == ("domain",)
    records = [json.loads(line) for line in (SHIPPED / "texts.jsonl").read_text("utf-8").splitlines()]
    table = rank(pair, RankView(column="domain")).table
    assert table["domain"].tolist() == [records[number]["domain"] for number in table["document"]]
    copied = shutil.copytree(SHIPPED, tmp_path / "scored")
    with (copied / "texts.jsonl").open("a") as file:
        file.write("{}\n")
    assert corpus_file(open_store(copied / "tiny-base")) is None
    with pytest.raises(MicroStepError, match=r"texts\.jsonl"):
        rank(open_pair(copied / "tiny-base", None), RankView(column="domain"))


def test_the_columns_of_a_file_are_named_without_reading_it_all(tmp_path: Path) -> None:
    table = pd.DataFrame({"text": ["a", "b"], "domain": ["x", "y"]})
    table.to_parquet(tmp_path / "corpus.parquet")
    for name in ("corpus.jsonl", "corpus.jsonl.gz"):
        table.to_json(tmp_path / name, orient="records", lines=True)
    (tmp_path / "corpus.txt").write_text("a", "utf-8")
    (tmp_path / "broken.jsonl").write_text("{", "utf-8")
    for name in ("corpus.parquet", "corpus.jsonl", "corpus.jsonl.gz"):
        assert column_names_of(CorpusSpec(str(tmp_path / name))) == ["text", "domain"]
    assert column_names_of(CorpusSpec(str(tmp_path / "corpus.txt"))) == []
    with pytest.raises(TextError):
        column_names_of(CorpusSpec(str(tmp_path / "broken.jsonl")))


def test_2000_documents_open_in_under_2_seconds_one_shard_at_a_time(tmp_path: Path) -> None:
    paths = [save_store(tmp_path / name, 2000, 250, seed) for seed, name in enumerate("ab")]
    shares: list[float] = []
    began = time.perf_counter()
    sides = [document_scores(open_store(path), shares.append) for path in paths]
    pair = pairing(*sides)
    found = ranking(pair, RankView())
    assert len(found.order) == 2000 and found.by_role()
    assert time.perf_counter() - began < 2
    assert shares == [0.25, 0.5, 0.75, 1.0] * 2
    held = sum(getattr(sides[0], name).nbytes for name in ("number", "characters", "cut", "tokens", "bytes", "sums"))
    assert held < 300 * 2000  # bytes; the 500,000 tokens have 5 times as many in one column


def test_command_python_and_bundle_agree(
    stores: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = stores["all-a"], stores["all-b"]
    result = ms.rank_documents(a, b, score="surprisal", roles=["assistant"], unit="bits", show="rises")
    for table in TABLES:
        out = tmp_path / f"{table}.parquet"
        words = ["--score", "surprisal", "--roles", "assistant", "--unit", "bits", "--show", "rises", "--out", out]
        more = ["--column", "domain"] if table == "columns" else []
        code = call(monkeypatch, "corpus", "rank", a, b, *words, "--table", table, *more)
        assert code == (0 if table != "columns" else 1)
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "ranking.parquet"), result.table)
    for name in result.figures:
        assert len(result.figure(name, theme="dark").data) > 0
        found: dict[str, ms.Result] = {}
        exec(origin(result.raw).python(name), found)  # type: ignore[misc]  # noqa: S102
        pd.testing.assert_frame_equal(found["result"].data(name), result.data(name))
        monkeypatch.chdir(tmp_path)
        assert repeat(monkeypatch, origin(result.raw).command(name, "figure.csv")) == 0
        again = pd.read_csv(tmp_path / "figure.csv")
        assert again.columns.tolist() == result.data(name).columns.tolist() and len(again) == len(result.data(name))
        (tmp_path / "figure.csv").unlink()


def test_bad_input_gets_one_message(stores: dict[str, Path], tmp_path: Path) -> None:
    for view in ({"score": "kl"}, {"sort": "size"}, {"show": "some"}, {"roles": ["critic"]}, {"values": ["x"]}):
        with pytest.raises(MicroStepError):
            ms.rank_documents(stores["all-a"], **view)
    with pytest.raises(TextError, match="no store"):
        ms.rank_documents(tmp_path)


@pytest.mark.parametrize("score", RANKED)
def test_the_finding_says_how_models_differ_and_how_sure_that_is(score: str) -> None:
    pair = open_pair(SHIPPED / "tiny-base", SHIPPED / "tiny-sft")
    said = finding(ranking(pair, RankView(score)))
    assert said.startswith("Over 40 documents") and said.endswith(").") and "nan" not in said


def test_the_shipped_stores_are_small_and_what_their_models_say(tmp_path: Path) -> None:
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*") if file.is_file()) < 300_000
    corpus = open_corpus(CorpusSpec(str(SHIPPED / "texts.jsonl")))
    pair = open_pair(SHIPPED / "tiny-base", SHIPPED / "tiny-sft")
    assert len(pair.at_a) == 40 and not pair.notes
    for name in ("tiny-base", "tiny-sft"):
        kept = open_store(SHIPPED / name)
        fresh = score_corpus(
            lambda name=name: load(ModelSpec(name)),
            corpus,
            tmp_path / name,
            CorpusOptions(chat=True, limit_tokens=900),  # type: ignore[misc]
        )
        assert kept.facts.revision == fresh.facts.revision and kept.manifest["data"] == fresh.manifest["data"]
        for old, new in zip(kept.rows(), fresh.rows(), strict=False):
            assert old.text[: len(new.text)] == new.text
            n = len(new.ids)
            np.testing.assert_array_equal(old.ids[:n], new.ids)
            np.testing.assert_allclose(old.entropy[:n], new.entropy, atol=2e-3)
            np.testing.assert_allclose(old.surprisal[:n], new.surprisal, atol=5e-3)
