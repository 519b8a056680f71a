"""A strategy: a segmentation rule with its parameters, as one value, and as one word for links and commands.

As a word it reads `entropy:threshold=1.2`, `limited_history:threshold=1.5,window=32`, or just `word`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from analysis.score_registry import PER_NAT, Unit, significant, unit_of
from model.errors import MicroStepError
from model.segmentation.features import Feature, FeatureOptions, features_needed
from model.segmentation.segment import (
    MAX_LENGTH,
    RULES,
    Parameter,
    Rule,
    Segmentation,
    SegmentInputs,
    check_max_length,
    segment,
    valid_parameters,
)

WIDTH = 16  # tokens of a segment up to which attention is kept, so that another cap asks for no other run


@dataclass(frozen=True)
class Strategy:
    """A rule of `RULES` with all of its parameters, entropies in nats."""

    name: str
    values: tuple[tuple[str, float], ...]  # in the registry's order

    @classmethod
    def of(cls, rule: str, parameters: Mapping[str, float] | None = None) -> Strategy:
        """A rule with these parameters, and the others' defaults.

        Raises:
            MicroStepError: unknown rule or parameter, a value out of range, or a rule that could not run on a text.
        """
        return cls(rule, tuple(check_rule(rule, parameters or {}, MAX_LENGTH).items()))

    @classmethod
    def parse(cls, word: str) -> Strategy:
        """The strategy that `str` wrote, or that a user typed.

        Raises:
            MicroStepError: as `of`, or it does not read like one.
        """
        rule, _, settings = word.partition(":")
        parameters: dict[str, float] = {}
        for setting in settings.split(",") if settings else ():
            name, _, value = setting.partition("=")
            try:
                parameters[name.strip()] = float(value)
            except ValueError:
                raise MicroStepError(
                    f"a strategy is written as entropy:threshold=1.2, not {word!r}: {setting!r} is not parameter=number"
                ) from None
        return cls.of(rule.strip(), parameters)

    def __str__(self) -> str:
        settings = ",".join(f"{name}={value!r}" for name, value in self.values)
        return f"{self.name}:{settings}" if settings else self.name

    @property
    def rule(self) -> Rule:
        """The rule."""
        return RULES[self.name]

    @property
    def parameters(self) -> dict[str, float]:
        """All of the rule's parameters."""
        return dict(self.values)

    @property
    def bar(self) -> float | None:
        """What the rule's value is compared with, in nats; None where it compares no number."""
        return self.rule.bar(self.parameters)

    @property
    def others(self) -> dict[str, float]:
        """The parameters but the one that sets the mean length."""
        return {name: value for name, value in self.values if name != self.rule.solves}

    def with_value(self, parameter: str, value: float) -> Strategy:
        """The same rule with one parameter changed; an error as `of`."""
        return Strategy.of(self.name, {**self.parameters, parameter: value})

    def title(self, unit: Unit) -> str:
        """In words: "Entropy, threshold 2.16 bits"."""
        settings = [
            f"{p.name} {significant(self.parameters[p.name] * scale(p.unit, unit))}{_shown_unit(p, unit)}"
            for p in self.rule.parameters
        ]
        return ", ".join([self.rule.title, *settings])


@dataclass(frozen=True)
class Segmenter:
    """All that decides where segments start: a strategy, the cap M, and how what the rule needs is computed.

    Raises:
        MicroStepError: segments cannot have so many tokens.
    """

    strategy: Strategy = field(default_factory=lambda: Strategy.of("word"))  # needs no run of the model
    max_length: int = MAX_LENGTH  # M; a micro_step model's own is not passed
    features: FeatureOptions = field(default_factory=FeatureOptions)

    def __post_init__(self) -> None:
        check_max_length(self.max_length)

    @property
    def only_text(self) -> bool:
        """Whether the rule looks at no score, so that no model runs."""
        return self.strategy.rule.needs <= {"text"}

    @property
    def feature(self) -> Feature | None:
        """What the rule needs beyond the scores; None if nothing."""
        width = max(WIDTH, self.max_length)
        return features_needed(self.strategy.name, self.strategy.parameters, width, self.features)

    def capped(self, most: int | None) -> Segmenter:
        """The same, of segments of at most `most` tokens."""
        return self if most is None else replace(self, max_length=min(self.max_length, most))

    def segment(self, inputs: SegmentInputs) -> Segmentation:
        """The segments of N tokens, from what the rule looks at."""
        return segment(self.strategy.name, inputs, self.max_length, **self.strategy.parameters)

    def __str__(self) -> str:
        return f"{self.strategy}, at most {self.max_length} tokens"


def check_rule(rule: str, parameters: Mapping[str, float], max_length: int) -> dict[str, float]:
    """All parameters of a rule; refuses, before a model is loaded, what could not run on a text.

    Raises:
        MicroStepError: unknown rule or parameter, or a value out of range.
    """
    chosen = valid_parameters(rule, parameters)
    check_max_length(max_length)
    return chosen


def check_features(segmenter: Segmenter) -> None:
    """Raise MicroStepError if the features have options that the strategy does not read."""
    needs, features, default = segmenter.strategy.rule.needs, segmenter.features, FeatureOptions()
    if "attention" not in needs and (features.layers is not None or features.heads is not None):
        raise MicroStepError(
            "layers and heads apply to the attention strategies; leave them out, or choose one of these"
        )
    if "window" not in needs and (features.history, features.stride) != (default.history, default.stride):
        raise MicroStepError(
            "the method and stride of a history apply to limited_history; leave them out, or choose it"
        )


def scale(of: str, unit: Unit) -> float:
    """What a number of a rule is multiplied with to be shown: entropies are in nats inside."""
    return PER_NAT[unit] if of == "nats" else 1.0


def labels(strategies: Sequence[Strategy]) -> list[str]:
    """A short name for each, unlike any other's: "entropy", "entropy 2"."""
    found: list[str] = []
    for i, strategy in enumerate(strategies):
        before = sum(other.name == strategy.name for other in strategies[:i])
        found.append(strategy.rule.title.lower() + (f" {before + 1}" if before else ""))
    return found


def _shown_unit(parameter: Parameter, unit: Unit) -> str:
    if parameter.unit in ("probability", "ratio", "share", "half of 1 − cosine", "layer"):
        return ""
    return f" {unit_of(parameter.unit, unit)}"
