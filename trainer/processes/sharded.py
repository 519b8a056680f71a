"""Every process holds a part of each weight, of its gradient and of its moments: PyTorch's FSDP2.

The layers of the base, and the rest of the model, are gathered when they are needed. Checkpoints are written in parts,
one file for each process, and any number of processes reads them:

    CHECKPOINTS/step-00000100/weights/    safetensors, as torch.distributed.checkpoint writes them for Hugging Face
    CHECKPOINTS/step-00000100/optimizer/
    CHECKPOINTS/step-00000100/state.json

Only at the end, the main process gathers the trained weights, one at a time, to write the model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from model.causal_lm.parts import body, layers_of
from model.errors import MicroStepError, ModelBroken
from model.micro_step.modeling import MicroStepForCausalLM
from trainer import checkpoint, optimizer
from trainer.checkpoint import Progress, Trained
from trainer.metrics import MetricSums
from trainer.setup import RunSetup

WEIGHTS, OPTIMIZER = "weights", "optimizer"


class ShardedWeights:
    def __init__(self, built: RunSetup, accelerator: Accelerator) -> None:
        if not torch.distributed.is_initialized():
            raise MicroStepError("--shard needs processes to share the weights: start it with torchrun")
        self.built, self.accelerator = built, accelerator
        self.whole: nn.Module | None = None  # in the main process: where the trained weights are gathered to
        if accelerator.is_main_process:
            self.whole = copy.deepcopy(built.objective)

    def place(self) -> None:
        """Shard the layers of the base one by one, and then the rest, and put them on their devices."""
        objective, model = self.built.objective, self.built.model
        mesh = init_device_mesh(self.accelerator.device.type, (self.accelerator.num_processes,))
        layers = layers_of(body(model.base if isinstance(model, MicroStepForCausalLM) else model))
        in_layers = {id(parameter) for layer in layers for parameter in layer.parameters()}
        others = [name for name, parameter in objective.named_parameters() if id(parameter) not in in_layers]
        half = torch.bfloat16 if self.built.recipe.precision == "bfloat16" else None
        # in bfloat16 already, or autocast would keep a copy of each gathered weight until the backward pass
        precision = MixedPrecisionPolicy(param_dtype=half, reduce_dtype=torch.float32, cast_forward_inputs=False)
        for layer in layers:
            fully_shard(layer, mesh=mesh, mp_policy=precision)
        objective.register_forward_hook(_using(others))  # runs before the hook of FSDP that may shard them again
        fully_shard(objective, mesh=mesh)

    def prepare(self, adam: torch.optim.Optimizer) -> tuple[nn.Module, Any]:
        return self.built.objective, adam

    @contextmanager
    def without_sync(self, module: nn.Module) -> Iterator[None]:
        root = cast(FSDPModule, module)
        root.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            root.set_requires_gradient_sync(True)

    def after_validation(self) -> None:
        """Shard again what only the end of a backward pass does otherwise."""
        cast(FSDPModule, self.built.objective).reshard()

    def total_norm(self, norm: Tensor) -> Tensor:
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def damaged(self) -> str | None:
        """Return the name of the first weight of which any process holds NaN or infinity, or None."""
        weights = {name: w for name, w in self.built.objective.named_parameters() if w.is_floating_point()}
        bad = torch.stack([(~_local(weight).isfinite()).any() for weight in weights.values()]).float()
        found = self.accelerator.reduce(bad, "sum").nonzero().flatten().tolist()
        return list(weights)[found[0]] if found else None

    def save(self, folder: Path, progress: Progress, trained: Trained, adam: torch.optim.Optimizer) -> None:
        """Write a checkpoint beside its place, every process its part, and move it there."""
        part, main = checkpoint.part_of(folder, progress), self.accelerator.is_main_process
        try:
            if main:
                checkpoint.begin_part(part)
            self.accelerator.wait_for_everyone()
            weights = {name: parameter.detach() for name, parameter in trained.items()}
            for name, tensors in ((WEIGHTS, weights), (OPTIMIZER, checkpoint.moments_of(trained, adam))):
                writer = HuggingFaceStorageWriter(str(part / name), save_distributed=True)
                save(tensors, storage_writer=writer)
            if main:
                checkpoint.finish_part(part, progress)
        except (OSError, CheckpointException) as error:
            raise checkpoint.not_written(part, error) from error
        except BaseException:  # a second Ctrl-C
            checkpoint.remove_part(part)
            raise
        self.accelerator.wait_for_everyone()

    def load(self, path: Path, trained: Trained, adam: torch.optim.Optimizer | None) -> None:
        if not (path / WEIGHTS).is_dir():
            raise ModelBroken(f"{path} was written without --shard: resume it without")
        try:
            _read(path / WEIGHTS, {name: parameter.detach() for name, parameter in trained.items()})
            if adam is not None:
                _load_moments(path / OPTIMIZER, trained, adam)
        except (OSError, ValueError, KeyError, RuntimeError, CheckpointException) as error:
            raise checkpoint.broken(path, error) from error

    def export(self, folder: Path) -> None:
        """Gather the trained weights in the main process, one at a time, and write the model."""
        objective, recipe = self.built.objective, self.built.recipe
        into = dict(self.whole.named_parameters()) if self.whole is not None else {}
        for name, parameter in optimizer.parameters(objective, recipe.objective, recipe.groups).items():
            gathered = cast(DTensor, parameter.detach()).full_tensor()
            if name in into:
                into[name].detach().copy_(gathered)
        if self.whole is not None:
            model = cast(PreTrainedModel, self.whole.model)
            model.config = self.built.model.config  # with the weights of the last stage's loss
            replace(self.built, objective=self.whole, model=model).export(folder)

    def release(self, module: nn.Module, prepared: Any) -> None:
        pass  # the module stays sharded for the next stage


def _using(names: Sequence[str]) -> Callable[[nn.Module, Any, Any], Any]:
    """Return a hook that lets gradients, if only zeros, reach these weights in every process.

    Processes reduce the same gradients together, but a part of a step may hold no segment of two tokens, so that one of
    them would not use the micro decoder.
    """

    def hook(module: nn.Module, _: Any, output: tuple[Tensor, MetricSums]) -> tuple[Tensor, MetricSums]:
        loss, tally = output
        if torch.is_grad_enabled():
            weights = (module.get_parameter(name) for name in names)
            loss = loss + sum(0 * weight.sum() for weight in weights if weight.requires_grad)
        return loss, tally

    return hook


def _local(weight: Tensor) -> Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight


def _load_moments(folder: Path, trained: Trained, adam: torch.optim.Optimizer) -> None:
    stored = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    now = {id(parameter) for group in adam.param_groups for parameter in group["params"]}
    for name, parameter in trained.items():
        if id(parameter) in now and f"{name}/step" in stored:
            moments = {key: torch.zeros_like(parameter.detach()) for key in ("exp_avg", "exp_avg_sq")}
            adam.state[parameter] = {"step": torch.tensor(0.0), **moments}
    _read(folder, checkpoint.moments_of(trained, adam))


def _read(folder: Path, into: dict[str, Tensor]) -> None:
    load(into, storage_reader=HuggingFaceStorageReader(str(folder)))
