"""The folder of a training run: the files that the trainer writes, and how they are read.

    RUN/recipe.yaml                     the resolved recipe, with every default written out
    RUN/run.json                        facts about the run: `RunFacts`
    RUN/log.jsonl                       one line every few steps, and one per validation: `LogLine`
    RUN/checkpoints/step-00000100/      model/ opens like any model; the rest is for resuming
    RUN/model/                          written at the end of the run

This module knows nothing about training itself. An incomplete last line of the log is skipped.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from model.errors import TextError
from model.reading.json_text import parse_json
from model.reading.regular_files import read_bytes, read_text

RECIPE, FACTS, LOG, CHECKPOINTS, MODEL = "recipe.yaml", "run.json", "log.jsonl", "checkpoints", "model"
FORMAT = "micro_step run 1"

MOST_COUNTED = 2**53  # steps or tokens: the largest count that a float64 holds
Split = Literal["train", "validation"]
_CONFIGS = ("config.json", "adapter_config.json")


@dataclass(frozen=True)
class StageFacts:
    name: str
    first: int  # its first step, counted from 1
    last: int
    rates: dict[str, float]  # peak learning rate of each group of parameters that it trains


@dataclass(frozen=True)
class RunFacts:
    """The facts about a run that are known before its first step."""

    name: str
    objective: str  # micro_step, draft, control or pretraining
    base: str  # name of the base, or of the configuration that it starts from
    base_revision: str | None
    data: str  # name of the prepared data
    data_hash: str  # hash of its examples and scores
    steps: int
    stages: tuple[StageFacts, ...]
    parameters: dict[str, int]  # parameter counts of each group that is trained at some stage, and of `frozen`
    tokens_per_step: float  # average number of labelled tokens per step
    seed: int
    packages: dict[str, str]


@dataclass(frozen=True)
class LogLine:
    """Measurements over the steps since the line before, or over the validation rows. Losses in nats.

    Lists have an entry for each position in a segment: the base predicts position 0, the micro decoder the others. A
    mean over no token is None.
    """

    step: int  # number of steps done
    stage: str
    split: Split
    tokens: int  # number of labelled tokens behind these figures
    seen: int  # number of labelled tokens trained on so far
    loss: float  # the minimised loss: token_loss plus the weighted parts, all means over the same tokens in both splits
    token_loss: float
    stop_loss: float | None
    teacher_loss: float | None
    accuracy: float  # share of tokens that are the likeliest
    position_tokens: tuple[int, ...]
    position_loss: tuple[float | None, ...]
    position_accuracy: tuple[float | None, ...]
    stop_accuracy: float | None
    stops: int
    rates: dict[str, float]  # learning rate of each group at this step; empty for a validation
    gradient_norm: float | None  # before clipping, mean over the steps
    tokens_per_second: float | None  # all tokens of the rows, including prompts but not padding
    seconds: float  # training time so far, over all sittings
    hidden_loss: float | None = None
    """Relative error of the base's states at macro steps, if the recipe trains on it; older logs lack it."""
    row_counts: tuple[float, ...] = ()
    """For a validation, effective number of rows: first over all positions, then at each; empty if unknown."""
    accuracy_errors: tuple[float | None, ...] = ()
    """Standard errors of `accuracy` and `position_accuracy` over these rows."""


@dataclass(frozen=True)
class Run:
    path: Path
    facts: RunFacts
    lines: tuple[LogLine, ...]
    checkpoints: tuple[Path, ...]  # complete checkpoints that open as models, oldest first
    finished: bool

    @property
    def model(self) -> Path | None:
        """The newest folder that opens as a model."""
        if self.finished:
            return final_model(self.path)
        return self.checkpoints[-1] / MODEL if self.checkpoints else None

    @property
    def validated(self) -> LogLine | None:
        return next((line for line in reversed(self.lines) if line.split == "validation"), None)


_LINE, _FACTS = TypeAdapter(LogLine), TypeAdapter(RunFacts)


def to_line(line: LogLine) -> str:
    """Return one line of log.jsonl, with its line break."""
    return json.dumps(asdict(line)) + "\n"


def read_lines(path: Path) -> list[LogLine]:
    """Return the complete lines of a log; empty if there is no log yet."""
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TextError(f"{path} cannot be read as a log: {error}") from None
    lines = []
    for number, line in enumerate(content.split(b"\n")[:-1], 1):
        try:
            lines.append(from_line(line))
        except ValueError:
            raise TextError(f"{path}, line {number} is not a line of a training log") from None
    return lines


def from_line(line: bytes | str) -> LogLine:
    """Parse a line written by `to_line`."""
    parsed = _LINE.validate_json(line, strict=True)
    if not len(parsed.position_tokens) == len(parsed.position_loss) == len(parsed.position_accuracy):
        raise ValueError("the lists do not have an entry for each position")
    counts = (parsed.step, parsed.tokens, parsed.seen, parsed.stops, *parsed.position_tokens)
    if not all(0 <= count <= MOST_COUNTED for count in counts):
        raise ValueError("it counts less than nothing, or more than can be counted")
    if len(parsed.row_counts) != len(parsed.accuracy_errors):
        raise ValueError("there is no standard error for each count of rows")
    return parsed


def facts_json(facts: RunFacts) -> bytes:
    """Return the content of run.json."""
    return (json.dumps({"format": FORMAT, **asdict(facts)}, indent=1) + "\n").encode()


def read_run(path: Path) -> Run:
    """Read the folder of a run, even while it is running."""
    return Run(path, read_facts(path), tuple(read_lines(path / LOG)), checkpoints(path), is_finished(path))


def read_facts(path: Path) -> RunFacts:
    """Return the facts about the run in a folder."""
    try:
        content = read_text(path / FACTS)
        if parse_json(content).get("format") != FORMAT:
            raise TextError(f"{path} holds a run of another version; train it again")
        return _FACTS.validate_json(content, strict=True)
    except OSError:
        raise TextError(f"{path} holds no training run: there is no {FACTS}") from None
    except (ValueError, AttributeError, RecursionError):
        raise TextError(f"{path / FACTS} is damaged; train again, or choose another run") from None


def checkpoints(path: Path) -> tuple[Path, ...]:
    """Return the checkpoints that open as models: those of a run with sharded weights do not."""
    found = (path / CHECKPOINTS).glob("step-*")
    return tuple(sorted(folder for folder in found if folder.suffix != ".part" and (folder / MODEL).is_dir()))


def is_finished(path: Path) -> bool:
    """True if a run has written its model."""
    return final_model(path) is not None


def final_model(path: Path) -> Path | None:
    """Return the folder of a run's final model: `model/`, or the run's own where a model was moved beside its log."""
    found = (path / MODEL, path)
    return next((each for each in found for name in _CONFIGS if (each / name).is_file()), None)
