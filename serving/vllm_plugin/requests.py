"""What requests may not ask for, refused before vLLM's engine sees them: there, an error would end all requests."""

from __future__ import annotations

from typing import Any

from model.errors import MicroStepError
from model.micro_step.configuration import MicroStepConfig
from serving.vllm_plugin.merged import is_merged
from serving.vllm_plugin.settings import EngineSettings


def refuse_request(settings: EngineSettings, config: MicroStepConfig, params: Any, vllm_config: Any) -> None:
    """Refuse a request that could only fail, or be answered wrong.

    Args:
        settings: how segments end unless the request says otherwise.
        config: of the micro_step model.
        params: vLLM's sampling parameters.
        vllm_config: vLLM's configuration.

    Raises:
        MicroStepError: the request has a field that is unknown, out of range or not supported.
    """
    settings.asked(getattr(params, "extra_args", None)).segments(config)
    asked = {
        "structured_outputs": params.structured_outputs is not None,
        "logprobs of all words": params.logprobs == -1,
        "logprob_token_ids": bool(params.logprob_token_ids),
        "thinking_token_budget": params.thinking_token_budget is not None,
        "min_tokens": is_merged(vllm_config) and params.min_tokens > 0,
        "a seed while prompts may be read in parts (--no-enable-chunked-prefill)": params.seed is not None
        and _breaks_seeds(vllm_config),
    }
    if found := [name for name, is_asked in asked.items() if is_asked]:
        raise MicroStepError(f"micro_step inside vLLM does not support {found[0]}")


def _breaks_seeds(vllm_config: Any) -> bool:
    """True on processors where a prompt may be read in parts: there vLLM rewinds a generator that cannot be rewound."""
    from vllm.platforms import current_platform

    return current_platform.is_cpu() and bool(vllm_config.scheduler_config.enable_chunked_prefill)
