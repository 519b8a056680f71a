"""The likelihood of a continuation: by the base alone, or in the segments that a micro_step model itself would form.

There are two definitions, both a product of conditional probabilities over a continuation y_1 .. y_n of a context:

(a) `by_base`: every token is a segment of its own, so the base alone gives log p(y_t | context, y_1 .. y_{t-1}).

(b) `by_own_segments`: the context is read token by token. y_1 starts a segment. After a segment's tokens
    y_s .. y_{s+j-1} the micro decoder has a distribution q_j; y_{s+j} joins the segment if j < M and
    max_v q_j(v) >= tau, and then contributes log q_j(y_{s+j}). Otherwise it starts the next segment and contributes the
    base's log probability, after the base has read the earlier segments as merged steps. This is greedy decoding with
    the rule `confidence`, with the given token in place of the chosen one. Whether a token joins does not depend on the
    token itself, so the probabilities of all continuations still sum to one. No token of the context merges with the
    continuation.

With tau > 1 no token joins, and (b) equals (a). A model that was trained for lossless decoding generates with its
base's probabilities, so (a) is its definition.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.finite import check_finite
from model.causal_lm.forward import logits_of, states, token_model, vocabulary
from model.causal_lm.padding import equal_lengths, left_padded, padding_is_bound
from model.causal_lm.partial_adapter import adapter_acting
from model.decoding.session import drop_finished_rows
from model.micro_step.macro_cache import macro_cache
from model.micro_step.modeling import MicroStepForCausalLM

_CHUNK_BYTES = 96 * 2**20  # size of the float32 logits of one chunk


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of a continuation of n tokens."""

    nll: NDArray[np.float32]  # [n] nats
    correct: NDArray[np.bool_]  # [n] bool, the token was the likeliest word
    slot: NDArray[np.int64]  # [n] the token's place in its segment; 0: the base predicted it

    @property
    def total(self) -> float:
        """Log-likelihood in nats."""
        return -float(self.nll.sum(dtype=np.float64))

    @property
    def greedy(self) -> bool:
        """True if greedy decoding would have produced it."""
        return bool(self.correct.all())

    @property
    def macro_steps(self) -> int:
        """Passes of the base that predicted one of its tokens."""
        return int((self.slot == 0).sum())


