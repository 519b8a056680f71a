"""Means over the tokens of a text, or of many, by layer; each with its 95% interval (analysis/intervals.py).

Of one text the units are its tokens, or the cells that two models share, in order. Of many texts they are documents.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.depth.result import Depth, LayeredText, raw
from analysis.depth.scores import LAYER_SCORES
from analysis.intervals import ANYWHERE, SHARE, Estimate, Estimates, Units, quotient
from analysis.score_registry import Unit
from model.scoring.scores import LayerScores
from model.short_repr import ShortRepr

Floats = NDArray[np.float64]
Per = Literal["token", "byte"]


@dataclass(frozen=True, eq=False, repr=False)
class CountedTokens(ShortRepr):
    """The T tokens of one model that count, and the unit that each belongs to."""

    units: Units  # of T tokens; A and B have the same units
    layers: LayerScores  # [L + 1, T]
    bytes: Floats  # [U] of the text, in UTF-8; used where two tokenizers split it
    before: NDArray[
        np.int64
    ]  # [T] the id that was read just before; -1 if it is a part of what the tokenizer puts first
    vocabulary: int  # V, the width of the logits

    @property
    def count(self) -> int:
        """T."""
        return len(self.units.of_row)

    @cached_property
    def decided(self) -> Floats:
        """[T] the layer at which each is decided."""
        return self.layers.decided.astype(np.float64)

    @cached_property
    def tokens(self) -> Floats:
        """[U] tokens of each unit."""
        return self.units.sums(np.ones(self.count))

    def by_layer(self, score: str, unit: Unit) -> Floats:
        """[U, L + 1] sums of one of LAYER_SCORES as it is shown."""
        return self.units.sums(LAYER_SCORES[score].values(raw(self.layers, score), unit).T)


def units_of(depth: Depth, role: str = "all") -> Units:
    """The units of one text: the tokens that count, or the pieces of text that both models scored."""
    if depth.cells is None:
        return Units.in_runs(int(_own(depth.sides[0], role).sum()), "tokens", in_order=True)
    return Units.in_runs(int(_of_role(depth.cells.role, role).sum()), "pieces of text", in_order=True)


def counted(depth: Depth, role: str = "all") -> tuple[CountedTokens, ...]:
    """What counts of one text: content that is scored, by both models where there are two."""
    units, cells = units_of(depth, role), depth.cells
    if cells is None:
        own = _own(depth.sides[0], role)
        return (_of_units(depth.sides[0], np.cumsum(own) - 1, own, units, np.empty(0)),)
    chosen = _of_role(cells.role, role)
    of_cell = np.full(len(cells) + 1, -1, dtype=np.int64)  # the last stands for tokens in no cell
    of_cell[:-1][chosen] = units.of_row
    bytes_ = units.sums(cells.bytes[chosen])
    return tuple(
        _of_units(side, cell, of_cell[cell] >= 0, replace(units, of_row=of_cell[:-1]), bytes_)
        for side, cell in zip(depth.sides, (cells.token_cell_a, cells.token_cell_b), strict=True)
    )


def _own(side: LayeredText, role: str) -> NDArray[np.bool_]:
    """[N] which tokens of a model count."""
    own: NDArray[np.bool_] = side.scored.content & _of_role(side.scored.encoded.role, role)
    return own


def _of_role(roles: NDArray[np.str_], role: str) -> NDArray[np.bool_]:
    chosen: NDArray[np.bool_] = (roles == role) | (role == "all")
    return chosen


def pooled(depths: Sequence[Depth], role: str = "all") -> tuple[CountedTokens, ...]:
    """What counts of many texts; the units are the documents."""
    each = [counted(depth, role) for depth in depths]
    found = []
    for parts in zip(*each, strict=True):
        documents = np.repeat(np.arange(len(parts)), [part.count for part in parts])
        runs = Units.in_runs(len(parts), "documents")
        units = replace(runs, of_row=runs.of_row[documents])
        bytes_ = runs.sums(np.array([part.bytes.sum() for part in parts]))
        layers, before = LayerScores.join([part.layers for part in parts]), np.concatenate([p.before for p in parts])
        found.append(CountedTokens(units, layers, bytes_, before, parts[0].vocabulary))
    return tuple(found)


def _of_units(
    side: LayeredText, piece: NDArray[np.integer], own: NDArray[np.bool_], runs: Units, bytes_: Floats
) -> CountedTokens:
    """The tokens `own` [N] of a model; `piece` [N] is the row of `runs` that each belongs to."""
    before = np.concatenate([[-1], side.scored.encoded.ids[:-1]])[own]
    units = replace(runs, of_row=runs.of_row[piece[own]])
    return CountedTokens(units, side.layers.at(own), bytes_, before, side.scored.facts.vocab_size)


def mean_by_layer(tokens: CountedTokens, score: str, unit: Unit) -> Estimates:
    """[L + 1] the mean per token of one of LAYER_SCORES after each layer."""
    return _mean(tokens.units, tokens.by_layer(score, unit), tokens.tokens)


def change_by_layer(a: CountedTokens, b: CountedTokens, score: str, unit: Unit, per: Per = "token") -> Estimates:
    """[L + 1] B's mean minus A's after each layer; L is the same for both."""
    return _change(a, b, [side.by_layer(score, unit) for side in (a, b)], per)


def mean_decided(tokens: CountedTokens) -> Estimate:
    """The mean layer at which a token is decided."""
    within = 0.0, float(tokens.layers.count)
    return _mean(tokens.units, tokens.units.sums(tokens.decided[:, None]), tokens.tokens, within).at(0)


def change_decided(a: CountedTokens, b: CountedTokens) -> Estimate:
    """How many layers later B decides a token than A, on average; as a share of the depth if L differs."""
    scale = 1 if a.layers.count == b.layers.count else np.array([a.layers.count, b.layers.count])
    sums = [
        side.units.sums(side.decided[:, None]) / depth
        for side, depth in zip((a, b), np.broadcast_to(scale, 2), strict=True)
    ]
    return _change(a, b, sums, "token").at(0)


def decided_shares(tokens: CountedTokens) -> Estimates:
    """[L + 1] the share of the tokens that is decided at each layer."""
    at = tokens.decided[:, None] == np.arange(tokens.layers.count + 1)
    return _mean(tokens.units, tokens.units.sums(at), tokens.tokens, SHARE)


def repeated_shares(tokens: CountedTokens) -> Estimates:
    """[L + 1] the share of the tokens at which a layer's likeliest word is the token that was just read."""
    same = tokens.layers.top_id == tokens.before
    return _mean(tokens.units, tokens.units.sums(same.T), tokens.tokens, SHARE)


