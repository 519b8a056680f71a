"""The modules of a micro_step model around vLLM's base: a model whose base has embeddings and head, but no layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from model.decoding.lossless import Drafter
from model.errors import ModelError
from model.micro_step.configuration import MicroStepConfig
from model.micro_step.pretrained import MicroStepPreTrainedModel, move_weights
from model.micro_step.saving import MODULES


def read_config(modules: Path) -> MicroStepConfig:
    """Return the configuration of saved modules.

    Raises:
        ModelError: the folder holds none, or keeps its LoRA adapter apart from the base.
    """
    if not (modules / MODULES).is_file():
        raise ModelError(
            f"{modules} holds no modules of a micro_step model; write them with: micro-step model convert MODEL --to"
            " vllm --out FOLDER"
        )
    config: MicroStepConfig = MicroStepConfig.from_pretrained(modules)
    if not config.prompt_adapter:
        raise ModelError(
            f"{modules} reads its prompts without its adapter, which vLLM cannot: serve it without --engine"
        )
    if config.adapter is not None:
        raise ModelError(
            f"{modules} keeps its LoRA adapter apart, which vLLM's base does not have: convert the model again without"
            " --keep-adapter"
        )
    return config


class _Embedding(nn.Module):
    """The embeddings of vLLM's model."""

    def __init__(self, target: Any) -> None:
        super().__init__()
        self._embed = target.embed_input_ids

    def forward(self, ids: Tensor) -> Tensor:
        """Return [.., d] for ids [..]."""
        embeds: Tensor = self._embed(ids.reshape(-1))
        return embeds.view(*ids.shape, -1)


class ModulesAround(MicroStepPreTrainedModel):
    """Merger, micro decoder and stop head of a folder, around a model that vLLM has loaded.

    Args:
        config: of the modules.
        modules: their folder.
        target: vLLM's model, whose embeddings and head are shared.
        device: of the modules.
        dtype: of the modules' weights.
    """

    def __init__(
        self, config: MicroStepConfig, modules: Path, target: Any, device: torch.device, dtype: torch.dtype
    ) -> None:
        from safetensors.torch import load_file
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(config.base_config)
        with torch.device(device):
            super().__init__(config, base)
        weights = load_file(modules / MODULES)
        missing, unexpected = self.load_state_dict(weights, strict=False)
        if unexpected or any(not name.startswith("base.") for name in missing):
            raise ModelError(f"{modules} does not fit its configuration")
        head = _head(target)[: config.vocab_size]
        own = nn.Linear(config.hidden_size, len(head), bias=False, device="meta")
        own.weight = nn.Parameter(head, requires_grad=False)
        base.set_output_embeddings(own)
        for part in (self.merger, self.micro, self.stop):
            if part is not None:
                move_weights(part, device, dtype)
        self._place, self._embedding = device, (_Embedding(target),)  # in a tuple, as its weights are vLLM's
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the modules are."""
        return self._place

    def get_input_embeddings(self) -> nn.Module:
        """The embeddings of vLLM's model."""
        return self._embedding[0]


class EngineDrafter(Drafter):
    """Drafts with the head of vLLM's model."""

    def __init__(self, model: ModulesAround, target: Any) -> None:
        super().__init__(model)
        self._target = target
        processor = getattr(target, "logits_processor", None)
        self._scale, self._cap = getattr(processor, "scale", 1.0), getattr(processor, "soft_cap", None)

    def logits(self, state: Tensor) -> Tensor:
        """Return float32 logits [G, W] of the words that may be drafted, from the micro decoder's states [G, d]."""
        if not len(self.words):
            whole: Tensor = self._target.compute_logits(state)
            return whole.float()
        logits: Tensor = cast(nn.Linear, self.head.get_output_embeddings())(state).float() * self._scale
        return logits if self._cap is None else torch.tanh(logits / self._cap) * self._cap


def _head(target: Any) -> Tensor:
    head = getattr(getattr(target, "lm_head", None), "weight", None)
    if head is None or not head.is_floating_point():
        raise ModelError(f"{type(target).__name__} of vLLM has no plain head, so micro_step cannot draft with it")
    return cast(Tensor, head)
