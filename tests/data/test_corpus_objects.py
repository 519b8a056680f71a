"""A store in object storage: equal to one in a folder, resumed, with one writer. The S3 server is moto's.

Needs s3fs (requirements-ray.txt) and moto; the tests on fsspec's storage in memory need neither.
"""

import itertools
import json
import os
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pytest

from data.corpus import scoring
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.features import FeatureSpec, compute_features, gathers, read_gathered
from data.corpus.options import CorpusOptions
from data.corpus.scoring import score_corpus
from data.corpus.store import open_store, read_mark
from data.corpus.store_writer import writing
from model.errors import ExportError, MicroStepError, TextError
from model.hub.loading import ModelSpec, load
from model.segmentation.features import Feature
from model.storage import claims, places
from model.storage.places import Address, place_of, read, remove, sizes_in, write
from tests.support.tiny import CORPUS

needs_s3 = pytest.mark.skipif(
    find_spec("s3fs") is None or find_spec("moto") is None,
    reason="needs s3fs and moto: requirements-ray.txt and -dev.txt",
)
OPTIONS = CorpusOptions(windows=True, max_tokens=32, shard_tokens=150)


@pytest.fixture(scope="module")
def loaded(models):
    return load(ModelSpec(str(models["base"])))


@pytest.fixture
def memory(monkeypatch):
    """A folder of fsspec's storage in memory, which users cannot name."""
    monkeypatch.setitem(places.DRIVERS, "memory", "fsspec")
    files = fsspec.filesystem("memory")
    yield Address("memory://bucket/store")
    files.store.clear()


def table(folder, texts=(*CORPUS, "", *CORPUS)):
    path = folder / "corpus.jsonl"
    path.write_text("".join(json.dumps({"text": text, "n": i}) + "\n" for i, text in enumerate(texts)), "utf-8")
    return path


def make(loaded, data, out, options=OPTIONS):
    return score_corpus(lambda: loaded, open_corpus(CorpusSpec(str(data), ids=("n",))), out, options)


def contents(place):
    return {name: read(place / name) for name in sizes_in(place) if name != ".lock"}


# --- addresses


@pytest.mark.parametrize(
    "given", ["ftp://host/x", "s3://", "s3://me:secret@bucket/x", Path("s3://bucket/x"), "memory://x/y"]
)
def test_what_is_no_address_is_refused(given):
    with pytest.raises(MicroStepError, match="address|bucket|storage"):
        place_of(given)


def test_a_missing_driver_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(MicroStepError, match=r"pip install gcsfs==2"):
        read(Address("gs://bucket/x"))


def test_a_failing_storage_is_told_and_never_taken_for_an_empty_one(memory, monkeypatch):
    def fail(*_, **__):
        raise ValueError("no network")

    write(memory / "manifest.json", b"{}")
    for name in ("cat_file", "ls", "pipe_file"):
        monkeypatch.setattr(type(fsspec.filesystem("memory")), name, fail)
    for call in (lambda: open_store(memory), lambda: read_mark(memory, 0), lambda: sizes_in(memory)):
        with pytest.raises(TextError, match="no network"):
            call()
    with pytest.raises(ExportError, match="no network"):
        write(memory / "x", b"1")


# --- stores


def interrupted(loaded, data, out, monkeypatch, shards=1):
    """Begin a store, and be stopped at a later shard."""
    written, real = itertools.count(), scoring.write_shard

    def stop(*given):
        if next(written) == shards:
            raise KeyboardInterrupt
        return real(*given)

    with monkeypatch.context() as patch:
        patch.setattr(scoring, "write_shard", stop)
        with pytest.raises(KeyboardInterrupt):
            make(loaded, data, out)


