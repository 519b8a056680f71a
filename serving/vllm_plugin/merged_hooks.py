"""The functions of vLLM that merged decoding replaces. Without a `MergedWriter` each does what it did before."""

from __future__ import annotations

from functools import wraps
from typing import Any

import torch
from torch import Tensor

from model.errors import MicroStepError
from serving.vllm_plugin.guard import ALLOCATE, ATTENTION, CACHE, FORWARD, SAMPLE, UPDATE
from serving.vllm_plugin.merged import MergedWriter, is_merged

SAVED = "micro_step_saved"  # of vLLM's requests in the scheduler: tokens that have no slot


def _writer(runner: Any) -> MergedWriter | None:
    drafter = getattr(runner, "drafter", None)
    return drafter if isinstance(drafter, MergedWriter) else None


def _check_cache(original: Any) -> Any:
    """Refuse a cache that could run out."""

    @wraps(original)
    def initialize_kv_cache(self: Any, kv_cache_config: Any, *args: Any, **options: Any) -> None:
        if (writer := _writer(self)) is not None:
            groups = [group.kv_cache_spec for group in kv_cache_config.kv_cache_groups]
            writer.check_cache(kv_cache_config.num_blocks, {type(spec).__name__: spec.block_size for spec in groups})
        original(self, kv_cache_config, *args, **options)

    return initialize_kv_cache


def _slots(original: Any) -> Any:
    """Give each written segment the slot after its request's last one, and no row more to see."""

    @wraps(original)
    def _build_attention_metadata(self: Any, num_tokens: int, num_reqs: int, *args: Any, **options: Any) -> Any:
        writer, batch, mappings = _writer(self), self.input_batch, options.get("slot_mappings")
        if writer is None or not batch.num_reqs or mappings is None:
            return original(self, num_tokens, num_reqs, *args, **options)
        writer.forget(self.requests)
        starts = self.query_start_loc.cpu[: num_reqs + 1].tolist()
        slots = {
            i: slot
            for i, name in enumerate(batch.req_ids[:num_reqs])
            if (slot := writer.slot(name, int(batch.num_prompt_tokens[i]), starts[i + 1] - starts[i])) is not None
        }
        if not slots:
            return original(self, num_tokens, num_reqs, *args, **options)
        rows, held = torch.tensor(list(slots)), torch.tensor(list(slots.values()))
        for group, mapping in mappings.items():
            table = batch.block_table[group]
            blocks = table.get_cpu_tensor()[rows, held // table.block_size].long()
            chosen = blocks * table.block_size + held % table.block_size
            mapping[torch.tensor([starts[i] for i in slots], device=mapping.device)] = chosen.to(mapping)
        before = self.optimistic_seq_lens_cpu[:num_reqs].clone()
        self.optimistic_seq_lens_cpu[rows] = (held + 1).to(before)
        self.seq_lens[rows.to(self.seq_lens.device)] = (held + 1).to(self.seq_lens)  # vLLM sets them anew in each step
        try:
            return original(self, num_tokens, num_reqs, *args, **options)
        finally:
            self.optimistic_seq_lens_cpu[:num_reqs] = before

    return _build_attention_metadata


def _forward(original: Any) -> Any:
    """Let the base read merged segments, and keep its states for the micro decoder."""

    @wraps(original)
    def _model_forward(
        self: Any,
        input_ids: Tensor | None = None,
        positions: Tensor | None = None,
        intermediate_tensors: Any = None,
        inputs_embeds: Tensor | None = None,
        **model_kwargs: Any,
    ) -> Any:
        writer, batch = _writer(self), self.input_batch
        if writer is not None and batch.num_reqs and input_ids is not None:
            starts = self.query_start_loc.cpu[: batch.num_reqs + 1].tolist()
            embeds = writer.embed(batch.req_ids[: batch.num_reqs], starts, input_ids)
            input_ids, inputs_embeds = (input_ids, inputs_embeds) if embeds is None else (None, embeds)
        out = original(self, input_ids, positions, intermediate_tensors, inputs_embeds, **model_kwargs)
        if writer is not None:
            last, aux = out if isinstance(out, tuple) else (out, [])
            self.micro_step_states = [*aux, last]
        return out

    return _model_forward


def _sample(original: Any) -> Any:
    """Write a segment of each request in the place of one token."""

    @wraps(original)
    def _sample(self: Any, logits: Tensor | None, spec_decode_metadata: Any) -> Any:
        if (writer := _writer(self)) is None or logits is None:
            return original(self, logits, spec_decode_metadata)
        if spec_decode_metadata is not None and any(spec_decode_metadata.num_draft_tokens):
            raise MicroStepError("vLLM drafted tokens, which merged decoding cannot check")
        from vllm.v1.outputs import SamplerOutput

        batch, count = self.input_batch, self.input_batch.num_reqs
        ends = (self.query_start_loc.cpu[1 : count + 1].long() - 1).to(logits.device)
        states, self.micro_step_states = self.micro_step_states, []
        tokens, logprobs = writer.write(
            [self.requests[name] for name in batch.req_ids[:count]],
            [i for i, discarded in enumerate(self.discard_request_mask.np[:count]) if not discarded],
            logits,
            torch.stack([each[ends] for each in states], 1),
            batch.sampling_metadata,
            self.sampler,
            self.max_model_len,
        )
        return SamplerOutput(sampled_token_ids=tokens, logprobs_tensors=logprobs)

    return _sample


def _update(original: Any) -> Any:
    """Count all tokens of a segment but the last as read: the next step has one row for it."""

    @wraps(original)
    def _update_request_with_output(
        self: Any, request: Any, new_token_ids: list[int], is_stale: bool = False
    ) -> tuple[list[int], bool]:
        new, stopped = original(self, request, new_token_ids, is_stale)
        if new and is_merged(self.vllm_config):
            request.num_computed_tokens += len(new) - 1
            setattr(request, SAVED, getattr(request, SAVED, 0) + len(new) - 1)
        return new, stopped

    return _update_request_with_output


def _allocate(original: Any) -> Any:
    """Ask for slots of segments, not of tokens."""

    @wraps(original)
    def allocate_slots(self: Any, request: Any, num_new_tokens: int, *args: Any, **options: Any) -> Any:
        saved = getattr(request, SAVED, 0)
        request.num_computed_tokens -= saved
        try:
            return original(self, request, num_new_tokens, *args, **options)
        finally:
            request.num_computed_tokens += saved

    return allocate_slots


REPLACED = {
    CACHE: _check_cache,
    ATTENTION: _slots,
    FORWARD: _forward,
    SAMPLE: _sample,
    UPDATE: _update,
    ALLOCATE: _allocate,
}
