"""The configuration of a micro_step model: its base's own, and the shape of the modules around it."""

import copy
import difflib
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from model.errors import ModelError

MERGER_NAMES = ("residual_softmax", "mean", "attention", "local_encoder")
STARTS = ("random", "copied")
DECODINGS = ("merged", "lossless")
KEEPS = ("last", "first_last")
STOP_STATES = ("after", "before")


class MicroStepConfig(PreTrainedConfig):  # type: ignore[misc]
    """The parts of a micro_step model. Every field except the base's configuration has a default.

    Args:
        base_config: the base's configuration, or its dictionary.
        max_segment_length: M, the largest number of tokens in a segment.
        context_layers: the base layers whose states the micro decoder reads, in rising order from 1 (after the first
            layer) to the number of layers, which is included. Empty: 4 of them, spaced evenly.
        merger: how the embeddings of a segment (above `merge_layer` its states) become one, a name in `MERGER_NAMES`.
        merge_layer: k, the number of the base's first layers that read every token; the others read one slot per
            segment.
            0: none, the embeddings are merged. All: only the cache is folded, and nothing is merged.
        keep: with k = all layers, the slots of a segment that later segments see, a name in `KEEPS`.
        merger_heads: attention heads of the mergers `attention` and `local_encoder`.
        merger_layers: transformer layers of the merger `local_encoder`.
        merger_bias: whether the projections of the merger `attention` have biases.
        merger_window: how many tokens before a segment the merger `local_encoder` also reads, in training and scoring.
        micro_layers: layers of the micro decoder.
        micro_norm: whether the micro decoder ends in a norm, as the base does.
        micro_window: how many tokens before a segment the micro decoder also reads, in training and scoring.
        micro_start: `copied` starts it as the base's last layers and final norm, `random` as the base's class does.
        stop_head: whether there is a head that learns where segments end.
        stop_layers: linear layers of the stop head, with SiLU between them.
        stop_state: the state from which the stop head says that a token ends its segment: the one `after` the micro
            decoder has read the token, or the one `before`, which predicted it (the base's for a first token).
        stop_weight: weight of the stop loss.
        token_weight: weight of the cross-entropy of the tokens; 0, with a teacher: only the teacher is followed.
        teacher_weight: weight of KL(teacher || model), if teacher states are given.
        hidden_weight: weight of the relative squared error of the context layers' states at the ends of segments, if a
            teacher's states of all of them are given.
        decoding: what it was trained for: `merged`, or `lossless`, which drafts for an unmerged base.
        draft_vocabulary: ids of the only words that the micro decoder drafts in lossless mode; empty: all.
        adapter: the LoRA adapter on the base, as peft's own dictionary, or None.
        prompt_adapter: False: the adapter is off for everything before the first token that the model writes, in
            training and in generation. It then stays apart from the base's weights.
        base_reference: reference to the base, if its weights are not saved with the model.

    Raises:
        ModelError: an unknown field, or values that do not fit together.
    """

    model_type = "micro_step"
    sub_configs = {"base_config": AutoConfig}  # noqa: RUF012 - transformers defines it this way
    has_no_defaults_at_init = True

    def __init__(
        self,
        base_config: Any = None,
        max_segment_length: int = 4,
        context_layers: tuple[int, ...] | list[int] = (),
        merger: str = "residual_softmax",
        merge_layer: int = 0,
        keep: str = "last",
        merger_heads: int = 4,
        merger_layers: int = 1,
        merger_bias: bool = False,
        merger_window: int = 0,
        micro_layers: int = 2,
        micro_norm: bool = True,
        micro_window: int = 0,
        micro_start: str = "copied",
        stop_head: bool = True,
        stop_layers: int = 1,
        stop_state: str = "after",
        stop_weight: float = 0.5,
        token_weight: float = 1.0,
        teacher_weight: float = 1.0,
        hidden_weight: float = 0.0,
        decoding: str = "merged",
        draft_vocabulary: tuple[int, ...] | list[int] = (),
        adapter: dict[str, Any] | None = None,
        prompt_adapter: bool = True,
        base_reference: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(base_config, dict):
            given = dict(base_config)
            base_config = AutoConfig.for_model(given.pop("model_type"), **given)
        else:
            base_config = copy.deepcopy(base_config)  # transformers writes settings into sub-configurations
        if base_config is None:
            raise ModelError("a micro_step configuration needs the configuration of its base (base_config)")
        self.base_config: Any = base_config
        text: Any = base_config.get_text_config()
        self.max_segment_length = max_segment_length
        self.context_layers = list(context_layers) or evenly_spaced(int(text.num_hidden_layers))
        self.merger = merger
        self.merge_layer = merge_layer
        self.keep = keep
        self.merger_heads = merger_heads
        self.merger_layers = merger_layers
        self.merger_bias = merger_bias
        self.merger_window = merger_window
        self.micro_layers = micro_layers
        self.micro_norm = micro_norm
        self.micro_window = micro_window
        self.micro_start = micro_start
        self.stop_head = stop_head
        self.stop_layers = stop_layers
        self.stop_state = stop_state
        self.stop_weight = stop_weight
        self.token_weight = token_weight
        self.teacher_weight = teacher_weight
        self.hidden_weight = hidden_weight
        self.decoding = decoding
        self.draft_vocabulary = list(draft_vocabulary)
        self.adapter = adapter
        self.prompt_adapter = prompt_adapter
        self.base_reference = base_reference
        self._check(int(text.num_hidden_layers), int(text.hidden_size), int(text.vocab_size))
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, getattr(text, name, None))
        kwargs.setdefault("tie_word_embeddings", bool(getattr(text, "tie_word_embeddings", False)))
        kwargs.setdefault("dtype", text.dtype)
        super().__init__(**kwargs)

    @property
    def hidden_size(self) -> int:
        """d, of the base and the modules around it."""
        return int(self.base_config.get_text_config().hidden_size)

    @property
    def vocab_size(self) -> int:
        """V, as stated in the base's configuration."""
        return int(self.base_config.get_text_config().vocab_size)

    @property
    def num_hidden_layers(self) -> int:
        """Number of the base's layers."""
        return int(self.base_config.get_text_config().num_hidden_layers)

    @property
    def folds_cache(self) -> bool:
        """True if every layer reads every token, and only the cache has one slot (or two) per segment."""
        return bool(self.merge_layer == self.num_hidden_layers)

    @property
    def max_position_embeddings(self) -> int | None:
        """Number of positions, in tokens, that the base was made for."""
        limit = getattr(self.base_config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else None

    def _check(self, layers: int, hidden_size: int, vocabulary: int) -> None:
        for name, known in (
            ("merger", MERGER_NAMES),
            ("micro_start", STARTS),
            ("decoding", DECODINGS),
            ("keep", KEEPS),
            ("stop_state", STOP_STATES),
        ):
            if (value := getattr(self, name)) not in known:
                raise ModelError(f"{name} is {value!r}; it must be one of {', '.join(known)}")
        for name in ("max_segment_length", "merger_heads", "merger_layers", "micro_layers", "stop_layers"):
            if (value := getattr(self, name)) < 1:
                raise ModelError(f"{name} must be at least 1, got {value}")
        chosen = self.context_layers
        if chosen != sorted(set(chosen)) or chosen[0] < 1 or chosen[-1] != layers:
            raise ModelError(
                f"context_layers must rise from at least 1 to the base's last layer {layers}, got {chosen}"
            )
        if not 0 <= self.merge_layer <= layers:
            raise ModelError(f"merge_layer must be from 0 to the base's {layers} layers, got {self.merge_layer}")
        if self.keep != "last" and self.merge_layer < layers:
            raise ModelError(
                f"keep {self.keep!r} needs a merge_layer of {layers}, all of the base's layers, got {self.merge_layer}:"
                " below that, a segment has only one slot"
            )
        if self.decoding == "lossless" and self.merge_layer:
            raise ModelError(f"a lossless model merges nothing: leave out its merge_layer of {self.merge_layer}")
        if self.decoding == "lossless" and self.stop_state == "before":
            raise ModelError("a lossless model's stop head reads the state after a token: leave out stop_state")
        if self.decoding == "lossless" and not self.prompt_adapter:
            raise ModelError("a lossless model's base has no adapter: leave out prompt_adapter")
        if self.merger_bias and self.merger != "attention":
            raise ModelError(f"merger_bias needs the merger attention, got {self.merger}")
        for name in ("merger_window", "micro_window"):
            if (value := getattr(self, name)) < 0:
                raise ModelError(f"{name} must be at least 0, got {value}")
        if self.merger_window and (self.merger != "local_encoder" or self.merge_layer):
            raise ModelError("merger_window needs the merger local_encoder, and a merge_layer of 0")
        if self.merger in ("attention", "local_encoder") and hidden_size % self.merger_heads:
            raise ModelError(f"merger_heads {self.merger_heads} must divide the hidden size {hidden_size}")
        if self.micro_start == "copied" and self.micro_layers > layers:
            raise ModelError(f"{self.micro_layers} micro layers cannot be copies of a base with {layers} layers")
        if self.draft_vocabulary and not 0 <= min(self.draft_vocabulary) <= max(self.draft_vocabulary) < vocabulary:
            raise ModelError(f"draft_vocabulary must hold ids from 0 to {vocabulary - 1}")


def evenly_spaced(layers: int, states: int = 4) -> list[int]:
    """Return K of `layers` layers, spaced evenly, the last one included: 8, 15, 22, 30 of 30."""
    return sorted({max(1, layers * (i + 1) // states) for i in range(states)})


def check_fields(given: dict[str, Any]) -> None:
    """Raise ModelError for a field that the configuration does not have; the message names the most similar one."""
    import inspect

    known = [name for name in inspect.signature(MicroStepConfig.__init__).parameters if name not in ("self", "kwargs")]
    for name in given:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise ModelError(
                f"a micro_step model has no setting {name!r}"
                + (f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(known)}")
            )


AutoConfig.register("micro_step", MicroStepConfig)
