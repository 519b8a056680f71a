"""What some rules need beyond the scores.

It is a limited history, attention, hidden states, a micro decoder's confidence, or the entropies of a text's bytes.
`FEATURES` stands beside `RULES`, under the names that `Rule.needs` holds. Each entry says which fields of
`SegmentInputs` it fills, how they are computed, what that costs, and under which name they are kept beside a store.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from model.errors import MicroStepError
from model.scoring.scores import Method  # at run time too: the codec of stored results reads the types of fields
from model.segmentation.segment import MAX_LENGTH, find_rule

if TYPE_CHECKING:  # they bring torch, which the registry does without
    import numpy as np
    from numpy.typing import NDArray

    from model.hub.loading import LoadedModel
    from model.micro_step.modeling import MicroStepForCausalLM
    from model.progress import Progress

Fields = dict[str, Any]  # fields of SegmentInputs: arrays [N] or [N, W], and the numbers that they were computed with


@dataclass(frozen=True)
class FeatureOptions:
    """How what a rule needs beyond the scores is computed, where that is no parameter of the rule."""

    layers: tuple[int, ...] | None = None  # of the attention rules; None: all
    heads: tuple[int, ...] | None = None
    history: Method = "exact"  # of limited_history
    stride: int = 16
    prompt_apart: bool | None = None  # each prompt token its own segment; None: where a chat holds an answer


@dataclass(frozen=True)
class Feature:
    """One entry of `FEATURES` with its settings; those that it does not have keep their defaults."""

    need: str  # a name in FEATURES
    window: int = 32  # of a limited history, tokens
    method: Method = "exact"  # of a limited history
    stride: int = 16  # of a strided one
    layer: int = 2  # of the hidden states
    width: int = MAX_LENGTH  # of the attention: the most tokens before that a share is given for
    layers: tuple[int, ...] | None = None  # of the attention; None: all
    heads: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.need not in FEATURES:
            raise MicroStepError(f"{self.need!r} is no feature of a model; use one of {', '.join(FEATURES)}")
        if self.window < 1:
            raise MicroStepError(f"a window must be of at least 1 token, got {self.window}")

    @property
    def kind(self) -> FeatureKind:
        return FEATURES[self.need]

    @property
    def passes(self) -> float:
        """How often every token is read, about."""
        return self.kind.passes(self)

    @property
    def name(self) -> str:
        """What it is called in a store: a part of a folder's name."""
        return self.kind.name(self)

    @property
    def meaning(self) -> str:
        """A clause for legends and notes."""
        return self.kind.meaning(self)

    @property
    def settings(self) -> dict[str, Any]:
        """The field of SegmentInputs that holds what it was computed with; empty where there is none."""
        return {} if self.kind.parameter is None else {self.kind.parameter: getattr(self, self.kind.parameter)}

    def compute(
        self,
        loaded: LoadedModel,
        ids: NDArray[np.int64],
        prefix: Sequence[int] = (),
        progress: Progress | None = None,
    ) -> tuple[Fields, str]:
        """Run a model; `micro_step` needs a trained MicroStepForCausalLM, which the caller checks.

        Args:
            loaded: any decoder-only language model with its tokenizer.
            ids: [N] a text's tokens without what the tokenizer puts first.
            prefix: ids that stand before the text.
            progress: told the share done; may raise to stop.

        Returns:
            Fields of SegmentInputs, and what a reader must know of them: "" if nothing.

        Raises:
            MicroStepError: the model cannot give it, or the text does not fit its context or the memory.
        """
        fields, note = self.kind.compute(self, loaded, ids, prefix, progress)
        return fields | self.settings, note


@dataclass(frozen=True)
class FeatureKind:
    fields: tuple[str, ...]  # arrays of SegmentInputs that it fills
    parameter: Literal["window", "layer"] | None  # of the rules, on which it depends
    passes: Callable[[Feature], float]
    name: Callable[[Feature], str]
    meaning: Callable[[Feature], str]
    compute: Callable[..., tuple[Fields, str]]  # (feature, loaded, ids, prefix, progress)


def features_needed(
    rule: str, parameters: Mapping[str, float], max_length: int, how: FeatureOptions | None = None
) -> Feature | None:
    """What a rule needs beyond the scores; None if nothing."""
    how = how or FeatureOptions()
    for need in find_rule(rule).needs & FEATURES.keys():
        if need == "window":
            return Feature(need, window=int(parameters["window"]), method=how.history, stride=how.stride)
        if need == "attention":
            return Feature(need, width=max_length, layers=how.layers, heads=how.heads)
        return Feature(need, layer=int(parameters["layer"])) if need == "hidden" else Feature(need)
    return None


