"""Scores of every token under a causal language model: entropy, confidence, margin, surprisal, rank, top-k.

Token ids x_0..x_{N-1}; p_t is the softmax, in float32, of the logits at t-1 over the model's full vocabulary (the
logits' width V). Natural logarithms: nats. The body runs once; the LM head then runs on chunks of positions, so that
memory is O(N d + chunk V), never [N, V]. Right padding needs no mask: under causal attention no token sees it.

This module knows nothing about texts, roles or tokenizers: see model/text/encoding.py.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from model.causal_lm.finite import check_finite
from model.causal_lm.forward import hidden_states, logits_of, vocabulary, watched
from model.errors import ModelError, NumericalError
from model.progress import Progress
from model.scoring.scores import Divergences, TokenScores

CHUNK_ELEMENTS = 1 << 24  # logits held at a time: 64 MiB in float32
CHUNK_POSITIONS = 512  # at least this many positions: with fewer, reading the head's weights dominates
BLOCK_ELEMENTS = 1 << 21  # logits reduced at a time: small enough for a CPU cache
GROUP = 64  # number of columns whose maximum is taken together, before the top-k
BODY_SHARE = (
    0.7  # share of the time that the body takes, for progress bars: a guess for small models with large vocabularies
)


def score(
    model: PreTrainedModel,
    rows: Sequence[NDArray[np.int64]],
    prefix: Sequence[int] = (),
    k: int = 5,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> list[TokenScores]:
    """Score every token of a batch of texts, each on its own.

    Args:
        model: any decoder-only language model.
        rows: token ids of each text, [N_i], without the tokenizer's prefix.
        prefix: ids before each text; if there are none, each text's first token is missing.
        k: number of likeliest tokens to keep; at least 1.
        chunk: positions per LM head call; None: chosen to fit memory. Results do not depend on it.
        progress: called with the share done; an exception that it raises stops the run.

    Returns:
        One TokenScores per row.

    Raises:
        TooLarge: a text is longer than the model's context.
        NumericalError: the logits of a text's tokens are not finite; `row` is its index.
    """
    with torch.inference_mode(), watched(model, progress, share=BODY_SHARE):
        hidden, lengths = hidden_states(model, rows, prefix)
        targets = [row if prefix else row[1:] for row in rows]
        flat = torch.cat([hidden[i, :n] for i, n in enumerate(lengths)]) if lengths else hidden.flatten(0, 1)
        target = np.concatenate(targets) if targets else np.zeros(0, dtype=np.int64)
        every = _reduced(model, flat, target, k, chunk, progress)
    scores = _split(every, [len(row) for row in rows], lengths, k)
    for i, (row_scores, n) in enumerate(zip(scores, lengths, strict=True)):
        try:
            check_finite(model, row_scores.not_finite[len(row_scores) - n :])
        except NumericalError as error:
            error.row = i
            raise
    return scores


def score_pair(
    a: PreTrainedModel,
    b: PreTrainedModel,
    row: NDArray[np.int64],
    prefix: Sequence[int] = (),
    k: int = 5,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> tuple[TokenScores, TokenScores, Divergences]:
    """Score one text under two models of one vocabulary, and their divergences, in one pass of each model.

    Raises:
        ModelError: the two models' logits differ in width, so no divergence is defined.
        TooLarge: the text is longer than a model's context.
        NumericalError: the logits of a model are not finite.
    """
    if vocabulary(a) != vocabulary(b):
        raise ModelError(f"no divergence between vocabularies of {vocabulary(a)} and {vocabulary(b)} entries")
    target = torch.as_tensor(row if prefix else row[1:])
    with torch.inference_mode():
        half = BODY_SHARE / 2
        with watched(a, progress, share=half):
            hidden_a = hidden_states(a, [row], prefix)[0][0]
        with watched(b, progress, start=half, share=half):
            hidden_b = hidden_states(b, [row], prefix)[0][0]
        scores_a, scores_b, between = [], [], []
        for piece in _chunks(len(target), vocabulary(a), chunk or chunk_positions(vocabulary(a)) // 2):
            logits_a, logits_b = logits_of(a, hidden_a[piece]), logits_of(b, hidden_b[piece]).to(a.device)
            between.append(_divergences(logits_a, logits_b))
            scores_a.append(reduce_logits(logits_a, target[piece].to(a.device), k))
            scores_b.append(reduce_logits(logits_b, target[piece].to(a.device), k))
            _report(progress, BODY_SHARE + (1 - BODY_SHARE) * piece.stop / len(target))
    for model, parts in ((a, scores_a), (b, scores_b)):
        check_finite(model, TokenScores.join([TokenScores.missing_scores(0, k), *parts]).not_finite)
    lead = len(row) - len(target)
    kl = np.concatenate([np.full((4, lead), np.nan, dtype=np.float32), *between], axis=1)
    before = TokenScores.missing_scores(lead, k)
    return (
        TokenScores.join([before, *scores_a]),
        TokenScores.join([before, *scores_b]),
        Divergences(*kl),
    )


def chunk_positions(vocabulary: int) -> int:
    """Return how many positions go through the LM head at a time."""
    return max(CHUNK_POSITIONS, CHUNK_ELEMENTS // vocabulary)


def _chunks(n: int, width: int, chunk: int | None) -> Iterator[slice]:
    step = chunk or chunk_positions(width)
    for start in range(0, n, step):
        yield slice(start, min(start + step, n))


def _split(every: TokenScores, totals: list[int], scored: list[int], k: int) -> list[TokenScores]:
    rows, position = [], 0
    for total, n in zip(totals, scored, strict=True):
        piece = slice(position, position + n)
        part = TokenScores(**{name: getattr(every, name)[piece] for name in TokenScores.__dataclass_fields__})
        rows.append(TokenScores.join([TokenScores.missing_scores(total - n, k), part]))
        position += n
    return rows


# --- logits to scores


def reduce_in_chunks(
    model: PreTrainedModel,
    hidden: Tensor,
    target: NDArray[np.int64],
    k: int,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> TokenScores:
    """Return the scores of C positions from the body's hidden states [C, d], a chunk of logits at a time.

    Raises:
        NumericalError: logits are not finite.
    """
    scores = _reduced(model, hidden, target, k, chunk, progress)
    check_finite(model, scores.not_finite)
    return scores


def _reduced(
    model: PreTrainedModel,
    hidden: Tensor,
    target: NDArray[np.int64],
    k: int,
    chunk: int | None,
    progress: Progress | None,
) -> TokenScores:
    ids = torch.as_tensor(target, device=hidden.device)
    parts = [TokenScores.missing_scores(0, k)]
    for piece in _chunks(len(hidden), vocabulary(model), chunk):
        parts.append(reduce_logits(logits_of(model, hidden[piece]), ids[piece], k))
        _report(progress, BODY_SHARE + (1 - BODY_SHARE) * piece.stop / len(hidden))
    return TokenScores.join(parts)


def reduce_logits(logits: Tensor, target: Tensor, k: int) -> TokenScores:
    """Return the scores of logits [C, V], which are overwritten; NaN, with a rank of at least 1, where not finite."""
    step = max(1, BLOCK_ELEMENTS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    spare = torch.empty_like(logits[:step])
    blocks = zip(torch.split(logits, step), torch.split(target, step), strict=True)
    parts = [_reduce(z, x, k, spare[: len(z)]) for z, x in blocks]
    columns = [torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True)]
    return TokenScores(*columns)


def _reduce(z: Tensor, x: Tensor, k: int, spare: Tensor) -> tuple[Tensor, ...]:
    """Return every score of a block; z and spare are overwritten. See benchmarks/README.md for the choices."""
    width = min(max(k, 2), z.shape[1])
    top, ids = largest(z, width)  # [C, k], likeliest first
    true = z.gather(-1, x[:, None])  # [C, 1]
    # Counted in float32, exact below 2^24: counting bools takes four times as long.
    rank = 1 + torch.gt(z, true, out=spare).sum(-1).long()
    best = top[:, :1]
    # Subtracting the maximum first keeps the precision of ln sum e^z - sum p z; clamping makes -inf count as p = 0.
    z.sub_(best).clamp_(min=-1e4)
    p = torch.softmax(z, -1, out=spare)
    scale = p.sum(-1)  # 1 except for digits that softmax loses over a large vocabulary (2e-5 over 262,144)
    log_total = (scale / p.gather(-1, ids[:, :1])[:, 0]).log()  # ln sum e^z, since the likeliest has e^0
    probability = p.gather(-1, ids) / scale[:, None]
    entropy = (log_total - p.mul_(z).sum(-1) / scale).clamp_(min=0)
    surprisal = log_total + (best - true)[:, 0]
    second = probability[:, 1] if width > 1 else torch.zeros_like(entropy)
    margin = probability[:, 0] - second
    return entropy, probability[:, 0], margin, surprisal, rank, ids[:, :k], probability[:, :k]


def largest(z: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return [C, k] the largest values of each row and their columns, like `topk` but at the speed of one maximum.

    The k largest values lie in the k groups with the largest maxima, so only the members of those groups are sorted.
    """
    n = z.shape[1] // GROUP
    if n < k:
        values, columns = z.topk(k, dim=-1)
        return values, columns
    groups = z[:, : GROUP * n].view(-1, GROUP, n)  # group j holds columns j, j + n, j + 2n, ...
    chosen = groups.amax(1).topk(k, dim=-1).indices  # [C, k]
    members = (chosen[:, None] + n * torch.arange(GROUP, device=z.device)[:, None]).flatten(1)
    rest = torch.arange(GROUP * n, z.shape[1], device=z.device).expand(len(z), -1)  # the last, incomplete group
    members = torch.cat([members, rest], dim=1)
    values, order = z.gather(1, members).topk(k, dim=-1)
    return values, members.gather(1, order)


