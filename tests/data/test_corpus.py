"""A corpus is read, scored once into a store, and read back: equal to scoring each document on its own."""

import csv
import gzip
import io
import json
import sys
from functools import partial
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.scored_rows import ROLE_NAMES
from data.corpus.scoring import score_corpus
from data.corpus.store import open_store
from data.corpus.store_writer import writing
from model.errors import ExportError, TextError, TooLarge
from model.hub.loading import ModelSpec, load
from model.scoring.token_scores import score
from model.terminal import start
from model.text.document import TextInput
from model.text.encoding import encode
from tests.support.tiny import CORPUS

SCORES = ("entropy", "confidence", "margin", "surprisal")
TEXTS = [*CORPUS, "", *(text[: 7 * i] for i, text in enumerate(reversed(CORPUS), 1)), "a"]


@pytest.fixture(scope="module")
def loaded(models):
    return load(ModelSpec(str(models["base"])))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), "utf-8")
    return path


@pytest.fixture
def call(command):
    """Run `micro-step corpus score` here."""
    return partial(command, "corpus", "score")


def make(loaded, data, out, corpus=None, **options):
    return score_corpus(lambda: loaded, open_corpus(corpus or CorpusSpec(str(data))), out, CorpusOptions(**options))


def texts(path, **options):
    return [entry.document.text for entry in open_corpus(CorpusSpec(str(path), **options)).entries()]


# --- reading


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_records_of_every_kind_of_file_are_the_same_documents(tmp_path, suffix):
    path = tmp_path / f"x{suffix}"
    lines = "".join(json.dumps({"n": 1, "body": text}) + "\n\n" for text in TEXTS).encode()
    if suffix == ".parquet":
        pq.write_table(pa.table({"n": [1] * len(TEXTS), "body": TEXTS}), path)
    else:
        path.write_bytes(gzip.compress(lines) if suffix.endswith(".gz") else lines)
    assert texts(path, column="body") == TEXTS
    corpus = open_corpus(CorpusSpec(str(path), column="body"))
    assert [entry.index for entry in corpus.entries(5)] == list(range(5, len(TEXTS)))
    assert [entry.share for entry in corpus.entries()][-1] == 1
    with pytest.raises(TextError, match=r"no column 'text'; choose one with --column: n, body"):
        open_corpus(CorpusSpec(str(path)))


CELLS = [("a,b", 'say "x"'), ("two\nlines", "=1+1"), ("", "NA"), ("é🙂", "007"), (" x ", "1.50")]


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv"])
def test_cells_of_a_table_of_texts_stay_as_they_are(tmp_path, suffix):
    path, buffer = tmp_path / f"x{suffix}", io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter="\t" if suffix == ".tsv" else ",", lineterminator="\r\n")
    writer.writerows([("text", "other"), *CELLS])
    content = ("\ufeff" + buffer.getvalue()).encode()
    path.write_bytes(gzip.compress(content) if suffix.endswith(".gz") else content)
    entries = list(open_corpus(CorpusSpec(str(path))).entries())
    assert [(entry.document.text, entry.columns["other"]) for entry in entries] == CELLS


def test_documents_have_their_columns_in_the_store(loaded, tmp_path):
    """Values of every kind, a column that some documents lack, several shards, and a run that is resumed."""
    path, image = tmp_path / "x.json", {"url": "https://x", "tags": ["a", None]}
    values = ["news", 7, 0.1, True, None, image, "news", "é\ud800", 2**70]
    records = [{"id": i, "text": CORPUS[i % 8], "domain": value} for i, value in enumerate(values)]
    records[3]["late"] = "here"
    path.write_text(json.dumps(records))
    spec = CorpusSpec(str(path), ids=("id",))
    store = make(loaded, path, tmp_path / "store", spec, shard_tokens=40, windows=True, max_tokens=16)
    assert len(store.marks) > 2 and store.ids == ("id",)
    assert store.column_names == ("id", "domain", "late")
    assert store.columns() == {"id": list(range(9)), "domain": values, "late": [None] * 3 + ["here"] + [None] * 5}
    assert store.columns(["late"]).keys() == {"late"}
    with pytest.raises(TextError, match="no column 'x'; its columns: id"):
        store.columns(["x"])
    (store.path / "columns-00001.parquet").unlink()
    with pytest.raises(TextError, match="incomplete"):
        open_store(store.path)
    again = make(loaded, path, tmp_path / "store", spec, shard_tokens=40, windows=True, max_tokens=16)
    assert again.columns() == store.columns()


