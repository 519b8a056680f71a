"""The entry point of the plugin for vLLM, and the proposer that `--speculative-config` names."""

from __future__ import annotations

from serving.vllm_plugin.drafter import MicroStepDrafter
from serving.vllm_plugin.hooks import register

__all__ = ["MicroStepDrafter", "register"]
