"""Measures how faithful an attribution is to the model: deletion and insertion curves, and the area between them.

Deletion replaces tokens by the baseline, starting with those that push F most towards F(x). Insertion starts from the
baseline and puts them back in the same order. With a faithful order the first curve falls early and the second rises
early, so the area between them is large; with a random order it is about zero (Petsiuk, Das and Saenko 2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.attribution.methods import FLOAT_ERROR, Attributed, AttributionProgress, rows_at_once
from analysis.attribution.options import Baseline
from model.short_repr import ShortRepr

if TYPE_CHECKING:
    from analysis.attribution.targets import Problem

POINTS = 11  # per curve, both ends included
SEEDS = 5  # random orders
ROWS = 2 * (1 + SEEDS) * (POINTS - 2)  # rows that the check reads; the ends are known


@dataclass(frozen=True, eq=False, repr=False)
class Faithfulness(ShortRepr):
    """Curves of F over the share of tokens that are replaced, or put back."""

    share: NDArray[np.float64]  # [11] 0 to 1
    deletion: NDArray[np.float64]  # [11] from F(x) to F(baseline)
    insertion: NDArray[np.float64]  # [11] from F(baseline) to F(x)
    random_deletion: NDArray[np.float64]  # [5, 11], a row for each seed
    random_insertion: NDArray[np.float64]  # [5, 11]

    @property
    def span(self) -> float:
        """The range of F over all curves. F(x) - F(baseline) may be far smaller, since F is rarely monotone."""
        values = np.concatenate([self.deletion, self.insertion, self.random_deletion.flat, self.random_insertion.flat])
        return float(values.max() - values.min())

    def area(self, deletion: NDArray[np.float64], insertion: NDArray[np.float64]) -> float:
        """Signed area between two curves, divided by `span`: -1 to 1; positive if faithful, NaN if F is constant."""
        towards = np.sign(self.deletion[0] - self.deletion[-1])
        if self.span <= FLOAT_ERROR or not towards:
            return float("nan")
        return float(towards * np.trapezoid(insertion - deletion, self.share) / self.span)

    @property
    def own(self) -> float:
        return self.area(self.deletion, self.insertion)

    @property
    def random(self) -> NDArray[np.float64]:
        """[5] the area of each random order."""
        pairs = zip(self.random_deletion, self.random_insertion, strict=True)
        return np.array([self.area(deletion, insertion) for deletion, insertion in pairs])

    def table(self, scale: float = 1.0, unit: str = "nats") -> pd.DataFrame:
        """A row for each point of each curve: curve, order, share, value times `scale`, and its unit."""
        curves = [("deletion", "attribution", self.deletion), ("insertion", "attribution", self.insertion)]
        for name, rows in (("deletion", self.random_deletion), ("insertion", self.random_insertion)):
            curves += [(name, f"random {i}", row) for i, row in enumerate(rows)]
        return pd.concat(
            [
                pd.DataFrame({"curve": name, "order": order, "share": self.share, "value": row * scale})
                for name, order, row in curves
            ],
            ignore_index=True,
        ).assign(unit=unit)


def faithfulness(problem: Problem, found: Attributed, baseline: Baseline, meter: AttributionProgress) -> Faithfulness:
    """The curves of an attribution and of random orders, with the same baseline."""
    tokens = np.flatnonzero(problem.attributed)
    towards = found.values[tokens] * np.sign(found.f_input - found.f_baseline)
    best = tokens[np.argsort(-towards, kind="stable")]
    orders = [best, *(np.random.default_rng(seed).permutation(tokens) for seed in range(SEEDS))]
    share = np.linspace(0, 1, POINTS)
    counts = np.rint(share * len(tokens)).astype(int)
    kept = np.ones((len(orders), 2, POINTS, problem.inputs.shape[1]), dtype=bool)
    for i, order in enumerate(orders):
        for p, count in enumerate(counts.tolist()):
            kept[i, 0, p, order[:count]] = False
            kept[i, 1, p, order[count:]] = False
    inner = kept[:, :, 1:-1]
    values = np.empty(kept.shape[:3])
    values[:, :, 1:-1] = _scored(problem, inner.reshape(-1, inner.shape[-1]), baseline, meter).reshape(inner.shape[:3])
    values[:, 0, 0] = values[:, 1, -1] = found.f_input
    values[:, 0, -1] = values[:, 1, 0] = found.f_baseline
    return Faithfulness(counts / len(tokens), values[0, 0], values[0, 1], values[1:, 0], values[1:, 1])


def _scored(
    problem: Problem, kept: NDArray[np.bool_], baseline: Baseline, meter: AttributionProgress
) -> NDArray[np.float64]:
    """[R] F of rows with the text's embedding where `kept` [R, n], and the baseline elsewhere."""
    import torch

    base, rows = problem.baseline(baseline), rows_at_once(problem, gradients=False)
    parts = []
    with torch.no_grad():
        for part in np.array_split(kept, -(-len(kept) // rows)):
            mask = torch.as_tensor(part, device=base.device)[:, :, None]
            parts.append(meter.score(torch.where(mask, problem.inputs, base)).double().cpu().numpy())
    return np.concatenate(parts)
