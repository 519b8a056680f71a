"""Every process holds all weights, and gradients are averaged over processes."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from model.causal_lm.finite import damaged_weights
from trainer import checkpoint
from trainer.checkpoint import Progress, Trained
from trainer.setup import RunSetup


class ReplicatedWeights:
    def __init__(self, built: RunSetup, accelerator: Accelerator) -> None:
        self.built, self.accelerator = built, accelerator

    def place(self) -> None:
        self.built.objective.to(self.accelerator.device)

    def prepare(self, adam: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        module, prepared = self.accelerator.prepare(self.built.objective, adam)
        return module, prepared

    def without_sync(self, module: nn.Module) -> AbstractContextManager[None]:
        without: AbstractContextManager[None] = self.accelerator.no_sync(module)
        return without

    def after_validation(self) -> None:
        pass

    def total_norm(self, norm: Tensor) -> Tensor:
        return norm

    def damaged(self) -> str | None:
        return damaged_weights(self.built.objective)

    def save(self, folder: Path, progress: Progress, trained: Trained, adam: torch.optim.Optimizer) -> None:
        if self.accelerator.is_main_process:
            checkpoint.save(folder, progress, trained, adam, self.built.export)

    def load(self, path: Path, trained: Trained, adam: torch.optim.Optimizer | None) -> None:
        checkpoint.load(path, trained, adam)

    def export(self, folder: Path) -> None:
        if self.accelerator.is_main_process:
            self.built.export(folder)

    def release(self, module: nn.Module, prepared: Any) -> None:
        self.accelerator.free_memory(module, prepared)
