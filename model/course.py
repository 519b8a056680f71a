"""What all steps of one run of writing share, and how rows that are over leave its batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import DynamicCache

from model.choosing import Chooser
from model.stopping import StopRule
from model.written import Clock, Written

if TYPE_CHECKING:
    from model.modeling import MicroStepForCausalLM

Told = Callable[[int, Written], None]


@dataclass(frozen=True)
class Course:
    """One run of writing: who writes, by which rules, and who is told."""

    model: MicroStepForCausalLM
    chooser: Chooser
    rule: StopRule
    tau: float
    most: int  # M
    clock: Clock
    tell: Told  # of a row's number and all that it has written, after each of its segments


def only(chosen: list[int], live: list[Any], *tensors: Tensor) -> tuple[Any, ...]:
    """The chosen ones of a list and of tensors' rows; as they are, where all are chosen."""
    if len(chosen) == len(live):
        return live, *tensors
    at = torch.tensor(chosen, dtype=torch.long, device=tensors[0].device)
    return [live[i] for i in chosen], *(tensor[at] for tensor in tensors)


def leave(cache: DynamicCache, chosen: list[int], live: list[Any], *tensors: Tensor) -> tuple[Any, ...]:
    """The same, and of the rows of a cache."""
    if len(chosen) < len(live):
        cache.batch_select_indices(torch.tensor(chosen, dtype=torch.long, device=tensors[0].device))
    return only(chosen, live, *tensors)
