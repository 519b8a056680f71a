"""What some rules need beyond the scores, each from a run of the model of its own.

An extra is a plain value, so that what it gave can be kept under it: the rules' other parameters then run no model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from model.causal_lm.forward import Progress
from model.errors import MicroStepError
from model.hub.loading import LoadedModel
from model.scoring.limited_history import Method, limited_history
from model.segmentation.attention_features import attention_shares, router_turns
from model.segmentation.micro_features import refined_confidences
from model.segmentation.rules import NO_MICRO_STEP
from model.segmentation.segment import RULES
from model.text.encoding import EncodedText

if TYPE_CHECKING:
    from model.micro_step.modeling import MicroStepForCausalLM

WIDTH = 16  # tokens of a segment up to which attention is kept, so that another cap asks for no other run


@dataclass(frozen=True)
class FeatureOptions:
    """How to compute what a rule needs beyond the scores."""

    layers: tuple[int, ...] | None = None  # of the attention rules; None: all
    heads: tuple[int, ...] | None = None
    history: Method = "exact"  # of limited_history
    stride: int = 16
    prompt_apart: bool | None = None  # each prompt token its own segment; None: where a chat holds an answer


@dataclass(frozen=True)
class FeatureValues:
    """What an extra gave for one text of N tokens."""

    tokens: int  # N
    values: Mapping[str, Any]  # fields of SegmentInputs
    note: str  # what a reader must know; "" if nothing


@dataclass(frozen=True)
class WindowFeature:
    """Entropies under a limited history."""

    window: int  # w, tokens
    method: Method = "exact"
    stride: int = 16

    @property
    def passes(self) -> float:
        """How often every token is read, about."""
        step = {"exact": 1, "strided": self.stride}.get(self.method)
        return 1.0 if step is None else max(1.0, (self.window + step - 1) / step)

    def gather(self, loaded: LoadedModel, encoded: EncodedText, progress: Progress | None = None) -> FeatureValues:
        """Run the model."""
        found = limited_history(
            loaded.model, encoded.ids, self.window, self.method, self.stride, encoded.prefix, progress=progress
        )
        values = {"limited_entropy": found.scores.entropy, "window": self.window}
        return FeatureValues(len(encoded), values, f"limited history, {found.meaning}")


@dataclass(frozen=True)
class AttentionFeature:
    """Where the attention of each token goes."""

    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    width: int = WIDTH  # tokens before that a share is given for

    passes = 2.0  # the pass, and the rows that are computed again

    def gather(self, loaded: LoadedModel, encoded: EncodedText, progress: Progress | None = None) -> FeatureValues:
        """Run the model."""
        found = attention_shares(
            loaded.model, encoded.ids, encoded.prefix, self.layers, self.heads, self.width, progress=progress
        )
        heads = "all heads" if found.heads is None else f"heads {_listed(found.heads)}"
        note = f"attention: mean over layers {_listed(found.layers)}, {heads}, first position left out"
        values = {"attention_mass": found.mass, "attention_sparsity": found.sparsity}
        return FeatureValues(len(encoded), values, note)


@dataclass(frozen=True)
class HiddenFeature:
    """How far the hidden state turns at each token."""

    layer: int

    passes = 1.0

    def gather(self, loaded: LoadedModel, encoded: EncodedText, progress: Progress | None = None) -> FeatureValues:
        """Run the model."""
        turns = router_turns(loaded.model, encoded.ids, self.layer, encoded.prefix, progress=progress)
        return FeatureValues(len(encoded), {"router": turns, "layer": self.layer}, "")


@dataclass(frozen=True)
class MicroFeature:
    """How sure a trained micro decoder is of each token, for each place in a segment that it could have."""

    passes = 3.0  # the base's, and the head for every place in a segment

    def gather(self, loaded: LoadedModel, encoded: EncodedText, progress: Progress | None = None) -> FeatureValues:
        """Run the model.

        Raises:
            MicroStepError: it is no micro_step model, or an untrained one.
        """
        if loaded.facts.micro_step is None or loaded.facts.micro_step.untrained:
            raise MicroStepError(NO_MICRO_STEP)
        found = refined_confidences(cast("MicroStepForCausalLM", loaded.model), encoded.ids, encoded.prefix, progress)
        note = "micro decoder's confidence, from the base's states of the unmerged text"
        return FeatureValues(len(encoded), {"micro_confidence": found}, note)


Extra = WindowFeature | AttentionFeature | HiddenFeature | MicroFeature


def features_needed(rule: str, parameters: Mapping[str, float], max_length: int, how: FeatureOptions) -> Extra | None:
    """What a rule needs beyond the scores; None if nothing.

    Args:
        rule: a name in `RULES`.
        parameters: of the rule, all of them; only `window` and `layer` matter here.
        max_length: M.
        how: choices that are no parameters of the rule.
    """
    needs = RULES[rule].needs
    if "window" in needs:
        return WindowFeature(int(parameters["window"]), how.history, how.stride)
    if "attention" in needs:
        return AttentionFeature(how.layers, how.heads, max(WIDTH, max_length))
    if "hidden" in needs:
        return HiddenFeature(int(parameters["layer"]))
    return MicroFeature() if "micro_step" in needs else None


def _listed(numbers: Sequence[int]) -> str:
    """0-3, or 0, 2, 5."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))