def check_store(loaded, tmp_path, place, monkeypatch):
    """A store at an address equals one in a folder byte for byte: made at once, resumed, and rebuilt where damaged."""
    data = table(tmp_path)
    here = make(loaded, data, tmp_path / "store")
    interrupted(loaded, data, place, monkeypatch)
    with pytest.raises(TextError, match="incomplete"):
        open_store(place)
    assert len(open_store(place, allow_incomplete=True).marks) == 1
    there = make(loaded, data, place)
    assert contents(place) == contents(tmp_path / "store") and len(there.marks) > 2
    assert there.columns() == here.columns() and there.column_names == ("n",)
    assert there.arrays().text == here.arrays().text
    assert contents(place).keys() >= {"manifest.json", "complete.json", "shard-00000.json"}

    shard = place / "shard-00001.parquet"
    write(shard, b"x" * len(read(shard)))
    with pytest.raises(TextError, match="damaged"):
        there.arrays()
    make(loaded, data, place)
    assert contents(place) == contents(tmp_path / "store")
    remove(shard)
    with pytest.raises(TextError, match="incomplete"):
        open_store(place)
    with pytest.raises(ExportError, match="windows"):
        make(loaded, data, place, CorpusOptions())


def test_a_store_at_an_address_equals_one_in_a_folder(loaded, tmp_path, memory, monkeypatch):
    monkeypatch.setattr(places, "TOGETHER", 1)  # each file is fetched alone
    check_store(loaded, tmp_path, memory, monkeypatch)


@needs_s3
def test_a_store_on_s3_equals_one_in_a_folder(loaded, tmp_path, server, monkeypatch):
    check_store(loaded, tmp_path, Address("s3://bucket/scored/store"), monkeypatch)


def test_features_are_kept_beside_it(loaded, tmp_path, memory):
    store, here = (make(loaded, table(tmp_path), place) for place in (memory, tmp_path / "store"))
    what = FeatureSpec(Feature("window", 8))
    found, expected = (compute_features(lambda: loaded, each, what) for each in (store, here))
    assert gathers(store) == gathers(here) == [what]
    assert found.values["limited_entropy"].tobytes() == expected.values["limited_entropy"].tobytes()
    assert read_gathered(store, what).rows.tolist() == expected.rows.tolist()


@needs_s3
def test_the_command_scores_a_corpus_on_s3_into_s3_and_reports_on_it(command, models, tmp_path, server):
    write(Address("s3://bucket/texts/corpus.jsonl"), table(tmp_path).read_bytes())
    words = ("--model", models["base"], "--data", "s3://bucket/texts/corpus.jsonl", "--out", "s3://bucket/byname")
    code, told, _ = command("corpus", "score", *words, "--no-report")
    assert code == 0 and told.strip() == "s3://bucket/byname"
    code, _, errors = command("corpus", "score", *words[:3], "s3://bucket/none.jsonl", *words[4:])
    assert code == 1 and "no file s3://bucket/none.jsonl" in errors[-1]
    local = tmp_path / "store"
    command("corpus", "score", *words[:2], "--data", tmp_path / "corpus.jsonl", "--out", local, "--no-report")
    for name in ("report", "table"):
        (a, one, _), (b, other, _) = (command("corpus", name, place) for place in (local, "s3://bucket/byname"))
        assert a == b == 0 and one == other


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".txt.gz"])
def test_a_corpus_is_read_from_an_address_as_from_a_file(tmp_path, memory, suffix):
    import gzip

    import pandas as pd

    path, rows = tmp_path / f"x{suffix}", pd.DataFrame({"text": CORPUS, "n": range(len(CORPUS))})
    match suffix:
        case ".jsonl":
            rows.to_json(path, orient="records", lines=True)
        case ".csv":
            rows.to_csv(path, index=False)
        case ".parquet":
            rows.to_parquet(path)
        case _:
            path.write_bytes(gzip.compress("\n".join(CORPUS).encode()))
    write(memory / path.name, path.read_bytes())
    one, other = (open_corpus(CorpusSpec(str(place), documents="line")) for place in (path, memory / path.name))
    assert list(one.entries(3)) == list(other.entries(3))
    assert one.facts == other.facts and one.file_size == other.file_size and other.unchanged()
    write(memory / path.name, path.read_bytes() + b"\n")
    assert not other.unchanged()


# --- one writer


def test_a_second_writer_is_refused_and_the_claim_goes_with_its_owner(memory):
    with writing(memory) as check:
        check()
        with pytest.raises(ExportError, match=rf"process {os.getpid()} .* claim ends in 1[12]\d s"), writing(memory):
            pass
        assert len(sizes_in(memory)) == 1  # the refused one has left nothing
    assert sizes_in(memory) == {}
    write(memory / "other.txt", b"")
    with pytest.raises(ExportError, match=r"not a store .*other.txt"), writing(memory):
        pass


