"""What all steps of one run of writing share, and how rows that are over leave its batch."""

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
    """One run of writing: who writes, by which rules, and who is told."""

    model: MicroStepPreTrainedModel
    chooser: TokenSampler
    rule: StopRule
    tau: float
    most: int  # M
    clock: Clock
    tell: SegmentCallback  # of a row's number and all that it has written, after each of its segments

    @property
    def alone(self) -> bool:
        """Whether the base writes alone, since no probability reaches tau."""
        return self.tau > 1


def read_prompts(
    model: MicroStepPreTrainedModel, input_ids: Tensor, mask: Tensor, cache: RowCache, read: Read
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Read prompts [B, P], padded on the left, into an empty cache, every token as a macro step of its own.

    Args:
        model: whose base reads.
        input_ids: [B, P].
        mask: [B, P], 0 at padding.
        cache: what `read` fills.
        read: reads embeddings [B, N, d] with the mask of what the cache then holds, at positions [B, N].

    Returns:
        at the last tokens the base's states [B, d] and [B, K, d]; the mask [B, P] of what the cache holds; and the
        last tokens' positions [B].
    """
    embed = model.get_input_embeddings()
    prompts = shared_first(input_ids, mask, model.base)
    prompts.read_shared(cache, lambda ids, mask, position: read(embed(ids), mask, position))
    ids, position = prompts.ids[:, prompts.shared :], prompts.position
    macro = read(embed(ids), prompts.mask, position[:, prompts.shared :])
    return macro.last[:, -1], macro.context[:, -1], prompts.mask, position[:, -1]


def count_pass(rows: list[RowOutput]) -> None:
    """Count a pass of the base for the rows that were in it; of a prompt in parts, all of them are one."""
    for row in rows:
        row.macro_steps += 1


def select_rows(chosen: list[int], live: list[Any], *tensors: Tensor) -> tuple[Any, ...]:
    """The chosen ones of a list and of tensors' rows; as they are, where all are chosen."""
    if len(chosen) == len(live):
        return live, *tensors
    at = torch.tensor(chosen, dtype=torch.long, device=tensors[0].device)
    return [live[i] for i in chosen], *(tensor[at] for tensor in tensors)


def drop_finished_rows(cache: RowCache, chosen: list[int], live: list[Any], *tensors: Tensor) -> tuple[Any, ...]:
    """The same, and of the rows of a cache."""
    if len(chosen) < len(live):
        cache.batch_select_indices(torch.tensor(chosen, dtype=torch.long, device=tensors[0].device))
    return select_rows(chosen, live, *tensors)
