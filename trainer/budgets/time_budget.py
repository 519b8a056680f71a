"""A budget of time or of operations: as many steps as fit into it, after measuring or counting a few steps.

The measured steps train nothing (their rate is 0). The number of steps is written into the run's recipe: a run that was
stopped resumes with the same steps, and its schedule follows them as if they had been requested.
"""

import time
from dataclasses import replace
from pathlib import Path

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from data.run_folder import RECIPE
from data.yaml_config import read_yaml
from model.causal_lm.device_speed import wait_for
from model.progress import Tell
from trainer import optimizer
from trainer.batches.loader import Feed, tensor_of
from trainer.batches.prefetch import prepared_steps
from trainer.batches.sampler import RowBatch
from trainer.budgets.flops import training_flops
from trainer.recipe import Recipe, same_recipe, with_steps
from trainer.setup import RunSetup, stage_facts

_SECONDS, _MAX_STEPS, _MIN_STEPS, _WARM_UP_STEPS = 3.0, 50, 3, 2  # for measuring a stage
_COUNTED_STEPS = 300  # whose operations are counted: batches of few long rows vary by a tenth over 50 steps


def fit(built: RunSetup, folder: Path, accelerator: Accelerator, tell: Tell) -> RunSetup:
    """Return the run with stages that fill its budget in proportion; unchanged without a budget."""
    recipe = built.recipe
    if recipe.minutes is None and recipe.flops is None:
        return built
    if (folder / RECIPE).is_file() and same_recipe(folder, recipe):
        fitted = read_yaml(folder / RECIPE, Recipe)
    elif recipe.flops is not None:
        fitted = fitted_to_flops(recipe, mean_flops(built.model, built.feed))
        tell(f"{fitted.steps:,} steps fit into {recipe.flops:.3g} operations", None)
    else:
        tell(f"measuring how many steps fit into {recipe.minutes:g} minutes", None)
        fitted = fitted_to(recipe, _seconds_a_step(built, accelerator), _seconds_a_validation(built, accelerator))
        tell(f"{fitted.steps:,} steps fit into {recipe.minutes:g} minutes", None)
    stages = stage_facts(fitted)
    return replace(built, recipe=fitted, facts=replace(built.facts, steps=fitted.steps, stages=stages))


def fitted_to_flops(recipe: Recipe, a_step: float) -> Recipe:
    """Return a recipe with as many steps as fit into its budget of operations."""
    assert recipe.flops is not None
    shares = [stage.steps / recipe.steps for stage in recipe.stages]
    return with_steps(recipe, [max(1, int(share * recipe.flops / a_step)) for share in shares])


def mean_flops(model: PreTrainedModel, feed: Feed) -> float:
    """Return the mean operations of a training step, over the first steps. Every stage counts as if it trained all.

    Raises:
        MicroStepError: as `training_flops`.
    """
    parts = [feed.part(chosen) for chosen, _ in zip(feed.steps(), range(_COUNTED_STEPS), strict=False)]
    return sum(training_flops(model, part) for part in parts if isinstance(part, RowBatch)) / len(parts)


def fitted_to(recipe: Recipe, seconds: list[float], a_validation: float = 0.0) -> Recipe:
    """Return a recipe with as many steps as fit into its minutes."""
    assert recipe.minutes is not None
    shares = [stage.steps / recipe.steps for stage in recipe.stages]
    a_step = sum(share * took for share, took in zip(shares, seconds, strict=True))
    left = 60 * recipe.minutes - a_validation * len(recipe.stages)
    total = left / (a_step + a_validation / recipe.validation.every)
    return with_steps(recipe, [max(1, int(share * total)) for share in shares])


def _seconds_a_step(built: RunSetup, accelerator: Accelerator) -> list[float]:
    """Return the mean time of each stage's steps, over all processes, input included."""
    recipe, times = built.recipe, []
    built.objective.to(accelerator.device)
    for stage in recipe.stages:
        groups = optimizer.choose(built.objective, recipe.objective, {str(g): 0.0 for g in stage.rates})
        frozen_stage = stage.model_copy(update={"rates": dict.fromkeys(stage.rates, 0.0)})
        module, adam = accelerator.prepare(built.objective, optimizer.build(groups, frozen_stage, recipe.optimizer))
        rank, world = accelerator.process_index, accelerator.num_processes
        steps = prepared_steps(built.feed, 0, rank, world, recipe.batch.accumulate, accelerator.device)
        began, done = 0.0, -_WARM_UP_STEPS
        while done < _MIN_STEPS or (done < _MAX_STEPS and time.monotonic() - began < _SECONDS):
            if done == 0:
                wait_for(accelerator.device)
                began = time.monotonic()
            step = next(steps)
            for part in step.parts:
                loss, _ = module(part.to(accelerator.device), step.averaged_over)
                accelerator.backward(loss)
            accelerator.clip_grad_norm_(module.parameters(), recipe.optimizer.clip)
            adam.step()
            adam.zero_grad()
            done += 1
            wait_for(accelerator.device)
        times.append((time.monotonic() - began) / done)
        steps.close()  # type: ignore[attr-defined]
        accelerator.free_memory(module, adam)
    return _mean(times, accelerator)


@torch.no_grad()
def _seconds_a_validation(built: RunSetup, accelerator: Accelerator) -> float:
    """Return the time of one validation, estimated from its first batches."""
    batches = built.feed.held_out()
    if not batches:
        return 0.0
    measured = batches[: _MIN_STEPS + 1]
    for i, chosen in enumerate(measured):
        if i == min(1, len(measured) - 1):  # the first one warms up, if there is another
            wait_for(accelerator.device)
            began = time.monotonic()
        with accelerator.autocast():
            built.objective(built.feed.part(chosen, held_out=True).to(accelerator.device), (1, 1))
    wait_for(accelerator.device)
    a_batch = (time.monotonic() - began) / max(1, len(measured) - 1)
    return _mean([a_batch * len(batches) / accelerator.num_processes], accelerator)[0]


def _mean(values: list[float], accelerator: Accelerator) -> list[float]:
    """Average over processes, so that all use the same number of steps."""
    means: list[float] = accelerator.reduce(tensor_of(values, accelerator.device), "mean").tolist()
    return means
