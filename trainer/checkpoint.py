"""Checkpoints of a run: complete or absent, and enough to resume with the same losses, bit for bit.

    CHECKPOINTS/step-00000100/model/                 opens like any model
    CHECKPOINTS/step-00000100/weights.safetensors    weights trained in this stage and earlier ones, in full precision
    CHECKPOINTS/step-00000100/optimizer.safetensors  its moments
    CHECKPOINTS/step-00000100/state.json             the step, and the sums since the last line of the log

No state of a random generator is stored: each step seeds it anew.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from model.atomic_files import flush_folder
from model.errors import ExportError, ModelBroken
from model.reading.json_text import parse_json

Trained = Mapping[str, nn.Parameter]  # parameters by name
STATE, WEIGHTS, OPTIMIZER, OPENS = "state.json", "weights.safetensors", "optimizer.safetensors", "model"


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    step: int = 0  # number of steps done
    seen: int = 0  # number of learned tokens so far
    seconds: float = 0.0  # training time over all sittings
    since: tuple[float, ...] = ()  # sums since the last line of the log


def save(
    folder: Path,
    progress: Progress,
    trained: Trained,
    optimizer: torch.optim.Optimizer,
    export: Callable[[Path], None],
) -> Path:
    """Write a checkpoint beside its place and move it there."""
    part = part_of(folder, progress)
    try:
        begin_part(part)
        for file, tensors in ((WEIGHTS, trained), (OPTIMIZER, moments_of(trained, optimizer))):
            save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part / file)
        export(part / OPENS)
        return finish_part(part, progress)
    except (OSError, SafetensorError) as error:
        raise not_written(part, error) from error
    except BaseException:  # a second Ctrl-C
        remove_part(part)
        raise


def part_of(folder: Path, progress: Progress) -> Path:
    """Return the folder in which a checkpoint is written, beside its place."""
    return folder / f"step-{progress.step:08d}.part"


def begin_part(part: Path) -> None:
    """Make the folder, empty."""
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)


def finish_part(part: Path, progress: Progress) -> Path:
    """Say how far the checkpoint is, and move it to its place."""
    (part / STATE).write_text(json.dumps(asdict(progress)) + "\n", "utf-8")
    flush_folder(part)
    final = part.with_suffix("")
    shutil.rmtree(final, ignore_errors=True)
    part.replace(final)
    return final


def remove_part(part: Path) -> None:
    """Remove what was written of a checkpoint."""
    shutil.rmtree(part, ignore_errors=True)


def not_written(part: Path, error: BaseException) -> ExportError:
    """Remove what was written, and return the error for the user."""
    remove_part(part)
    return ExportError(
        f"the checkpoint {part.with_suffix('')} cannot be written ({_reason(error)}); the one before is complete: free"
        " some room and run the same command again to resume"
    )


def newest(folder: Path) -> Path | None:
    """Return the latest complete checkpoint, or None."""
    complete = [path for path in folder.glob("step-*") if path.suffix != ".part" and (path / STATE).is_file()]
    return max(complete, default=None)


def read_progress(path: Path) -> Progress:
    """Return how far a checkpoint is."""
    try:
        state = parse_json((path / STATE).read_text("utf-8"))
        return Progress(**{**state, "since": tuple(state["since"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise broken(path, error) from error


def load(path: Path, trained: Trained, optimizer: torch.optim.Optimizer | None) -> None:
    """Load a checkpoint onto the devices of the parameters.

    Args:
        path: path of the checkpoint.
        trained: every parameter that was trained by then.
        optimizer: optimizer of the present stage; None: that stage is over, and only the weights are loaded.
    """
    try:
        weights = load_file(path / WEIGHTS)
        if missing := sorted(trained.keys() - weights.keys()):
            raise ModelBroken(
                f"{path} lacks weights that an earlier stage trained ({missing[0]} and {len(missing) - 1} more): it was"
                " written by a version that stored only the last stage's weights; start again in another folder (--out)"
            )
        with torch.no_grad():
            for name, weight in weights.items():
                trained[name].copy_(weight)
        if optimizer is not None:
            _load_moments(load_file(path / OPTIMIZER), trained, optimizer)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise broken(path, error) from error


def prune(folder: Path, keep: int) -> None:
    """Remove all checkpoints except the newest ones, and what a killed run left of one."""
    for part in folder.glob("step-*.part"):
        shutil.rmtree(part, ignore_errors=True)
    for path in sorted(path for path in folder.glob("step-*") if path.suffix != ".part")[:-keep]:
        shutil.rmtree(path, ignore_errors=True)


def broken(path: Path, error: BaseException) -> ModelBroken:
    return ModelBroken(
        f"{path} is damaged or belongs to another recipe ({_reason(error)}); remove it to resume from the one before"
    )


def moments_of(named: Trained, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimizer's moments, by the names of parameter and moment."""
    return {
        f"{name}/{key}": torch.as_tensor(value)
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def _load_moments(moments: dict[str, Tensor], named: Trained, optimizer: torch.optim.Optimizer) -> None:
    held: dict[str, dict[str, Any]] = {}
    for name, value in moments.items():
        parameter, _, key = name.rpartition("/")
        device = torch.device("cpu") if key == "step" else named[parameter].device  # where AdamW keeps it
        held.setdefault(parameter, {})[key] = value.to(device)
    for parameter, state in held.items():
        optimizer.state[named[parameter]] = state


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error).strip().splitlines()[0]
