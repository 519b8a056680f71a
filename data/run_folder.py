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
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
    """What is minimised: token_loss, plus the weighted parts, all means over the same tokens in both splits."""
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
    hidden_loss: float | None = None
    """Relative error of the base's states at macro steps, where the recipe matches them; logs of old have none."""
    row_counts: tuple[float, ...] = ()
    """Of a validation: rows, by their tokens, first over all positions, then at each; empty where it is not known."""
    accuracy_errors: tuple[float | None, ...] = ()
    """Standard errors of `accuracy` and `position_accuracy` over these rows."""


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

    @property
    def validated(self) -> LogLine | None:
        """The last line of a validation; None where nothing was held out, or not yet."""
        return next((line for line in reversed(self.lines) if line.split == "validation"), None)


def to_line(line: LogLine) -> str:
    """One line of log.jsonl, with its line break."""
    return json.dumps(asdict(line)) + "\n"


def read_lines(path: Path) -> list[LogLine]:
    """The complete lines of a log; none where there is no log yet.

    Raises:
        TextError: a line is not one.
    """
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise TextError(f"{path} cannot be read as a log: {error}") from None
    found = []
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        try:
            found.append(from_line(line))
        except ValueError:
            raise TextError(f"{path}, line {number} is no line of a training log") from None
    return found


def from_line(line: bytes | str) -> LogLine:
    """The inverse of `to_line`.

    Raises:
        ValueError: it is no such line.
    """
    try:
        return _line(json.loads(line))
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"no line of a training log: {error}") from None


def facts_json(facts: RunFacts) -> bytes:
    """The content of run.json."""
    return (json.dumps({"format": FORMAT, **asdict(facts)}, indent=1) + "\n").encode()


def read_run(path: Path) -> Run:
    """Read the folder of a run, a running one included.

    Raises:
        TextError: it is none, or is damaged.
    """
    return Run(path, read_facts(path), tuple(read_lines(path / LOG)), checkpoints(path), is_finished(path))


def read_facts(path: Path) -> RunFacts:
    """What the run in a folder is of.

    Raises:
        TextError: there is no run, or its facts are damaged.
    """
    try:
        said = json.loads((path / FACTS).read_text("utf-8"))
        if said.pop("format", None) != FORMAT:
            raise TextError(f"{path} holds a run of another version; train it again")
        return _facts(said)
    except OSError:
        raise TextError(f"{path} holds no training run: there is no {FACTS}") from None
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise TextError(f"{path / FACTS} is damaged; train again, or choose another run") from None


def checkpoints(path: Path) -> tuple[Path, ...]:
    """The complete checkpoints of a run, oldest first."""
    return tuple(sorted(each for each in (path / CHECKPOINTS).glob("step-*") if each.suffix != ".part"))


def is_finished(path: Path) -> bool:
    """Whether a run has written its model."""
    return any((path / MODEL / name).is_file() for name in ("config.json", "adapter_config.json"))


def _line(values: dict[str, Any]) -> LogLine:
    found = {name: kind(values[name]) for name, kind in _KINDS.items() if name in values or name not in _LATER}
    if not len(found["position_tokens"]) == len(found["position_loss"]) == len(found["position_accuracy"]):
        raise ValueError("the lists have no place for each position")
    if not len(found.get("row_counts", ())) == len(found.get("accuracy_errors", ())):
        raise ValueError("there is no standard error for each count of rows")
    return LogLine(**found)


def _facts(said: dict[str, Any]) -> RunFacts:
    words = {name: _word(said[name]) for name in ("name", "objective", "base", "data", "data_hash")}
    return RunFacts(
        **words,
        base_revision=None if said["base_revision"] is None else _word(said["base_revision"]),
        steps=_whole(said["steps"]),
        stages=tuple(
            StageFacts(_word(each["name"]), _whole(each["first"]), _whole(each["last"]), _rates(each["rates"]))
            for each in said["stages"]
        ),
        parameters={_word(name): _whole(count) for name, count in said["parameters"].items()},
        tokens_per_step=_number(said["tokens_per_step"]),
        seed=_whole(said["seed"]),
        packages={_word(name): _word(version) for name, version in said["packages"].items()},
    )


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} is no count")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{value!r} is no number")
    return value  # type: ignore[return-value]


def _maybe(value: object) -> float | None:
    return None if value is None else _number(value)


def _word(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no word")
    return value


def _rates(value: dict[str, Any]) -> dict[str, float]:
    return {_word(name): _number(rate) for name, rate in value.items()}


def _split(value: object) -> str:
    if value not in ("train", "validation"):
        raise ValueError(f"{value!r} is no split")
    return str(value)


_KINDS: dict[str, Callable[[Any], Any]] = {
    "step": _whole,
    "stage": _word,
    "split": _split,
    "tokens": _whole,
    "seen": _whole,
    "loss": _number,
    "token_loss": _number,
    "stop_loss": _maybe,
    "teacher_loss": _maybe,
    "accuracy": _number,
    "position_tokens": lambda given: tuple(map(_whole, given)),
    "position_loss": lambda given: tuple(map(_maybe, given)),
    "position_accuracy": lambda given: tuple(map(_maybe, given)),
    "stop_accuracy": _maybe,
    "stops": _whole,
    "rates": _rates,
    "gradient_norm": _maybe,
    "tokens_per_second": _maybe,
    "seconds": _number,
    "hidden_loss": _maybe,
    "row_counts": lambda given: tuple(map(_number, given)),
    "accuracy_errors": lambda given: tuple(map(_maybe, given)),
}
_LATER = ("hidden_loss", "row_counts", "accuracy_errors")  # that older logs have not
