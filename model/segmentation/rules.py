"""The segmentation rules: what each compares, its parameters with their ranges, and what it needs.

They form one registry, from which the app and the command line build their controls. Entropy-like scores start a
segment when they are high, probability-like scores when they are low: a confident token joins. All comparisons are made
in float64. A token whose value cannot be computed (NaN) starts a segment.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from model.errors import MicroStepError
from model.segmentation.boundaries import Floats, Plan, Pointwise, Running, Table
from model.segmentation.rule_inputs import SegmentInputs

Parameters = Mapping[str, float]
NO_MICRO_STEP = (
    "the rule refined needs the micro decoder of a trained micro_step model; choose such a model, or another rule"
)
Need = Literal["scores", "text", "window", "attention", "hidden", "micro_step", "bytes"]


@dataclass(frozen=True)
class Parameter:
    """A numeric parameter of a rule, from `low` to `high`, both included."""

    name: str
    default: float
    low: float
    high: float
    unit: str
    meaning: str
    step: float = 0.01  # step of a slider
    integer: bool = False


@dataclass(frozen=True)
class Rule:
    """A rule that decides where segments start."""

    name: str
    title: str
    meaning: str  # one line that says when a token starts a segment
    parameters: tuple[Parameter, ...]
    needs: frozenset[Need]
    causal: bool  # decided before the token itself is seen, so usable during generation
    source: str  # where it was published, or "definition"
    value: str  # name of the value compared at each token
    unit: str  # unit of `value`
    opens: Literal["above", "below"]  # the side of the threshold on which a value starts a segment
    plan: Callable[[SegmentInputs, Parameters], Plan]  # the rule itself, for valid parameters
    solves: str | None = None  # the parameter that sets the mean length, which grows with it if `opens` is "above"
    monotone: bool = True  # True if the mean length changes in one direction only as that parameter grows
    level: float | None = None  # the threshold, if it is not the parameter `solves`

    def parameter(self, name: str) -> Parameter:
        return next(parameter for parameter in self.parameters if parameter.name == name)

    def bar(self, parameters: Parameters) -> float | None:
        """Return the threshold for `value`, or None if the rule compares no number."""
        return self.level if self.level is not None or self.solves is None else float(parameters[self.solves])


def _given(inputs: SegmentInputs, name: str, what: str) -> NDArray[np.floating]:
    array: NDArray[np.floating] | None = getattr(inputs, name)
    if array is None:
        raise MicroStepError(f"this rule needs {what}, which these inputs do not hold ({name})")
    return array


def _score(inputs: SegmentInputs, name: str) -> Floats:
    return _given(inputs, name, f"the {name} of every token").astype(np.float64)


def _fixed(inputs: SegmentInputs, p: Parameters) -> Plan:
    def count(before: Floats, one: Floats) -> Floats:
        return before + one

    return Running(np.ones(len(inputs)), np.add, lambda before, one: count(before, one) <= p["k"], count)


def _word(inputs: SegmentInputs, p: Parameters) -> Plan:
    starts = _given(inputs, "word_start", "the text of the tokens")
    return Pointwise(starts == 0, starts.astype(np.float64))


def _above(name: str) -> Callable[[SegmentInputs, Parameters], Plan]:
    """Return a plan in which a score above the threshold starts a segment."""

    def plan(inputs: SegmentInputs, p: Parameters) -> Plan:
        x = _score(inputs, name)
        return Pointwise(x <= p["threshold"], x)

    return plan


def _below(name: str) -> Callable[[SegmentInputs, Parameters], Plan]:
    """Return a plan in which a probability below tau starts a segment."""

    def plan(inputs: SegmentInputs, p: Parameters) -> Plan:
        x = _score(inputs, name)
        return Pointwise(x >= p["tau"], x)

    return plan


def _rise(inputs: SegmentInputs, p: Parameters) -> Plan:
    h = _score(inputs, "entropy")
    rise = h - inputs.before(h)
    return Pointwise(rise <= p["threshold"], rise)


def _combined(inputs: SegmentInputs, p: Parameters) -> Plan:
    h = _score(inputs, "entropy")
    return Pointwise((h <= p["threshold"]) | (h - inputs.before(h) <= p["rise"]), h)


def _spike(inputs: SegmentInputs, p: Parameters) -> Plan:
    h = _score(inputs, "entropy")
    highest = inputs.before(h)
    for steps in range(2, int(p["k"]) + 1):
        highest = np.fmax(highest, inputs.before(h, steps))
    return Pointwise(h <= highest, h - highest)


def _relative(inputs: SegmentInputs, p: Parameters) -> Plan:
    def ratio(highest: Floats, h: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return h / highest

    def joins(highest: Floats, h: Floats) -> NDArray[np.bool_]:
        result: NDArray[np.bool_] = (h < p["eps"]) | (h < p["rho"] * highest)
        return result

    return Running(_score(inputs, "entropy"), np.maximum, joins, ratio)


def _groups(inputs: SegmentInputs, p: Parameters) -> Plan:
    h = _score(inputs, "entropy")
    # The larger of this token and the one before: a token joins only if both are low.
    higher = np.maximum(h, inputs.before(h))
    return Pointwise(higher <= p["threshold"], higher)


def _budget(inputs: SegmentInputs, p: Parameters) -> Plan:
    def spent(before: Floats, h: Floats) -> Floats:
        return before + h

    return Running(_score(inputs, "entropy"), np.add, lambda before, h: spent(before, h) <= p["budget"], spent)


def _limited(inputs: SegmentInputs, p: Parameters) -> Plan:
    h = _given(inputs, "limited_entropy", "the entropy under a limited history").astype(np.float64)
    if inputs.window is not None and inputs.window != p["window"]:
        raise MicroStepError(
            f"window {p['window']:g} was requested, but these entropies were computed with window {inputs.window}"
        )
    return Pointwise(h <= p["threshold"], h)


def _product(inputs: SegmentInputs, p: Parameters) -> Plan:
    def product(before: Floats, c: Floats) -> Floats:
        return before * c

    c = _score(inputs, "confidence")
    return Running(c, np.multiply, lambda before, new: product(before, new) >= p["tau"], product)


def _mass(inputs: SegmentInputs, p: Parameters) -> Plan:
    shares = _given(inputs, "attention_mass", "the attention of every token to those before it")
    return Table(shares, lambda share: share.astype(np.float64) >= p["tau"])


def _sparsity(inputs: SegmentInputs, p: Parameters) -> Plan:
    support = _given(inputs, "attention_sparsity", "the attention of every token").astype(np.float64)
    return Pointwise(support <= p["tau"], support)


def _router(inputs: SegmentInputs, p: Parameters) -> Plan:
    turn = _given(inputs, "router", "the hidden states of a layer").astype(np.float64)
    if inputs.layer is not None and inputs.layer != p["layer"]:
        raise MicroStepError(f"layer {p['layer']:g} was requested, but these hidden states are of layer {inputs.layer}")
    return Pointwise(turn < p["threshold"], turn)


def _refined(inputs: SegmentInputs, p: Parameters) -> Plan:
    if inputs.micro_confidence is None:
        raise MicroStepError(NO_MICRO_STEP)
    return Table(inputs.micro_confidence, lambda confidence: confidence.astype(np.float64) >= p["tau"])


def _bytes(name: str) -> Callable[[SegmentInputs, Parameters], Plan]:
    """Return a plan in which a byte's value above the threshold starts a segment at its token."""

    def plan(inputs: SegmentInputs, p: Parameters) -> Plan:
        highest = _given(inputs, name, "the entropies of the text's bytes").astype(np.float64)
        return Pointwise(highest <= p["threshold"], highest)

    return plan


