"""The scores of every layer's prediction: the logit lens, through the final norm and the head (nostalgebraist 2020).

The body runs once and its states between the layers are kept, [L, N, d]. Then, for a chunk of positions at a time, the
final prediction and that of each layer are computed and reduced to scores, so that never more than two chunks of
logits are held. With a tuned lens (Belrose et al. 2023, arXiv 2303.08112) an affine map of the layer's own comes first.

Softmax in float32 over the model's full vocabulary; natural logarithms: nats.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.finite import check_finite, not_finite
from model.causal_lm.forward import logits_of, vocabulary, watched
from model.causal_lm.layer_states import LayerStates, check_layers_readable, layer_count, lens_logits, read_layers
from model.progress import Progress
from model.scoring.scores import LayerScores, TokenScores
from model.scoring.token_scores import largest, reduce_logits
from model.scoring.tuned_lens import TunedLens

CHUNK_ELEMENTS = 15 << 19  # logits of a chunk, held twice: 30 MiB in float32; glibc would map more anew every time
BLOCK_ELEMENTS = 1 << 20  # logits reduced at a time on a CPU: with what they are compared to, its caches hold them
FEWEST_POSITIONS = 64  # of a chunk: with fewer, reading the head's weights dominates
WHOLE = ("final_rank", "rank", "top_id")  # fields of LayerScores that hold whole numbers
TINY = 1e-30  # added to probabilities, so that 0 ln 0 is 0
LOG2_E = 1 / math.log(2)  # e^z = 2^(z LOG2_E), which takes half the time of exp on a processor


def lens_chunk(vocabulary: int) -> int:
    """Return how many positions go through the LM head at a time."""
    return max(FEWEST_POSITIONS, CHUNK_ELEMENTS // vocabulary)


def score_layers(
    model: PreTrainedModel,
    row: NDArray[np.int64],
    prefix: Sequence[int] = (),
    k: int = 5,
    lens: TunedLens | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> tuple[TokenScores, LayerScores]:
    """Score what each layer predicts for every token of a text; of a micro_step model, the layers of its base.

    Args:
        model: any decoder-only language model.
        row: token ids [N], without the tokenizer's prefix.
        prefix: ids before the text; if there are none, the first token is missing.
        k: number of likeliest tokens to keep of the final prediction.
        lens: an affine map for each layer; None: the states as they are.
        chunk: positions per LM head call; None: chosen to fit memory. Results do not depend on it.
        progress: called with the share done; an exception that it raises stops the run.

    Returns:
        The ordinary scores of the final prediction, and the scores of every layer, whose last row agrees with them.

    Raises:
        ModelError: the family cannot be read layer by layer.
        TooLarge: the text is longer than the model's context.
        NumericalError: a layer's logits are not finite.
    """
    check_layers_readable(model)
    layers, target = layer_count(model), row if prefix else row[1:]
    share = _body_share(model, layers)
    with torch.inference_mode():
        with watched(model, progress, share=share):
            states = read_layers(model, row, prefix)
        actual = torch.as_tensor(target, device=states.last.device)
        step = chunk or lens_chunk(vocabulary(model))
        scores = [TokenScores.missing_scores(len(row) - len(target), k)]
        parts = [LayerScores.missing_scores(layers, len(row) - len(target))]
        for start in range(0, len(target), step):
            at = slice(start, min(start + step, len(target)))
            own, every = _score_chunk(model, states, at, actual[at], k, lens)
            scores.append(own)
            parts.append(every)
            if progress is not None:
                progress(share + (1 - share) * at.stop / len(target))
    return TokenScores.join(scores), LayerScores.join(parts)


@dataclass(frozen=True)
class _Final:
    """The final prediction at C positions."""

    probability: Tensor  # [C, V], and TINY
    entropy: Tensor  # [C] nats
    top: Tensor  # [C, 1] the likeliest token


def _score_chunk(
    model: PreTrainedModel, states: LayerStates, at: slice, actual: Tensor, k: int, lens: TunedLens | None
) -> tuple[TokenScores, LayerScores]:
    """Score C positions; `actual` [C] are the ids that come there."""
    logits = logits_of(model, states.last[at])
    final = _final(logits)
    own = reduce_logits(logits, actual, k)
    check_finite(model, own.not_finite)
    del logits
    rows: list[list[NDArray[np.generic]]] = []  # of each layer, the fields of LayerScores
    for layer, inner in enumerate(states.inner):
        hidden = inner[at] if lens is None else lens.translate(layer, inner[at])
        rows.append(_reduce_layer(lens_logits(model, hidden), final, actual))
        if bool(np.isnan(rows[-1][0]).any()):
            raise not_finite(model, f"the prediction after layer {layer} has logits")
    nothing, first = np.zeros_like(own.entropy), np.ones_like(own.rank)
    rows.append([own.entropy, own.confidence, nothing, nothing, own.surprisal, first, own.rank, own.topk_ids[:, 0]])
    fields = zip(LayerScores.__dataclass_fields__, zip(*rows, strict=True), strict=True)
    stacked: dict[str, Any] = {
        name: np.stack(column).astype(np.int32 if name in WHOLE else np.float32) for name, column in fields
    }
    return own, LayerScores(**stacked)


def _blocks(logits: Tensor) -> int:
    """Return how many rows are reduced at a time: on a CPU, so many that they stay in its cache."""
    return max(1, BLOCK_ELEMENTS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)


def _final(logits: Tensor) -> _Final:
    """Keep the final prediction of logits [C, V], which stay as they are."""
    probability = torch.empty_like(logits)
    entropies, tops, step = [], [], _blocks(logits)
    for z, p in zip(torch.split(logits, step), torch.split(probability, step), strict=True):
        best, top = largest(z, 1)
        shifted = torch.sub(z, best).clamp_(min=-1e4)
        total = torch.mul(shifted, LOG2_E, out=p).exp2_().sum(-1, keepdim=True)
        entropies.append(total.log()[:, 0] - torch.linalg.vecdot(p.div_(total), shifted))
        p.add_(TINY)
        tops.append(top)
    return _Final(probability, torch.cat(entropies), torch.cat(tops))


def _reduce_layer(logits: Tensor, final: _Final, actual: Tensor) -> list[NDArray[np.generic]]:
    """Return the fields of LayerScores, [C] each, for logits [C, V] of one layer, which are overwritten."""
    step = _blocks(logits)
    spare, product = torch.empty_like(logits[:step]), torch.empty_like(logits[:step])
    parts = []
    for start in range(0, len(logits), step):
        at = slice(start, start + step)
        z = logits[at]
        part = _Final(final.probability[at], final.entropy[at], final.top[at])
        parts.append(_reduce_block(z, part, actual[at], spare[: len(z)], product[: len(z)]))
    return [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]


def _reduce_block(z: Tensor, final: _Final, actual: Tensor, spare: Tensor, product: Tensor) -> tuple[Tensor, ...]:
    """Return the scores of a block; all but `final` and `actual` is overwritten."""
    best, top = largest(z, 1)
    at_final, at_actual = z.gather(-1, final.top), z.gather(-1, actual[:, None])
    # Counted in float32, exact below 2^24: counting bools takes several times as long.
    final_rank = 1 + torch.gt(z, at_final, out=spare).sum(-1)
    rank = 1 + torch.gt(z, at_actual, out=spare).sum(-1)
    z.sub_(best).clamp_(min=-1e4)  # e^-10000 is 0, and 0 times it is no NaN
    odds = torch.mul(z, LOG2_E, out=spare).exp2_()  # p times the total: 1 for the likeliest
    total = odds.sum(-1, keepdim=True)
    log_total = total.log()[:, 0]
    entropy = (log_total - torch.mul(odds, z, out=product).sum(-1) / total[:, 0]).clamp_(min=0)
    kl = (log_total - torch.mul(final.probability, z, out=product).sum(-1) - final.entropy).clamp_(min=0)
    # With s = p + q: JS = H(s / 2) - (H(p) + H(q)) / 2, and H(s / 2) = ln 2 - (sum s ln s) / 2, as s sums to 2.
    both = torch.addcdiv(final.probability, odds, total, out=spare)
    mixed = math.log(2) - 0.5 * torch.log(both, out=z).mul_(both).sum(-1)
    js = (mixed - 0.5 * (entropy + final.entropy)).clamp_(min=0)
    surprisal = log_total + (best - at_actual)[:, 0]
    return entropy, 1 / total[:, 0], kl, js, surprisal, final_rank, rank, top[:, 0]


def _body_share(model: PreTrainedModel, layers: int) -> float:
    """Return the share of the time that the body takes, by the number of its weights, for progress bars."""
    weights = model.num_parameters()
    head = model.get_output_embeddings()
    width = int(head.weight.shape[-1]) if head is not None else 0
    return float(weights / (weights + layers * vocabulary(model) * width))
