"""The training loop: stages, steps, validation, checkpoints. accelerate handles devices and processes.

A step's units are chosen from the seed and the step alone and distributed over processes. The loss is a mean over the
whole step, however many parts it is taken in, and random numbers are seeded anew at every step. A run that was stopped
thus resumes as if it had not been, and two processes follow the curve of one.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import Tensor, nn

from data.run_folder import CHECKPOINTS, FACTS, MODEL, RECIPE, Run, facts_json, read_facts, read_run
from data.yaml_config import dump_yaml
from model.atomic_files import atomic_write, make_folder
from model.errors import ExportError, MicroStepError, NumericalError
from model.progress import Tell
from trainer import checkpoint, optimizer
from trainer.batches.loader import tensor_of
from trainer.batches.prefetch import PreparedStep, prepared_steps
from trainer.checkpoint import Progress
from trainer.log import RunLogger, log_line
from trainer.metrics import MetricSums
from trainer.processes.replicated import ReplicatedWeights
from trainer.processes.sharded import ShardedWeights
from trainer.recipe import Recipe, StageConfig, Weighted, check_same_plan, same_recipe
from trainer.setup import RunSetup


class RunInterrupted(KeyboardInterrupt):
    """The run was stopped on request, after a checkpoint."""


@dataclass
class _StepSums:
    """The sums between two lines of the log."""

    tally: MetricSums
    norm: Tensor  # [] float64, on the device, so that no step waits for it
    steps: int = 0
    read: int = 0  # number of tokens
    seconds: float = 0.0

    def packed(self) -> tuple[float, ...]:
        """Return the sums as plain numbers, exactly."""
        return (
            *(float(self.norm), float(self.steps), float(self.read), self.seconds),
            *(self.tally.position.flatten().tolist()),
            *(self.tally.other.tolist()),
        )

    @classmethod
    def unpacked(cls, values: tuple[float, ...], positions: int, device: torch.device) -> _StepSums:
        """Restore sums from the result of `packed`."""
        zero = MetricSums.zeros(positions, device)
        if not values:
            return cls(zero, tensor_of([0.0], device).sum())
        n, m = zero.position.numel(), zero.other.numel()
        if len(values) < 4 + n + m:  # a checkpoint from before states were matched
            values = (*values, 0.0, 0.0)
        *_, norm, steps, read, seconds = values[: -n - m]  # an older checkpoint has one more value before these
        tally = MetricSums(
            tensor_of(values[-n - m : -m], device).view_as(zero.position), tensor_of(values[-m:], device)
        )
        return cls(tally, tensor_of([norm], device).sum(), int(steps), int(read), seconds)


class Trainer:
    def __init__(
        self, built: RunSetup, folder: Path, accelerator: Accelerator, tell: Tell, shard: bool = False
    ) -> None:
        self.built, self.recipe, self.folder = built, built.recipe, folder
        self.accelerator, self.tell = accelerator, tell
        self.device = accelerator.device
        self.checkpoints = folder / CHECKPOINTS
        self.weights = ShardedWeights(built, accelerator) if shard else ReplicatedWeights(built, accelerator)
        config = built.model.config  # a control's model has no such weights
        self._weights = {name: getattr(config, name) for name in get_args(Weighted) if hasattr(config, name)}
        self._asked_to_stop = False

    def run(self) -> Run:
        """Train from the newest checkpoint, or from the start, to the end.

        Raises:
            RunInterrupted: stopped by Ctrl-C or SIGTERM; a checkpoint of the last step was written.
            NumericalError: a loss, a gradient or a weight is NaN or infinite; the last checkpoint is good.
            ExportError: the disk is full, or the folder belongs to another recipe.
        """
        main = self.accelerator.is_main_process
        progress, last = Progress(), self._newest()
        if main:
            begin(self.folder, self.built)
        self.accelerator.wait_for_everyone()
        self.weights.place()
        if last is not None:
            progress = checkpoint.read_progress(last)
            self.weights.load(last, self._trained(progress.step), None)
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        steps = prepared_steps(self.built.feed, progress.step, rank, world, self.recipe.batch.accumulate, self.device)
        log = RunLogger(self.folder, progress.step, self.recipe.last_step, self.tell) if main else None
        with log or nullcontext(), self._signals():
            first = 0
            for stage in self.recipe.stages:
                if progress.step < min(first + stage.steps, self.recipe.last_step):
                    progress = self._stage(stage, first, progress, last, steps, log)
                    last = None
                first += stage.steps
        self.weights.export(self.folder / MODEL)
        self.accelerator.wait_for_everyone()
        return read_run(self.folder)

    def _newest(self) -> Path | None:
        """Return the checkpoint to start from: of this run, or else of the earlier run of its plan."""
        if (last := checkpoint.newest(self.checkpoints)) is not None or self.recipe.continues is None:
            return last
        folder = Path(self.recipe.continues)
        check_same_plan(folder, self.recipe)
        if read_facts(folder).base_revision != self.built.facts.base_revision:
            raise MicroStepError(f"continues: {folder} was trained on other weights of {self.recipe.base.name}")
        last = checkpoint.newest(folder / CHECKPOINTS)
        if last is None or checkpoint.read_progress(last).step >= self.recipe.last_step:
            have = "no checkpoint" if last is None else f"done {checkpoint.read_progress(last).step:,} steps"
            raise MicroStepError(f"continues: {folder} has {have}, and this run ends at {self.recipe.last_step:,}")
        return last

    def _stage(
        self,
        stage: StageConfig,
        first: int,
        progress: Progress,
        last: Path | None,
        steps: Iterator[PreparedStep],
        log: RunLogger | None,
    ) -> Progress:
        """Train one stage from the step in `progress`; `last` holds the optimizer if it is of this stage."""
        recipe, objective = self.recipe, self.built.objective
        for name, weight in {**self._weights, **stage.weights}.items():
            setattr(self.built.model.config, name, weight)
        groups = optimizer.choose(objective, recipe.objective, {str(g): r for g, r in stage.rates.items()})
        adam = optimizer.build(groups, stage, recipe.optimizer)
        if last is not None and progress.step > first:
            self.weights.load(last, self._trained(progress.step), adam)
        module, prepared = self.weights.prepare(adam)
        sums = _StepSums.unpacked(progress.since, self.built.positions, self.device)
        end = min(stage.steps, recipe.last_step - first)
        for done in range(progress.step - first, end):
            for group in prepared.param_groups:
                group["lr"] = group["peak"] * optimizer.factor(stage, done)
            began = time.monotonic()
            seen = self._step(module, prepared, next(steps), progress.step, sums)
            progress = replace(progress, step=progress.step + 1, seen=progress.seen + seen)
            ends, stop = done + 1 == end, self._stop()
            log_now = progress.step % recipe.log_every == 0 or ends
            if (
                log_now and self.device.type == "cuda"
            ):  # the time of this line is that of all steps since the line before
                torch.cuda.synchronize(self.device)
            took = time.monotonic() - began
            sums.seconds, progress = sums.seconds + took, replace(progress, seconds=progress.seconds + took)
            if log_now:
                self._log(stage, progress, sums, prepared, log)
                sums = _StepSums.unpacked((), self.built.positions, self.device)
            if progress.step % recipe.validation.every == 0 or ends:
                self._validate(module, stage, progress, log)
            if progress.step % recipe.checkpoint.every == 0 or ends or stop:
                self._save(replace(progress, since=sums.packed()), adam)
            if stop:
                raise RunInterrupted
        self.weights.release(module, prepared)
        return replace(progress, since=())

    def _step(self, module: nn.Module, adam: Any, step: PreparedStep, number: int, sums: _StepSums) -> int:
        """Do one optimizer step without waiting for the device; return the learned tokens of all processes."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        torch.manual_seed((self.recipe.seed * 1_000_003 + number) * 1009 + rank)
        for i, part in enumerate(step.parts, 1):
            with nullcontext() if i == len(step.parts) else self.weights.without_sync(module):
                with self.accelerator.autocast():
                    loss, tally = module(part.to(self.device), step.averaged_over)
                self.accelerator.backward(loss * world)  # gradients are averaged over processes
            sums.tally, sums.read = sums.tally + tally, sums.read + part.tokens
        norm = self.accelerator.clip_grad_norm_(module.parameters(), self.recipe.optimizer.clip)
        adam.step()
        adam.zero_grad()
        sums.norm, sums.steps = sums.norm + self.weights.total_norm(norm), sums.steps + 1
        return step.loss_tokens

    def _log(self, stage: StageConfig, progress: Progress, sums: _StepSums, adam: Any, log: RunLogger | None) -> None:
        read = float(self._over_processes(tensor_of([float(sums.read)], self.device)))
        tally = self._reduced(sums.tally)
        self._check_finite(self._whole_loss(tally), "training loss", tally, progress)
        self._check_finite(float(sums.norm), "gradient", tally, progress)
        if log is not None:
            more = {
                "rates": {group["group"]: group["lr"] for group in adam.param_groups},
                "gradient_norm": float(sums.norm) / sums.steps,
                "tokens_per_second": read / max(sums.seconds, 1e-9),
            }
            log.write(log_line(tally, self._whole_loss(tally), progress, stage, "train", **more))

    @torch.no_grad()
    def _validate(self, module: nn.Module, stage: StageConfig, progress: Progress, log: RunLogger | None) -> None:
        feed, rank, world = self.built.feed, self.accelerator.process_index, self.accelerator.num_processes
        batches = feed.held_out()
        if not batches:
            return
        tally = MetricSums.zeros(self.built.positions, self.device, rows=True)
        training_modules = [part_module for part_module in module.modules() if part_module.training]
        module.eval()
        for i in range(rank, -(-len(batches) // world) * world, world):  # in each process as many: they gather weights
            part = feed.part(batches[i] if i < len(batches) else batches[0][:0], held_out=True).to(self.device)
            _, sums = self._unwrapped(module)(part, (1, 1))
            tally = tally + sums
        self.weights.after_validation()
        for part_module in training_modules:
            part_module.training = True
        tally = self._reduced(tally)
        self._check_finite(self._whole_loss(tally), "validation loss", tally, progress)
        if log is not None:
            log.write(log_line(tally, self._whole_loss(tally), progress, stage, "validation"))

    def _check_finite(self, number: float, what: str, tally: MetricSums, progress: Progress) -> None:
        """Stop the run if a number of all processes, over the tokens of a tally, is NaN or infinite."""
        if tally.tokens and not math.isfinite(number):
            raise self._not_finite(what, progress)

    def _not_finite(self, what: str, progress: Progress) -> NumericalError:
        last = checkpoint.newest(self.checkpoints)
        kept = "no checkpoint was written before" if last is None else f"the last good checkpoint is {last}"
        return NumericalError(
            f"the {what} was NaN or infinite at step {progress.step:,}, so the run in {self.folder} was stopped:"
            f" {kept}; lower the learning rate, or train in float32, and start in another folder"
        )

    def _whole_loss(self, tally: MetricSums) -> float:
        """Combine the parts of the minimised loss, for train lines and validations alike."""
        config = self.built.model.config
        loss = getattr(config, "token_weight", 1.0) * tally.token_loss
        if tally.stop_loss is not None:
            loss += config.stop_weight * tally.stop_loss
        if tally.divergence is not None:
            loss += config.teacher_weight * tally.divergence
        if tally.hidden_part is not None:
            loss += config.hidden_weight * tally.hidden_part
        return loss

    def _unwrapped(self, module: nn.Module) -> Any:
        """Unwrap the module from its process wrapper, which would wait for gradients, but keep mixed precision."""

        def forward(*given: Any) -> Any:
            with self.accelerator.autocast():
                return self.accelerator.unwrap_model(module)(*given)

        return forward

    def _trained(self, step: int) -> dict[str, nn.Parameter]:
        """Return the parameters of all stages begun by a step; a stop in a later one keeps the earlier ones'."""
        groups, first = set[str](), 0
        for stage in self.recipe.stages:
            if first < step:
                groups |= set(stage.rates)
            first += stage.steps
        return optimizer.parameters(self.built.objective, self.recipe.objective, groups)

    def _save(self, progress: Progress, adam: torch.optim.Optimizer) -> None:
        if (damaged := self.weights.damaged()) is not None:
            raise self._not_finite(f"weight {damaged}", progress)
        self.weights.save(self.checkpoints, progress, self._trained(progress.step), adam)
        if self.accelerator.is_main_process:
            checkpoint.prune(self.checkpoints, self.recipe.checkpoint.keep)
        self.accelerator.wait_for_everyone()

    def _reduced(self, tally: MetricSums) -> MetricSums:
        rows = None if tally.rows is None else self._over_processes(tally.rows)
        return MetricSums(self._over_processes(tally.position), self._over_processes(tally.other), rows)

    def _over_processes(self, values: Tensor) -> Tensor:
        summed: Tensor = self.accelerator.reduce(values.clone(), "sum")
        return summed

    def _stop(self) -> bool:
        if self.accelerator.num_processes == 1:
            return self._asked_to_stop
        asked = self._over_processes(tensor_of([float(self._asked_to_stop)], self.device))
        return bool(asked.item())

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Let Ctrl-C and SIGTERM end the run after the present step; a second one ends it at once."""

        def request_stop(number: int, _: FrameType | None) -> None:
            if self._asked_to_stop:
                raise KeyboardInterrupt
            self._asked_to_stop = True
            self.tell("stopping after this step", None)

        before = {number: signal.signal(number, request_stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def accelerator_for(recipe: Recipe, device: str = "auto") -> Accelerator:
    """Return the accelerator, which handles devices, processes and mixed precision."""
    precision = "bf16" if recipe.precision == "bfloat16" else "no"
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)  # a part may hold no segment of two tokens
    return Accelerator(mixed_precision=precision, cpu=device == "cpu", kwargs_handlers=[unused])


def begin(folder: Path, built: RunSetup) -> None:
    """Write what identifies the run, or check that the folder holds the same run."""
    make_folder(folder)
    file = folder / RECIPE
    if file.exists() and not same_recipe(folder, built.recipe):
        raise ExportError(
            f"{folder} holds a run of another recipe (see {file}); give --out another folder, or remove this one"
        )
    if (folder / FACTS).exists():
        begun = read_facts(folder)
        if begun.data_hash != built.facts.data_hash:
            raise ExportError(f"{folder} was trained on other data; give --out another folder, or remove this one")
        if begun.base_revision != built.facts.base_revision:
            raise ExportError(
                f"{folder} was begun on other weights of {begun.base} ({begun.base_revision}, now"
                f" {built.facts.base_revision}); give --out another folder, or remove this one"
            )
    atomic_write(file, dump_yaml(built.recipe).encode())
    atomic_write(folder / FACTS, facts_json(built.facts))
