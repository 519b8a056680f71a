"""How often a merged model expects the right token at each place of a segment, beside its base at the same tokens."""

from typing import Any

import numpy as np
import torch

from analysis.segmentation.strategy import Strategy
from benchmarks.ratio import ratio
from benchmarks.speed.decoders import ComparedModels
from data.prepared import Prepared
from data.segmentation_config import SegmentationConfig
from data.training_rows import TokenRows
from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.causal_lm.finite import check_finite
from model.causal_lm.forward import body
from model.hub.wrap_base import Wrapped
from trainer.batches.dataset import training_rows
from trainer.batches.sampler import batch, token_batches

BATCH_TOKENS = 4096


def position_accuracy(
    models: ComparedModels, prepared: Prepared, strategy: Strategy, most_rows: int | None = None
) -> list[dict[str, Any]]:
    """Accuracy of the models for merged decoding on held-out responses, at places 1 .. M of segments."""
    segmentation = SegmentationConfig(rule=strategy.name, parameters=dict(strategy.values))
    rows = training_rows(prepared, segmentation).held_out
    rows = rows.take(np.arange(len(rows))[:most_rows])
    merged = [each for each in models.micro if each.facts.decoding == "merged"]
    return [row for each in merged for row in _accuracy(each, models.base, rows)]


@torch.inference_mode()
def _accuracy(merged: Wrapped, base: Any, rows: TokenRows) -> list[dict[str, Any]]:
    model = merged.model
    longest = int(model.config.max_segment_length)
    right = np.zeros((2, len(rows), longest))
    count = np.zeros((len(rows), longest))
    for chosen in token_batches(np.argsort(rows.lengths, kind="stable"), rows.lengths, BATCH_TOKENS):
        some = batch(rows, chosen).to(model.device)
        out = model(some.ids, some.mask, some.starts, some.labels)
        row, token = out.labelled.nonzero(as_tuple=True)
        check_finite(model, out.nll[row, token].isnan())
        states = body(base)(input_ids=some.ids, attention_mask=some.mask.long(), use_cache=False).last_hidden_state[
            row, token - 1
        ]
        theirs = chunked_lm_head_loss(base, states, some.ids[row, token], torch.ones(len(row), device=states.device))
        check_finite(base, theirs.nll.isnan())
        place = chosen[row.cpu().numpy()], out.micro_position[row, token].cpu().numpy()
        np.add.at(right[0], place, out.correct[row, token].cpu().numpy())
        np.add.at(right[1], place, theirs.correct.cpu().numpy())
        np.add.at(count, place, 1)
    return [
        {
            "model": merged.loaded.facts.name,
            "place": j + 1,
            "tokens": int(count[:, j].sum()),
            "accuracy": ratio((right[0, :, j], count[:, j])),
            "base_accuracy": ratio((right[1, :, j], count[:, j])),
        }
        for j in range(longest)
        if count[:, j].any()
    ]
