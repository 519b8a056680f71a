"""The distance between the base's states at macro steps and those of a teacher that read every token."""

import torch
from torch import Tensor

from model.micro_step.segment_layout import Layout


def hidden_error(context: Tensor, theirs: Tensor, plan: Layout, labelled: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of ||h - t||^2 / ||t||^2 at the end of each labelled token's segment, averaged over layers.

    Args:
        context: [B, S, K, d] the states of K layers at the macro steps.
        theirs: [B, N, K, d] the teacher's states at the tokens, NaN if unknown; no gradient flows into it.
        plan: layout of the batch.
        labelled: [B, N] bool.

    Returns:
        [] float32 the sum over labelled tokens, and [] the number of them whose segment end has a teacher's states.
    """
    t = plan.at_last(theirs.detach().float())
    known = ~t[:, :, 0, 0].isnan() & plan.segments
    h = context.float()
    t = torch.where(known[..., None, None], t, h.detach())  # the state itself gives no error
    error = ((h - t).square().sum(-1) / t.square().sum(-1).clamp(min=1e-12)).mean(-1)
    tokens = torch.zeros_like(error).scatter_add_(1, plan.segment, labelled.to(error.dtype)) * known
    return (error * tokens).sum(), tokens.sum()
