"""Read a saved micro_step model from its folder. The description in its config.json is read without torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import MicroStepError, ModelBroken, ModelError
from model.hub.catalog import find
from model.hub.model_info import MicroStepInfo
from model.hub.spec import LoadedModel, ModelSpec
from model.micro_step.base_source import name_of_base
from model.reading.json_text import parse_json
from model.reading.regular_files import read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from model.micro_step.modeling import MicroStepForCausalLM

UNTRAINED = "untrained: the micro decoder is a copy of the base's last layers, and a merged segment is the plain mean"
PROMPT_APART = (
    "its adapter is off for the prompt when it writes; views that read a text token by token show it with the adapter"
    " on at every token"
)
OTHER_SOURCE = (
    "the base has other weights than those it was trained with: it comes from another source of the same model"
)


def saved_in(folder: Path) -> MicroStepInfo | None:
    """Return the description in the config.json of a micro_step model, or None for any other model."""
    try:
        config = parse_json(read_text(folder / "config.json"))
        if config.get("model_type") != "micro_step":
            return None
    except (OSError, ValueError, AttributeError):
        return None
    try:
        reference = config.get("base_reference") or {}
        base = name_of_base(reference["name"], folder) if reference else None
        return MicroStepInfo.of(config, base, reference.get("revision"), untrained=False)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelBroken(f"the config.json of {folder.name} does not describe a micro_step model: {error}") from error


def read_micro_step(
    spec: ModelSpec,
    folder: Path,
    saved: MicroStepInfo,
    read_whole: Callable[[], MicroStepForCausalLM],
    read_tokens: Callable[[Path], PreTrainedTokenizerBase],
    load: Callable[[ModelSpec], LoadedModel],
    keep_adapter: bool,
) -> tuple[MicroStepForCausalLM, PreTrainedTokenizerBase, tuple[str, ...]]:
    """Return a saved model, its tokenizer (the folder's or else the base's), and notes for the user.

    Raises:
        ModelError: an option does not fit such a model, or its base cannot be loaded or is another one.
        ModelBroken: damaged files.
    """
    from model.micro_step.fingerprint import fingerprint
    from model.micro_step.modeling import MicroStepForCausalLM
    from model.micro_step.saving import base_reference

    if spec.adapter is not None or spec.quantization != "none":
        raise ModelError(
            f"{spec.name} is a micro_step model: it is loaded without a further adapter and without quantisation"
        )
    own_tokens = (folder / "tokenizer.json").is_file()
    reference = base_reference(folder)
    if reference is None and (own_tokens or saved.base is None):
        model, tokenizer = read_whole(), read_tokens(folder)
        return model, tokenizer, _notes(model)
    assert saved.base is not None
    try:
        base = load(replace(spec, name=saved.base, revision=saved.base_revision))
    except MicroStepError as error:
        raise type(error)(f"the base of {spec.name} cannot be loaded: {error}") from error
    base_note: tuple[str, ...] = ()
    if reference is None:
        model = read_whole()
    else:
        # a model of the catalog is the same model whatever its source, quantised or not
        if find(saved.base) is not None and fingerprint(base.model) != reference["fingerprint"]:
            base_note = (OTHER_SOURCE,)
        model = MicroStepForCausalLM.from_pretrained(
            folder, base=base.model, allow_other_base=bool(base_note), merge_adapter=not keep_adapter
        )
    tokenizer = read_tokens(folder) if own_tokens else base.tokenizer
    return model, tokenizer, (*base.facts.approximations, *base_note, *_notes(model))


def _notes(model: MicroStepForCausalLM) -> tuple[str, ...]:
    return (*((UNTRAINED,) if is_untrained(model) else ()), *(() if model.config.prompt_adapter else (PROMPT_APART,)))


def is_untrained(model: MicroStepForCausalLM) -> bool:
    """True if the micro decoder's last layer still is the copy of the base's last layer that it started as."""
    from model.causal_lm.forward import body
    from model.causal_lm.parts import layers_of

    theirs = layers_of(body(model.base))[-1].state_dict()
    mine = layers_of(model.micro.layers)[-1].state_dict()
    return all(name in theirs and bool((theirs[name] == weight).all()) for name, weight in mine.items())