def _window(
    feature: Feature, loaded: LoadedModel, ids: Any, prefix: Sequence[int], progress: Progress | None
) -> tuple[Fields, str]:
    from model.scoring.limited_history import limited_history

    found = limited_history(
        loaded.model, ids, feature.window, feature.method, feature.stride, prefix, k=1, progress=progress
    )
    return {"limited_entropy": found.scores.entropy}, f"limited history, {found.meaning}"


def _attention(
    feature: Feature, loaded: LoadedModel, ids: Any, prefix: Sequence[int], progress: Progress | None
) -> tuple[Fields, str]:
    from model.segmentation.attention_features import attention_shares

    found = attention_shares(loaded.model, ids, prefix, feature.layers, feature.heads, feature.width, progress=progress)
    heads = "all heads" if found.heads is None else f"heads {_listed(found.heads)}"
    note = f"attention: mean over layers {_listed(found.layers)}, {heads}, first position left out"
    return {"attention_mass": found.mass, "attention_sparsity": found.sparsity}, note


def _hidden(
    feature: Feature, loaded: LoadedModel, ids: Any, prefix: Sequence[int], progress: Progress | None
) -> tuple[Fields, str]:
    from model.segmentation.attention_features import router_turns

    return {"router": router_turns(loaded.model, ids, feature.layer, prefix, progress=progress)}, ""


def _micro_step(
    feature: Feature, loaded: LoadedModel, ids: Any, prefix: Sequence[int], progress: Progress | None
) -> tuple[Fields, str]:
    from model.segmentation.micro_features import refined_confidences

    found = refined_confidences(cast("MicroStepForCausalLM", loaded.model), ids, prefix, progress)
    return {"micro_confidence": found}, "micro decoder's confidence, from the base's states of the unmerged text"


def _bytes(
    feature: Feature, loaded: LoadedModel, ids: Any, prefix: Sequence[int], progress: Progress | None
) -> tuple[Fields, str]:
    from model.segmentation.byte_features import byte_features
    from model.text.encoding import token_bytes

    return dict(byte_features(token_bytes(loaded.tokenizer, ids), progress)), _BYTES


def _window_passes(feature: Feature) -> float:
    if feature.method == "banded":
        return 1.0
    step = 1 if feature.method == "exact" else feature.stride
    return max(1.0, (feature.window + step - 1) / step)


def _window_meaning(feature: Feature) -> str:
    context = f"exactly {feature.window}" if feature.method == "exact" else f"{feature.window} ({feature.method})"
    if feature.method == "strided":
        context = f"{feature.window} to {feature.window + feature.stride - 1}"
    return f"limited history of {context} tokens"


def _window_name(feature: Feature) -> str:
    how = feature.method if feature.method != "strided" else f"{feature.method}{feature.stride}"
    return f"window-{feature.window}-{how}"


def _listed(numbers: Sequence[int]) -> str:
    """0-3, or 0, 2, 5."""
    if len(numbers) > 2 and list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{numbers[0]}-{numbers[-1]}"
    return ", ".join(map(str, numbers))


_BYTES = "byte entropies of tiny-byte, a small byte model, whatever model scores the text"

FEATURES: dict[str, FeatureKind] = {
    "window": FeatureKind(("limited_entropy",), "window", _window_passes, _window_name, _window_meaning, _window),
    "attention": FeatureKind(
        ("attention_mass", "attention_sparsity"),
        None,
        lambda _: 2.0,  # the pass, and the rows that are computed again
        lambda feature: f"attention-{feature.width}",
        lambda _: "attention: mean over all layers and heads, first position left out",
        _attention,
    ),
    "hidden": FeatureKind(
        ("router",),
        "layer",
        lambda _: 1.0,
        lambda feature: f"hidden-{feature.layer}",
        lambda feature: f"hidden states after layer {feature.layer}",
        _hidden,
    ),
    "micro_step": FeatureKind(
        ("micro_confidence",),
        None,
        lambda _: 3.0,  # the base's, and the head for every place in a segment
        lambda _: "micro-confidence",
        lambda _: "the micro decoder's confidence, from the base's states of the unmerged text",
        _micro_step,
    ),
    "bytes": FeatureKind(
        ("byte_entropy", "byte_rise"),
        None,
        lambda _: 1.0,  # of a small model of its own, over several bytes a token
        lambda _: "bytes",
        lambda _: _BYTES,
        _bytes,
    ),
}
