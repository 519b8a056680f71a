"""What can be asked of models, whoever asks: a value that names its models, says what a run costs, and runs."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, TypeVar

from analysis.document_file import document_file
from analysis.uncertainty.scoring import cost_of, encode_for, fit
from model.hub.loading import LoadedModel, ModelInfo, ModelSpec
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
        """The answers; errors as the questions' own."""
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


def model_words(side: str, spec: ModelSpec, facts: ModelInfo) -> list[str]:
    """The options that name a model on the command line: `--a NAME --a-revision COMMIT ...`."""
    words = [f"--{side}", _anywhere(spec.name)]
    # the hub commit that answered, so that a later run does not take a newer one
    revision = spec.revision or (facts.revision if facts.source.startswith("hub ") else None)
    words += [f"--{side}-revision", revision] if revision else []
    return [*words, *([f"--{side}-adapter", spec.adapter] if spec.adapter else [])]


def _anywhere(name: str) -> str:
    """A folder's name as it is from everywhere on this machine."""
    return str(Path(name).resolve()) if Path(name).exists() else name


def text_words(text: TextInput) -> list[str]:
    """The options that name the text, as the file that `document_file` makes, and how it is read."""
    name, _ = document_file(text.document)
    words = ["--text-file", name, *(["--chat"] if text.chat else []), *(["--force-bos"] if text.force_bos else [])]
    if text.chat:
        for argument, value in text.document.arguments:
            if argument != "tools" or name.endswith(".txt"):  # a conversation's file holds its tools
                words += ["--template-arg", f"{argument}={value}"]
        words += ["--template-date", text.document.date] if text.document.date is not None else []
    return words


def apart_words(prompt_apart: bool | None) -> list[str]:
    """The option that says whether each token of the prompt is a segment; none where that follows from the text."""
    return [] if prompt_apart is None else ["--prompt-apart" if prompt_apart else "--no-prompt-apart"]


def load_words(spec: ModelSpec, facts: Sequence[ModelInfo]) -> list[str]:
    """The options that say how every model is loaded; "auto" becomes the precision that it came to, if it was one."""
    came_to = {each.dtype for each in facts}
    words = ["--dtype", came_to.pop() if spec.dtype == "auto" and len(came_to) == 1 else spec.dtype]
    words += ["--quantization", spec.quantization] if spec.quantization != "none" else []
    words += ["--attn-implementation", spec.attn_implementation] if spec.attn_implementation else []
    words += ["--tokenizer", _anywhere(spec.tokenizer)] if spec.tokenizer else []
    return [*words, *(["--trust-remote-code"] if spec.trust_remote_code else [])]


def command_line(words: Sequence[str]) -> str:
    """A command of this package as one line for a shell."""
    return shlex.join(["python", "-m", "analysis", *words])
