"""The plugin for vLLM, on a stand-in for vLLM's loop."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from model.errors import MicroStepError
from serving.vllm_plugin import guard, hooks
from serving.vllm_plugin.drafter import MicroStepDrafter
from serving.vllm_plugin.service import VllmService
from serving.vllm_plugin.settings import EngineSettings
from tests.serving.fake_vllm import FakeLLM, Target, VLLMValidationError, install, vllm_config
from tests.serving.vllm_served import expected, prompts_of, running, same, service_of, written


@pytest.fixture
def service(folder, model, monkeypatch):
    install(monkeypatch)
    hooks.register()
    monkeypatch.setattr(
        VllmService,
        "_start_vllm",
        lambda self, place, *_: FakeLLM(place, self._settings.as_config, self._config.max_segment_length - 1),
    )
    service = service_of(folder, 0.2)
    with running(service):
        yield service


def test_answers_and_segments_are_those_of_generate_segments(service, model):
    rows = written(service, prompts_of(service), True, max_tokens=14)
    theirs = [expected(model, prompt, 14, 0.2) for prompt in prompts_of(service)]
    assert all(map(same, rows, theirs)) and sum(row.accepted for row in rows) > 10
    for row, other in zip(rows, theirs, strict=True):
        assert row.probability == pytest.approx(other.probability, abs=1e-3)
        assert row.cache_slots == other.cache_slots
    assert service.engine.running == 0


@pytest.mark.parametrize(
    "asked", [{"rule": "product", "confidence": 0.1}, {"rule": "stop_head", "confidence": 0.5}, {"confidence": 1.5},
              {"confidence": 0.05, "max_segment_length": 2}]
)  # fmt: skip
def test_each_request_has_its_own_rule(service, model, asked):
    (row,) = written(service, prompts_of(service)[:1], False, max_tokens=20, micro_step=asked)
    assert same(row, expected(model, prompts_of(service)[0], 20, **asked))


def test_a_stop_string_ends_an_answer_and_frees_its_row(service, model):
    whole = expected(model, prompts_of(service)[1], 24, 0.2)
    stop = service.tokenizer.decode(whole.ids[5:7])
    (row,) = written(service, prompts_of(service)[1:2], False, max_tokens=24, stop=stop)
    assert row.ended and row.why[-1] == "end" and stop in service.tokenizer.decode(row.ids)
    assert row.ids == whole.ids[: len(row.ids)] and len(row.ids) < len(whole.ids)
    assert service.engine.running == 0 and not service.engine._llm.requests


def test_what_cannot_work_is_refused_in_one_sentence(service, folder, tmp_path):
    for asked, word in (({"verify": False}, "--merged"), ({"eps": 0.5}, "relaxed"), ({"rule": "none"}, "rule"),
                        ({"max_segment_length": 99}, "1 to")):  # fmt: skip
        with pytest.raises(Exception, match=word):
            written(service, prompts_of(service)[:1], False, micro_step=asked)
    said = EngineSettings(folder / "micro_step").as_config
    for config, word in (
        (vllm_config(said, 3, tensor_parallel_size=2), "one device"),
        (vllm_config({}, 3), "additional-config"),
        (vllm_config({"micro_step": {**said["micro_step"], "tau": 1}}, 3), "tau"),
        (vllm_config({"micro_step": {"modules": str(tmp_path)}}, 3), "convert"),
    ):
        with pytest.raises(MicroStepError, match=word):
            MicroStepDrafter(config)


def test_hooks_leave_other_drafters_alone_and_serve_ours(folder, model, monkeypatch):
    modules = install(monkeypatch)
    hooks.register()
    runner_class = modules["vllm.v1.worker.gpu_model_runner"].GPUModelRunner
    other = SimpleNamespace(drafter=object())
    assert runner_class.propose_draft_token_ids(other, *range(9)) == "vllm"
    assert runner_class._setup_eagle3_aux_hidden_state_outputs(other) is None
    drafter = MicroStepDrafter(vllm_config(EngineSettings(folder / "micro_step").as_config, 3))
    layers = []
    target = Target(model.base)
    target.set_aux_hidden_state_layers = layers.append
    runner = SimpleNamespace(drafter=drafter, model=target, get_model=lambda: target)
    runner_class._setup_eagle3_aux_hidden_state_outputs(runner)
    assert runner.use_aux_hidden_state_outputs and layers == [tuple(model.config.context_layers[:-1])]
    target.eagle3 = False
    with pytest.raises(MicroStepError, match="llama"):
        runner_class._setup_eagle3_aux_hidden_state_outputs(runner)


def params(**asked):
    """Sampling parameters of vLLM."""
    fields = ("extra_args", "structured_outputs", "logprobs", "logprob_token_ids", "thinking_token_budget", "seed")
    return SimpleNamespace(**{"min_tokens": 0, **dict.fromkeys(fields), **asked})


def test_a_request_that_would_fail_in_the_engine_is_refused_before_it(folder, model, monkeypatch):
    modules = install(monkeypatch)
    hooks.register()
    validate = modules["vllm.v1.engine.input_processor"].InputProcessor._validate_params
    ours = SimpleNamespace(vllm_config=vllm_config(EngineSettings(folder / "micro_step").as_config, 3))
    assert validate(ours, params(extra_args={"micro_step_confidence": 0.3, "other": 1}, min_tokens=3), ()) == "vllm"
    for field in ("structured_outputs", "logprob_token_ids", "thinking_token_budget"):
        with pytest.raises(VLLMValidationError, match=field[:10]):
            validate(ours, params(**{field: [1]}), ())
    with pytest.raises(VLLMValidationError, match="all words"):
        validate(ours, params(logprobs=-1), ())
    ours.vllm_config = vllm_config(ours.vllm_config.additional_config, 3, "MergedWriter", refused=["chunked"])
    for asked in ({"min_tokens": 3}, {"seed": 1}):
        with pytest.raises(VLLMValidationError, match=next(iter(asked))):
            validate(ours, params(**asked), ())
    for field, value in (("confidence", "high"), ("confidence", float("nan")), ("tau", 1), ("max_segment_length", 0)):
        with pytest.raises(VLLMValidationError, match=field if field != "max_segment_length" else "tokens"):
            validate(ours, params(extra_args={f"micro_step_{field}": value}), ())
    plain = SimpleNamespace(vllm_config=vllm_config({}, 3))
    assert validate(plain, params(extra_args={"micro_step_tau": 1}), ()) == "vllm"


def test_another_version_is_told_in_one_sentence_and_left_as_it_is(monkeypatch):
    with pytest.raises(MicroStepError, match="not loaded"):
        monkeypatch.setattr(guard, "_state", {})
        guard.check_registered()
    modules = install(monkeypatch, propose_draft_token_ids=("self", "sampled"))
    runner_class = modules["vllm.v1.worker.gpu_model_runner"].GPUModelRunner
    before = runner_class._setup_eagle3_aux_hidden_state_outputs
    hooks.register()
    assert runner_class._setup_eagle3_aux_hidden_state_outputs is before
    with pytest.raises(MicroStepError, match=r"propose_draft_token_ids.*requirements-vllm"):
        guard.check_registered()
    install(monkeypatch)
    monkeypatch.setattr(guard, "version", lambda package: "0.33.0")
    with pytest.raises(MicroStepError, match=r"0.32, but vllm 0.33.0.*requirements-vllm"):
        guard.check_version()
    monkeypatch.setattr(guard, "version", lambda package: "0.32.7")
    guard.check_version()


def test_values_are_repeated_for_drafted_tokens():
    x, ends = torch.tensor([0.0, 0.7, -1.0]), torch.tensor([2, 2, 5], dtype=torch.int32)
    assert hooks.expand_batch_to_tokens(x, ends, 5, 0, 1).tolist() == pytest.approx([1, 1, -1, -1, -1])
