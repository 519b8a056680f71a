"""Attribution methods, by captum: from a problem and a baseline to a number for each position before the target.

Integrated gradients: Sundararajan, Taly and Yan 2017 (Gauss-Legendre rule). Shapley sampling: Castro, Gomez and Tejada
2009. Ablation and Shapley move features, groups of positions, between their embeddings and the baseline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from captum.attr import FeatureAblation, InputXGradient, IntegratedGradients, ShapleyValueSampling
from numpy.typing import NDArray
from torch import Tensor

from analysis.attribution.targets import Baseline, Problem, check_choice
from model.causal_lm.device_memory import available_memory
from model.causal_lm.finite import not_finite
from model.causal_lm.forward import Progress, vocabulary
from model.errors import TooLarge
from model.hub.loading import LoadedModel
from model.hub.memory import estimate_memory
from model.short_repr import ShortRepr

Features = Literal["tokens", "words"]
STEPS, MOST_STEPS = 32, 512  # of integrated gradients
CLOSE = 0.05  # of |F(x) - F(baseline)|: the convergence delta that ends the doubling of steps
FLOAT_ERROR = 1e-5  # a delta below this is float error, however small the difference is
BATCHES, PERMUTATIONS = 5, 5  # of Shapley sampling: independent batches, permutations in each
BACKWARD = 3.0  # a pass with gradients costs as many without
MOST_POSITIONS = 4096  # of one forward pass: more rows at once are no faster
_SHARE = 0.5  # of the free memory that a pass may plan with


@dataclass(frozen=True)
class AttributionMethod:
    """A way to attribute."""

    title: str
    meaning: str
    gradients: bool
    features: Features | None = None  # what it moves, by default; None: it looks at every embedding
    sums: bool = True  # values sum to F(x) - F(baseline)


METHODS: dict[str, AttributionMethod] = {
    "integrated_gradients": AttributionMethod(
        "integrated gradients",
        "gradients averaged on the straight line from the baseline to the text, times the way; sums to the difference",
        gradients=True,
    ),
    "input_x_gradient": AttributionMethod(
        "gradient × input",
        "the gradient at the text, times the embedding; quick, looks at no baseline, sums to nothing in particular",
        gradients=True,
        sums=False,
    ),
    "feature_ablation": AttributionMethod(
        "ablation",
        "how much the quantity falls when one token or word alone is replaced by the baseline",
        gradients=False,
        features="tokens",
        sums=False,
    ),
    "shapley_sampling": AttributionMethod(
        "Shapley sampling",
        "what a token or word adds when it joins the others in random order, mean over orders; sums to the difference",
        gradients=False,
        features="words",
    ),
}


@dataclass(frozen=True, eq=False, repr=False)
class Attributed(ShortRepr):
    """What a method gives for n positions."""

    values: NDArray[np.float64]  # [n]; NaN where a position is not attributed
    batches: NDArray[np.float64] | None  # [5, n] of Shapley sampling, each an estimate of its own
    f_input: float
    f_baseline: float
    delta: float | None  # sum of the values minus the difference; None where they need not sum to it
    steps: int | None  # of integrated gradients
    passes: int  # rows that the model read

    @property
    def converged(self) -> bool:
        """Whether the values of integrated gradients sum to the difference, within `CLOSE`."""
        if self.steps is None or self.delta is None:
            return True
        return _close(self.delta, self.f_input - self.f_baseline)


class AttributionProgress:
    """Counts the rows that F reads, and tells the share of those that are expected."""

    def __init__(self, problem: Problem, expected: int, progress: Progress | None) -> None:
        self.problem, self.expected, self.progress = problem, expected, progress
        self.done, self.told = 0, 0.0

    def score(self, rows: Tensor) -> Tensor:
        """F, counted. The progress that is told may raise to stop the run."""
        found = self.problem.score(rows)
        self.done += len(rows)
        self.told = max(self.told, min(1.0, self.done / max(self.expected, 1)))
        if self.progress is not None:
            self.progress(self.told)
        return found


def expected_rows(method: str, features: int) -> int:
    """Rows that a method reads, about: integrated gradients may double its steps."""
    return {
        "integrated_gradients": STEPS,
        "input_x_gradient": 1,
        "feature_ablation": 1 + features,
        "shapley_sampling": BATCHES * (1 + PERMUTATIONS * features),
    }[method]


def most_rows(method: str, features: int) -> int:
    """Rows that a method reads at most: integrated gradients with all doublings."""
    return 2 * MOST_STEPS - STEPS if method == "integrated_gradients" else expected_rows(method, features)


def _close(delta: float, difference: float) -> bool:
    return abs(delta) <= max(CLOSE * abs(difference), FLOAT_ERROR)


def rows_at_once(problem: Problem, gradients: bool) -> int:
    """How many rows fit the memory in one pass.

    Raises:
        TooLarge: not even one.
    """
    n, device = problem.inputs.shape[1], problem.inputs.device
    row = sum(row_bytes(loaded, n, gradients) for loaded in problem.models)
    room = int(_SHARE * available_memory(device))
    if row > room:
        raise TooLarge(
            f"attribution at token {problem.target} needs about {row / 1e9:.1f} GB, of {room / 1e9:.1f} GB that it may "
            "take; choose an earlier token, a method without gradients, or a smaller model"
        )
    return max(1, min(room // row, MOST_POSITIONS // n))


def row_bytes(loaded: LoadedModel, n: int, gradients: bool) -> int:
    """Memory that a row of n positions takes in a pass: with gradients, what every layer computed is kept."""
    one = estimate_memory(loaded, n)
    kept = loaded.facts.layers if gradients else 1
    return kept * (one.activations + one.attention) + 6 * vocabulary(loaded.model) * 4


def attribute(
    problem: Problem,
    method: str,
    baseline: Baseline,
    features: NDArray[np.int64] | None = None,
    meter: AttributionProgress | None = None,
    seed: int = 0,
) -> Attributed:
    """Attribute F to the positions of a problem.

    Args:
        problem: F and its row.
        method: a name in `METHODS`.
        baseline: what stands for "nothing".
        features: [n] the feature of each position, for methods that move features; each attributed position is its
            own if None. A feature's value is spread evenly over its positions.
        meter: counts rows, and tells progress.
        seed: of the permutations.

    Raises:
        MicroStepError: no such method or baseline.
        NumericalError: the result is not finite.
        TooLarge: see `rows_at_once`.
    """
    check_choice("method", method, list(METHODS))
    meter = meter or AttributionProgress(problem, 1, None)
    base = problem.baseline(baseline)
    rows = rows_at_once(problem, METHODS[method].gradients)
    f_input, f_baseline = problem.value(problem.inputs), problem.value(base)
    steps, batches = None, None
    with torch.enable_grad():
        if method == "integrated_gradients":
            values, steps = _integrated(problem, base, f_input - f_baseline, rows, meter)
        elif method == "input_x_gradient":
            found = InputXGradient(meter.score).attribute(_leaf(problem))
            values = _summed(found)
        else:
            mask, sizes = _mask(problem, features)
            if method == "feature_ablation":
                found = FeatureAblation(meter.score).attribute(
                    problem.inputs, base, feature_mask=mask, perturbations_per_eval=rows
                )
                values = _first(found) / sizes
            else:
                batches = np.stack([_shapley(problem, base, mask, rows, meter, seed + i) for i in range(BATCHES)])
                batches = np.where(problem.attributed, batches / sizes, np.nan)
                values = batches.mean(axis=0)
    values = np.where(problem.attributed, values, np.nan)
    if not np.isfinite([f_input, f_baseline, *values[problem.attributed]]).all():
        models = sorted((each.model for each in problem.models), key=lambda model: model.dtype != torch.float16)
        raise not_finite(models[0], f"{problem.quantity.title} or its gradient is made of numbers")
    delta = float(np.nansum(values)) - (f_input - f_baseline) if METHODS[method].sums else None
    return Attributed(values, batches, f_input, f_baseline, delta, steps, meter.done + 2)


def _integrated(
    problem: Problem, base: Tensor, difference: float, rows: int, meter: AttributionProgress
) -> tuple[NDArray[np.float64], int]:
    """Values, and the steps that they took: doubled until they sum to the difference."""
    integrated, steps = IntegratedGradients(meter.score), STEPS
    while True:
        found = integrated.attribute(
            _leaf(problem), base, n_steps=steps, method="gausslegendre", internal_batch_size=rows
        )
        values = _summed(found)
        off = float(values[problem.attributed].sum()) - difference
        if _close(off, difference) or steps >= MOST_STEPS or not math.isfinite(off):
            return values, steps
        steps *= 2
        meter.expected += steps


def _shapley(
    problem: Problem, base: Tensor, mask: Tensor, rows: int, meter: AttributionProgress, seed: int
) -> NDArray[np.float64]:
    """[n] one batch of permutations; torch's generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = ShapleyValueSampling(meter.score).attribute(
            problem.inputs, base, feature_mask=mask, n_samples=PERMUTATIONS, perturbations_per_eval=rows
        )
    return _first(found)


