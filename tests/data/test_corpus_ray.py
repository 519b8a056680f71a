"""A corpus that actors score is byte for byte the store of one process; see test_ray_cluster.py for a real cluster."""

import json

import pytest

from data import ray_pool
from data.corpus import ray_scoring
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.ray_scoring import _ForwardReader, score_corpus_with_ray
from data.corpus.scoring import score_corpus
from data.corpus.store import shard_name
from data.distill import run
from data.distill.run import DistillOptions
from data.mixes import read_mix
from data.prepare import PrepareOptions, prepare
from data.ray_pool import RayOptions
from model.errors import MicroStepError, TextError
from model.hub.loading import ModelSpec, load
from tests.data.ray_work import shared_here
from tests.support.tiny import CORPUS

pytestmark = pytest.mark.slow

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


def test_without_ray_one_line_says_how_to_get_it(loaded, data, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_pool, "find_spec", lambda name: None)
    with pytest.raises(MicroStepError, match="pip install ray==2"):
        score_corpus_with_ray(lambda: loaded, corpus(data), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_the_command_offers_ray(command, monkeypatch, models, data, tmp_path):
    monkeypatch.setattr(ray_pool, "find_spec", lambda name: None)
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
    monkeypatch.setattr(ray_scoring, "require_ray", lambda: None)
    monkeypatch.setattr(ray_scoring, "work_on_ray", shared_here)
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
    monkeypatch.setattr(ray_scoring, "require_ray", lambda: None)
    empty = tmp_path / "x.jsonl"
    empty.write_text('{"text": ""}\n')
    with pytest.raises(TextError, match=r"no token to score in x.jsonl"):
        score_corpus_with_ray(lambda: loaded, corpus(empty), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_actors_that_find_another_corpus_say_so(loaded, data, tmp_path):
    changed = tmp_path / "corpus.jsonl"
    changed.write_text(json.dumps({"text": "something else"}) + "\n", "utf-8")
    score = ray_scoring._Scorer(ray_scoring._Job(corpus(changed), OPTIONS, tmp_path), loaded)
    with pytest.raises(TextError, match="is not the same for all"):
        score(ray_scoring._Span(number=0, document=0, window=0, left=None, tokens=150))


def test_prepared_data_are_those_of_one_process(models, tmp_path, monkeypatch):
    """The base's answers and its scores of them."""
    pairs = [{"question": text, "answer": "Yes."} for text in CORPUS]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), "utf-8")
    mix = tmp_path / "made.yaml"
    mix.write_text(
        "name: made\nsources: [{file: pairs.jsonl, columns: {prompt: question, response: answer}}]\nheld_out: 2\n"
    )
    for module in (ray_scoring, run):
        monkeypatch.setattr(module, "require_ray", lambda: None)
        monkeypatch.setattr(module, "work_on_ray", shared_here)
    base, answers = str(models["sft"]), DistillOptions(max_new_tokens=6, shard_prompts=3)
    for name, cluster in (("one", None), ("many", RayOptions(True))):
        options = PrepareOptions(distill=answers, cluster=cluster)
        prepare(read_mix(str(mix)), base, lambda: load(ModelSpec(base)), tmp_path / name, None, options)
    one, many = (tree(tmp_path / name) for name in ("one", "many"))
    assert one == many and len(one) > 8


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
