"""The objectives: one module each, all called in the same way by the loop.

`micro_step` learns to generate segments; `control` and `pretraining` are plain next-token prediction with the base
alone, every token a segment; a BLT reads the segments as its patches. The draft objective is in draft_objective.py.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.chunked_cross_entropy import TopTeacher, chunked_lm_head_loss
from model.causal_lm.forward import body
from model.errors import MicroStepError
from model.micro_step.modeling import MicroStepForCausalLM
from trainer.batches.sampler import RowBatch
from trainer.metrics import MetricSums


class Objective(Protocol):
    """A module whose forward pass returns the loss of a part of a step, and its metrics."""

    def __call__(self, batch: RowBatch, averaged_over: tuple[int, int]) -> tuple[Tensor, MetricSums]:
        """Return the loss, this part's share of a mean over the whole step's tokens and stops, and the metrics."""
        ...


class MicroStepObjective(nn.Module):
    """Next tokens, from the base and the micro decoder, and stops; with a teacher's states, its distributions too."""

    def __init__(self, model: MicroStepForCausalLM, prompt_gradients: bool = True) -> None:
        super().__init__()
        self.model, self.prompt_gradients = model, prompt_gradients

    def forward(self, batch: RowBatch, averaged_over: tuple[int, int]) -> tuple[Tensor, MetricSums]:
        teacher: Tensor | TopTeacher | None = batch.teacher
        if batch.teacher_ids is not None and batch.teacher_probability is not None:
            teacher = TopTeacher(batch.teacher_ids, batch.teacher_probability)
        out = self.model(
            batch.ids,
            batch.mask,
            batch.starts,
            batch.labels,
            teacher_states=teacher,
            averaged_over=averaged_over,
            prompt_gradients=self.prompt_gradients,
        )
        row, token = out.labelled.nonzero(as_tuple=True)
        stops = None
        if out.stop_loss is not None:
            stops = (float(out.stop_count), out.stop_correct, out.stop_loss * averaged_over[1])
        taught = None
        if teacher is not None and out.teacher_loss is not None:
            numbers = teacher.probability if isinstance(teacher, TopTeacher) else teacher
            known = ~numbers[row, token - 1].flatten(1)[:, 0].isnan()
            taught = (float(known.sum()), out.teacher_loss * averaged_over[0])
        hidden = None
        if out.hidden_loss is not None:
            hidden = (out.hidden_count, out.hidden_loss * averaged_over[0])
        tally = MetricSums.of(
            self.model.config.max_segment_length,
            out.micro_position[row, token],
            out.nll[row, token],
            out.correct[row, token],
            stops,
            taught,
            hidden,
        )
        if not self.training:
            tally = tally.with_rows(row, out.micro_position[row, token], out.correct[row, token])
        return out.loss, tally


def patch_lengths(starts: Tensor, mask: Tensor) -> Tensor:
    """Return [B, P] the lengths of the segments of rows [B, N], padded on the right with zeros, as a BLT reads them.

    Raises:
        MicroStepError: a row's first segment is not one token, whose patch would tell what its own tokens are.
    """
    starts = starts & mask
    patch = (starts.cumsum(1) - 1).clamp(min=0)
    lengths = torch.zeros(len(starts), int(starts.sum(1).max()), dtype=torch.long, device=starts.device)
    lengths.scatter_add_(1, patch, mask.long())
    if bool((lengths[:, 0] != 1).any()):
        raise MicroStepError("a row's first segment must be one token: a BLT's decoder reads the patch before its own")
    return lengths


class PatchObjective(nn.Module):
    """Next tokens of a BLT, whose patches are the segments."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: RowBatch, averaged_over: tuple[int, int]) -> tuple[Tensor, MetricSums]:
        # No mask: padding stands on the right, and every part of the model is causal.
        states = body(self.model)(
            input_ids=batch.ids, patch_lengths=patch_lengths(batch.starts, batch.mask), use_cache=False
        ).last_hidden_state
        row, token = (batch.labels[:, 1:] != -100).nonzero(as_tuple=True)
        weight = torch.full((len(row),), 1 / max(1, averaged_over[0]), device=states.device)
        head = chunked_lm_head_loss(self.model, states[row, token], batch.ids[row, token + 1], weight)
        order = torch.arange(batch.ids.shape[1], device=batch.ids.device).expand_as(batch.ids)
        slot = (order - torch.where(batch.starts, order, 0).cummax(1).values)[row, token + 1]
        tally = MetricSums.of(positions_of(self.model), slot, head.nll, head.correct)
        return head.loss, tally if self.training else tally.with_rows(row, slot, head.correct)


def objective_over_rows(model: PreTrainedModel, prompt_gradients: bool = True) -> nn.Module:
    """Return the objective over rows, which all recipes use except a draft's over stored states."""
    if isinstance(model, MicroStepForCausalLM):
        return MicroStepObjective(model, prompt_gradients)
    return PatchObjective(model) if model.config.model_type == "blt" else LanguageModelObjective(model)


def positions_of(model: PreTrainedModel) -> int:
    """Return M, the number of places in a segment; 1 if there are no segments."""
    if isinstance(model, MicroStepForCausalLM):
        return int(model.config.max_segment_length)
    return int(model.config.max_patch_length or 1) if model.config.model_type == "blt" else 1


class LanguageModelObjective(nn.Module):
    """Next tokens of the base alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: RowBatch, averaged_over: tuple[int, int]) -> tuple[Tensor, MetricSums]:
        states = body(self.model)(
            input_ids=batch.ids, attention_mask=batch.mask.long(), use_cache=False
        ).last_hidden_state
        row, token = (batch.labels[:, 1:] != -100).nonzero(as_tuple=True)
        weight = torch.full((len(row),), 1 / max(1, averaged_over[0]), device=states.device)
        head = chunked_lm_head_loss(self.model, states[row, token], batch.ids[row, token + 1], weight)
        tally = MetricSums.of(1, torch.zeros_like(row), head.nll, head.correct)
        return head.loss, tally if self.training else tally.with_rows(row, torch.zeros_like(row), head.correct)
