"""What drafting and merged decoding inside vLLM share: to vLLM both are proposers of its method `custom_class`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from transformers import LogitsProcessorList

from model.decoding.output import RowOutput
from model.decoding.row import LiveRow, TokenSettings
from model.decoding.stopping import Why
from model.errors import MicroStepError
from serving.vllm_plugin.guard import check_registered
from serving.vllm_plugin.modules import ModulesAround, read_config
from serving.vllm_plugin.settings import EngineSettings


@dataclass(frozen=True)
class StepNote:
    """What a proposer did for a row in a step."""

    drafted: tuple[int, ...]  # tokens that the next step checks
    why: Why  # there are no more of them, or the segment has ended


NOTES: dict[str, StepNote] = {}
"""Per row of this project's own server, whose engine runs in the same process and takes the notes out."""


class Proposer(ABC):
    """A proposer of vLLM.

    Args:
        vllm_config: vLLM's configuration, with ours in `additional_config`.
    """

    def __init__(self, vllm_config: Any) -> None:
        check_registered()
        refuse_unsupported(vllm_config)
        self.settings = EngineSettings.of(vllm_config.additional_config)
        self.config = read_config(self.settings.modules)
        self.settings.segments(self.config)  # refuses values that no request could be written with
        self.aux_layers = tuple(self.config.context_layers[:-1])
        self.vllm_config = vllm_config

    @abstractmethod
    def load_model(self, target: Any) -> None:
        """Take over vLLM's model."""

    def propose(self, *_: Any, **__: Any) -> list[list[int]]:
        """Called by vLLM only where the plugin's hooks are not in place."""
        raise MicroStepError("the micro_step plugin of vLLM is not active")

    def around(self, target: Any) -> ModulesAround:
        """Return the modules around vLLM's model."""
        device, dtype = next(target.parameters()).device, self.vllm_config.model_config.dtype
        return ModulesAround(self.config, self.settings.modules, target, device, dtype)

    def new_row(self, params: Any, most: int) -> LiveRow:
        """Return a row for a request with vLLM's sampling parameters and at most this many tokens."""
        segments = self.settings.asked(params.extra_args).segments(self.config)
        ends = frozenset(params.stop_token_ids or () if params.ignore_eos else params.all_stop_token_ids)
        tokens = TokenSettings(LogitsProcessorList(), most, ends, (), (), False, None, 0)
        return LiveRow(RowOutput([]), segments, tokens, lambda _: None)


def refuse_unsupported(vllm_config: Any) -> None:
    """Refuse what cannot work, in one sentence.

    Raises:
        MicroStepError: the configuration has something that is not supported.
    """
    parallel = vllm_config.parallel_config
    sizes = ("tensor_parallel_size", "pipeline_parallel_size", "decode_context_parallel_size")
    if any(getattr(parallel, size, 1) > 1 for size in sizes):
        raise MicroStepError(
            "micro_step works inside vLLM on one device: leave --tensor-parallel-size and --pipeline-parallel-size at 1"
        )
    if vllm_config.lora_config is not None:
        raise MicroStepError("micro_step inside vLLM takes no LoRA adapters at run time: merge them by model convert")
