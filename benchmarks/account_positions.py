"""How often a merged model expects the right token at each place of a segment, beside its base at the same tokens."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.account_ratio import ratio
from data.prepared import Prepared
from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.causal_lm.finite import check_finite
from model.causal_lm.forward import body
from model.hub.loading import LoadedModel
from model.hub.wrap_base import wrap
from trainer.batches.dataset import training_rows
from trainer.batches.sampler import batch, cut
from trainer.recipe import SegmentationConfig

BATCH_TOKENS = 4096


@torch.inference_mode()
def positions(
    merged: LoadedModel,
    base: LoadedModel,
    prepared: Prepared,
    segmentation: SegmentationConfig,
    most_rows: int | None = None,
) -> list[dict[str, Any]]:
    """Accuracy on held-out responses at places 1 .. M of the segments that a strategy cuts.

    Args:
        merged: a micro_step model for merged decoding.
        base: what stands beside it, read without segments.
        prepared: whose held-out examples are read.
        segmentation: the strategy, as in training.
        most_rows: read the first so many; None: all.

    Returns:
        a row a place, with intervals over examples.
    """
    model = wrap(merged).model
    most = int(model.config.max_segment_length)
    rows = training_rows(prepared, segmentation).held_out
    rows = rows.take(np.arange(len(rows))[:most_rows])
    right = np.zeros((2, len(rows), most))
    count = np.zeros((len(rows), most))
    for chosen in cut(np.argsort(rows.lengths, kind="stable"), rows.lengths, BATCH_TOKENS):
        some = batch(rows, chosen).to(model.device)
        out = model(some.ids, some.mask, some.starts, some.labels)
        row, token = out.labelled.nonzero(as_tuple=True)
        check_finite(merged.model, out.nll[row, token].isnan())
        states = body(base.model)(
            input_ids=some.ids, attention_mask=some.mask.long(), use_cache=False
        ).last_hidden_state[row, token - 1]
        theirs = chunked_lm_head_loss(
            base.model, states, some.ids[row, token], torch.ones(len(row), device=states.device)
        )
        check_finite(base.model, theirs.nll.isnan())
        place = chosen[row.cpu().numpy()], out.micro_position[row, token].cpu().numpy()
        np.add.at(right[0], place, out.correct[row, token].cpu().numpy())
        np.add.at(right[1], place, theirs.correct.cpu().numpy())
        np.add.at(count, place, 1)
    return [
        {
            "model": merged.facts.name,
            "place": j + 1,
            "tokens": int(count[:, j].sum()),
            "accuracy": ratio((right[0, :, j], count[:, j])),
            "base_accuracy": ratio((right[1, :, j], count[:, j])),
        }
        for j in range(most)
        if count[:, j].any()
    ]
