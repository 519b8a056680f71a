"""How the entropy with a limited history differs from the full entropy, as the window w grows.

All windows are judged on the same tokens: those with so many earlier tokens that each window really limits them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from analysis.corpus.counts import count, pairs
from analysis.intervals import Estimate, Units, quotient
from data.corpus.features import FeatureSpec, GatheredRows
from data.corpus.rule_inputs import CorpusSource, CorpusTokens, row_of, with_gathered
from model.errors import MicroStepError
from model.segmentation.segment import MAX_LENGTH, starts_of
from model.segmentation.solver import POINTS, solve


@dataclass(frozen=True)
class Likeness:
    """Agreement of the boundaries of limited_history and entropy, both solved for the same mean length."""

    target_length: float
    f1: Estimate
    chance: float  # F1 by chance: as many boundaries, placed independently


@dataclass(frozen=True)
class HistoryPoint:
    """Limited and full entropies for one window, over N tokens."""

    spec: FeatureSpec
    tokens: int
    excess: Estimate  # nats: mean of D_t = H_t^(w) - H_t
    distance: Estimate  # nats: mean of |D_t|
    correlation: Estimate  # Pearson correlation of H_t^(w) and H_t
    boundaries: tuple[Likeness, ...]


def history(
    source: CorpusSource, targets: Sequence[float] = (2.0, 3.0), max_length: int = MAX_LENGTH
) -> list[HistoryPoint]:
    """Judge every computed window, from the narrowest on.

    Windows can be compared if they start at the same token (`FeatureSpec.begin`); of several starts, the latest counts.

    Args:
        source: a store with limited histories.
        targets: mean lengths, in tokens, at which boundaries are compared.
        max_length: M.
    """
    histories = [rows for rows in source.gathered if rows.spec.feature.need == "window"]
    if not histories:
        raise MicroStepError(
            f"no limited history was gathered beside {source.store.path}; use `micro-step corpus gather`"
        )
    begin = max(rows.spec.begin for rows in histories)
    alike = [rows for rows in histories if rows.spec.begin == begin]
    alike.sort(key=lambda rows: (rows.spec.feature.window, rows.spec.name))
    return [_point(source, rows, begin, targets, max_length) for rows in alike]


def history_table(points: Sequence[HistoryPoint]) -> pd.DataFrame:
    """A row for each window."""
    rows = []
    for point in points:
        window, how = point.spec.feature.window, point.spec.meaning
        row: dict[str, object] = {"window": window, "how": how, "tokens": point.tokens, "unit": "nats"}
        for name in ("excess", "distance", "correlation"):
            row |= getattr(point, name).columns(name)
        for like in point.boundaries:
            row |= like.f1.columns(f"f1_at_{like.target_length:g}")
        rows.append(row | {f"chance_f1_at_{like.target_length:g}": like.chance for like in point.boundaries})
    return pd.DataFrame(rows)


def _point(
    source: CorpusSource, found: GatheredRows, begin: int, targets: Sequence[float], max_length: int
) -> HistoryPoint:
    tokens = with_gathered(source.tokens, found, begin)
    if not len(tokens.inputs):
        raise MicroStepError(
            f"no row of {source.store.path} exceeds {begin} tokens; take longer texts or smaller windows of history"
        )
    units = Units.of(tokens.rows.document)
    full, limited = (
        np.asarray(values, dtype=np.float64) for values in (tokens.inputs.entropy, tokens.inputs.limited_entropy)
    )
    x, y, d = full - np.nanmean(full), limited - np.nanmean(limited), limited - full
    real = np.isfinite(d)
    columns = np.stack([np.ones(len(d)), d, np.abs(d), x, y, x * x, y * y, x * y], axis=1)
    row = row_of(tokens.rows.offsets)
    per_row = np.zeros((len(tokens.rows), columns.shape[1]))
    np.add.at(per_row, row[real], columns[real])
    own = units.sums(per_row)
    n, d_sum, abs_sum, sx, sy, sxx, syy, sxy = np.moveaxis(units.left_out(own), 1, 0)
    variance = np.maximum((n * sxx - sx * sx) * (n * syy - sy * sy), 0)
    return HistoryPoint(
        found.spec,
        int(real.sum()),
        units.estimates(quotient(d_sum, n), own[:, 0]).at(),
        units.estimates(quotient(abs_sum, n), own[:, 0], (0.0, np.inf)).at(),
        units.estimates(quotient(n * sxy - sx * sy, np.sqrt(variance)), own[:, 0], (-1.0, 1.0)).at(),
        tuple(_likeness(tokens, target, max_length, units) for target in targets),
    )


def _likeness(tokens: CorpusTokens, target: float, max_length: int, units: Units) -> Likeness:
    starts = []
    for rule, given in (("entropy", {}), ("limited_history", {"window": float(tokens.inputs.window or 1)})):
        solved = solve(rule, tokens.inputs, target, max_length, POINTS, **given)
        starts.append(starts_of(rule, tokens.inputs, solved.parameters, max_length))
    known = np.ones((2, len(tokens.rows)), dtype=bool)
    agreement = pairs(count(np.stack(starts), tokens.rows.offsets, known, units, tokens.inputs.forced), units)
    return Likeness(target, agreement.f1.at(0, 1), float(agreement.chance[0, 1]))
