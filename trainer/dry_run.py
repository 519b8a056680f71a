"""Estimate a run before it is started: parameters, memory, tokens, time. Steps are measured, but nothing is trained."""

import resource
import sys
import time
from dataclasses import dataclass, replace

import torch

from data.prepared import examples_file, read_prepared
from data.states.files import bytes_per_position
from data.states.recording import chosen_layers
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell
from trainer.batches.dataset import rows_of
from trainer.batches.hidden_state_cache import kept_count, positions
from trainer.batches.kept import needed_states
from trainer.batches.loader import RowFeed, mean_tokens
from trainer.batches.sampler import RowBatch
from trainer.budgets.time_budget import fitted_to, fitted_to_flops, mean_flops
from trainer.draft_objective import DraftBatch, DraftObjective, draft_steps
from trainer.objectives import objective_over_rows
from trainer.optimizer import choose
from trainer.recipe import Recipe
from trainer.run import RunPaths
from trainer.setup import build_model, parameters_of

_MOMENTS = 8  # bytes per trained parameter: two float32 numbers
_MEASURED_STEPS = 3


@dataclass(frozen=True)
class Plan:
    parameters: dict[str, int]  # parameter counts of each trained group, and of `frozen`
    memory: int  # peak memory of one process in bytes
    tokens: int | None  # learned tokens of all steps; None if the data is not prepared yet
    epochs: float | None
    states: int | None  # size of the base's states on disk in bytes, for a draft or a teacher
    seconds: float | None  # time of all steps on this device alone; None if the data is not prepared yet
    notes: tuple[str, ...]

    @property
    def text(self) -> str:
        lines = [f"{group:<10} {count:>14,} parameters" for group, count in self.parameters.items()]
        lines.append(f"memory     {self.memory / 1e9:>14.2f} GB at the peak: measured on a step, plus the optimizer")
        if self.tokens is not None and self.epochs is not None:
            lines.append(f"tokens     {self.tokens:>14,} learned, {self.epochs:.2f} epochs")
        if self.states is not None:
            lines.append(f"disk       {self.states / 1e9:>14.2f} GB of states")
        if self.seconds is not None:
            lines.append(f"time       {self.seconds / 60:>14.1f} min, from {_MEASURED_STEPS} steps here, one process")
        return "\n".join([*lines, *self.notes])


def plan(recipe: Recipe, places: RunPaths, device: str, tell: Tell) -> Plan:
    """Estimate a run. Data that is not prepared yet is left unprepared."""
    folder = places.prepared_for(recipe)
    ready = examples_file(folder).is_file()
    rows = prepared = None
    if ready:
        prepared = read_prepared(folder)
        rows = rows_of(prepared, recipe)
    model, _, _ = build_model(recipe, device, tell, None if rows is None else rows.train)
    parameters = parameters_of(recipe, model)
    trained = sum(count for group, count in parameters.items() if group != "frozen")
    if rows is None or prepared is None:
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        note = f"{folder} is not prepared yet: tokens, time and the memory of a step are unknown"
        return Plan(parameters, weights + trained * (4 + _MOMENTS), None, None, None, None, (note,))
    states = None
    if (spec := needed_states(recipe, places.states_for(recipe))) is not None:
        assert isinstance(model, MicroStepForCausalLM)
        each = bytes_per_position(spec, chosen_layers(model.config.num_hidden_layers, spec), model.config)
        states = kept_count(prepared) * each
    if recipe.objective == "draft":
        assert isinstance(model, MicroStepForCausalLM)
        objective: torch.nn.Module = DraftObjective(model)
        row, _ = positions(rows.train)
        chosen = draft_steps(row, rows.repeat, recipe.batch.tokens, recipe.draft.every, recipe.seed)
        size = len(next(chosen))
        shape = (size, len(model.config.context_layers), model.config.hidden_size)
        max_length = recipe.segmentation.max_length
        blank = torch.zeros(size, max_length, dtype=torch.long)
        parts = [DraftBatch(torch.zeros(shape), blank, torch.ones_like(blank, dtype=torch.bool))] * _MEASURED_STEPS
        a_step, an_epoch = (
            size * (max_length - 1.0),
            float(rows.repeat[row].sum()) / recipe.draft.every * (max_length - 1),
        )
    else:
        feed = RowFeed(recipe, rows.train, rows.repeat, rows.held_out)
        objective = objective_over_rows(model, recipe.prompt_gradients)
        parts = [feed.part(chosen) for chosen, _ in zip(feed.steps(), range(_MEASURED_STEPS), strict=False)]  # type: ignore[misc]
        if recipe.teacher:
            assert isinstance(model, MicroStepForCausalLM)
            parts = [_with_blank_teacher(part, model, recipe) for part in parts]  # type: ignore[arg-type, misc]
        a_step, an_epoch = mean_tokens(feed), float(rows.train.loss_tokens @ rows.repeat)
    seconds, memory = _measure(objective, recipe, parts)
    steps, notes = recipe.last_step, rows.notes
    if recipe.flops is not None:
        steps = fitted_to_flops(recipe, mean_flops(model, feed)).steps
        notes = (*notes, f"{steps:,} steps fit {recipe.flops:.3g} operations")
    if recipe.minutes is not None:
        steps = fitted_to(recipe, [seconds] * len(recipe.stages)).steps
        notes = (*notes, f"about {steps:,} steps fit {recipe.minutes:g} minutes here")
    return Plan(
        parameters,
        memory + trained * _MOMENTS,
        round(a_step * steps),
        a_step * steps / an_epoch,
        states,
        seconds * steps,
        notes,
    )


def _with_blank_teacher(part: RowBatch, model: MicroStepForCausalLM, recipe: Recipe) -> RowBatch:
    """Add a blank teacher to a part, since the cost of a measured step includes it."""
    if recipe.teacher_top is not None:
        ids = torch.zeros(*part.ids.shape, recipe.teacher_top, dtype=torch.int32)
        return replace(part, teacher_ids=ids, teacher_probability=torch.zeros(ids.shape))
    layers = [len(model.config.context_layers)] if recipe.matches_states else []
    return replace(part, teacher=torch.zeros(*part.ids.shape, *layers, int(model.config.hidden_size)))


def _measure(objective: torch.nn.Module, recipe: Recipe, parts: list[DraftBatch]) -> tuple[float, int]:
    """Return the mean seconds of a step's forward and backward pass after the first, and the peak memory in bytes."""
    choose(objective, recipe.objective, dict.fromkeys(recipe.groups, 1.0))
    device = next(objective.parameters()).device
    took = []
    for part in parts:
        began = time.monotonic()
        with torch.autocast(device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            loss, _ = objective(part.to(device), (max(1, part.tokens), max(1, part.tokens)))
        loss.backward()
        took.append(time.monotonic() - began)
    objective.zero_grad()
    if device.type == "cuda":
        return sum(took[1:]) / len(took[1:]), int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return sum(took[1:]) / len(took[1:]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
