"""The objectives: one module each, all called in the same way by the loop.

`micro_step` learns to generate segments; `control` and `pretraining` are plain next-token prediction with the base
alone, every token a segment. The draft objective is in draft_objective.py.
"""

from typing import Protocol

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.causal_lm.forward import body
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

    def __init__(self, model: MicroStepForCausalLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: RowBatch, averaged_over: tuple[int, int]) -> tuple[Tensor, MetricSums]:
        out = self.model(
            batch.ids, batch.mask, batch.starts, batch.labels, teacher_states=batch.teacher, averaged_over=averaged_over
        )
        row, token = out.labelled.nonzero(as_tuple=True)
        stops = None
        if out.stop_loss is not None:
            stops = (float(out.stop_count), out.stop_correct, out.stop_loss * averaged_over[1])
        taught = None
        if batch.teacher is not None and out.teacher_loss is not None:
            known = ~batch.teacher[row, token - 1].flatten(1)[:, 0].isnan()
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
