"""The values that all steps of one generation share, and how finished rows leave its batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from model.decoding.output import Clock, RowOutput
from model.decoding.sampling import TokenSampler
from model.decoding.shared_prefix import RowCache, shared_first
from model.decoding.stopping import StopRule
from model.micro_step.outputs import Macro

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

SegmentCallback = Callable[[int, RowOutput], None]
Read = Callable[[Tensor, Tensor, Tensor], Macro]


@dataclass(frozen=True)
class DecodingSession:
    model: MicroStepPreTrainedModel
    sampler: TokenSampler
    rule: StopRule
    tau: float
    max_length: int  # M
    clock: Clock
    tell: SegmentCallback  # of a row's number and all that it has written, after each of its segments
    eps: float = 1.0  # of the check, if the base checks drafts

    @property
    def alone(self) -> bool:
        """True if the base writes alone because no probability reaches tau."""
        return self.tau > 1


# called after each segment with the row's number and its output so far


def read_prompts(
    model: MicroStepPreTrainedModel, input_ids: Tensor, mask: Tensor, cache: RowCache, read: Read
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read prompts [B, P], padded on the left, into an empty cache, every token as a macro step of its own.

    Args:
        model: the model whose base reads.
        input_ids: [B, P].
        mask: [B, P], 0 at padding.
        cache: the cache that `read` fills.
        read: reads embeddings [B, N, d] at positions [B, N], with the mask of all that the cache then holds.

    Returns:
        The base's states [B, d] and [B, K, d] at the last tokens; the mask [B, P] of the cache; and the last tokens'
        positions [B].
    """
    embed = model.get_input_embeddings()
    prompts = shared_first(input_ids, mask, model.base)
    prompts.read_shared(cache, lambda ids, mask, position: read(embed(ids), mask, position))
    ids, position = prompts.ids[:, prompts.shared :], prompts.position
    macro = read(embed(ids), prompts.mask, position[:, prompts.shared :])
    return macro.last[:, -1], macro.context[:, -1], prompts.mask, position[:, -1]


def count_pass(rows: list[RowOutput]) -> None:
    """Count a pass of the base for each of its rows; a prompt that is read in parts counts once."""
    for row in rows:
        row.macro_steps += 1


def select_rows(chosen: list[int], live: list[Any], *tensors: Tensor) -> tuple[Any, ...]:
    """Return the chosen items of a list and rows of tensors; unchanged if all are chosen."""
    if len(chosen) == len(live):
        return live, *tensors
    at = torch.tensor(chosen, dtype=torch.long, device=tensors[0].device)
    return [live[i] for i in chosen], *(tensor[at] for tensor in tensors)


def drop_finished_rows(cache: RowCache, chosen: list[int], live: list[Any], *tensors: Tensor) -> tuple[Any, ...]:
    """Keep only the chosen rows of a cache, a list and tensors (see `select_rows`)."""
    if len(chosen) < len(live):
        cache.batch_select_indices(torch.tensor(chosen, dtype=torch.long, device=tensors[0].device))
    return select_rows(chosen, live, *tensors)
