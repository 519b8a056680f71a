"""The log of a run: a line of JSON every few steps, the same for TensorBoard, and a line on the terminal."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from data.run_folder import LOG, LogLine, read_lines, to_line
from model.atomic_files import append, atomic_write
from model.errors import ExportError
from model.progress import Tell
from trainer.checkpoint import Progress
from trainer.metrics import MetricSums
from trainer.recipe import StageConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_STAYS = "the last checkpoint is complete: free some room and run the same command again to resume"


class RunLogger:
    """Writes the log of one run, from a step on; later lines of an earlier sitting are removed."""

    def __init__(self, folder: Path, step: int, steps: int, tell: Tell) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._file, self._steps, self._tell = folder / LOG, steps, tell
        kept = [line for line in read_lines(self._file) if line.step <= step]
        atomic_write(self._file, "".join(map(to_line, kept)).encode())
        self._board: SummaryWriter = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def __enter__(self) -> RunLogger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._board.close()

    def write(self, line: LogLine) -> None:
        append(self._file, to_line(line).encode(), None, _STAYS)
        try:
            for name, value in _scalars(line).items():
                self._board.add_scalar(f"{line.split}/{name}", value, line.step)
        except OSError as error:
            raise ExportError(f"{self._board.log_dir} cannot be written ({error.strerror}); {_STAYS}") from error
        self._tell(_progress_message(line, self._steps), line.step / self._steps)


def log_line(
    tally: MetricSums, loss: float, progress: Progress, stage: StageConfig, split: str, **more: Any
) -> LogLine:
    of_train_only: dict[str, Any] = {"rates": {}, "gradient_norm": None, "tokens_per_second": None}
    return LogLine(
        step=progress.step,
        stage=stage.name,
        split="train" if split == "train" else "validation",
        seen=progress.seen,
        seconds=progress.seconds,
        loss=loss,
        stops=int(tally.other[0]),
        **{field.name: getattr(tally, field.name) for field in fields(LogLine) if hasattr(MetricSums, field.name)},
        **{**of_train_only, **more},
    )


def _scalars(line: LogLine) -> dict[str, float]:
    names = (
        "loss",
        "token_loss",
        "stop_loss",
        "teacher_loss",
        "hidden_loss",
        "accuracy",
        "stop_accuracy",
        "gradient_norm",
    )
    values = {name: getattr(line, name) for name in (*names, "tokens_per_second")}
    values |= {f"accuracy_at_{i}": value for i, value in enumerate(line.position_accuracy)}
    values |= {f"nll_at_{i}": value for i, value in enumerate(line.position_loss)}
    values |= {f"rate_{group}": rate for group, rate in line.rates.items()}
    return {name: value for name, value in values.items() if value is not None}


def _progress_message(line: LogLine, steps: int) -> str:
    places = " ".join("-" if value is None else f"{value:.3f}" for value in line.position_accuracy)
    parts = [f"{line.stage}, step {line.step:,} of {steps:,}: {line.split} loss {line.loss:.4f}", f"accuracy {places}"]
    if line.stop_accuracy is not None:
        parts.append(f"stops {line.stop_accuracy:.3f}")
    if line.tokens_per_second is not None:
        left = (steps - line.step) * line.seconds / max(1, line.step)
        parts.append(f"{line.tokens_per_second:,.0f} tokens/s, about {left / 60:.0f} min left")
    return ", ".join(parts)