def worse_than_uniform(tokens: CountedTokens) -> Estimates:
    """[L + 1] the share of the tokens at which a layer is farther from the final prediction than a uniform guess.

    The KL of a uniform guess is ln V minus the final entropy.
    """
    worse = tokens.layers.kl > np.log(tokens.vocabulary) - tokens.layers.entropy[-1]
    return _mean(tokens.units, tokens.units.sums(worse.T), tokens.tokens, SHARE)


def decided_in_bins(
    tokens: CountedTokens, score: str, unit: Unit, bins: int
) -> tuple[Floats, Estimates, NDArray[np.int64]]:
    """Bins of equally many tokens, from low to high final scores.

    Returns:
        [bins] the mean score, [bins] the mean layer of decision, and [T] the bin of each token.
    """
    final = LAYER_SCORES[score].values(raw(tokens.layers, score), unit)[-1].astype(np.float64)
    order = np.argsort(final, kind="stable")
    which = np.empty(len(final), dtype=np.int64)
    which[order] = np.arange(len(final)) * bins // max(1, len(final))
    member = (which[:, None] == np.arange(bins)).astype(np.float64)  # [T, bins]
    weight = tokens.units.sums(member)
    middle = quotient(final @ member, member.sum(0))
    return middle, _mean(tokens.units, tokens.units.sums(member * tokens.decided[:, None]), weight), which


def rank_correlation(tokens: CountedTokens, score: str) -> Estimate:
    """Spearman's correlation of the layer of decision with the final prediction's score; above 0: later where more."""
    (columns,) = _moments([tokens], score)
    left = tokens.units.left_out(columns)
    return tokens.units.estimates(_correlation(left)[:, None], tokens.tokens[:, None], (-1, 1)).at(0)


def change_of_correlation(a: CountedTokens, b: CountedTokens, score: str) -> Estimate:
    """B's `rank_correlation` minus A's."""
    left = [side.units.left_out(each) for side, each in zip((a, b), _moments([a, b], score), strict=True)]
    figure = _correlation(left[1]) - _correlation(left[0])
    return a.units.estimates(figure[:, None], (a.tokens + b.tokens)[:, None], (-2, 2)).at(0)


def _moments(sides: Sequence[CountedTokens], score: str) -> list[Floats]:
    """[U, 6] of each side, sums over each unit: 1, x, y, x^2, y^2 and x y of centred ranks."""
    found = []
    for side in sides:
        x, y = (pd.Series(each).rank().to_numpy() for each in (raw(side.layers, score)[-1], side.decided))
        if len(x):
            x, y = ((values - (len(x) + 1) / 2) / len(x) for values in (x, y))
        found.append(side.units.sums(np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)))
    return found


def _correlation(left: Floats) -> Floats:
    n, x, y, xx, yy, xy = left.T
    with np.errstate(invalid="ignore", divide="ignore"):
        spread_x, spread_y = n * xx - x * x, n * yy - y * y
        varies = (spread_x > 1e-9 * n * xx) & (spread_y > 1e-9 * n * yy)  # else it is rounding
        return np.where(varies, (n * xy - x * y) / np.sqrt(spread_x * spread_y), np.nan)


def _mean(units: Units, total: Floats, weight: Floats, within: tuple[float, float] = ANYWHERE) -> Estimates:
    """Means [...] of totals [U, ...]."""
    weight = np.broadcast_to(weight[:, None] if weight.ndim == 1 else weight, total.shape)
    figure = quotient(units.left_out(total), units.left_out(weight))
    return units.estimates(figure, weight, within)


def _change(a: CountedTokens, b: CountedTokens, totals: Sequence[Floats], per: Per) -> Estimates:
    weight_a, weight_b = (side.tokens if per == "token" else side.bytes for side in (a, b))
    mean_a, mean_b = (
        quotient(a.units.left_out(total), a.units.left_out(weight[:, None]))
        for total, weight in zip(totals, (weight_a, weight_b), strict=True)
    )
    return a.units.estimates(mean_b - mean_a, (weight_a + weight_b)[:, None])
