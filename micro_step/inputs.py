"""What the functions of the face accept as models and as texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from analysis.answer import Result as Result
from analysis.segmentation.strategy import Strategy
from model.arguments import checked
from model.errors import MicroStepError, TextError
from model.hub.catalog import find
from model.hub.fetch import fetch
from model.hub.loading import LoadedModel
from model.hub.loading import load as load_spec
from model.hub.spec import Dtype, ModelSpec, Quantization
from model.terminal import progress_bar
from model.text.conversation import read_conversation
from model.text.document import Document, TextInput

ModelLike = str | Path | ModelSpec | LoadedModel
TextLike = str | Document | Sequence[Mapping[str, Any]]


@checked
def load(
    model: str | Path | ModelSpec,
    *,
    revision: str | None = None,
    adapter: str | None = None,
    dtype: Dtype = "auto",
    device: str = "auto",
    attn_implementation: str | None = None,
    quantization: Quantization = "none",
    trust_remote_code: bool = False,
    tokenizer: str | None = None,
    accept_licence: bool = False,
) -> LoadedModel:
    """Load a model, and fetch it first if it is not on this machine.

    The two models of the catalog that were loaded last stay in memory, so that naming them again costs nothing.

    Args:
        model: catalog name, hub id, model folder, `.gguf` file; or a whole specification, with which no option goes.
        revision: branch, tag or commit on the hub.
        adapter: hub id or folder of a LoRA adapter, which is merged into the weights.
        dtype: auto, float32, bfloat16 or float16; auto is float32 on a CPU, and the checkpoint's own elsewhere.
        device: auto, cpu, cuda, cuda:N or mps.
        attn_implementation: sdpa, eager, flash_attention_2, ...
        quantization: none, 8bit or 4bit; needs bitsandbytes.
        trust_remote_code: run Python code that comes with the model.
        tokenizer: catalog name, hub id or folder of the tokenizer of a model that comes without one.
        accept_licence: you have read and accept the model's terms.

    Raises:
        MicroStepError: the model cannot be found, read, or held in memory; see `model.hub.loading.load`.
    """
    if isinstance(model, ModelSpec):
        spec = model
    else:
        spec = ModelSpec(
            str(model),
            revision,
            adapter,
            dtype,
            device,
            attn_implementation,
            quantization,
            trust_remote_code,
            tokenizer,
        )
    if accept_licence:
        with progress_bar() as tell:
            fetch(spec.name, spec.revision, tell, accept_licence, code=spec.trust_remote_code)
    return _load(spec)


def _load(spec: ModelSpec) -> LoadedModel:
    kept = find(spec.name) is not None and spec.adapter is None  # a folder may hold another model by the next time
    return _load_named(spec) if kept else _load_anew(spec)


def _load_anew(spec: ModelSpec) -> LoadedModel:
    with progress_bar() as tell:
        return load_spec(spec, tell)


_load_named = lru_cache(maxsize=2)(_load_anew)


class Models:
    """Gives a request its models: those that are loaded already, and others by their names."""

    def __init__(self) -> None:
        self._loaded: dict[ModelSpec, LoadedModel] = {}

    def spec(self, model: ModelLike) -> ModelSpec:
        """The specification by which a request names a model.

        Raises:
            MicroStepError: it is another loaded model of the same specification.
        """
        if isinstance(model, LoadedModel):
            if self._loaded.setdefault(model.spec, model) is not model:
                raise MicroStepError(f"two loaded models are both {model.spec.name}; name one of them otherwise")
            return model.spec
        return model if isinstance(model, ModelSpec) else ModelSpec(str(model))

    def named(self, a: ModelLike, b: ModelLike | None) -> tuple[tuple[str, ModelSpec], ...]:
        """One model, or two, under their letters; errors as `spec`."""
        return tuple((letter, self.spec(model)) for letter, model in (("A", a), ("B", b)) if model is not None)

    def load(self, spec: ModelSpec) -> LoadedModel:
        """The model of a specification, kept as long as this object."""
        if spec not in self._loaded:
            self._loaded[spec] = _load(spec)
        return self._loaded[spec]


def as_text_input(text: TextLike, chat: bool = False, force_bos: bool = False) -> TextInput:
    """A text, a conversation or a document, and how to read it; with the day's date where a chat template may write it.

    Raises:
        TextError: it is none of these, or messages that cannot be read.
    """
    if isinstance(text, str):
        document = Document.plain(text)
    elif isinstance(text, Document):
        document = text
    elif not _holds_messages(text):
        raise TextError(f"a text is a string, a Document or a list of messages, not {type(text).__name__}")
    else:
        document = read_conversation([dict(message) for message in text], "the conversation")
    return TextInput(document.with_template_settings({}, document.date) if chat else document, chat, force_bos)


def _holds_messages(given: object) -> bool:
    return isinstance(given, Sequence) and all(isinstance(message, Mapping) for message in given)


def as_strategy(strategy: str | Strategy) -> Strategy:
    """A strategy, or what `entropy:threshold=1.2` names.

    Raises:
        MicroStepError: it is neither, or it does not read like one.
    """
    if isinstance(strategy, Strategy):
        return strategy
    if not isinstance(strategy, str):
        raise MicroStepError(f"give one strategy, as entropy:threshold=1.2, not {strategy!r}")
    return Strategy.parse(strategy)