def test_two_writers_that_begin_at_once_are_never_both_let_in(memory):
    inside, entered = [], []

    def enter(barrier):
        barrier.wait()
        try:
            with claims.claimed(memory):
                inside.append(1)
                entered.append(len(inside))
                time.sleep(0.01)
                inside.pop()
        except ExportError:
            pass

    for _ in range(15):
        barrier = threading.Barrier(4)
        threads = [threading.Thread(target=enter, args=(barrier,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(entered) <= {1} and sizes_in(memory) == {}


def aged(place, seconds):
    """Let every claim at a place look as if it had been written so much earlier."""
    for name, file in fsspec.filesystem("memory").store.items():
        if claims.CLAIM in name:
            file.modified = datetime.fromtimestamp(file.modified.timestamp() - seconds, UTC)


def test_the_claim_of_a_killed_writer_ends(memory):
    killed = claims._Claim(memory)
    killed.take()
    aged(memory, 100)
    with pytest.raises(ExportError, match="another process"), writing(memory):
        pass
    aged(memory, 30)
    with writing(memory) as check:
        check()
        killed._sure_until = 0.0  # it was only asleep
        with pytest.raises(ExportError, match="another process"):
            killed.check()
        check()
    killed.check()  # nobody writes any more
    assert len(sizes_in(memory)) == 1


def test_a_writer_that_was_replaced_writes_no_more_shards(loaded, tmp_path, memory, monkeypatch):
    """The check stands between the scores of a shard and its place."""
    real = scoring.score_rows

    def replaced(*given):
        for name in sizes_in(memory):
            if name.startswith(claims.CLAIM):
                remove(memory / name)
        claims._Claim(memory).take()
        monkeypatch.setattr(claims, "_SURE", 0.0)
        monkeypatch.setattr(claims._Claim, "_sure_until", property(lambda _: 0.0, lambda *_: None), raising=False)
        return real(*given)

    monkeypatch.setattr(scoring, "score_rows", replaced)
    with pytest.raises(ExportError, match="another process"):
        make(loaded, table(tmp_path), memory)
    assert not any(name.startswith("shard") for name in sizes_in(memory))


def test_a_claim_is_renewed(memory, monkeypatch):
    monkeypatch.setattr(claims, "_LIFETIME", 0.2)
    with writing(memory):
        (name,) = sizes_in(memory)
        first = fsspec.filesystem("memory").modified((memory / name).url)
        time.sleep(0.15)
        assert fsspec.filesystem("memory").modified((memory / name).url) > first


KILLED = """
import os, sys
from data.corpus import scoring
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from model.hub.loading import ModelSpec, load
from model.storage.places import Address
real, done = scoring.write_shard, []
def kill(*given):
    if len(done) == 2:
        os.kill(os.getpid(), 9)
    done.append(real(*given))
    return done[-1]
scoring.write_shard = kill
options = CorpusOptions(windows=True, max_tokens=32, shard_tokens=150)
corpus = open_corpus(CorpusSpec(sys.argv[2], ids=("n",)))
scoring.score_corpus(lambda: load(ModelSpec(sys.argv[1])), corpus, Address(sys.argv[3]), options)
"""


@needs_s3
@pytest.mark.slow
def test_a_killed_writer_loses_one_shard_and_its_claim_ends(loaded, models, tmp_path, server, monkeypatch):
    place, data = Address("s3://bucket/killed"), table(tmp_path)
    words = [sys.executable, "-c", KILLED, str(models["base"]), str(data), place.url]
    assert subprocess.run(words, cwd=Path(__file__).parents[2]).returncode == -9
    assert len(open_store(place, allow_incomplete=True).marks) == 2
    with pytest.raises(ExportError, match="claim ends in"):
        make(loaded, data, place)
    monkeypatch.setattr(claims, "_LIFETIME", 0.5)
    time.sleep(1.6)  # S3 tells whole seconds
    make(loaded, data, place)
    make(loaded, data, tmp_path / "store")
    assert contents(place) == contents(tmp_path / "store")
