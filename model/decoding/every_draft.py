"""What the micro decoder would draft after every token of an answer.

Greedy lossless decoding writes the base's own answer whatever tau is, and a draft depends only on the text before it.
So these drafts say what a run at any tau would draft, keep and refuse, without running it (up to rounding: all states
come from one pass here, and from one pass a segment there).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from model.causal_lm.fast_linear import with_fast_linear
from model.causal_lm.partial_adapter import adapter_acting
from model.decoding.draft_record import EveryDraft
from model.decoding.lossless import Drafter
from model.decoding.merged import ending_criteria, prepared_settings
from model.decoding.output import RowOutput
from model.decoding.row import LiveRow, SegmentSettings
from model.decoding.sampling import token_settings
from model.decoding.stopping import find_stop_rule

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

AT_ONCE = 64  # tokens after which drafts are written together


@torch.inference_mode()
def draft_after_each_token(
    model: MicroStepPreTrainedModel,
    prompt: list[int],
    answer: list[int],
    *,
    rule: str,
    max_segment_length: int,
    **settings: Any,
) -> EveryDraft:
    """Draft after each token of the base's own greedy answer to a prompt.

    Args:
        model: a micro_step model.
        prompt: ids.
        answer: T ids.
        rule: when drafting stops.
        max_segment_length: M.
        settings: those of the run that wrote the answer, `max_new_tokens` among them.
    """
    written = [RowOutput(prompt, answer[: t + 1]) for t in range(len(answer))]
    prepared = prepared_settings(model, None, settings, 1)
    criteria = ending_criteria(model, prepared, None, None)
    tokens = token_settings(model, prepared, [prompt] * len(answer), criteria)
    segments = SegmentSettings(find_stop_rule(rule, model.stop is not None), 0.0, max_segment_length)
    rows = [LiveRow(out, segments, how, lambda row: None) for out, how in zip(written, tokens, strict=True)]
    model = with_fast_linear(model)
    ids = torch.tensor([prompt + answer], device=model.device)
    position = torch.arange(ids.shape[1], device=ids.device)[None]
    embedded = model.get_input_embeddings()(ids)
    # a draft after a token reads the base's states at the token before it
    with adapter_acting(True if model.config.prompt_adapter else position >= len(prompt)):
        context = model.macro(embedded, torch.ones_like(ids), position).context[0, len(prompt) - 1 : -1]
    drafter, shape = Drafter(model), (len(answer), max_segment_length - 1)
    every = EveryDraft(np.full(shape, -1), np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32))
    for t in range(0, len(answer), AT_ONCE):
        some = slice(t, t + AT_ONCE)
        draft = drafter.draft(rows[some], context[some], ids[0, len(prompt) :][some])
        n = draft.ids.shape[1]
        for whole, part in ((every.ids, draft.ids), (every.probability, draft.probability), (every.value, draft.value)):
            whole[some, :n] = np.where(draft.valid.cpu().numpy(), part.cpu().numpy(), whole[some, :n])
    return every
