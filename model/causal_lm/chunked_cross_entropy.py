"""Cross-entropy through an LM head, a chunk of positions at a time, gradients included, without keeping the logits.

The loss is a weighted sum over positions. Each chunk's gradients can therefore be taken as soon as its logits exist, in
the forward pass; the backward pass only scales them. Nothing is computed twice, and no [T, V] is kept.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from model.causal_lm.forward import logits_of, vocabulary

CHUNK_BYTES = 64 * 2**20  # size of one chunk of float32 logits


class TopTeacher(NamedTuple):
    """The k likeliest tokens of a distribution; the rest of its probability counts as one event."""

    ids: Tensor  # [.., k]
    probability: Tensor  # [.., k]; NaN if the distribution is unknown, which teaches nothing


@dataclass(frozen=True)
class HeadLoss:
    """The loss of T positions under an LM head."""

    loss: Tensor  # [] sum of weight * (token_weight * nll + teacher_weight * divergence), differentiable
    nll: Tensor  # [T] float32, of the target token, detached
    correct: Tensor  # [T] bool, True if the target is the likeliest token
    divergence: Tensor  # [T] KL(teacher || model) in nats, detached; zeros without a teacher


def chunked_lm_head_loss(
    lm: PreTrainedModel,
    hidden: Tensor,
    target: Tensor,
    weight: Tensor,
    teacher: Tensor | TopTeacher | None = None,
    teacher_weight: float = 0.0,
    token_weight: float = 1.0,
) -> HeadLoss:
    """Return the loss of T positions under a model's head.

    Args:
        lm: the model whose head, scaling and soft cap are used; its head's parameters get gradients if they require
            them.
        hidden: [T, d] states after the final norm.
        target: [T] ids.
        weight: [T] float32, weight of each position in the loss.
        teacher: [T, d] states whose distribution under the same head is the target; no gradient flows into it. Or the
            likeliest tokens of such distributions.
        teacher_weight: weight of the divergence beside the nll.
        token_weight: weight of the nll; 0: only the teacher is followed.
    """
    head = [p for p in _head_parameters(lm) if p.requires_grad]
    weights = token_weight, teacher_weight
    outputs = _HeadLoss.apply(lm, target, weight, teacher, weights, hidden, *head)  # type: ignore[no-untyped-call]
    return HeadLoss(*outputs)


def _head_parameters(lm: PreTrainedModel) -> list[Tensor]:
    embeddings = lm.get_output_embeddings()
    return list(embeddings.parameters()) if embeddings is not None else []


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        lm: PreTrainedModel,
        target: Tensor,
        weight: Tensor,
        teacher: Tensor | TopTeacher | None,
        weights: tuple[float, float],
        hidden: Tensor,
        *head: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        needs_grad = hidden.requires_grad or bool(head)
        size = max(1, CHUNK_BYTES // (4 * vocabulary(lm)))
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        to_hidden = torch.empty_like(hidden) if needs_grad else None
        to_head = [torch.zeros_like(p, dtype=torch.float32) for p in head]
        parts = []
        for a in range(0, len(hidden), size):
            chunk = slice(a, a + size)
            with torch.set_grad_enabled(needs_grad):
                h = hidden[chunk].detach().requires_grad_(needs_grad)
                part, *details = _chunk(lm, h, target[chunk], weight[chunk], _part(teacher, chunk), weights)
            if needs_grad:
                gradients = torch.autograd.grad(part, [h, *head])
                assert to_hidden is not None
                to_hidden[chunk] = gradients[0]
                for gradient, new in zip(to_head, gradients[1:], strict=True):
                    gradient += new
            total += part.detach()
            parts.append(details)
        ctx.save_for_backward(*([to_hidden] if to_hidden is not None else []))
        ctx.to_head = [gradient.to(p.dtype) for gradient, p in zip(to_head, head, strict=True)]
        nll, correct, divergence = (
            (torch.cat(details) for details in zip(*parts, strict=True)) if parts else _no_positions(hidden)
        )
        ctx.mark_non_differentiable(nll, correct, divergence)
        return total, nll, correct, divergence

    @staticmethod
    def backward(ctx: Any, to_loss: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        (to_hidden,) = ctx.saved_tensors
        return (None, None, None, None, None, to_hidden * to_loss, *(gradient * to_loss for gradient in ctx.to_head))


def _no_positions(hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    empty = torch.zeros(0, device=hidden.device)
    return empty, empty.bool(), empty.clone()


def _part(teacher: Tensor | TopTeacher | None, chunk: slice) -> Tensor | TopTeacher | None:
    if isinstance(teacher, TopTeacher):
        return TopTeacher(teacher.ids[chunk], teacher.probability[chunk])
    return None if teacher is None else teacher[chunk]


def _chunk(
    lm: PreTrainedModel,
    h: Tensor,
    target: Tensor,
    weight: Tensor,
    teacher: Tensor | TopTeacher | None,
    weights: tuple[float, float],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the weighted loss of a chunk, and nll, correct and divergence of each position, detached."""
    logits = logits_of(lm, h)
    nll = F.cross_entropy(logits, target, reduction="none")
    token_weight, teacher_weight = weights
    loss = token_weight * nll
    divergence = torch.zeros_like(nll)
    if isinstance(teacher, TopTeacher):
        divergence = _divergence_from_top(logits, teacher)
        loss = loss + teacher_weight * divergence
    elif teacher is not None:
        with torch.no_grad():
            theirs = logits_of(lm, teacher).log_softmax(-1)
        divergence = (theirs.exp() * (theirs - logits.log_softmax(-1))).sum(-1)
        loss = loss + teacher_weight * divergence
    correct = logits.detach().argmax(-1) == target
    return (loss * weight).sum(), nll.detach(), correct, divergence.detach()


def _divergence_from_top(logits: Tensor, teacher: TopTeacher) -> Tensor:
    """Return [C], KL(teacher || model) in nats over the teacher's tokens and the rest as one event; 0 if unknown."""
    known = ~teacher.probability[..., 0].isnan()
    theirs = torch.where(known[:, None], teacher.probability.float(), 0.0)
    ids, whole = teacher.ids.long(), logits.logsumexp(-1)
    apart = torch.special.xlogy(theirs, theirs) - theirs * (logits.gather(-1, ids) - whole[:, None])
    divergence: Tensor = apart.sum(-1)
    if ids.shape[-1] < logits.shape[-1]:
        rest = torch.where(known, (1 - theirs.sum(-1)).clamp(min=0), 0.0)
        mine = logits.scatter(-1, ids, float("-inf")).logsumexp(-1) - whole
        divergence = divergence + torch.special.xlogy(rest, rest) - rest * mine
    return divergence