def _threshold(default: float, unit: str = "nats", low: float = 0.0, high: float = 16.0) -> Parameter:
    return Parameter("threshold", default, low, high, unit, "a higher value starts a segment")


def _tau(default: float, meaning: str, unit: str = "probability") -> Parameter:
    return Parameter("tau", default, 0.0, 1.0, unit, meaning)


_SCORES: frozenset[Need] = frozenset({"scores"})
_BLT = "global threshold of BLT, arXiv 2412.09871"
_BYTES = "of BLT's patches, arXiv 2412.09871, moved from a byte to the token in which its character begins"
_H_NET = (
    "H-Net's boundary probability, arXiv 2507.07955. The same: half of 1 − cosine of neighbouring states, compared with"
    " 0.5. Not the same: a layer of the model, of tokens, stands in for a trained encoder of bytes; there are no learnt"
    " projections of the two states, no smoothing of the chunks by their probabilities, no loss on the share of"
    " boundaries, and the mean length is solved for"
)
_HAMBURGER = "HAMburger, arXiv 2505.20438"
_OURS = "definition"
_RISE = Parameter("rise", 0.0, -16.0, 16.0, "nats", "the entropy must also rise by more than this")
_K = Parameter("k", 3, 1, 64, "tokens", "tokens a segment", 1, integer=True)
_BEFORE = Parameter("k", 3, 1, 64, "tokens", "how many tokens before are compared with", 1, integer=True)
_EPS = Parameter("eps", 0.05, 0.0, 16.0, "nats", "a lower entropy always joins")
_RHO = Parameter("rho", 0.3, 0.0, 2.0, "ratio", "share of the segment's highest entropy that a token stays under")
_BUDGET = Parameter("budget", 3.0, 0.0, 256.0, "nats", "the most entropy that a segment sums up to", 0.1)
_WINDOW = Parameter("window", 32, 1, 4096, "tokens", "how many tokens of history the model sees", 1, integer=True)
_LAYER = Parameter("layer", 2, 0, 512, "layer", "after how many layers; 0 are the embeddings", 1, integer=True)

