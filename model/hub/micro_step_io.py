"""Read a saved micro_step model from its folder. What the folder says of itself is read without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import MicroStepError, ModelBroken, ModelError
from model.hub.catalog import find
from model.hub.model_info import MicroStepInfo
from model.hub.spec import LoadedModel, ModelSpec

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from model.micro_step.modeling import MicroStepForCausalLM

UNTRAINED = "untrained: the micro decoder is a copy of the base's last layers, and a merged segment the plain mean"
OTHER_SOURCE = "the base has other weights than those it was trained with, as another source of the same model has"


def saved_in(folder: Path) -> MicroStepInfo | None:
    """What the config.json of a micro_step model says; None for any other model.

    Raises:
        ModelBroken: it is one, but not whole.
    """
    try:
        said = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if said.get("model_type") != "micro_step":
            return None
    except (OSError, ValueError, AttributeError):
        return None
    try:
        reference = said.get("base_reference") or {}
        return MicroStepInfo(
            decoding=str(said["decoding"]),
            max_segment_length=int(said["max_segment_length"]),
            merger=str(said["merger"]),
            micro_layers=int(said["micro_layers"]),
            context_layers=tuple(int(layer) for layer in said["context_layers"]),
            stop_head=bool(said["stop_head"]),
            base=reference.get("name"),
            base_revision=reference.get("revision"),
            untrained=False,
            merge_layer=int(said.get("merge_layer", 0)),
            keep=str(said.get("keep", "last")),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ModelBroken(f"the config.json of {folder.name} does not describe a micro_step model: {error}") from error


def read_micro_step(
    spec: ModelSpec,
    folder: Path,
    saved: MicroStepInfo,
    read_whole: Callable[[], MicroStepForCausalLM],
    read_tokens: Callable[[Path], PreTrainedTokenizerBase],
    load: Callable[[ModelSpec], LoadedModel],
) -> tuple[MicroStepForCausalLM, PreTrainedTokenizerBase, tuple[str, ...]]:
    """A saved model, its tokenizer (the folder's, or else the base's), and what a reader must know.

    Args:
        spec: what was asked for.
        folder: where it is.
        saved: what the folder says.
        read_whole: reads the folder as a model with all of its weights.
        read_tokens: reads the tokenizer of a folder.
        load: loads the base.

    Raises:
        ModelError: an option that does not go with such a model, or a base that cannot be had or is another one.
        ModelBroken: damaged files.
    """
    from model.micro_step.modeling import MicroStepForCausalLM
    from model.micro_step.saving import base_reference, fingerprint

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
    other: tuple[str, ...] = ()
    if reference is None:
        model = read_whole()
    else:
        # a model of the catalog is the same model wherever it comes from, quantised or not
        if find(saved.base) is not None and fingerprint(base.model) != reference["fingerprint"]:
            other = (OTHER_SOURCE,)
        model = MicroStepForCausalLM.from_pretrained(folder, base=base.model, allow_other_base=bool(other))
    tokenizer = read_tokens(folder) if own_tokens else base.tokenizer
    return model, tokenizer, (*base.facts.approximations, *other, *_notes(model))


def _notes(model: MicroStepForCausalLM) -> tuple[str, ...]:
    return (UNTRAINED,) if is_untrained(model) else ()


def is_untrained(model: MicroStepForCausalLM) -> bool:
    """Whether the micro decoder's last layer still is the copy of the base's last layer that it started as."""
    from model.causal_lm.forward import body
    from model.micro_step.micro_decoder import layers_of

    theirs = layers_of(body(model.base))[-1].state_dict()
    mine = layers_of(model.micro.layers)[-1].state_dict()
    return all(name in theirs and bool((theirs[name] == weight).all()) for name, weight in mine.items())
