"""The base's states at macro steps against those of a token by token reading."""

from __future__ import annotations

import pytest
import torch

from model.micro_step.segment_layout import layout
from tests.support.micro_steps import micro_step, random_starts

IDS = torch.randint(5, 400, (3, 23), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("k", [0, 1])
def test_states_are_matched_at_the_ends_of_segments(k):
    """Of what a token by token reading gives; states that are not known teach nothing, and no gradient is NaN."""
    model = micro_step(merge_layer=k, hidden_weight=20.0, scrambled=False).train()
    chosen = model.trainable("base")
    starts, labels = random_starts(IDS, prompt=5, most=4), IDS.clone()
    labels[:, :6] = -100
    with torch.no_grad():
        every = model.base(IDS, output_hidden_states=True).hidden_states
        teacher = torch.stack([every[layer] for layer in model.config.context_layers], 2)
        context = torch.stack(model(IDS, segment_starts=starts, output_hidden_states=True).hidden_states, 2)
    teacher[1, 10:] = float("nan")
    out = model(IDS, segment_starts=starts, labels=labels, teacher_states=teacher)
    total = count = 0
    plan = layout(starts, None, 4)
    for row in range(3):
        for t in range(6, 23):
            s = int(plan.segment[row, t])
            end = int(plan.last[row, s])
            if not teacher[row, end].isnan().any():
                h, theirs = context[row, s].double(), teacher[row, end].double()
                total += float(((h - theirs).square().sum(-1) / theirs.square().sum(-1)).mean())
                count += 1
    assert 0 < count == out.hidden_count < 3 * 17 and total > 0.1
    assert float(out.hidden_loss.detach()) == pytest.approx(total / (3 * 17), rel=1e-4)
    parts = out.token_loss + 0.5 * out.stop_loss + out.teacher_loss + 20 * out.hidden_loss
    assert torch.allclose(out.loss, parts, rtol=1e-5)
    out.loss.backward()
    assert all(bool(weight.grad.isfinite().all()) for weight in chosen)
    plain = model(IDS, segment_starts=starts, labels=labels, teacher_states=teacher[:, :, -1])
    assert plain.hidden_loss is None and torch.allclose(plain.teacher_loss, out.teacher_loss)
