"""A mix: which sources, how often, how they are cleaned and what is held out. YAML in mixes/, or the user's own."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from data.recipe import read_yaml
from data.sources import Columns, Source, source, sources
from model.errors import MicroStepError

FOLDER = Path(__file__).parent / "mixes"
Positive = Annotated[int, Field(ge=1)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Use(_Part):
    """A source of a mix: a known one, or a file of the user's own with its columns."""

    source: str | None = None
    file: str | None = None
    """.txt, .jsonl, .json, each also .gz, or .parquet."""
    columns: Columns | None = None
    """Of `file`."""
    licence: str = "unknown"
    """Of `file`."""
    repeat: Positive = 1
    """How often its examples come in an epoch."""
    limit: Positive | None = None
    """Take so many examples, after cleaning."""

    @model_validator(mode="after")
    def _one(self) -> Use:
        if (self.source is None) == (self.file is None):
            raise ValueError("name either a source or a file")
        if (self.file is None) != (self.columns is None):
            raise ValueError("a file needs columns, a source has its own")
        return self

    @property
    def name(self) -> str:
        """Of the source, or of the file without its folder."""
        return self.source or Path(self.file or "").name

    @property
    def what(self) -> Source:
        """The source.

        Raises:
            MicroStepError: there is none of that name.
        """
        if self.source is not None:
            return source(self.source)
        assert self.columns is not None
        return Source(title=self.name, licence=self.licence, columns=self.columns)


class Cleaning(_Part):
    """Rules, each switched by its value; what each did is counted."""

    line_breaks: Literal["keep", "real", "literal"] = "real"
    r"""real: literal \n become line breaks in a text that has more of them than line breaks, and none of those inside
    quotes. literal: the other way round, for an ablation."""
    code_language: bool = False
    """Drop examples of a source with a code language that hold fenced code labelled with another one."""
    exact_duplicates: bool = True
    """Drop what is equal to an earlier example but for case and white space."""
    near_duplicates: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Drop what shares this much (Jaccard) of its runs of five words with an earlier example."""
    decontaminate: tuple[str, ...] = ()
    """Drop what shares a run of `overlap` words with one of these evaluation sets."""
    overlap: Positive = 13
    """Words; of a shorter evaluation text all its words, if there are at least eight."""
    prompt_characters: Positive | None = None
    """Drop longer prompts."""
    response_characters: Positive | None = None
    """Drop longer responses and texts."""
    least_characters: Positive = 1
    """Drop shorter responses and texts."""


class Mix(_Part):
    """What a model is trained on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    sources: Annotated[tuple[Use, ...], Field(min_length=1)]
    cleaning: Cleaning = Cleaning()
    held_out: Annotated[int, Field(ge=2)] | None = 50
    """Every so manieth example of each source is never trained on; None: all are."""
    seed: int = 0
    """Of the order."""

    @model_validator(mode="after")
    def _allowed(self) -> Mix:
        known = sources()
        for use in self.sources:
            if use.source is not None and use.source in known and known[use.source].evaluate_only:
                raise ValueError(f"{use.source} is for evaluation only, and never trained on")
        for name in self.cleaning.decontaminate:
            if name not in known:
                close = difflib.get_close_matches(name, list(known), n=1)
                raise ValueError(f"decontaminate: no source is called {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))
        return self


def names() -> list[str]:
    """Of the mixes that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_mix(name: str) -> Mix:
    """A mix that comes with the project, or a YAML file.

    Raises:
        MicroStepError: there is none, or it is wrong.
    """
    shipped = FOLDER / f"{name}.yaml"
    path = shipped if Path(name).suffix == "" and shipped.is_file() else Path(name)
    if not path.is_file():
        close = difflib.get_close_matches(name, names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"give a YAML file or one of {', '.join(names())}"
        raise MicroStepError(f"there is no mix {name!r}; {hint}")
    mix = read_yaml(path, Mix)
    for use in mix.sources:
        if use.source is not None:
            source(use.source)
    return mix