# fmt: off
RULES: dict[str, Rule] = {rule.name: rule for rule in (
    Rule("fixed", "Fixed length", "every k tokens", (_K,), frozenset(), True, _OURS,
         "tokens with this one", "tokens", "above", _fixed, "k"),
    Rule("word", "Words", "a token that starts with a space or follows one; line breaks apart", (),
         frozenset({"text"}), False, _OURS, "word start", "yes or no", "above", _word, level=0.5),
    Rule("entropy", "Entropy", "the entropy is above a threshold", (_threshold(1.5),), _SCORES, True, _BLT,
         "entropy", "nats", "above", _above("entropy"), "threshold"),
    Rule("entropy_rise", "Entropy rise", "the entropy rises over the token before by more than a threshold",
         (_threshold(0.5, low=-16.0),), _SCORES, True, "approximate monotonic constraint of BLT, arXiv 2412.09871",
         "entropy rise", "nats", "above", _rise, "threshold"),
    Rule("entropy_combined", "Entropy and rise", "the entropy is above a threshold, and rises",
         (_threshold(1.0), _RISE), _SCORES, True, _OURS, "entropy", "nats", "above", _combined, "threshold"),
    Rule("entropy_spike", "Entropy spike", "the entropy is above all of the k before", (_BEFORE,), _SCORES, True,
         _OURS, "entropy over the highest of k before", "nats", "above", _spike, "k", level=0.0),
    Rule("entropy_relative", "Relative entropy", "the entropy is neither small nor small beside the segment's highest",
         (_RHO, _EPS), _SCORES, True, _OURS, "entropy over the segment's highest", "ratio", "above", _relative, "rho",
         monotone=False),
    Rule("entropy_groups", "Entropy groups", "a token above a threshold stands alone; runs at or below it are joined",
         (_threshold(1.5),), _SCORES, True, _OURS, "higher entropy of this token and the one before", "nats", "above",
         _groups, "threshold"),
    Rule("entropy_budget", "Entropy budget", "the segment's sum of entropies would pass a budget", (_BUDGET,), _SCORES,
         True, _OURS, "sum of entropies with this one", "nats", "above", _budget, "budget"),
    Rule("limited_history", "Limited history", "the entropy given the last tokens only is above a threshold",
         (_threshold(1.5), _WINDOW), frozenset({"window"}), True, _OURS, "limited-history entropy", "nats", "above",
         _limited, "threshold"),
    Rule("confidence", "Confidence", "the likeliest token's probability is below tau",
         (_tau(0.8, "a less probable likeliest token starts a segment"),), _SCORES, True, _HAMBURGER,
         "confidence", "probability", "below", _below("confidence"), "tau"),
    Rule("margin", "Margin", "the likeliest token leads the second by less than tau",
         (_tau(0.5, "a smaller lead starts a segment"),), _SCORES, True, _OURS,
         "margin", "probability", "below", _below("margin"), "tau"),
    Rule("confidence_product", "Confidence product", "the product of confidences over the segment would fall under tau",
         (_tau(0.5, "the least product of a segment's confidences"),), _SCORES, True, _OURS,
         "product of confidences with this one", "probability", "below", _product, "tau"),
    Rule("surprisal", "Surprisal", "the token that came was less expected than a threshold",
         (_threshold(3.0, high=64.0),), _SCORES, False, _OURS, "surprisal", "nats", "above", _above("surprisal"),
         "threshold"),
    Rule("attention_mass", "Attention mass", "too little of the attention stays inside the current segment",
         (_tau(0.3, "the least share of attention inside the segment", "share"),), frozenset({"attention"}), True,
         _OURS, "attention inside the segment", "share", "below", _mass, "tau", monotone=False),
    Rule("attention_sparsity", "Attention sparsity", "the attention is spread over too much of what came before",
         (_tau(0.5, "a wider spread starts a segment", "share"),), frozenset({"attention"}), True,
         _OURS, "effective support over length", "share", "above", _sparsity, "tau"),
    Rule("router", "Router", "the hidden state turns away from that of the token before",
         (_threshold(0.5, "half of 1 − cosine", high=1.0), _LAYER), frozenset({"hidden"}), False,
         _H_NET, "half of 1 − cosine", "half of 1 − cosine", "above", _router, "threshold"),
    Rule("byte_entropy", "Byte entropy", "a small byte model's entropy is above a threshold at one of its bytes",
         (_threshold(2.5, high=6.0),), frozenset({"bytes"}), False, f"global threshold {_BYTES}",
         "highest byte entropy", "nats", "above", _bytes("byte_entropy"), "threshold"),
    Rule("byte_entropy_rise", "Byte entropy rise",
         "a small byte model's entropy rises by more than a threshold to one of its bytes",
         (_threshold(1.5, low=-6.0, high=6.0),), frozenset({"bytes"}), False,
         f"approximate monotonic constraint {_BYTES}", "highest rise of the byte entropy", "nats", "above",
         _bytes("byte_rise"), "threshold"),
    Rule("refined", "Refined", "the micro decoder is not confident in the next token",
         (_tau(0.8, "the least confidence that joins"),), frozenset({"micro_step"}), True, _HAMBURGER,
         "micro confidence", "probability", "below", _refined, "tau", monotone=False),
)}
# fmt: on
