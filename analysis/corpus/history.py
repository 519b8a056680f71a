"""How the entropy with a limited history differs from the full entropy, as the window w grows.

All windows are judged on the same tokens: those with so many earlier tokens that each window really limits them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.corpus.counts import Marked, count_in_pieces, pairs
from analysis.corpus.report import StoredRows
from analysis.intervals import Estimate, Floats, Units, quotient
from data.corpus.features import FeatureSpec
from data.corpus.rule_inputs import row_of
from model.errors import MicroStepError
from model.segmentation.rule_inputs import SegmentInputs
from model.segmentation.segment import MAX_LENGTH, starts_of
from model.segmentation.solver import POINTS, solve_in_parts


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
    source: StoredRows, targets: Sequence[float] = (2.0, 3.0), max_length: int = MAX_LENGTH
) -> list[HistoryPoint]:
    """Judge every computed window, from the narrowest on.

    Windows can be compared if they start at the same token (`FeatureSpec.begin`); of several starts, the latest counts.

    Args:
        source: a store with limited histories.
        targets: mean lengths, in tokens, at which boundaries are compared.
        max_length: M.
    """
    histories = [spec for spec in source.specs if spec.feature.need == "window"]
    if not histories:
        raise MicroStepError(
            f"no limited history was gathered beside {source.store.path}; use `micro-step corpus gather`"
        )
    begin = max(spec.begin for spec in histories)
    alike = sorted(
        (spec for spec in histories if spec.begin == begin), key=lambda spec: (spec.feature.window, spec.name)
    )
    return [_point(source, spec, begin, targets, max_length) for spec in alike]


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


@dataclass(frozen=True)
class _LimitedRows:
    """The tokens that a window really limits, piece by piece, as often as they are asked for."""

    source: StoredRows
    spec: FeatureSpec
    begin: int  # tokens before them, at least

    def pieces(self) -> Iterator[tuple[SegmentInputs, NDArray[np.int64], NDArray[np.int64]]]:
        """The inputs, the rows among those of the store, and their offsets."""
        return (piece.inputs_from(self.spec, self.begin) for piece in self.source.pieces())

    def __iter__(self) -> Iterator[SegmentInputs]:
        return (inputs for inputs, _, _ in self.pieces())


def _point(
    source: StoredRows, spec: FeatureSpec, begin: int, targets: Sequence[float], max_length: int
) -> HistoryPoint:
    limited = _LimitedRows(source, spec, begin)
    rows = np.concatenate([numbers for _, numbers, _ in limited.pieces()])
    if not len(rows):
        raise MicroStepError(
            f"no row of {source.store.path} exceeds {begin} tokens; take longer texts or smaller windows of history"
        )
    units = Units.of(source.document[rows])
    centre = [_mean([values[k] for values in map(_entropies, limited)]) for k in range(2)]
    own, done, tokens = np.zeros((units.count, 8)), 0, 0
    for inputs, _, offsets in limited.pieces():
        full, short = _entropies(inputs)
        x, y, d = full - centre[0], short - centre[1], short - full
        real = np.isfinite(d)
        columns = np.stack([np.ones(len(d)), d, np.abs(d), x, y, x * x, y * y, x * y], axis=1)
        here = slice(done, done + len(offsets) - 1)
        per_row = np.zeros((len(offsets) - 1, columns.shape[1]))
        np.add.at(per_row, row_of(offsets)[real], columns[real])
        np.add.at(own, units.of_row[here], per_row)
        done, tokens = here.stop, tokens + int(real.sum())
    n, d_sum, abs_sum, sx, sy, sxx, syy, sxy = np.moveaxis(units.left_out(own), 1, 0)
    variance = np.maximum((n * sxx - sx * sx) * (n * syy - sy * sy), 0)
    return HistoryPoint(
        spec,
        tokens,
        units.estimates(quotient(d_sum, n), own[:, 0]).at(),
        units.estimates(quotient(abs_sum, n), own[:, 0], (0.0, np.inf)).at(),
        units.estimates(quotient(n * sxy - sx * sy, np.sqrt(variance)), own[:, 0], (-1.0, 1.0)).at(),
        tuple(_likeness(limited, target, max_length, units) for target in targets),
    )


def _entropies(inputs: SegmentInputs) -> tuple[Floats, Floats]:
    """[N] the full entropy, and that with a limited history."""
    return np.asarray(inputs.entropy, dtype=np.float64), np.asarray(inputs.limited_entropy, dtype=np.float64)


def _mean(parts: Sequence[Floats]) -> float:
    """The mean over all parts of what is not missing; only to centre by, so its rounding does not matter."""
    counts = [int((~np.isnan(part)).sum()) for part in parts]
    means = [float(np.nanmean(part)) for part, count in zip(parts, counts, strict=True) if count]
    return means[0] if len(means) == 1 else float(np.average(means, weights=[count for count in counts if count]))


def _likeness(limited: _LimitedRows, target: float, max_length: int, units: Units) -> Likeness:
    solved = []
    for rule, given in (("entropy", {}), ("limited_history", {"window": float(limited.spec.feature.window)})):
        solved.append((rule, solve_in_parts(rule, limited, target, max_length, POINTS, **given).parameters))

    def marked() -> Iterator[Marked]:
        done = 0
        for inputs, numbers, offsets in limited.pieces():
            starts = [starts_of(rule, inputs, parameters, max_length) for rule, parameters in solved]
            part = units.part(slice(done, done + len(numbers)))
            yield Marked(np.stack(starts), offsets, np.ones((2, len(numbers)), dtype=bool), part, inputs.forced)
            done += len(numbers)

    agreement = pairs(count_in_pieces(marked), units)
    return Likeness(target, agreement.f1.at(0, 1), float(agreement.chance[0, 1]))
