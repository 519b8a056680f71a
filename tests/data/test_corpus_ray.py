"""A corpus that Ray's actors score is byte for byte the store of one process. Needs Ray (requirements-ray.txt)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.corpus import ray_scoring
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.ray_scoring import _ForwardReader, score_corpus_with_ray
from data.corpus.scoring import score_corpus
from data.corpus.store import open_store, shard_name
from model.errors import MicroStepError, TextError
from model.hub.loading import ModelSpec, load
from tests.support.tiny import CORPUS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
OPTIONS = CorpusOptions(windows=True, max_tokens=32, shard_tokens=150)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("ray") / "corpus.jsonl"
    texts = [text[: 20 + 13 * i] for i in range(5) for text in CORPUS]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*texts, ""]), "utf-8")
    return path


@pytest.fixture(scope="module")
def loaded(models):
    return load(ModelSpec(str(models["base"])))


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def corpus(data):
    return open_corpus(CorpusSpec(str(data)))


# --- without Ray


def test_without_ray_one_line_says_how_to_get_it(loaded, data, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_scoring, "find_spec", lambda name: None)
    with pytest.raises(MicroStepError, match=r'pip install "ray\[data\]==2'):
        score_corpus_with_ray(lambda: loaded, corpus(data), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_command_offers_ray(command, monkeypatch, models, data, tmp_path):
    monkeypatch.setattr(ray_scoring, "find_spec", lambda name: None)
    words = ("--model", models["base"], "--data", data, "--out", tmp_path / "store", "--ray")
    code, _, errors = command("corpus", "score", *words)
    assert code == 1 and errors[-1].startswith("Error: --ray needs Ray")


def test_an_actor_reads_onwards_and_starts_again_for_an_earlier_shard(data):
    counted = corpus(data)
    opened = []
    onward = _ForwardReader(_Counting(counted, opened))
    for start in (0, 4, 4, 9, 30, 2, 3):
        given = onward.entries(start)
        taken = [next(given), next(given)]
        assert [entry.index for entry in taken] == [start, start + 1]
        assert taken[0].document == next(counted.entries(start)).document
    assert opened == [0, 4, 2]


class _Counting:
    def __init__(self, inner, opened):
        self.inner, self.opened = inner, opened

    def entries(self, start):
        self.opened.append(start)
        return self.inner.entries(start)


def test_actors_in_this_process_give_the_store_of_one_process_whatever_their_order(loaded, data, tmp_path, monkeypatch):
    score_corpus(lambda: loaded, corpus(data), tmp_path / "one", OPTIONS)

    def run(job, items, cluster, gpu, meter):
        scorers = [ray_scoring._Scorer(job, torch.get_num_threads()) for _ in range(2)]
        for i, item in enumerate(reversed(items)):
            scorers[i % 2]({name: torch.tensor([value]).numpy() for name, value in item.items()})
            meter.add(item["tokens"])

    monkeypatch.setattr(ray_scoring, "find_spec", lambda name: object())
    monkeypatch.setattr(ray_scoring, "_run", run)
    store = score_corpus_with_ray(lambda: loaded, corpus(data), tmp_path / "many", OPTIONS)
    assert files(tmp_path / "many") == files(tmp_path / "one") and len(store.marks) > 5
    (tmp_path / "many" / shard_name(2)).write_bytes(b"damaged")
    (tmp_path / "many" / shard_name(4)).with_suffix(".json").unlink()
    score_corpus_with_ray(lambda: loaded, corpus(data), tmp_path / "many", OPTIONS)
    assert files(tmp_path / "many") == files(tmp_path / "one")
    limited = CorpusOptions(max_tokens=64, shard_tokens=100, limit_tokens=333)
    score_corpus(lambda: loaded, corpus(data), tmp_path / "one limited", limited)
    found = score_corpus_with_ray(lambda: loaded, corpus(data), tmp_path / "limited", limited)
    assert found.tokens == 333 and files(tmp_path / "limited") == files(tmp_path / "one limited")


def test_a_corpus_without_a_token_is_one_clear_error(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_scoring, "find_spec", lambda name: object())
    empty = tmp_path / "x.jsonl"
    empty.write_text('{"text": ""}\n')
    with pytest.raises(TextError, match=r"no token to score in x.jsonl"):
        score_corpus_with_ray(lambda: loaded, corpus(empty), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_actors_that_find_another_corpus_say_so(loaded, data, tmp_path):
    changed = tmp_path / "corpus.jsonl"
    changed.write_text(json.dumps({"text": "something else"}) + "\n", "utf-8")
    job = ray_scoring._Job(loaded.spec, corpus(changed), OPTIONS, tmp_path)
    item = {"number": 0, "document": 0, "window": 0, "left": -1, "tokens": 150}
    said = ray_scoring._Scorer(job, None)({name: torch.tensor([value]).numpy() for name, value in item.items()})
    assert said["error"].tolist() == ["TextError"] and "is not the same for all of Ray's actors" in said["told"][0]


# --- with Ray


@pytest.mark.skipif(sys.platform == "win32", reason="Ray is not tested there")
def test_ray_gives_the_bytes_of_one_process(models, data, tmp_path):
    pytest.importorskip("ray")
    out = {name: tmp_path / name for name in ("one", "many")}
    words = ("corpus", "score", "--model", models["base"], "--data", data, "--windows", "--shard-tokens", 150)
    words = (*words, "--no-report", "--max-tokens-per-document", 32)
    for name, more in (("one", ()), ("many", ("--ray",))):
        command = [sys.executable, "-m", "micro_step", *map(str, words), "--out", str(out[name]), *more]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "ray.data" not in done.stderr and "execution" not in done.stderr, "Ray speaks to users"
    assert files(out["many"]) == files(out["one"])
    assert len(open_store(out["many"]).marks) > 5
