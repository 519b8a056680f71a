"""The description of a source of training data: its place, how a record reads, which records count, its licence.

records.py reads records, reading.py turns them into examples, and sources.yaml lists the known sources.
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
    """A condition on a column of a record; if several are given, all must hold."""

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
        """True if a record with this value counts; one without a value never does."""
        if value is None:
            return False
        number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
        return (
            (self.equals is None or _same(value, self.equals))
            and (self.one_of is None or any(_same(value, option) for option in self.one_of))
            and (self.contains is None or (isinstance(value, str | list) and self.contains in value))
            and (self.min is None or (number is not None and number >= self.min))
            and (self.max is None or (number is not None and number <= self.max))
        )


class Turns(StrictModel):
    """Columns that hold the turns of a conversation."""

    columns: Annotated[tuple[str, ...], Field(min_length=1)]  # their turns follow one another
    role: str = "role"  # key of the speaker
    content: str = "content"  # key of the content
    roles: dict[str, Role] = Field(default={"system": "system", "user": "user", "assistant": "assistant"})
    """Maps the data set's names of speakers to roles."""


class Columns(StrictModel):
    """How a record becomes a plain text, a prompt and a response, or a conversation. A dot leads into a column."""

    text: str | None = None  # a plain text
    prompt: str | tuple[str, ...] | None = None
    """The user's message; several columns are joined by blank lines, without empty ones."""
    response: str | None = None  # the assistant's message; without it, the prompt has no answer yet
    system: str | None = None  # a message before the prompt, if there is one
    messages: Turns | None = None  # a conversation; everything after its last answer is left out

    @property
    def kinds(self) -> list[str]:
        return [name for name in ("text", "prompt", "messages") if getattr(self, name) is not None]

    def check(self) -> None:
        if len(self.kinds) != 1:
            raise ValueError(f"name the columns of either text, prompt or messages; got {self.kinds or 'none'}")
        if self.prompt is None and (self.response is not None or self.system is not None):
            raise ValueError("response and system go with prompt")


class Shape(Columns):
    """Columns, and how their texts are processed."""

    filters: tuple[Filter, ...] = ()
    prompt_pattern: str | None = None  # group 1 is the user's message; the rest is the data set's own template
    removed: tuple[str, ...] = ()  # patterns removed from a text or response
    separator: str | None = None  # separator between the documents of a .txt file; without it, the file is one document
    piece_chars: Positive | None = None
    """Longer texts are divided at blank lines into pieces of about this many characters."""

    @field_validator("prompt_pattern", "removed")
    @classmethod
    def _patterns(cls, given: Any) -> Any:
        for pattern in (given,) if isinstance(given, str) else given or ():
            try:
                groups = re.compile(pattern).groups
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
            if isinstance(given, str) and not groups:
                raise ValueError(f"{pattern!r} needs a group: (...) around the user's message")
        return given


class Source(Shape):
    name: Annotated[str, Field(min_length=1)]
    title: str
    licence: str
    licence_url: str | None = None  # address of the licence
    hub: str | None = None  # its id on the Hugging Face hub
    subset: str | None = None
    split: str = "train"
    revision: str | None = None
    gated: bool = False  # True if its terms must be accepted on the hub
    local: str | None = None
    """File or pattern in the user's folder; default: NAME.jsonl, NAME.jsonl.gz, NAME.parquet or NAME/*.parquet."""
    local_columns: Columns | None = None  # columns of the local file, if they differ from the hub's
    templates: str | None = None  # a grammar of prompts in data/prompts; nothing else is read then
    evaluate_only: bool = False  # True if it must never be trained on
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