def _divergences(a: Tensor, b: Tensor) -> NDArray[np.float32]:
    """Return [4, C]: KL(A||B), KL(B||A), JS and TV of two sets of logits [C, V]."""
    step = max(1, BLOCK_ELEMENTS // a.shape[1]) if a.device.type == "cpu" else len(a)
    parts = []
    for za, zb in zip(torch.split(a, step), torch.split(b, step), strict=True):
        (la, pa), (lb, pb) = _log_and_probability(za), _log_and_probability(zb)
        ratio = la - lb
        kl_ab = (pa * ratio).sum(-1)
        kl_ba = -(pb * ratio).sum(-1)
        lm = (pa + pb).mul_(0.5).clamp_(min=1e-44).log_()
        js = 0.5 * ((la - lm).mul_(pa).sum(-1) + (lb - lm).mul_(pb).sum(-1))
        kl_ab = torch.where(_rules_out(zb, pa), torch.inf, kl_ab)
        kl_ba = torch.where(_rules_out(za, pb), torch.inf, kl_ba)
        tv = 0.5 * pa.sub_(pb).abs_().sum(-1)  # last, as it overwrites pA
        parts.append(torch.stack([kl_ab, kl_ba, js, tv]).clamp_(min=0))
    result: NDArray[np.float32] = torch.cat(parts, dim=1).cpu().numpy()
    return result


def _log_and_probability(z: Tensor) -> tuple[Tensor, Tensor]:
    """Return ln p and p, [C, V] each.

    torch's log_softmax loses digits over a large vocabulary; dividing by the sum corrects this.
    """
    log_p = z.log_softmax(-1).clamp_(min=-1e30)  # p = 0 from there on, and 0 ln 0 = 0
    p = log_p.exp()
    scale = p.sum(-1, keepdim=True)
    return log_p.sub_(scale.log()), p.div_(scale)


def _rules_out(z: Tensor, p: Tensor) -> Tensor:
    """Return [C] bool: whether logits [C, V] rule out, by minus infinity, a word that p [C, V] holds possible."""
    ruled_out = z.amin(-1) == -torch.inf
    if not bool(ruled_out.any()):
        return ruled_out
    return ((z == -torch.inf) & (p > 0)).any(-1)


def _report(progress: Progress | None, share: float) -> None:
    if progress is not None:
        progress(share)
