"""The entry point of the plugin for vLLM, and the proposers that `--speculative-config` names one of."""

from __future__ import annotations

from serving.vllm_plugin.drafter import MicroStepDrafter
from serving.vllm_plugin.hooks import register
from serving.vllm_plugin.merged import MergedWriter

__all__ = ["MergedWriter", "MicroStepDrafter", "register"]
