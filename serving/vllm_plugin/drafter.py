"""Lossless decoding inside vLLM: the micro decoder drafts from the base's states, and vLLM's own sampler checks.

vLLM builds this as a proposer of its method `custom_class`. Drafts are the micro decoder's likeliest words, also where
tokens are sampled: vLLM then keeps a drafted token with the probability that the base gives it, and else draws from the
rest, so the base's distribution is kept exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.decoding.row import LiveRow
from serving.vllm_plugin.modules import EngineDrafter
from serving.vllm_plugin.proposer import NOTES, Proposer, StepNote
from serving.vllm_plugin.settings import PREFIX, ROW


class MicroStepDrafter(Proposer):
    """Drafts after each pass of the base."""

    def __init__(self, vllm_config: Any) -> None:
        super().__init__(vllm_config)
        self.most = int(vllm_config.speculative_config.num_speculative_tokens)
        self._rows: dict[str, LiveRow] = {}
        self._drafter: EngineDrafter | None = None

    def load_model(self, target: Any) -> None:
        """Put the modules around vLLM's model."""
        self._drafter = EngineDrafter(self.around(target), target)

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
                NOTES[name] = StepNote(tuple(drafts[i]), why)
        return drafts

    def _row(self, request: Any) -> LiveRow:
        """A row for one request, kept while the request is written."""
        row = self._rows.get(request.req_id)
        if row is None:
            row = self.new_row(request.sampling_params, request.sampling_params.max_tokens)
        row.out.ids = request.output_token_ids
        return row
