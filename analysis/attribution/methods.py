"""Attribution methods, computed by captum: a number for each position before the target.

Integrated gradients: Sundararajan, Taly and Yan 2017 (Gauss-Legendre rule). Shapley sampling: Castro, Gomez and Tejada
2009. Ablation and Shapley sampling replace features (groups of positions) by the baseline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from analysis.attribution.options import Baseline, Features
from model.arguments import check_choice
from model.causal_lm.device_memory import available_memory, spoken_bytes
from model.errors import TooLarge
from model.hub.loading import LoadedModel
from model.hub.memory import estimate_memory
from model.progress import Progress
from model.short_repr import ShortRepr

if TYPE_CHECKING:
    from torch import Tensor

    from analysis.attribution.targets import Problem

STEPS, MOST_STEPS = 32, 512  # of integrated gradients: first, and after all doublings
CLOSE = 0.05  # as a share of |F(x) - F(baseline)|: a convergence delta below it ends the doubling
FLOAT_ERROR = 1e-5  # a smaller delta is float error
BATCHES, PERMUTATIONS = 5, 5  # of Shapley sampling: independent batches, and permutations in each
BACKWARD = 3.0  # the cost of a pass with gradients, in passes without
MOST_POSITIONS = 4096  # in one forward pass: more are not faster
_SHARE = 0.5  # share of the free memory that a pass may use


@dataclass(frozen=True)
class AttributionMethod:
    """An attribution method."""

    title: str
    meaning: str
    gradients: bool
    features: Features | None = None  # what it replaces by default; None: it uses every embedding
    sums: bool = True  # values sum to F(x) - F(baseline)


METHODS: dict[str, AttributionMethod] = {
    "integrated_gradients": AttributionMethod(
        "integrated gradients",
        "gradients averaged along the straight line from the baseline to the text, times the distance; values sum to "
        "the difference",
        gradients=True,
    ),
    "input_x_gradient": AttributionMethod(
        "gradient × input",
        "the gradient at the text, times the embedding; fast, needs no baseline, values have no fixed sum",
        gradients=True,
        sums=False,
    ),
    "feature_ablation": AttributionMethod(
        "ablation",
        "how much the quantity falls if one token or word is replaced by the baseline",
        gradients=False,
        features="tokens",
        sums=False,
    ),
    "shapley_sampling": AttributionMethod(
        "Shapley sampling",
        "what a token or word adds when tokens are put back in random order, averaged over orders; values sum to the "
        "difference",
        gradients=False,
        features="words",
    ),
}


@dataclass(frozen=True, eq=False, repr=False)
class Attributed(ShortRepr):
    """The values of a method for n positions."""

    values: NDArray[np.float64]  # [n]; NaN where a position is not attributed
    batches: NDArray[np.float64] | None  # [5, n] independent estimates of Shapley sampling
    f_input: float
    f_baseline: float
    delta: float | None  # sum of the values minus the difference; None if they need not sum to it
    steps: int | None  # of integrated gradients
    passes: int  # rows that the model read

    @property
    def converged(self) -> bool:
        """Whether the values of integrated gradients sum to the difference, within `CLOSE`."""
        if self.steps is None or self.delta is None:
            return True
        return _close(self.delta, self.f_input - self.f_baseline)


class AttributionProgress:
    """Counts the rows that F reads, and reports the share of the expected ones."""

    def __init__(self, problem: Problem, expected: int, progress: Progress | None) -> None:
        self.problem, self.expected, self.progress = problem, expected, progress
        self.done, self.share = 0, 0.0

    def score(self, rows: Tensor) -> Tensor:
        """F, with its rows counted. The progress callback may raise to stop the run."""
        scores = self.problem.score(rows)
        self.done += len(rows)
        self.share = max(self.share, min(1.0, self.done / max(self.expected, 1)))
        if self.progress is not None:
            self.progress(self.share)
        return scores


def expected_rows(method: str, features: int) -> int:
    """About how many rows a method reads; integrated gradients may double its steps."""
    return {
        "integrated_gradients": STEPS,
        "input_x_gradient": 1,
        "feature_ablation": 1 + features,
        "shapley_sampling": BATCHES * (1 + PERMUTATIONS * features),
    }[method]


def most_rows(method: str, features: int) -> int:
    """The most rows that a method reads, with all doublings of integrated gradients."""
    return 2 * MOST_STEPS - STEPS if method == "integrated_gradients" else expected_rows(method, features)


def _close(delta: float, difference: float) -> bool:
    return abs(delta) <= max(CLOSE * abs(difference), FLOAT_ERROR)


def rows_at_once(problem: Problem, gradients: bool) -> int:
    """How many rows fit into memory in one pass."""
    n, device = problem.inputs.shape[1], problem.inputs.device
    row = sum(row_bytes(loaded, n, gradients) for loaded in problem.models)
    room = int(_SHARE * available_memory(device))
    if row > room:
        raise TooLarge(
            f"attribution at token {problem.target} needs about {spoken_bytes(row)}, of {spoken_bytes(room)} that it "
            "may take; choose an earlier token, a method without gradients, or a smaller model"
        )
    return max(1, min(room // row, MOST_POSITIONS // n))


def row_bytes(loaded: LoadedModel, n: int, gradients: bool) -> int:
    """Bytes of a row of n positions in a pass; gradients keep the activations of every layer."""
    from model.causal_lm.forward import vocabulary

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
        problem: F and its row of embeddings.
        method: a name in `METHODS`.
        baseline: the embedding that replaces a removed token.
        features: [n] the feature of each position, for methods that replace features; each position is its own if None.
            A feature's value is spread evenly over its positions.
        meter: counts rows, and reports progress.
        seed: of the permutations.

    Raises:
        MicroStepError: the method or the baseline does not exist.
        NumericalError: the result is not finite.
    """
    import torch
    from captum.attr import FeatureAblation, InputXGradient

    from model.causal_lm.finite import not_finite

    check_choice("method", method, METHODS)
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
    """The values, and the number of steps, which are doubled until the values sum to the difference."""
    from captum.attr import IntegratedGradients

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
    """[n] the values of one batch of permutations; torch's generator keeps its state."""
    import torch
    from captum.attr import ShapleyValueSampling

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = ShapleyValueSampling(meter.score).attribute(
            problem.inputs, base, feature_mask=mask, n_samples=PERMUTATIONS, perturbations_per_eval=rows
        )
    return _first(found)


