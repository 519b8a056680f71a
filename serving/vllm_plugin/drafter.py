"""Lossless decoding inside vLLM: the micro decoder drafts from the base's states, and vLLM's own sampler checks.

vLLM builds this as a proposer of its method `custom_class`. Drafts are the micro decoder's likeliest words, also where
tokens are sampled: vLLM then keeps a drafted token with the probability that the base gives it, and else draws from the
rest, so the base's distribution is kept exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessorList

from model.decoding.output import RowOutput
from model.decoding.row import LiveRow, SegmentSettings, TokenSettings
from model.decoding.stopping import Why
from model.errors import MicroStepError
from serving.vllm_plugin.guard import check_registered
from serving.vllm_plugin.modules import EngineDrafter, ModulesAround, read_config
from serving.vllm_plugin.settings import PREFIX, ROW, DraftSettings


@dataclass(frozen=True)
class DraftNote:
    """What was drafted for a row's next pass."""

    ids: tuple[int, ...]
    why: Why  # it has no more tokens


NOTES: dict[str, DraftNote] = {}
"""Per row of this project's own server, whose engine runs in the same process and takes the notes out."""


class MicroStepDrafter:
    """A proposer of vLLM.

    Args:
        vllm_config: vLLM's configuration, with ours in `additional_config`.
    """

    def __init__(self, vllm_config: Any) -> None:
        check_registered()
        refuse_unsupported(vllm_config)
        self.settings = DraftSettings.of(vllm_config.additional_config)
        self.config = read_config(self.settings.modules)
        self.settings.segments(self.config)  # refuses values that no request could be drafted with
        self.aux_layers = tuple(self.config.context_layers[:-1])
        self.most = int(vllm_config.speculative_config.num_speculative_tokens)
        self.vllm_config = vllm_config
        self._rows: dict[str, LiveRow] = {}
        self._drafter: EngineDrafter | None = None

    def load_model(self, target: Any) -> None:
        """Put the modules around vLLM's model."""
        device = next(target.parameters()).device
        dtype = self.vllm_config.model_config.dtype
        self._drafter = EngineDrafter(ModulesAround(self.config, self.settings.modules, target, device, dtype), target)

    def propose(self, *_: Any, **__: Any) -> list[list[int]]:
        """Called by vLLM only where the plugin's hooks are not in place."""
        raise MicroStepError("the micro_step plugin of vLLM is not active")

    def propose_after(
        self,
        requests: Sequence[Any],
        sampled: Sequence[list[int]],
        starts: Sequence[int],
        counts: Sequence[int],
        hidden: Tensor,
        aux: Sequence[Tensor],
    ) -> list[list[int]]:
        """Draft after the tokens that vLLM has just written.

        Args:
            requests: R of vLLM's requests that were in the pass, with `req_id`, `sampling_params`, `output_token_ids`.
            sampled: the new tokens of each; none while its prompt is read in parts.
            starts: R + 1, where each request's states begin in `hidden`.
            counts: R, tokens that had been drafted for each in this pass.
            hidden: [N, d] the base's last states of all tokens of the pass.
            aux: K - 1 x [N, d], states of the other context layers.

        Returns:
            R drafts, some of them empty.
        """
        drafts: list[list[int]] = [[] for _ in sampled]
        at = [i for i, ids in enumerate(sampled) if ids]
        self._rows = {request.req_id: self._row(request) for request in requests}
        rows = [self._rows[requests[i].req_id] for i in at]
        if not rows:
            return drafts
        # the state that the last new token was chosen from: behind the drafted tokens that were kept
        states = [starts[i] + len(sampled[i]) - 1 if counts[i] else starts[i + 1] - 1 for i in at]
        index = torch.tensor(states, device=hidden.device)
        context = torch.stack([*(each[index] for each in aux), hidden[index]], 1)
        token = torch.tensor([sampled[i][-1] for i in at], device=hidden.device)
        assert self._drafter is not None
        with torch.inference_mode():
            draft = self._drafter.draft(rows, context, token)
        for i, ids, valid, row, why in zip(at, draft.ids.tolist(), draft.valid.tolist(), rows, draft.why, strict=True):
            if row.error is not None:
                raise row.error
            drafts[i] = [id_ for id_, real in zip(ids, valid, strict=True) if real][: self.most]
            if (name := (requests[i].sampling_params.extra_args or {}).get(PREFIX + ROW)) is not None:
                NOTES[name] = DraftNote(tuple(drafts[i]), why)
        return drafts

    def _row(self, request: Any) -> LiveRow:
        """A row for one request, kept while the request is written."""
        row = self._rows.get(request.req_id)
        if row is None:
            params = request.sampling_params
            segments = self.settings.asked(params.extra_args).segments(self.config)
            ends = frozenset(params.stop_token_ids or () if params.ignore_eos else params.all_stop_token_ids)
            row = LiveRow(RowOutput([]), segments, _greedy(params.max_tokens, ends), lambda _: None)
        row.out.ids = request.output_token_ids
        return row


def _greedy(max_tokens: int, ends: frozenset[int]) -> TokenSettings:
    return TokenSettings(LogitsProcessorList(), max_tokens, ends, (), (), False, None, 0)


def refuse_unsupported(vllm_config: Any) -> None:
    """Refuse what cannot work, in one sentence.

    Raises:
        MicroStepError: the configuration has something that is not supported.
    """
    parallel = vllm_config.parallel_config
    if parallel.tensor_parallel_size > 1 or parallel.pipeline_parallel_size > 1:
        raise MicroStepError(
            "micro_step works inside vLLM on one device: leave --tensor-parallel-size and --pipeline-parallel-size at 1"
        )
    if vllm_config.lora_config is not None:
        raise MicroStepError("micro_step inside vLLM takes no LoRA adapters at run time: merge them by model convert")


def segment_settings(settings: DraftSettings, config: Any, params: Any) -> SegmentSettings:
    """How the drafts of a request end; refuses what vLLM's engine could only fail at later."""
    return settings.asked(getattr(params, "extra_args", None)).segments(config)