@torch.inference_mode()
def by_base(
    model: PreTrainedModel, contexts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]
) -> list[Scored]:
    """Score continuations by definition (a), in one batch; of a micro_step model, its base is used."""
    base = token_model(model)
    rows = [[*context, *continuation][:-1] for context, continuation in zip(contexts, continuations, strict=True)]
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    given = torch.tensor([len(context) for context in contexts])[:, None]
    with adapter_acting((torch.arange(ids.shape[1]) >= given).to(base.device)):
        hidden = states(base, input_ids=ids.to(base.device), use_cache=False)
    places = [
        slice(len(row) - len(continuation), len(row)) for row, continuation in zip(rows, continuations, strict=True)
    ]
    chosen = torch.cat([hidden[i, place] for i, place in enumerate(places)])
    target = torch.tensor([token for continuation in continuations for token in continuation], device=base.device)
    step = max(1, _CHUNK_BYTES // (4 * vocabulary(base)))
    chunks = [
        _nll_and_correct(logits_of(base, chosen[a : a + step]), target[a : a + step])
        for a in range(0, len(target), step)
    ]
    nll = torch.cat([chunk[0] for chunk in chunks]).cpu().numpy()
    check_finite(base, np.isnan(nll))
    correct = torch.cat([chunk[1] for chunk in chunks]).cpu().numpy()
    bounds = pairwise(np.cumsum([0, *map(len, continuations)]).tolist())
    return [Scored(nll[a:b], correct[a:b], np.zeros(b - a, dtype=np.int64)) for a, b in bounds]


def _nll_and_correct(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return nll [T] and [T] bool whether the target is the likeliest, of targets [T] under logits [T, V]."""
    nll = logits.logsumexp(-1) - logits.gather(-1, target[..., None])[..., 0]
    return nll, logits.argmax(-1) == target


def by_own_segments(
    model: MicroStepForCausalLM,
    contexts: Sequence[Sequence[int]],
    continuations: Sequence[Sequence[int]],
    confidence: float,
) -> list[Scored]:
    """Score continuations by definition (b), in one batch: a loop over macro steps, all rows at once."""
    if model.config.decoding == "lossless" or confidence > 1 or model.config.max_segment_length == 1:
        return by_base(model, contexts, continuations)
    every = list(range(len(contexts)))
    groups = [every] if padding_is_bound(model) else equal_lengths([len(context) for context in contexts])
    scores: dict[int, Scored] = {}
    with torch.inference_mode():
        for rows in groups:  # one length at a time, if the model does not respect a padding mask
            reader = _SegmentReader(model, [contexts[i] for i in rows], [continuations[i] for i in rows], confidence)
            scores.update(zip(rows, reader.read(), strict=True))
    return [scores[i] for i in every]


class _SegmentReader:
    """Reads R rows segment by segment."""

    def __init__(
        self,
        model: MicroStepForCausalLM,
        contexts: Sequence[Sequence[int]],
        continuations: Sequence[Sequence[int]],
        tau: float,
    ) -> None:
        self.model, self.contexts, self.tau, self.max_length = model, contexts, tau, model.config.max_segment_length
        self.count = torch.tensor([len(continuation) for continuation in continuations])
        self.text = torch.zeros(len(continuations), int(self.count.max()), dtype=torch.long)
        for i, continuation in enumerate(continuations):
            self.text[i, : len(continuation)] = torch.tensor(continuation)
        shape = tuple(self.text.shape)
        self.nll = np.full(shape, np.nan, dtype=np.float32)
        self.correct, self.slot = np.zeros(shape, dtype=np.bool_), np.zeros(shape, dtype=np.int64)

    def read(self) -> list[Scored]:
        model, device = self.model, self.model.device
        embed = model.get_input_embeddings()
        ids, mask = left_padded(self.contexts)
        ids, mask, text, count = (tensor.to(device) for tensor in (ids, mask, self.text, self.count))
        cache = macro_cache(model)
        last, context = cache.read(ids, mask)
        at, live = torch.zeros_like(count), list(range(len(count)))
        while True:
            window = at[:, None] + torch.arange(self.max_length, device=device)  # [L, M]
            tokens = text.gather(1, window.clamp(max=text.shape[1] - 1))
            inside = self._segment(live, last, context, tokens, window, window < count[:, None])
            at = at + inside.sum(1)
            going = (at < count).nonzero()[:, 0].tolist()
            if not going:
                break
            live, at, text, count, tokens, inside = drop_finished_rows(
                cache, going, live, at, text, count, tokens, inside
            )
            last, context = cache.step(embed(tokens) * inside[..., None], inside)
        sizes = self.count.tolist()
        return [Scored(self.nll[i, :n], self.correct[i, :n], self.slot[i, :n]) for i, n in enumerate(sizes)]

    def _segment(
        self, live: list[int], last: Tensor, context: Tensor, tokens: Tensor, window: Tensor, valid: Tensor
    ) -> Tensor:
        """Return [L, M] bool, which of the next tokens [L, M] form the next segment, and score them."""
        model = self.model
        state, _ = model.micro(context, model.get_input_embeddings()(tokens[:, :-1]))
        states = torch.cat([last[:, None], state], 1)
        logits = logits_of(model.base, states.flatten(0, 1)).view(*tokens.shape, -1)
        confidence = (logits[:, 1:].amax(-1) - logits[:, 1:].logsumexp(-1)).exp()
        joins = (confidence >= self.tau).long().cumprod(1).bool()
        inside = torch.cat([torch.ones_like(joins[:, :1]), joins], 1) & valid
        nll, correct = _nll_and_correct(logits, tokens)
        check_finite(model, nll[:, 0].isnan() | confidence.isnan().any(1), of="texts")
        row, slot = inside.nonzero(as_tuple=True)
        place = np.array(live)[row.cpu().numpy()], window[row, slot].cpu().numpy()
        self.nll[place] = nll[row, slot].cpu().numpy()
        self.correct[place] = correct[row, slot].cpu().numpy()
        self.slot[place] = slot.cpu().numpy()
        return inside
