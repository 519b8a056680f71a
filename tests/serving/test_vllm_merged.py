"""Merged decoding of the plugin for vLLM, on a stand-in for vLLM's runner and scheduler."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from model.errors import MicroStepError
from serving.options import LimitOptions, SegmentOptions
from serving.vllm_plugin import hooks
from serving.vllm_plugin.merged import MergedWriter, refuse_merge_layer
from serving.vllm_plugin.service import VllmService
from serving.vllm_plugin.settings import EngineSettings
from tests.serving.fake_vllm import install, vllm_config
from tests.serving.fake_vllm_runner import FakeMergedLLM, install_loop
from tests.serving.vllm_served import expected, prompts_of, running, same, service_of, written

MERGED = "MergedWriter"


@pytest.fixture
def service(folder, model, monkeypatch):
    parts = install_loop(install(monkeypatch))
    hooks.register()
    monkeypatch.setattr(
        VllmService,
        "_start_vllm",
        lambda self, place, *_: FakeMergedLLM(place, self._settings.as_config, parts, proposer=MERGED),
    )
    service = service_of(folder, 0.2, lossless=False)
    with running(service):
        yield service


@pytest.mark.parametrize("together", [False, True])
def test_answers_segments_and_slots_are_those_of_generate_segments(service, model, together):
    prompts = [*prompts_of(service)[:4], prompts_of(service)[0][:1]]
    how = [{}, {"confidence": 0.05}, {"max_segment_length": 2}, {"confidence": 1.5}, {"rule": "product"}]
    rows = written(service, prompts, together, [{"micro_step": each} for each in how], max_tokens=12, logprobs=2)
    for row, prompt, each in zip(rows, prompts, how, strict=True):
        other = expected(model, prompt, 12, **{"confidence": 0.2, "verify": False, "topk": 2, **each})
        assert same(row, other) and row.cache_slots == other.cache_slots
        assert row.probability == pytest.approx(other.probability, abs=1e-3)
        assert [ids for ids, _ in row.topk] == [ids for ids, _ in other.topk]
    assert sum(row.macro_steps for row in rows) < 0.8 * sum(len(row.ids) for row in rows)
    assert service.engine.running == 0


def test_a_stop_string_ends_a_segment(service, model):
    whole = expected(model, prompts_of(service)[1], 24, 0.05, verify=False)
    stop = service.tokenizer.decode(whole.ids[4:6])
    how = {"stop": stop, "micro_step": {"confidence": 0.05}}
    (row,) = written(service, prompts_of(service)[1:2], False, max_tokens=24, **how)
    theirs = expected(model, prompts_of(service)[1], 24, 0.05, False, stop_strings=[stop], tokenizer=service.tokenizer)
    assert same(row, theirs) and row.ended and row.why[-1] == "end"


def test_what_merged_decoding_cannot_do_is_refused_in_one_sentence(service, folder, monkeypatch):
    said = EngineSettings(folder / "micro_step").as_config
    for name in ("prefix caching", "asynchronous", "compiled"):
        with pytest.raises(MicroStepError, match=name):
            MergedWriter(vllm_config(said, 3, MERGED, refused=[name]))
    with pytest.raises(MicroStepError, match="after layer 8"):
        refuse_merge_layer(8)
    writer = service.engine._llm.runner.drafter
    writer.check_cache(8 * 4 + 1, {"FullAttentionSpec": 32})
    with pytest.raises(MicroStepError, match="32 blocks"):
        writer.check_cache(8 * 4, {"FullAttentionSpec": 32})
    with pytest.raises(MicroStepError, match="full attention"):
        writer.check_cache(999, {"FullAttentionSpec": 32, "SlidingWindowSpec": 32})
    with pytest.raises(Exception, match="--lossless"):
        written(service, prompts_of(service)[:1], False, micro_step={"verify": True})
    assert VllmService(folder, "served", SegmentOptions(), LimitOptions()).facts["micro_step"]["decoding"] == "merged"


def test_a_preempted_request_is_not_continued(service, model):
    writer = service.engine._llm.runner.drafter
    writer._rows["a"] = SimpleNamespace(row=SimpleNamespace(out=SimpleNamespace(starts=[0, 2])))
    assert writer.slot("a", 5, 1) == 6 and writer.slot("b", 5, 5) is None
    with pytest.raises(MicroStepError, match="preempted"):
        writer.slot("a", 5, 8)
