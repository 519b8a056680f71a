"""A corpus scored by vLLM: its pooler's arithmetic, and stores that equal those of this project's own scoring."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from analysis.corpus import cli
from analysis.corpus.cli import ScoringOptions
from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.scoring import score_corpus
from data.ray_pool import RayOptions
from model.command_options import LoadOptions
from model.errors import ExportError, MicroStepError, ModelError, NumericalError
from model.hub.loading import load, load_outline
from model.hub.spec import ModelSpec
from model.progress import silent
from serving.vllm_plugin import folder, hooks, launch, pooler, scorer
from tests.serving.fake_vllm import FakeScoringLLM, install
from tests.serving.vllm_served import TEXTS

NO_VLLM = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
FLOATS = ("entropy", "confidence", "margin", "surprisal")
CHAT = {"chat": True, "template_date": "2026-11-01"}
WAYS = {"whole": {}, "windows": {"windows": True, "max_tokens": 9, "shard_tokens": 40, "force_bos": True}}


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in [*TEXTS, "", "a", "né — 你好"]), "utf-8")
    return path


@pytest.fixture
def in_vllm(monkeypatch):
    """A function that loads a model in a stand-in for vLLM."""
    install(monkeypatch)
    hooks.register()
    started = []

    def load_in(name, at_once=11, put_off=0):
        model = load(ModelSpec(name)).model

        def start(self, longest):
            score = pooler.PassScores(model.get_output_embeddings(), 5)
            self._llm = FakeScoringLLM(model, score, at_once)
            self._llm.put_off = put_off
            started.append(longest)

        monkeypatch.setattr(scorer.VllmScorer, "start", start)
        loaded = scorer.load_in_vllm(ModelSpec(name), scorer.VllmOptions(at_once))
        return loaded, model, started

    return load_in


def store_of(load_model, data, out, **options):
    return score_corpus(load_model, open_corpus(CorpusSpec(str(data))), out, CorpusOptions(**options))


def check_equal(ours, theirs, most):
    """Two stores have equal marks but for their hashes, and equal columns but for rounding."""
    apart = {"size": 0, "sha256": ""}
    assert [{**vars(mark), **apart} for mark in ours.marks] == [{**vars(mark), **apart} for mark in theirs.marks]
    one, other = ours.arrays(), theirs.arrays()
    for name in one.__dataclass_fields__:
        mine, its = getattr(one, name), getattr(other, name)
        if name in FLOATS:
            np.testing.assert_allclose(mine, its, rtol=0, atol=most, err_msg=name)
        elif name == "rank":
            assert np.abs(mine - its).max() <= 1 and (mine != its).mean() < 0.001
        else:
            assert np.array_equal(mine, its), name


# --- the pooler


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_scores_are_those_of_float64_a_chunk_at_a_time(chunk):
    made = torch.Generator().manual_seed(0)
    states, head = torch.randn(40, 16, generator=made), 3 * torch.randn(300, 16, generator=made)
    targets, widths = torch.randint(300, (40,), generator=made), []

    def logits_of(some):
        widths.append(len(some))
        return some @ head.T

    found = pooler.scores_of(states, targets, logits_of, chunk).double()
    logits = (states @ head.T).double()
    log_p = logits.log_softmax(-1)
    top, own = log_p.exp().topk(2).values, log_p.gather(1, targets[:, None])
    expected = torch.stack(
        [-(log_p.exp() * log_p).sum(-1), top[:, 0], top[:, 0] - top[:, 1], -own[:, 0], 1.0 + (log_p > own).sum(-1)], 1
    )
    assert torch.allclose(found, expected, rtol=0, atol=2e-5) and torch.equal(found[:, 4], expected[:, 4])
    assert max(widths) <= chunk and sum(widths) == 40


def test_a_device_without_the_logits_and_a_trial_pass_do_no_harm():
    assert pooler.scores_of(torch.ones(3, 2), torch.zeros(3, dtype=torch.long), lambda _: None, 2).shape == (3, 5)
    assert pooler.next_tokens(torch.tensor([5, 6, 7]), 3, 3, 9).tolist() == [6, 7, 9]
    assert pooler.next_tokens(torch.tensor([5, 6, 7]), 2, 1, 9).tolist() == [7]
    assert len(pooler.next_tokens(torch.zeros(2), 5, 5, 0)) == 5


# --- stores


@pytest.mark.parametrize("way", WAYS)
def test_a_store_equals_that_of_this_process(in_vllm, data, tmp_path, way):
    loaded, _, started = in_vllm("tiny-base", put_off=2)
    ours = store_of(lambda: loaded, data, tmp_path / "vllm", **WAYS[way])
    theirs = store_of(lambda: load(ModelSpec("tiny-base")), data, tmp_path / "own", **WAYS[way])
    check_equal(ours, theirs, 2e-5)
    assert ours.notes[0].startswith("scored by vllm") and len(started) == 1
    if way == "windows":
        assert len(ours.marks) > 2 and started == [9]


def test_stores_of_two_engines_are_never_mixed(in_vllm, data, tmp_path):
    loaded, *_ = in_vllm("tiny-base")
    store_of(lambda: loaded, data, tmp_path / "vllm")
    store_of(lambda: load(ModelSpec("tiny-base")), data, tmp_path / "own")
    with pytest.raises(ExportError, match="engine"):
        store_of(lambda: load(ModelSpec("tiny-base")), data, tmp_path / "vllm")
    with pytest.raises(ExportError, match="engine"):
        store_of(lambda: loaded, data, tmp_path / "own")
    assert store_of(lambda: loaded, data, tmp_path / "vllm").complete


def test_numbers_that_are_not_finite_name_the_document(in_vllm, data, tmp_path):
    loaded, model, _ = in_vllm("tiny-base")
    first = loaded.tokenizer.encode("The dog", add_special_tokens=False)[0]
    model.get_input_embeddings().register_forward_hook(
        lambda _, ids, states: states.masked_fill((ids[0] == first)[..., None], torch.nan)
    )
    with pytest.raises(NumericalError, match=r"document 2 .*tiny-base"):
        store_of(lambda: loaded, data, tmp_path / "vllm")
    assert not (tmp_path / "vllm" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["tiny-base", "micro-step-tiny"])
def test_an_outline_has_the_facts_of_the_loaded_model(name):
    outline, loaded = load_outline(ModelSpec(name), torch.device("cpu")), load(ModelSpec(name))
    assert outline.facts == loaded.facts
    assert outline.model.device.type == "meta"


def test_an_adapter_is_merged_into_a_plain_base_for_vllm(monkeypatch, tmp_path):
    kinds = []
    monkeypatch.setattr(folder, "cache_dir", lambda: tmp_path)
    monkeypatch.setattr(folder, "convert", lambda spec, kind, place, *_, **__: kinds.append(kind))
    monkeypatch.setattr(folder, "adapter_base", lambda source: ("tiny-sft", None))
    place = folder.vllm_folder(ModelSpec("tiny-base"), True, silent)
    monkeypatch.setattr(folder, "adapter_base", lambda source: ("tiny-base", None))
    assert folder.vllm_folder(ModelSpec("tiny-base"), True, silent) != place and kinds == ["whole", "whole"]
    monkeypatch.setattr(folder, "adapter_base", lambda source: None)
    assert not folder.vllm_folder(ModelSpec("tiny-base"), True, silent).is_relative_to(tmp_path)


def test_what_cannot_be_scored_is_refused_before_vllm_starts(monkeypatch, in_vllm, tmp_path):
    monkeypatch.setattr(launch, "find_spec", lambda name: name)
    for options, loading, ray, word in (
        (ScoringOptions(engine="vllm"), LoadOptions(device="cpu"), False, "--dtype"),
        (ScoringOptions(engine="vllm"), LoadOptions(), True, "--ray"),
        (ScoringOptions(tensor_parallel_size=2), LoadOptions(), False, "--engine"),
    ):
        with pytest.raises(MicroStepError, match=word):
            options.check(loading, False, RayOptions(ray))
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    with pytest.raises(MicroStepError, match="--no-report"):
        ScoringOptions(engine="vllm").check(LoadOptions(), True, RayOptions())
    monkeypatch.setattr(launch, "find_spec", lambda name: None)
    with pytest.raises(MicroStepError, match="not installed"):
        ScoringOptions(engine="vllm").check(LoadOptions(), False, RayOptions())
    for named in ({"architectures": ["BertModel"]}, {"architectures": ["StrangeForCausalLM"]}, {}):
        (tmp_path / "config.json").write_text(json.dumps(named))
        with pytest.raises(ModelError, match="no language model"):
            scorer.architecture_of(tmp_path, "x")
    with pytest.raises(AttributeError):
        pooler.BertModel  # noqa: B018


# --- the real vLLM


@pytest.mark.vllm
@NO_VLLM
@pytest.mark.parametrize(
    ("way", "at_once"), [({}, None), ({"windows": True, "max_tokens": 40, "shard_tokens": 90}, 16), (CHAT, None)]
)
def test_a_store_of_vllm_equals_that_of_this_process(data, tmp_path, way, at_once, monkeypatch):
    for key, value in {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}.items():
        monkeypatch.setenv(key, os.environ.get(key, value))
    spec = ModelSpec(os.environ.get("MICRO_STEP_VLLM_MODEL", "tiny-sft"))
    options = scorer.VllmOptions(at_once)
    ours = store_of(lambda: scorer.load_in_vllm(spec, options), data, tmp_path / "vllm", **way)
    check_equal(ours, store_of(lambda: load(spec), data, tmp_path / "own", **way), 2e-4)
