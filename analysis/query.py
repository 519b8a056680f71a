"""What can be asked of models, whoever asks: a value that names its models, says what a run costs, and runs."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol, TypeVar

from analysis.uncertainty.scoring import cost_of, encode_for, fit
from model.hub.loading import LoadedModel, ModelSpec
from model.progress import Progress, part
from model.text.document import TextInput

Answer = TypeVar("Answer")
Answer_co = TypeVar("Answer_co", covariant=True)
ModelLoader = Callable[[ModelSpec], LoadedModel]


@dataclass(frozen=True)
class RunCost:
    """What one model's part of a run takes."""

    tokens: int  # read or written
    memory: int  # bytes on top of the weights
    work: float  # multiplications: of weights, and of attention


class Query(Hashable, Protocol[Answer_co]):
    """A question to models. Equal questions have equal answers, so that an answer can be kept under its question."""

    @property
    def specs(self) -> Mapping[str, ModelSpec]:
        """The models, under the names that a reader knows them by: A, B."""

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes on one of its models."""

    def run(self, load: ModelLoader, progress: Progress | None = None) -> Answer_co:
        """The answer, from models that `load` gives."""


class Ask(Protocol):
    """Gives the answers to questions, those that are kept at once; None for what has none (yet).

    `run` makes a run in the question's place: it is given what gives the models, and the progress.
    """

    def __call__(
        self, questions: Sequence[Query[Answer]], run: Callable[[ModelLoader, Progress | None], Answer] | None = None
    ) -> list[Answer | None]:
        """The answers, in the order of the questions."""


class Session:
    """Answers each question once, with models that `load` gives once: a command's `Ask`, as the page has its own."""

    def __init__(self, load: ModelLoader, progress: Progress | None = None, count: int = 1) -> None:
        """`progress` is told the share of `count` questions that is answered."""
        self.load, self.progress, self.count = cache(load), progress, count
        self.answers: dict[Query[Any], Any] = {}

    def __call__(
        self, questions: Sequence[Query[Answer]], run: Callable[[ModelLoader, Progress | None], Answer] | None = None
    ) -> list[Answer | None]:
        for question in questions:
            if question not in self.answers:
                done = len(self.answers)
                own = part(self.progress, done / self.count, (done + 1) / self.count)
                self.answers[question] = (run or question.run)(self.load, own)
        return [self.answers[question] for question in questions]


def scoring_cost(loaded: LoadedModel, text: TextInput, new_tokens: int = 0, passes: float = 1.0) -> RunCost:
    """The cost of reading a document so many times, and of writing `new_tokens` after it."""
    encoded, _ = fit(loaded, encode_for(loaded, text))
    tokens = len(encoded) + new_tokens
    attention = loaded.facts.layers * loaded.facts.hidden_size * float(tokens) ** 2
    # a generated token costs a pass over all weights by itself, about as much as ten that are read together
    read = len(encoded) + 10.0 * new_tokens
    return RunCost(tokens, cost_of(loaded, tokens).run, passes * (loaded.facts.parameters * read + attention))
