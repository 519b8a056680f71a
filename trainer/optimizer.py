"""Parameter groups and learning rates: AdamW, with its own warm-up and decay in each stage."""

import math
from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from trainer.recipe import OptimizerConfig, StageConfig


def group_of(name: str, objective: str) -> str:
    """Return the group of the parameter of that name: new, base or adapter."""
    if "lora_" in name:
        return "adapter"
    if objective in ("control", "pretraining"):
        return "base"
    return "base" if ".base." in f".{name}" else "new"


def choose(module: nn.Module, objective: str, rates: dict[str, float]) -> dict[str, list[nn.Parameter]]:
    """Let gradients reach exactly the groups that have a rate, and return their parameters by group."""
    chosen: dict[str, list[nn.Parameter]] = {group: [] for group in rates}
    for name, parameter in module.named_parameters():
        group = group_of(name, objective)
        parameter.requires_grad_(group in rates)
        if group in rates:
            chosen[group].append(parameter)
    return chosen


def parameters(module: nn.Module, objective: str, groups: Collection[str]) -> dict[str, nn.Parameter]:
    """Return the parameters of some groups by name, whether or not gradients reach them now."""
    return {name: parameter for name, parameter in module.named_parameters() if group_of(name, objective) in groups}


def build(groups: dict[str, list[nn.Parameter]], stage: StageConfig, settings: OptimizerConfig) -> torch.optim.AdamW:
    """Return an optimizer for a stage; vectors of a group are not decayed."""
    parts: list[dict[str, Any]] = []
    for group, parameters in groups.items():
        for decayed in (True, False):
            chosen = [parameter for parameter in parameters if (parameter.dim() > 1) == decayed]
            if chosen:
                decay = settings.weight_decay if decayed else 0.0
                rate = stage.rates[group]  # type: ignore[index]
                parts.append({"params": chosen, "weight_decay": decay, "peak": rate, "group": group, "lr": rate})
    return torch.optim.AdamW(parts, betas=settings.betas)


def factor(stage: StageConfig, done: int) -> float:
    """Return the share of the peak rate for the step after `done` steps of a stage.

    The rate rises over the warm-up, whose last step has the peak, and falls from there to its floor at the stage's last
    step. A warm-up longer than the stage takes all of it.
    """
    peak = max(0, min(stage.warmup, stage.steps) - 1)  # steps before the one that has the peak
    if done < peak:
        return (done + 1) / (peak + 1)
    along = (done - peak) / max(1, stage.steps - 1 - peak)
    fall = {"cosine": (1 + math.cos(math.pi * along)) / 2, "linear": 1 - along, "constant": 1.0}[stage.decay]
    return stage.floor + (1 - stage.floor) * fall
