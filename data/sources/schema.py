"""What a source of training data is: where it lives, how a record of it reads, which records count, its licence.

Only the description. See records.py for its records, reading.py for what they become, sources.yaml for those there are.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from data.yaml_config import StrictModel

Scalar = str | int | float | bool
Role = Literal["system", "user", "assistant"]
Positive = Annotated[int, Field(ge=1)]


class Filter(StrictModel):
    """A record counts only if a column of it is so; where several are given, all of them."""

    column: str
    equals: Scalar | None = None
    one_of: tuple[Scalar, ...] | None = None
    contains: str | None = None
    min: float | None = None
    max: float | None = None

    @model_validator(mode="after")
    def _says_something(self) -> Filter:
        if all(value is None for name, value in self if name != "column"):
            raise ValueError("a filter needs one of equals, one_of, contains, min, max")
        return self

    def keeps(self, value: object) -> bool:
        """Whether a record with this value counts; one without a value never does."""
        if value is None:
            return False
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        return (
            (self.equals is None or _same(value, self.equals))
            and (self.one_of is None or any(_same(value, each) for each in self.one_of))
            and (self.contains is None or (isinstance(value, str | list) and self.contains in value))
            and (self.min is None or (number is not None and number >= self.min))
            and (self.max is None or (number is not None and number <= self.max))
        )


class Turns(StrictModel):
    """Columns that hold lists of turns, as of a conversation."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)]
    """Their turns follow each other."""
    role: str = "role"
    """The key of who speaks."""
    content: str = "content"
    """The key of what is said."""
    roles: dict[str, Role] = Field(default={"system": "system", "user": "user", "assistant": "assistant"})
    """What the data set calls whom."""


class Columns(StrictModel):
    """How a record becomes a plain text, a prompt and a response, or a conversation. A dot leads into a column."""

    text: str | None = None
    """A plain text."""
    prompt: str | tuple[str, ...] | None = None
    """What the user says; several columns are joined by blank lines, empty ones left out."""
    response: str | None = None
    """What the assistant says; without it, a prompt waits for an answer."""
    system: str | None = None
    """A message before the prompt, where there is one."""
    messages: Turns | None = None
    """A conversation; what follows its last answer is left out."""

    @property
    def kinds(self) -> list[str]:
        """Which of text, prompt and messages are given."""
        return [name for name in ("text", "prompt", "messages") if getattr(self, name) is not None]

    def check(self) -> None:
        """Raise ValueError where it is not said, or said twice, what a record becomes."""
        if len(self.kinds) != 1:
            raise ValueError(f"name the columns of either text, prompt or messages; got {self.kinds or 'none'}")
        if self.prompt is None and (self.response is not None or self.system is not None):
            raise ValueError("response and system go with prompt")


class Shape(Columns):
    """Columns, and what is made of their texts."""

    filters: tuple[Filter, ...] = ()
    prompt_pattern: str | None = None
    """Group 1 is what the user said; the rest is the data set's own template."""
    removed: tuple[str, ...] = ()
    """Patterns cut out of a text or response."""
    separator: str | None = None
    """Between the documents of a .txt file; without it, the file is one document."""
    piece_chars: Positive | None = None
    """A longer text is cut at blank lines into pieces of about so many characters."""

    @field_validator("prompt_pattern", "removed")
    @classmethod
    def _patterns(cls, given: Any) -> Any:
        for pattern in (given,) if isinstance(given, str) else given or ():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}") from None
            if isinstance(given, str) and not groups:
                raise ValueError(f"{pattern!r} needs a group: (...) around what the user said")
        return given


class Source(Shape):
    """One data set."""

    name: Annotated[str, Field(min_length=1)]
    title: str
    licence: str
    licence_url: str | None = None
    """Where it can be read."""
    hub: str | None = None
    """Its id on the Hugging Face hub."""
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    gated: bool = False
    """Its terms must be accepted on the hub."""
    local: str | None = None
    """File or pattern in the user's folder; without it NAME.jsonl, NAME.jsonl.gz, NAME.parquet or NAME/*.parquet."""
    local_columns: Columns | None = None
    """Where the file's columns are not the hub's."""
    templates: str | None = None
    """A grammar of prompts in data/prompts; then nothing is read from anywhere else."""
    evaluate_only: bool = False
    """Never trained on."""
    checked: Literal["card", "code", "file", "own", "no"] = "no"
    """How columns and licence are known: the hub's card; public code that reads it; a file that was read; our own."""
    note: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Source:
        if self.templates is not None:
            if self.kinds or self.hub or self.local:
                raise ValueError("templates are their own source: give no columns, hub or local")
            return self
        self.check()
        if self.local_columns is not None:
            self.local_columns.check()
        if self.hub is None and self.local is None:
            raise ValueError("give a hub id, a local file or templates")
        return self


def _same(a: object, b: object) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)