def test_a_store_from_before_columns_opens_and_is_resumed_without_them(loaded, tmp_path, data):
    data.write_text("".join(json.dumps({"text": text, "n": 1}) + "\n" for text in TEXTS), "utf-8")
    store = make(loaded, data, tmp_path / "store", shard_tokens=60)
    manifest = json.loads((store.path / "manifest.json").read_text())
    del manifest["ids"]
    (store.path / "manifest.json").write_text(json.dumps(manifest))
    for number in range(len(store.marks)):
        mark = json.loads((file := store.path / f"shard-{number:05d}.json").read_text())
        del mark["columns_sha256"]
        file.write_text(json.dumps(mark))
        (store.path / f"columns-{number:05d}.parquet").unlink()
    old = open_store(store.path)
    assert old.column_names == () and old.columns() == {} and old.ids == ()
    (store.path / "shard-00001.json").unlink()
    assert make(loaded, data, store.path, shard_tokens=60).column_names == ()


def test_two_rows_with_one_id_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("item,condition,text\n1,a,x\n1,b,y\n1,a,z\n")
    with pytest.raises(TextError, match="rows 1 and 3 both have the id 1, a"):
        open_corpus(CorpusSpec(str(path), ids=("item", "condition")))
    with pytest.raises(TextError, match="no column 'n'; choose --id among item"):
        open_corpus(CorpusSpec(str(path), ids=("n",)))


