"""Start a micro decoder where another run on the same base left it: a draft's, for one, that is cheap to train."""

from __future__ import annotations

from safetensors.torch import load_file

from model.configuration import MicroStepConfig
from model.errors import MicroStepError
from model.fetch import fetch
from model.modeling import MicroStepForCausalLM
from model.saving import MODULES, base_reference, fingerprint

_SAME = ("context_layers", "micro_layers")
_PREFIX = "micro."


def start_micro_decoder(model: MicroStepForCausalLM, name: str) -> None:
    """Put the micro decoder of a saved model into another one; merger and stop head stay as they are.

    Args:
        model: fresh, around the same base.
        name: a micro_step model of the catalog, or a folder that holds its modules.

    Raises:
        MicroStepError: there is none, or it does not fit.
    """
    folder = fetch(name)
    reference = base_reference(folder)
    if reference is None:
        raise MicroStepError(f"start: {name} holds no modules of a micro_step model")
    if reference["fingerprint"] != fingerprint(model.base):
        raise MicroStepError(f"start: {name} was trained on other weights of {reference['name']} than this base's")
    theirs = MicroStepConfig.from_pretrained(folder)
    for setting in _SAME:
        if getattr(theirs, setting) != getattr(model.config, setting):
            raise MicroStepError(
                f"start: {name} has {setting} {getattr(theirs, setting)}, and this model"
                f" {getattr(model.config, setting)}"
            )
    if theirs.max_segment_length < model.config.max_segment_length:
        raise MicroStepError(
            f"start: {name} writes at most {theirs.max_segment_length} tokens a segment, and this model"
            f" {model.config.max_segment_length}"
        )
    weights = {
        key.removeprefix(_PREFIX): w for key, w in load_file(folder / MODULES).items() if key.startswith(_PREFIX)
    }
    try:
        model.micro.load_state_dict(weights)
    except RuntimeError as error:  # learned positions of another M
        raise MicroStepError(f"start: {name} does not fit: {str(error).splitlines()[-1].strip()}") from None
