"""The tokenizer of a saved model: its own, or its base's where the folder holds only the new modules."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from model.micro_step.base_source import find_base
from model.micro_step.configuration import MicroStepConfig
from model.micro_step.saving import base_reference


class MicroStepTokenizer(PreTrainedTokenizerFast):  # type: ignore[misc]
    """Opens for `AutoTokenizer` the tokenizer that goes with a micro_step model; has no instances of its own."""

    @classmethod
    def from_pretrained(cls, folder: str | Path, *inputs: Any, **options: Any) -> PreTrainedTokenizerBase:
        """The tokenizer of a folder, or of the base that it names."""
        reference = base_reference(folder)
        if reference is None:
            tokenizer: PreTrainedTokenizerBase = PreTrainedTokenizerFast.from_pretrained(folder, *inputs, **options)
        else:
            tokenizer = AutoTokenizer.from_pretrained(find_base(reference["name"], reference["revision"]))
        return tokenizer


AutoTokenizer.register(MicroStepConfig, MicroStepTokenizer)