def test_of_parquet_only_the_columns_and_row_groups_that_are_needed_are_read(tmp_path, monkeypatch):
    path = tmp_path / "x.parquet"
    table = pa.table({"text": TEXTS[:5], "id": range(5), "long": [["x" * 99]] * 5, "raw": [b"x"] * 5})
    pq.write_table(table, path, row_group_size=2)
    asked, batches = [], pq.ParquetFile.iter_batches

    def recorded(self, size, groups, columns):
        asked.append((groups, columns))
        return batches(self, size, groups, columns=columns)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", recorded)
    corpus = open_corpus(CorpusSpec(str(path), ids=("id",)))
    assert [columns for _, columns in asked] == [["text", "id"]] * 2
    for first in range(6):
        entries = list(corpus.entries(first))
        assert [(each.index, each.document.text) for each in entries] == list(enumerate(TEXTS[:5]))[first:]
        assert [each.columns for each in entries] == [{"id": i, "long": ["x" * 99]} for i in range(first, 5)]
        assert asked[-1][0] == [0, 1, 2][first // 2 if first < 5 else 3 :]
    with pytest.raises(TextError, match="choose --id among text, id, long"):
        open_corpus(CorpusSpec(str(path), ids=("n",)))


@pytest.mark.parametrize("packed", [False, True])
def test_a_text_file_is_one_document_or_its_blocks_or_its_lines(tmp_path, packed):
    text = "\ufeffone\r\ntwo\r\n \r\n\r\n\tthree é\n\n\nfour"
    path = tmp_path / ("x.txt.gz" if packed else "x.txt")
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    assert texts(path) == [text[1:]]
    assert texts(path, documents="paragraph") == ["one\r\ntwo", "\tthree é", "four"]
    assert texts(path, documents="line") == ["one", "two", "\tthree é", "four"]


def test_conversations_nothing_and_nonsense_in_a_column(tmp_path):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    values = [turns, None, 3, [{"role": "king", "content": "x"}], "\ud800"]
    path = tmp_path / "x.jsonl"
    path.write_text("".join(json.dumps({"text": value}) + "\n" for value in values))
    found = list(open_corpus(CorpusSpec(str(path))).entries())
    assert found[0].document.text == "Hi\nHello"
    assert found[1].document.text == ""
    assert [entry.document for entry in found[2:]] == [None] * 3
    assert "neither a text" in found[2].problem and "king" in found[3].problem and "surrogate" in found[4].problem


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"\xff\xfe", "damaged or not UTF-8"),
        ("x.txt.gz", b"no gzip", "damaged or not UTF-8"),
        ("x.txt.gz", gzip.compress(b"long enough " * 99, mtime=0)[:-20], "damaged or not UTF-8"),
        ("x.jsonl", b"{]\n", "line 1 is not JSON"),
        ("x.jsonl", b"[1]\n", "line 1 is not a JSON object"),
        ("x.jsonl", b"\n", "holds no document"),
        ("x.parquet", b"PAR1", "not a readable Parquet file"),
        ("x.xlsx", b"a,b", "unsupported kind"),
        ("x.csv", b"text,b\n", "holds no document"),
        ("x.csv", b"text,b\n1,2\n1\n", "line 3: 1 cells"),
        ("x.tsv", b"text\tb\n1\t2\t3\n", "line 2: 3 cells"),
        ("x.csv", b'text,b\n"1,2\n3,4\n', "quotes"),
        ("x.csv", b"text,text\n1,2\n", "two columns named 'text'"),
        ("x.csv", b"text;b\n1;2\n", "no column 'text'.*by commas"),
        ("x.csv", b"text,b\n\xff,2\n", "not UTF-8"),
        ("x.json", b"[1]", "item 1 is not a JSON object"),
        ("x.json", b"[{]", "not JSON"),
    ],
)
def test_what_cannot_be_read_is_one_clear_error(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(TextError, match=message):
        list(open_corpus(CorpusSpec(str(path))).entries())


def test_what_is_not_there_is_one_clear_error(tmp_path):
    for data, message in ((tmp_path / "x.txt", "check its path"), (tmp_path, "a folder"), ("a/b/c", "hub id")):
        with pytest.raises(TextError, match=message):
            open_corpus(CorpusSpec(str(data)))
    with pytest.raises(TextError, match="hub cannot be reached"):  # the tests are off line
        open_corpus(CorpusSpec("someone/something"))


class Stream(list):
    def skip(self, n):
        return Stream(self[n:])


def test_a_hub_id_is_pinned_to_its_commit_and_streamed(loaded, tmp_path, data, monkeypatch):
    asked = []

    def load_dataset(*words, **options):
        asked.append((words, options))
        return Stream({"text": text} for text in TEXTS)

    class Api:
        def dataset_info(self, repo, revision, timeout):
            assert (repo, revision) == ("someone/something", "main")
            return SimpleNamespace(sha="c0ffee")

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    spec = CorpusSpec("someone/something", subset="en", split="test", revision="main")
    store = make(loaded, None, tmp_path / "hub", spec)
    assert store.manifest["data"]["revision"] == "c0ffee"
    expected = (("someone/something", "en"), {"split": "test", "revision": "c0ffee", "streaming": True})
    assert asked and all(each == expected for each in asked)
    assert [entry.document.text for entry in open_corpus(spec).entries(4)] == TEXTS[4:]
    same(store.arrays(), make(loaded, data, tmp_path / "file").arrays())

    def broken(*words, **options):
        raise ValueError("Unknown split")

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", broken)
    with pytest.raises(TextError, match=r"cannot be read \(Unknown split\); check --subset"):
        open_corpus(spec)


# --- scores


def same(a, b):
    assert a.text == b.text
    for name in ("document", "piece", "document_tokens", "text_start", "offsets", "ids", *SCORES, "rank", "start"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert np.array_equal(a.end, b.end) and np.array_equal(a.role, b.role)


@pytest.mark.parametrize("name", ["base", "other"])
@pytest.mark.parametrize("batch_tokens", [1, 200, None])
def test_a_store_equals_scoring_each_document(models, tmp_path, data, name, batch_tokens):
    loaded = load(ModelSpec(str(models[name])))
    store = make(loaded, data, tmp_path / "store", shard_tokens=100, batch_tokens=batch_tokens)
    assert (store.documents, store.complete, store.facts) == (len(TEXTS), True, loaded.facts)
    assert len(store.marks) > 3
    rows = list(store.rows())
    assert [row.document for row in rows] == list(range(len(TEXTS)))
    for text, row in zip(TEXTS, rows, strict=True):
        encoded = encode(TextInput.plain(text), loaded.tokenizer)
        (alone,) = score(loaded.model, [encoded.ids], prefix=encoded.prefix)
        np.testing.assert_array_equal(row.ids, encoded.ids)
        for each in SCORES:
            np.testing.assert_allclose(getattr(row, each), getattr(alone, each), atol=1e-4, err_msg=each)
        np.testing.assert_array_equal(row.rank, alone.rank)
        np.testing.assert_array_equal(row.start, encoded.start)
        np.testing.assert_array_equal(row.end, encoded.end)
        assert (row.text, row.display, row.document_tokens) == (text, encoded.display, len(encoded))
    every = store.arrays()
    assert len(every) == len(TEXTS) and every.offsets[-1] == store.tokens == sum(len(row.ids) for row in rows)
    np.testing.assert_array_equal(every.row(2).entropy, rows[2].entropy)


def test_windows_cut_long_documents_and_are_scored_alone(loaded, tmp_path, data):
    rows = list(make(loaded, data, tmp_path / "store", windows=True, max_tokens=20, shard_tokens=50).rows())
    for i, text in enumerate(TEXTS):
        pieces = [row for row in rows if row.document == i]
        assert [row.piece for row in pieces] == list(range(len(pieces)))
        assert "".join(row.text for row in pieces if row.text).startswith(text[:10])
        ids = np.concatenate([row.ids for row in pieces])
        np.testing.assert_array_equal(ids, encode(TextInput.plain(text), loaded.tokenizer).ids)
        for row in pieces:
            assert len(row.ids) <= 20 and row.document_tokens == len(ids)
            (alone,) = score(loaded.model, [row.ids.astype(np.int64)])
            np.testing.assert_allclose(row.entropy, alone.entropy, atol=1e-4)
            assert row.display == [text[a:b] for a, b in zip(row.start, row.end, strict=True)]


def test_longer_documents_lose_their_ends_and_the_store_says_so(loaded, tmp_path, data):
    store = make(loaded, data, tmp_path / "store", max_tokens=20)
    totals = [len(encode(TextInput.plain(text), loaded.tokenizer)) for text in TEXTS]
    cut = [n - 20 for n in totals if n > 20]
    assert f"documents whose ends are left out: {len(cut)}, by {sum(cut):,} tokens" in store.notes
    assert [len(row.ids) for row in store.rows()] == [min(n, 20) for n in totals]
    assert [row.document_tokens for row in store.rows()] == totals


@pytest.mark.parametrize("windows", [False, True])
def test_a_limit_is_met_exactly(loaded, tmp_path, data, windows):
    whole = make(loaded, data, tmp_path / "whole", windows=windows, max_tokens=20).arrays()
    for limit in (1, 20, 60, 61, 75):
        store = make(
            loaded, data, tmp_path / f"{limit}", windows=windows, max_tokens=20, limit_tokens=limit, shard_tokens=9
        )
        np.testing.assert_array_equal(store.arrays().ids, whole.ids[:limit])
        np.testing.assert_allclose(store.arrays().surprisal, whole.surprisal[:limit], atol=1e-4)


def test_chat_spans_are_of_the_documents_own_text(models, tmp_path):
    turns = [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Hello"}]
    data = tmp_path / "x.jsonl"
    data.write_text(json.dumps({"messages": turns}) + "\n" + json.dumps({"messages": "plain"}) + "\n")
    loaded = load(ModelSpec(str(models["sft"])))
    first, second = make(loaded, data, tmp_path / "store", CorpusSpec(str(data), "messages"), chat=True).rows()
    roles = np.array(ROLE_NAMES)[first.role]
    assert "".join(np.array(first.display)[roles == "user"]) == "Hi there"
    assert "".join(np.array(first.display)[roles == "assistant"]) == "Hello"
    assert set(first.start[roles == "template"]) == {-1}
    assert first.text == "Hi there\nHello" and second.text == "plain"


def test_refused_documents_are_counted_and_kept_as_empty_ones(loaded, tmp_path):
    data = tmp_path / "x.jsonl"
    data.write_text("".join(json.dumps({"text": value}) + "\n" for value in ("one", 3, "\ud800", "two")))
    store = make(loaded, data, tmp_path / "store")
    assert [len(row.ids) > 0 for row in store.rows()] == [True, False, False, True]
    assert any(
        note.startswith("documents that were refused and count as empty: 2 (the first: it") for note in store.notes
    )
    data.write_text(json.dumps({"text": 3}))
    with pytest.raises(TextError, match="no token to score in x.jsonl: the first that was refused: it is neither"):
        make(loaded, data, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


# --- the store


def test_a_finished_or_damaged_store_is_gone_on_with(loaded, tmp_path, data):
    out = tmp_path / "store"
    make(loaded, data, out, shard_tokens=60)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    (out / "shard-00002.parquet").write_bytes(b"\0" * len(before["shard-00002.parquet"]))
    with pytest.raises(TextError, match=r"shard-00002.parquet is damaged"):
        open_store(out).arrays()
    (out / "shard-00004.json").unlink()
    (out / "shard-00009.parquet.part").write_bytes(b"left by a killed writer")
    with pytest.raises(TextError, match="incomplete"):
        open_store(out)
    make(loaded, data, out, shard_tokens=60)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_an_incomplete_store_is_an_error_unless_it_is_allowed(loaded, tmp_path, data):
    out = tmp_path / "store"
    whole = make(loaded, data, out, shard_tokens=60).arrays()
    (out / "complete.json").unlink()
    (out / "shard-00003.json").unlink()
    with pytest.raises(TextError, match=r"incomplete \(3 shards"):
        open_store(out)
    part = open_store(out, allow_incomplete=True)
    assert not part.complete and "only the first" in part.notes[0] and len(part.marks) == 3
    np.testing.assert_array_equal(part.arrays().entropy, whole.entropy[: part.tokens])


def test_a_folder_that_is_no_store_is_an_error(loaded, tmp_path, data):
    for path in (tmp_path, tmp_path / "nothing", data):
        with pytest.raises(TextError, match="holds no store of scores"):
            open_store(path)
    for path, message in (
        (tmp_path, "holds other files"),
        (data, "is a file"),
    ):
        with pytest.raises(ExportError, match=message):
            make(loaded, data, path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "manifest.json").write_text('{"format": "micro_step corpus store 0"}')
    with pytest.raises(TextError, match="another folder"):
        open_store(tmp_path / "old")


def test_going_on_with_something_else_names_what_differs(models, loaded, tmp_path, data):
    out = tmp_path / "store"
    make(loaded, data, out, max_tokens=30)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    with pytest.raises(ExportError, match=r"begun with something else: max_tokens \(30 there, 31 now\); use the same"):
        make(loaded, data, out, max_tokens=31)
    with pytest.raises(ExportError, match=r"revision \(sha256:.*, chat_template_hash"):
        make(load(ModelSpec(str(models["sft"]))), data, out)
    with pytest.raises(ExportError, match="tokenizer_hash"):
        make(load(ModelSpec(str(models["other"]))), data, out)
    with pytest.raises(ExportError, match=r"dtype \(float32 there, bfloat16 now\)"):
        make(load(ModelSpec(str(models["base"]), dtype="bfloat16")), data, out)
    data.write_text(data.read_text() + '{"text": "more"}\n')
    with pytest.raises(ExportError, match=r"else: data revision \(sha256:"):
        make(loaded, data, out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_a_corpus_that_changes_meanwhile_leaves_no_complete_store(loaded, tmp_path, data):
    corpus = open_corpus(CorpusSpec(str(data)))
    data.write_text(data.read_text() + '{"text": "more"}\n')
    with pytest.raises(TextError, match="was changed"):
        score_corpus(lambda: loaded, corpus, tmp_path / "store")
    with pytest.raises(TextError, match="incomplete"):
        open_store(tmp_path / "store")


def test_one_writer_at_a_time(models, tmp_path, data, call):
    with writing(tmp_path / "store"):
        code, out, said = call("--model", models["base"], "--data", data, "--out", tmp_path / "store")
    assert (code, out, len(said)) == (1, "", 1)
    assert said[0].startswith("Error: another process writes into ")


def test_too_little_memory_or_disk_is_said_before_anything_is_scored(loaded, tmp_path, data, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(TooLarge, match="GB of disk"):
        make(loaded, data, tmp_path / "disk")
    monkeypatch.undo()
    for module in ("data.corpus.budget", "model.hub.memory"):
        monkeypatch.setattr(f"{module}.available_memory", lambda device: 1_000_000)
    with pytest.raises(TooLarge, match="do not fit the free memory"):
        make(loaded, data, tmp_path / "memory", max_tokens=500)
    store = make(loaded, data, tmp_path / "less")
    assert store.manifest["parameters"]["max_tokens"] < 500  # lowered, as nothing was asked for
    monkeypatch.undo()
    make(loaded, data, tmp_path / "less")  # and kept when the memory is there again


# --- the command


def test_the_command_tells_what_it_made(models, tmp_path, data, call):
    out = tmp_path / "store"
    words = ("--model", models["base"], "--data", data, "--out", out, "--dtype", "bfloat16", "--shard-tokens", 100)
    code, said, lines = call(*words, "--no-report")
    assert (code, said) == (0, f"{out}\n")
    store = open_store(out)
    assert store.facts.dtype == "bfloat16" and any("bfloat16" in line for line in lines)
    assert f"{store.tokens:,} tokens of {len(TEXTS)} documents in {len(store.marks)} shards" in lines[-1]
    code, said, lines = call(*words)
    assert code == 0 and said.endswith(f"\n{out}\n")
    shown = [line.split()[0] for line in said.splitlines()[1:] if line.split()]
    assert shown.count("confidence") == 2 and "router" not in shown, "both target lengths, of what is in the store"


def test_ctrl_c_leaves_a_store_that_is_gone_on_with(models, loaded, tmp_path, data, call, monkeypatch):
    out, calls = tmp_path / "store", []

    def interrupted(*words, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return score(*words, **options)

    words = ("--model", models["base"], "--data", data, "--out", out, "--shard-tokens", 60)
    monkeypatch.setattr("model.scoring.token_scores.score", interrupted)
    code, said, lines = call(*words)
    assert (code, said) == (130, "")
    assert lines[-2].endswith("run the same command again to resume")
    monkeypatch.undo()
    assert open_store(out, allow_incomplete=True).tokens > 0
    monkeypatch.setattr(sys, "argv", ["micro-step", "corpus", "score", *map(str, words)])
    start()
    same(open_store(out).arrays(), make(loaded, data, tmp_path / "other", shard_tokens=60).arrays())


def test_mistakes_end_with_one_line_and_no_folder(models, tmp_path, data, call):
    out = tmp_path / "store"
    for words in (
        ("--model", models["base"], "--data", tmp_path / "x.txt", "--out", out),
        ("--model", models["base"], "--data", data, "--column", "body", "--out", out),
        ("--model", tmp_path / "none", "--data", data, "--out", out / "inner"),
        ("--model", models["base"], "--data", data, "--documents", "page", "--out", out),
    ):
        code, said, lines = call(*words)
        assert code in (1, 2) and not said and len(lines) == 1, lines
        assert lines[0].startswith("Error: ") and not out.exists()
