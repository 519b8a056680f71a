"""Prompts of different lengths as one batch."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.forward import states
from model.causal_lm.parts import body, token_model
from model.causal_lm.past import takes_positions
from model.causal_lm.probe import FAULTS, close, once, some_ids


def left_padded(rows: Sequence[Sequence[int]], pad: int = 0, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Return [B, P] ids that end together, and a [B, P] mask that is 0 at padding."""
    width = width or max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :], mask[i, width - len(row) :] = torch.tensor(row), 1
    return ids, mask


def padding_is_bound(model: PreTrainedModel) -> bool:
    """True if a left-padded row, with mask and positions, gives the same result as the row alone.

    It does not if padding flows into the states of recurrent layers, or counts as positions.
    """
    model = token_model(model)
    return once(model, "padding", lambda: _is_bound(model))


def _is_bound(model: PreTrainedModel) -> bool:
    ids = some_ids(model)
    pad = ids[:, :3].flip(1)
    mask = torch.cat([torch.zeros_like(pad), torch.ones_like(ids)], 1)
    inputs = {"attention_mask": mask}
    if takes_positions(body(model)):
        inputs["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    try:
        alone = states(model, input_ids=ids, use_cache=False)
        padded = states(model, input_ids=torch.cat([pad, ids], 1), use_cache=False, **inputs)
    except FAULTS:
        return False
    return close(padded[:, pad.shape[1] :], alone)


def equal_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Return the indices of the rows, grouped by length."""
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault(length, []).append(row)
    return list(groups.values())
