"""Start from another run on the same base: from its micro decoder alone (a draft's is cheap to train), or all of it."""

from safetensors.torch import load_file

from model.errors import MicroStepError
from model.hub.fetch import fetch
from model.micro_step.configuration import MicroStepConfig
from model.micro_step.fingerprint import fingerprint
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.saving import MODULES, base_reference
from trainer.recipe import Started

_SAME: dict[Started, tuple[str, ...]] = {
    "micro decoder": ("context_layers", "micro_layers", "micro_norm"),
    "all": (
        "context_layers", "micro_layers", "decoding", "merger", "merger_heads", "merger_layers", "stop_head", "adapter",
        "merge_layer", "keep", "merger_bias", "micro_norm", "stop_layers", "stop_state", "prompt_adapter",
    ),
}  # fmt: skip
_PREFIX = "micro."


def start_from(model: MicroStepForCausalLM, name: str, part: Started) -> None:
    """Load weights of a saved model into another one; other weights stay unchanged."""
    folder = fetch(name)
    reference = base_reference(folder)
    if reference is None:
        raise MicroStepError(f"start: {name} holds no modules of a micro_step model")
    if reference["fingerprint"] != fingerprint(model.base):
        raise MicroStepError(f"start: {name} was trained on other weights of {reference['name']} than this base's")
    theirs = MicroStepConfig.from_pretrained(folder)
    for setting in _SAME[part]:
        there, here = getattr(theirs, setting), getattr(model.config, setting)
        if there != here:
            raise MicroStepError(f"start: {name} has {setting} {there}, but this model has {here}")
    if theirs.max_segment_length < model.config.max_segment_length:
        raise MicroStepError(
            f"start: {name} has segments of at most {theirs.max_segment_length} tokens, but this model of"
            f" {model.config.max_segment_length}"
        )
    weights = load_file(folder / MODULES)
    try:
        if part == "all":
            unexpected = model.load_state_dict(weights, strict=False).unexpected_keys
            if unexpected:
                raise MicroStepError(f"start: {name} does not fit: this model has no {unexpected[0]}")
        else:
            model.micro.load_state_dict(
                {key.removeprefix(_PREFIX): w for key, w in weights.items() if key.startswith(_PREFIX)}
            )
    except RuntimeError as error:  # learned positions of another M
        raise MicroStepError(f"start: {name} does not fit: {str(error).splitlines()[-1].strip()}") from None
