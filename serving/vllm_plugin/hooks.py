"""The entry point `vllm.general_plugins`: vLLM calls `register` in each of its processes."""

from __future__ import annotations

import logging
import sys
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.errors import MicroStepError
from serving.vllm_plugin.drafter import MicroStepDrafter
from serving.vllm_plugin.guard import (
    EXPAND,
    PROPOSE,
    SET_UP_STATES,
    VALIDATE,
    Relied,
    check_version,
    note_registration,
    registration,
)
from serving.vllm_plugin.merged import MergedWriter
from serving.vllm_plugin.merged_hooks import REPLACED
from serving.vllm_plugin.modules import read_config
from serving.vllm_plugin.pooler import register_scorers
from serving.vllm_plugin.proposer import Proposer
from serving.vllm_plugin.requests import refuse_request
from serving.vllm_plugin.settings import KEY, EngineSettings


def register() -> None:
    """Put the hooks in place, once. On an unsupported version nothing is changed, and plain vLLM works on."""
    if registration() != "none":
        return
    try:
        check_version()
    except MicroStepError as error:
        note_registration(error)
        logging.getLogger("vllm.micro_step").warning("%s", error)
        return
    note_registration(None)
    _replace(PROPOSE, _propose)
    _replace(SET_UP_STATES, _set_up_states)
    _replace(VALIDATE, _validate)
    for relied, wrap in REPLACED.items():
        _replace(relied, wrap)
    register_scorers()
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _replace(EXPAND, lambda _: expand_batch_to_tokens)


def _replace(relied: Relied, wrap: Any) -> None:
    """Put `wrap(original)` in the place of a function of vLLM."""
    from importlib import import_module

    *owners, name = relied.name.split(".")
    place: Any = import_module(relied.module)
    for owner in owners:
        place = getattr(place, owner)
    setattr(place, name, wrap(getattr(place, name)))


def _propose(original: Any) -> Any:
    """Hand the states of the pass to our drafter, which vLLM's method gives to its own alone."""

    @wraps(original)
    def propose_draft_token_ids(
        self: Any,
        scheduler_output: Any,
        sampled_token_ids: Any,
        sampling_metadata: Any,
        hidden_states: Tensor,
        sample_hidden_states: Tensor,
        aux_hidden_states: list[Tensor] | None,
        spec_decode_metadata: Any,
        common_attn_metadata: Any,
        slot_mappings: Any,
    ) -> Any:
        drafter = getattr(self, "drafter", None)
        if not isinstance(drafter, Proposer):
            return original(
                self,
                scheduler_output,
                sampled_token_ids,
                sampling_metadata,
                hidden_states,
                sample_hidden_states,
                aux_hidden_states,
                spec_decode_metadata,
                common_attn_metadata,
                slot_mappings,
            )
        self._draft_probs = self._draft_prob_req_ids = None  # drafts are certain, as those of vLLM's ngram method
        if not isinstance(drafter, MicroStepDrafter):
            return [[] for _ in sampled_token_ids]
        count = len(sampled_token_ids)
        return drafter.propose_after(
            [self.requests[name] for name in self.input_batch.req_ids[:count]],
            sampled_token_ids,
            common_attn_metadata.query_start_loc_cpu[: count + 1].tolist(),
            [0] * count if spec_decode_metadata is None else spec_decode_metadata.num_draft_tokens,
            hidden_states,
            aux_hidden_states or [],
        )

    return propose_draft_token_ids


def _set_up_states(original: Any) -> Any:
    """Have the base give out the states of our context layers."""

    @wraps(original)
    def _setup_eagle3_aux_hidden_state_outputs(self: Any) -> None:
        drafter = getattr(self, "drafter", None)
        if not isinstance(drafter, Proposer):
            original(self)
            return
        if isinstance(drafter, MergedWriter):  # else vLLM drafts zeros where an answer nears the context's end
            self.effective_drafter_max_model_len = sys.maxsize
        if not drafter.aux_layers:
            return
        from vllm.model_executor.models.interfaces import supports_eagle3

        if not supports_eagle3(self.get_model()):
            raise MicroStepError(
                f"{type(self.get_model()).__name__} of vLLM gives out no states of its layers, which the micro decoder"
                " reads; llama, qwen2, qwen3 and mistral do"
            )
        self.use_aux_hidden_state_outputs = True
        self.model.set_aux_hidden_state_layers(drafter.aux_layers)

    return _setup_eagle3_aux_hidden_state_outputs


def _validate(original: Any) -> Any:
    """Refuse a request whose fields would only fail in the engine, where all requests would end with it."""

    @wraps(original)
    def _validate_params(self: Any, params: Any, supported_tasks: Any) -> Any:
        said = self.vllm_config.additional_config or {}
        if isinstance(said, dict) and KEY in said and hasattr(params, "logprobs"):
            settings = EngineSettings.of(said)
            try:
                refuse_request(settings, _config(settings.modules), params, self.vllm_config)
            except MicroStepError as error:
                from vllm.exceptions import VLLMValidationError

                raise VLLMValidationError(str(error)) from error
        return original(self, params, supported_tasks)

    return _validate_params


@lru_cache(maxsize=1)
def _config(modules: Path) -> Any:
    return read_config(modules)


def expand_batch_to_tokens(
    x: Tensor, cu_num_tokens: Tensor, num_tokens: int, replace_from: int = 0, replace_to: int = 0
) -> Tensor:
    """Repeat each request's value [R] for its drafted tokens [num_tokens], as vLLM's function of this name does.

    On processors vLLM's own fills a copy, so temperature, top_k and top_p of sampled requests are whatever was in
    memory before (vLLM's issue 55005), and with drafts sampled text is garbage.
    """
    counts = torch.diff(cu_num_tokens, prepend=cu_num_tokens.new_zeros(1)).long()
    return torch.where(x == replace_from, torch.full_like(x, replace_to), x).repeat_interleave(counts)
