"""Get a micro_step model from what a user names: a saved one from its folder, or untrained modules around any base.

A folder's description is read without torch, so a page can ask before it loads anything.
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

MAX_SEGMENT = 8  # M of untrained modules, which never predict longer segments correctly
SEED = 0  # seed of untrained modules


@dataclass(frozen=True)
class Wrapped:
    """A micro_step model ready to generate, and the base inside it as a model of its own."""

    model: MicroStepForCausalLM
    loaded: LoadedModel  # the source of tokenizer and facts; `.model` may be the plain base
    facts: MicroStepInfo


def micro_step_info(name: str) -> MicroStepInfo | None:
    """Return the description in the folder of a micro_step model on this machine, or None for any other model."""
    from model.hub.fetch import fetch, is_cached

    try:
        return saved_in(fetch(name)) if is_cached(name) else None
    except MicroStepError:
        return None


def wrap(loaded: LoadedModel) -> Wrapped:
    """Return the loaded micro_step model, or untrained modules with a fixed seed around any other model.

    The base is shared, not copied, so this costs only a few layers.
    """
    import torch

    from model.micro_step.modeling import MicroStepForCausalLM

    model, known = loaded.model, loaded.facts.micro_step
    if isinstance(model, MicroStepForCausalLM) and known is not None:
        return Wrapped(model, loaded, known)
    if loaded.facts.quantization != "none":
        raise ModelError(
            f"{loaded.facts.name} is quantised, so no micro decoder can start from its layers; load it without"
        )
    with torch.random.fork_rng(devices=_generators(model.device)):
        torch.manual_seed(SEED)
        fresh = MicroStepForCausalLM.from_base(model, loaded.tokenizer, max_segment_length=MAX_SEGMENT)
    fresh.eval().requires_grad_(False)
    facts = MicroStepInfo.of(vars(fresh.config), loaded.facts.name, loaded.facts.revision, untrained=True)
    return Wrapped(fresh, loaded, facts)


def _generators(device: torch.device) -> list[torch.device]:
    """Return the devices, besides the CPU, whose random state is used."""
    return [device] if device.type == "cuda" else []
