"""The folder of a training run: what the trainer writes there, and how it is read again.

    RUN/recipe.yaml                     the recipe as it was resolved, every default written out
    RUN/run.json                        what the run is of: `RunFacts`
    RUN/log.jsonl                       a line each so many steps, and one a validation: `LogLine`
    RUN/checkpoints/step-00000100/      model/ opens like any model; the rest is for going on
    RUN/model/                          written when the run has ended

Knows nothing about training itself. A line that is being written while it is read is left out.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from model.errors import TextError

RECIPE, FACTS, LOG, CHECKPOINTS, MODEL = "recipe.yaml", "run.json", "log.jsonl", "checkpoints", "model"
FORMAT = "micro_step run 1"

Split = Literal["train", "validation"]


@dataclass(frozen=True)
class StageFacts:
    """One stage of a run."""

    name: str
    first: int
    """Its first step, from 1."""
    last: int
    rates: dict[str, float]
    """Peak learning rate of each group of parameters that it trains."""


@dataclass(frozen=True)
class RunFacts:
    """What a run is of, known before its first step."""

    name: str
    objective: str
    """micro_step, draft, control or pretraining."""
    base: str
    """Name of the base, or of the configuration it starts from."""
    base_revision: str | None
    data: str
    """Name of the prepared data."""
    data_hash: str
    """Of its examples and scores."""
    steps: int
    stages: tuple[StageFacts, ...]
    parameters: dict[str, int]
    """Of each group that is trained at some stage, and of `frozen`."""
    tokens_per_step: float
    """Labelled tokens of a step, on average."""
    seed: int
    packages: dict[str, str]


@dataclass(frozen=True)
class LogLine:
    """What was measured over the steps since the line before, or over the validation rows. Losses in nats.

    Lists have a place for each position in a segment: the base predicts place 0, the micro decoder the others. A mean
    over no token is None.
    """

    step: int
    """Steps done."""
    stage: str
    split: Split
    tokens: int
    """Labelled tokens that these figures are over."""
    seen: int
    """Labelled tokens trained on so far."""
    loss: float
    """What is minimised: token_loss, plus the weighted parts."""
    token_loss: float
    stop_loss: float | None
    teacher_loss: float | None
    accuracy: float
    """Share of tokens that are the likeliest."""
    position_tokens: tuple[int, ...]
    position_loss: tuple[float | None, ...]
    position_accuracy: tuple[float | None, ...]
    stop_accuracy: float | None
    stops: int
    rates: dict[str, float]
    """Learning rate of each group at this step; empty for a validation."""
    gradient_norm: float | None
    """Before clipping, mean over the steps."""
    tokens_per_second: float | None
    """All tokens of the rows, prompts included and padding not."""
    seconds: float
    """Of training so far, over all sittings."""


@dataclass(frozen=True)
class Run:
    """A run as it stands on the disk."""

    path: Path
    facts: RunFacts
    lines: tuple[LogLine, ...]
    checkpoints: tuple[Path, ...]
    """Complete ones, oldest first."""
    finished: bool

    @property
    def model(self) -> Path | None:
        """The newest folder that opens as a model."""
        if self.finished:
            return self.path / MODEL
        return self.checkpoints[-1] / MODEL if self.checkpoints else None


def to_line(line: LogLine) -> str:
    """One line of log.jsonl, with its line break."""
    return json.dumps(asdict(line)) + "\n"


def read_lines(path: Path) -> list[LogLine]:
    """The complete lines of a log; none where there is no log yet.

    Raises:
        TextError: a line is not one.
    """
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path} cannot be read as a log: {error}") from None
    whole = text[: text.rfind("\n") + 1].splitlines()
    found = []
    for number, line in enumerate(whole, 1):
        try:
            found.append(_line(json.loads(line)))
        except (ValueError, TypeError, KeyError, AttributeError):
            raise TextError(f"{path}, line {number} is no line of a training log") from None
    return found


def facts_json(facts: RunFacts) -> bytes:
    """The content of run.json."""
    return (json.dumps({"format": FORMAT, **asdict(facts)}, indent=1) + "\n").encode()


def read_run(path: Path) -> Run:
    """Read the folder of a run, a running one included.

    Raises:
        TextError: it is none, or is damaged.
    """
    try:
        said = json.loads((path / FACTS).read_text("utf-8"))
        if said.pop("format", None) != FORMAT:
            raise TextError(f"{path} holds a run of another version; train it again")
        stages = tuple(StageFacts(**stage) for stage in said.pop("stages"))
        facts = RunFacts(**said, stages=stages)
    except OSError:
        raise TextError(f"{path} holds no training run: there is no {FACTS}") from None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise TextError(f"{path / FACTS} is damaged; train again, or choose another run") from None
    checkpoints = tuple(sorted(each for each in (path / CHECKPOINTS).glob("step-*") if each.suffix != ".part"))
    finished = (path / MODEL / "config.json").is_file() or (path / MODEL / "adapter_config.json").is_file()
    return Run(path, facts, tuple(read_lines(path / LOG)), checkpoints, finished)


def _line(values: dict[str, Any]) -> LogLine:
    names = {field.name for field in fields(LogLine)}
    lists = {name: tuple(values[name]) for name in ("position_tokens", "position_loss", "position_accuracy")}
    return LogLine(**{**{name: values[name] for name in names}, **lists})
