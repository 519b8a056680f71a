"""Merged decoding inside vLLM: a pass of the base is a macro step, and its segment has one slot of vLLM's cache.

vLLM chooses a segment's first token, and the micro decoder's next ones with the same sampler and the same settings, so
temperature, penalties and logprobs mean what they mean in vLLM. All tokens are returned as those of one step. The next
step then has one row for each request: the merged segment, at its last token's position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from model.decoding.merged import SegmentWriter
from model.decoding.output import Clock
from model.decoding.row import LiveRow
from model.decoding.sampling import probability_of
from model.errors import MicroStepError
from model.micro_step.macro_inputs import merged
from serving.vllm_plugin.modules import ModulesAround
from serving.vllm_plugin.proposer import NOTES, Proposer, StepNote
from serving.vllm_plugin.settings import PREFIX, ROW


@dataclass
class WrittenRow:
    """A request of which at least one segment is written."""

    row: LiveRow
    embed: Tensor  # [d] its last segment, which the base reads next


class MergedWriter(Proposer):
    """Writes segments in the place of vLLM's sampler. To vLLM it is a proposer that never drafts."""

    def __init__(self, vllm_config: Any) -> None:
        super().__init__(vllm_config)
        refuse_merge_layer(self.config.merge_layer)
        refuse_unsupported(vllm_config)
        self._modules: ModulesAround | None = None
        self._target: Any = None
        self._rows: dict[str, WrittenRow] = {}

    def load_model(self, target: Any) -> None:
        """Put the modules around vLLM's model."""
        self._modules, self._target = self.around(target), target

    def check_cache(self, blocks: int, specs: Mapping[str, int]) -> None:
        """Refuse a cache that could run out, or whose slots are not all kept.

        A request that vLLM preempts would be read again token by token, and its answer would be another.

        Args:
            blocks: of the cache.
            specs: the name of each group's class in vLLM, and its block size.
        """
        if set(specs) != {"FullAttentionSpec"}:
            raise MicroStepError("merged decoding inside vLLM needs full attention in all layers; use --lossless")
        rows, context = self.vllm_config.scheduler_config.max_num_seqs, self.vllm_config.model_config.max_model_len
        need = rows * -(-context // specs["FullAttentionSpec"])
        if blocks - 1 < need:  # one is vLLM's own
            raise MicroStepError(
                f"merged decoding inside vLLM cannot preempt requests, so its cache must hold {rows} of {context}"
                f" tokens ({need} blocks), but has {blocks - 1}: give it more memory (VLLM_CPU_KVCACHE_SPACE or"
                " --gpu-memory-utilization), or serve fewer requests at once (--max-rows, --max-num-seqs)"
            )

    def forget(self, alive: Mapping[str, Any]) -> None:
        """Drop all requests but those in `alive`."""
        self._rows = {name: written for name, written in self._rows.items() if name in alive}

    def slot(self, name: str, prompt: int, scheduled: int) -> int | None:
        """Return the number of the slot that a request's next segment gets; None: its prompt is being read.

        Raises:
            MicroStepError: more than a segment is read, which only happens after a preemption.
        """
        written = self._rows.get(name)
        if written is None:
            return None
        if scheduled != 1:
            raise MicroStepError("vLLM preempted a request, which merged decoding cannot continue")
        return prompt + len(written.row.out.starts) - 1

    def embed(self, names: Sequence[str], starts: Sequence[int], input_ids: Tensor) -> Tensor | None:
        """Return [N, d] what the base reads in place of `input_ids` [N]; None: these.

        Args:
            names: R requests.
            starts: R + 1, where the rows of each begin.
            input_ids: ids of all rows.
        """
        at = [i for i, name in enumerate(names) if name in self._rows]
        if not at:
            return None
        embeds: Tensor = self._target.embed_input_ids(input_ids).clone()
        embeds[[starts[i] for i in at]] = torch.stack([self._rows[names[i]].embed for i in at]).to(embeds.dtype)
        return embeds

    def write(
        self,
        requests: Sequence[Any],
        at: Sequence[int],
        logits: Tensor,
        context: Tensor,
        metadata: Any,
        sampler: Callable[..., Any],
        limit: int,
    ) -> tuple[Tensor, Any]:
        """Write a segment of each request.

        Args:
            requests: R of vLLM's requests.
            at: those whose prompt has been read.
            logits: [R, V] of the base.
            context: [R, K, d] the base's states at each request's last row.
            metadata: vLLM's settings of the R requests.
            sampler: vLLM's.
            limit: tokens of prompt and answer.

        Returns:
            [R, W] int32 tokens, −1 where there are none, and vLLM's logprobs of all of them.
        """
        assert self._modules is not None
        rows = [self._row(requests[i], limit) for i in at]
        segment = VllmSegment(self._modules, rows, at, metadata, sampler, self._target.compute_logits, len(requests))
        if not rows:
            segment.sample(logits, [])
            return segment.tokens, segment.logprobs
        index = torch.tensor(list(at), device=logits.device)
        embeds, valid, _ = segment.write(logits[index].float(), context[index, -1], context[index])
        for row in rows:
            if row.error is not None:
                raise row.error
        steps = merged(self._modules, embeds, valid)
        for i, row, step in zip(at, rows, steps, strict=True):
            self._rows[requests[i].req_id] = WrittenRow(row, step)
            if (name := (requests[i].sampling_params.extra_args or {}).get(PREFIX + ROW)) is not None:
                NOTES[name] = StepNote((), row.out.why[-1])
        return segment.tokens, segment.logprobs

    def _row(self, request: Any, limit: int) -> LiveRow:
        written = self._rows.get(request.req_id)
        if written is not None:
            return written.row
        most = min(request.sampling_params.max_tokens, limit - request.num_prompt_tokens)
        return self.new_row(request.sampling_params, most)


class VllmSegment(SegmentWriter):
    """One segment of each of R rows, whose tokens vLLM's sampler chooses.

    Args:
        modules: merger and micro decoder.
        rows: R rows.
        at: the place of each in vLLM's batch.
        metadata: vLLM's settings of that batch.
        sampler: vLLM's.
        head: maps states [L, d] to logits [L, V].
        size: of vLLM's batch.
    """

    def __init__(
        self,
        modules: ModulesAround,
        rows: list[LiveRow],
        at: Sequence[int],
        metadata: Any,
        sampler: Callable[..., Any],
        head: Callable[[Tensor], Tensor],
        size: int,
    ) -> None:
        super().__init__(modules, Clock(), rows)
        self._at, self._metadata, self._sampler, self._head, self._size = at, metadata, sampler, head, size
        self._steps: list[Any] = []  # what vLLM's sampler gave, once for each token of the longest segment
        self._before = [len(row.out.ids) for row in rows]

    @property
    def tokens(self) -> Tensor:
        """[B, W] int32 tokens of vLLM's batch, −1 where there are none."""
        device = self._steps[0].sampled_token_ids.device
        written = [row.out.ids[before:] for row, before in zip(self.rows, self._before, strict=True)]
        out = torch.full((self._size, max(map(len, written), default=1)), -1, dtype=torch.int32)
        for i, ids in zip(self._at, written, strict=True):
            out[i, : len(ids)] = torch.tensor(ids)
        rest = sorted(set(range(self._size)) - set(self._at))  # their prompts go on; vLLM discards these tokens
        out[rest, 0] = self._steps[0].sampled_token_ids[rest, 0].cpu()
        return out.to(device)

    @property
    def logprobs(self) -> Any:
        """Logprobs of `tokens` as vLLM returns them, those of each request one after the other."""
        if (first := self._steps[0].logprobs_tensors) is None:
            return None
        steps = [step.logprobs_tensors for step in self._steps[: self.tokens.shape[1]]]
        parts = ([step[part] for step in steps] for part in range(3))  # ids, logprobs, ranks
        return type(first)(*(torch.stack(each, 1).flatten(0, 1) for each in parts))

    def sample(self, logits: Tensor, live: list[int]) -> Tensor:
        """Return [B] tokens that vLLM's sampler chooses from logits [B, V] of its batch, for the live rows."""
        metadata = self._metadata
        if self._steps:  # the others draw nothing from their generators
            chosen = {self._at[i] for i in live}
            generators = {i: each for i, each in metadata.generators.items() if i in chosen}
            before = list(metadata.output_token_ids)
            for i in live if before else []:
                before[self._at[i]] = [*before[self._at[i]], *self.rows[i].out.ids[self._before[i] :]]
            metadata = replace(metadata, generators=generators, output_token_ids=before)
        output = self._sampler(logits=logits.clone(), sampling_metadata=metadata)
        self._steps.append(output)
        tokens: Tensor = output.sampled_token_ids[:, 0].long()
        return tokens

    def _choose(self, logits: Tensor, live: list[int]) -> tuple[Tensor, Tensor]:
        places = torch.tensor([self._at[i] for i in live], device=logits.device)
        whole = logits.new_zeros(self._size, logits.shape[-1]).index_copy(0, places, logits)
        token = self.sample(whole, live)[places]
        return token, probability_of(logits, token)

    def _logits(self, state: Tensor) -> Tensor:
        return self._head(state).float()


def refuse_merge_layer(merge_layer: int) -> None:
    """Refuse a model whose lower layers read every token.

    Raises:
        MicroStepError: it is one.
    """
    if merge_layer:
        raise MicroStepError(
            "inside vLLM only models that merge before the first layer can be decoded merged, and this one merges after"
            f" layer {merge_layer}: use --lossless, or this project's own engine"
        )


def refuse_unsupported(vllm_config: Any) -> None:
    """Refuse what merged decoding cannot work with, in one sentence.

    Raises:
        MicroStepError: the configuration has it.
    """
    refused = {
        "prefix caching (--no-enable-prefix-caching)": vllm_config.cache_config.enable_prefix_caching,
        "asynchronous scheduling (--no-async-scheduling)": vllm_config.scheduler_config.async_scheduling,
        "compiled models (--enforce-eager)": not vllm_config.model_config.enforce_eager,
        "prompt embeddings": getattr(vllm_config.model_config, "enable_prompt_embeds", False),
        "a transfer of the cache": vllm_config.kv_transfer_config is not None,
    }
    if found := [name for name, is_there in refused.items() if is_there]:
        raise MicroStepError(f"merged decoding inside vLLM cannot work with {found[0]}")


def is_merged(vllm_config: Any) -> bool:
    """True if vLLM was started with a `MergedWriter`."""
    speculative = getattr(vllm_config, "speculative_config", None)
    return str(getattr(speculative, "model", "")).endswith(f".{MergedWriter.__name__}")