def _mask(problem: Problem, features: NDArray[np.int64] | None) -> tuple[Tensor, NDArray[np.float64]]:
    """[1, n, 1] consecutive numbers of features, and [n] how many attributed positions each has.

    Positions that are not attributed belong to feature 0, since they are equal in the text and in the baseline.
    """
    import torch

    attributed = problem.attributed
    chosen = (np.arange(len(attributed)) if features is None else features)[attributed]
    _, number, count = np.unique(chosen, return_inverse=True, return_counts=True)
    mask = np.zeros(len(attributed), dtype=np.int64)
    mask[attributed] = number
    sizes = np.ones(len(attributed))
    sizes[attributed] = count[number]
    return torch.as_tensor(mask, device=problem.inputs.device)[None, :, None], sizes


def _leaf(problem: Problem) -> Tensor:
    return problem.inputs.detach().clone().requires_grad_()


def _summed(found: object) -> NDArray[np.float64]:
    """[n] from [1, n, D], summed over the hidden axis."""
    return cast(NDArray[np.float64], cast("Tensor", found).detach().double().sum(-1)[0].cpu().numpy())


def _first(found: object) -> NDArray[np.float64]:
    """[n] from [1, n, D] with the same value in all of D."""
    return cast(NDArray[np.float64], cast("Tensor", found).detach().double()[0, :, 0].cpu().numpy())
