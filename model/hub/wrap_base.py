"""Micro_step models out of what a user names: saved ones read from their folder, untrained ones put around any base.

What a folder says of itself is read without torch, so that a page can ask before it loads anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from model.errors import MicroStepError, ModelError
from model.hub.micro_step_io import saved_in
from model.hub.model_info import MicroStepInfo

if TYPE_CHECKING:
    import torch

    from model.hub.loading import LoadedModel
    from model.micro_step.modeling import MicroStepForCausalLM

LONGEST = 8  # M of untrained modules: more tokens of a segment than they could ever be right about
SEED = 0  # of untrained modules


@dataclass(frozen=True)
class Wrapped:
    """A micro_step model ready to write, and the base inside it as a model of its own."""

    model: MicroStepForCausalLM
    loaded: LoadedModel  # its tokenizer and its facts; `.model` may be the plain base
    facts: MicroStepInfo


def micro_step_info(name: str) -> MicroStepInfo | None:
    """What the folder of a micro_step model on this machine says of itself; None for any other model."""
    from model.hub.fetch import fetch, is_cached

    try:
        return saved_in(fetch(name)) if is_cached(name) else None
    except MicroStepError:
        return None


def wrap(loaded: LoadedModel) -> Wrapped:
    """The micro_step model that was loaded; of any other model, untrained modules around it, always the same.

    The base is shared, not copied, so that this costs a few layers.

    Raises:
        ModelError: the model cannot be the base of one.
    """
    import torch

    from model.micro_step.modeling import MicroStepForCausalLM

    model, known = loaded.model, loaded.facts.micro_step
    if isinstance(model, MicroStepForCausalLM) and known is not None:
        return Wrapped(model, loaded, known)
    if loaded.facts.quantization != "none":
        raise ModelError(
            f"{loaded.facts.name} is quantised, and its layers cannot start a micro decoder; load it without"
        )
    with torch.random.fork_rng(devices=_generators(model.device)):
        torch.manual_seed(SEED)
        fresh = MicroStepForCausalLM.from_base(model, loaded.tokenizer, max_segment_length=LONGEST)
    fresh.eval().requires_grad_(False)
    config = fresh.config
    facts = MicroStepInfo(
        decoding=config.decoding,
        max_segment_length=config.max_segment_length,
        merger=config.merger,
        micro_layers=config.micro_layers,
        context_layers=tuple(config.context_layers),
        stop_head=config.stop_head,
        base=loaded.facts.name,
        base_revision=loaded.facts.revision,
        untrained=True,
    )
    return Wrapped(fresh, loaded, facts)


def _generators(device: torch.device) -> list[torch.device]:
    """The devices, besides the CPU, whose random state is used."""
    return [device] if device.type == "cuda" else []
