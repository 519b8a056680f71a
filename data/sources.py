"""Training data as data: `sources.yaml` as frozen values. What each set is, where it lives, what is kept of it.

How records are read stands in reading.py; this module opens nothing but the YAML.
"""

from __future__ import annotations

import difflib
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from data.recipe import read_yaml
from model.errors import MicroStepError

FILE = Path(__file__).parent / "sources.yaml"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Columns(_Part):
    """Which columns hold what. A dot goes into a nested record: question.stem."""

    text: str | None = None
    """Plain text; no other column is read then."""
    prompt: tuple[str, ...] = ()
    """What the user says; several are joined by a blank line, empty ones left out."""
    response: str | None = None
    """The answer; None: there is none, and it is for a model to write."""
    system: str | None = None
    messages: str | None = None
    """A conversation: a list of role and content."""

    @model_validator(mode="after")
    def _one_way(self) -> Columns:
        if sum((self.text is not None, bool(self.prompt), self.messages is not None)) != 1:
            raise ValueError("columns name either text, or prompt, or messages")
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """All that are read."""
        given = (self.text, *self.prompt, self.response, self.system, self.messages)
        return tuple(name for name in given if name is not None)


class Keep(_Part):
    """A record is kept if this holds of one of its columns."""

    column: str
    equals: str | None = None
    one_of: tuple[str, ...] | None = None
    contains: str | None = None
    at_least: float | None = None
    at_most: float | None = None

    def holds(self, value: object) -> bool:
        """Whether a record with this value is kept."""
        if self.equals is not None and value != self.equals:
            return False
        if self.one_of is not None and value not in self.one_of:
            return False
        if self.contains is not None and not (isinstance(value, str) and self.contains in value):
            return False
        if self.at_least is None and self.at_most is None:
            return True
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return False
        return (self.at_least is None or value >= self.at_least) and (self.at_most is None or value <= self.at_most)


class Hub(_Part):
    """A data set of the Hugging Face hub."""

    id: str
    subset: str | None = None
    split: str = "train"


class Local(_Part):
    """Files under the folder that the user gives."""

    pattern: str
    """.txt, .jsonl, .json (a list), each also .gz, or .parquet."""
    separator: str | None = None
    """Between the documents of a .txt; None: the file is one."""
    columns: Columns | None = None
    """Where they differ from the hub's."""


class Source(_Part):
    """One data set."""

    title: str
    licence: str
    columns: Columns
    hub: Hub | None = None
    local: Local | None = None
    templates: str | None = None
    """A grammar beside this file: prompts are made, nothing is read."""
    keep: tuple[Keep, ...] = ()
    remove: str | None = None
    """A pattern cut out of the response or text."""
    prompt_pattern: str | None = None
    """Its group 1 is what the user said; the rest is the data set's own template."""
    piece_characters: int | None = Field(default=None, ge=1)
    """A longer text is cut at blank lines into pieces of about so many characters."""
    code_language: str | None = None
    """In a mix with the rule code_language, only fenced code in this language is kept."""
    evaluate_only: bool = False
    checked: bool = True
    """Whether columns were seen in the data itself."""


class _Sources(RootModel[dict[str, Source]]):
    model_config = ConfigDict(frozen=True)


@cache
def sources() -> dict[str, Source]:
    """All known sources by name.

    Raises:
        MicroStepError: sources.yaml is wrong.
    """
    return read_yaml(FILE, _Sources).root


def source(name: str) -> Source:
    """The source called `name`.

    Raises:
        MicroStepError: no source has that name; the nearest is named.
    """
    known = sources()
    if name not in known:
        close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise MicroStepError(f"no data source is called {name!r}; {hint}")
    return known[name]