def _mask(problem: Problem, features: NDArray[np.int64] | None) -> tuple[Tensor, NDArray[np.float64]]:
    """[1, n, 1] consecutive numbers of features, and [n] how many attributed positions each has.

    Positions that are not attributed go with feature 0: they are the same in the text and in the baseline.
    """
    there = problem.attributed
    chosen = (np.arange(len(there)) if features is None else features)[there]
    _, number, count = np.unique(chosen, return_inverse=True, return_counts=True)
    mask = np.zeros(len(there), dtype=np.int64)
    mask[there] = number
    sizes = np.ones(len(there))
    sizes[there] = count[number]
    return torch.as_tensor(mask, device=problem.inputs.device)[None, :, None], sizes


def _leaf(problem: Problem) -> Tensor:
    return problem.inputs.detach().clone().requires_grad_()


def _summed(found: object) -> NDArray[np.float64]:
    """[n] from [1, n, D], summed over the hidden axis."""
    return cast(NDArray[np.float64], cast(Tensor, found).detach().double().sum(-1)[0].cpu().numpy())


def _first(found: object) -> NDArray[np.float64]:
    """[n] from [1, n, D] of one value a position."""
    return cast(NDArray[np.float64], cast(Tensor, found).detach().double()[0, :, 0].cpu().numpy())
