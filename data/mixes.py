"""A mix: which sources, how often, how they are cleaned and what is held out. YAML in mixes/, or the user's own."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from data.sources.registry import source, sources
from data.sources.schema import Positive, Shape, Source
from data.yaml_config import StrictModel, read_yaml
from model.errors import MicroStepError

FOLDER = Path(__file__).parent / "mixes"


class Opening(StrictModel):
    """Makes a pair of a plain text: the user gives its beginning, the assistant goes on."""

    ask: str
    """Said before the beginning."""
    characters: Positive = 200
    """Of the beginning, about: it ends with a sentence or line if one ends in its second half, else with a word."""


class Use(StrictModel):
    """A source of a mix: a known one, or a file of the user's own with its columns."""

    source: str | None = None
    file: str | None = None
    """.txt, .jsonl, .json (a list), each also .gz, or .parquet; a relative path starts where the mix lies."""
    columns: Shape | None = None
    """Of `file`."""
    licence: str = "not given"
    """Of `file`."""
    repeat: Positive = 1
    """How often its examples come in an epoch."""
    limit: Positive | None = None
    """Take the first so many examples that are clean; the rest is not read."""
    opening: Opening | None = None
    """For plain texts."""

    @model_validator(mode="after")
    def _one(self) -> Use:
        if (self.source is None) == (self.file is None):
            raise ValueError("name either a source or a file")
        if self.source is not None:
            if self.columns is not None or self.licence != "not given":
                raise ValueError("columns and licence are for a file; a source has its own")
            known = sources()
            if self.source not in known:
                raise ValueError(f"no data source is called {self.source!r}; {_nearest(self.source, list(known))}")
            if known[self.source].evaluate_only:
                raise ValueError(f"{self.source} is for evaluation only, and never trained on")
        elif self.columns is None:
            raise ValueError("a file needs columns, as in `columns: {prompt: question, response: answer}`")
        else:
            self.columns.check()
        return self

    @property
    def name(self) -> str:
        """Of the source, or of the file without its folder."""
        return self.source or Path(self.file or "").name

    @property
    def what(self) -> Source:
        """The source."""
        if self.source is not None:
            return source(self.source)
        shape = {name: getattr(self.columns, name) for name in Shape.model_fields}
        return Source(name=self.name, title=self.name, licence=self.licence, local=self.file, **shape)


class Decontamination(StrictModel):
    """What is kept out because a model is evaluated on it."""

    against: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of sources."""
    words: Annotated[int, Field(ge=5)] = 13
    """Of a run that an example may not share with them."""

    @model_validator(mode="after")
    def _known(self) -> Decontamination:
        for name in self.against:
            if name not in sources():
                raise ValueError(f"no data source is called {name!r}; {_nearest(name, list(sources()))}")
        return self


class Cleaning(StrictModel):
    r"""Rules, each switched by its value; what each did is counted. They stand in the order in which they apply."""

    line_breaks: Literal["real", "literal"] | None = "real"
    r"""real: literal \n become line breaks in a text that was written with them, see rules.py. literal: all line breaks
    become literal, after all other rules, so that the same examples are kept. None: texts stay as they are."""
    code_languages: tuple[str, ...] | None = None
    """Drop an example with a fenced block that is labelled with any other language; one without a label may stay."""
    prompt_characters: Positive | None = None
    """Drop what has a longer prompt."""
    response_characters: Positive | None = None
    """Drop what has a longer response or text."""
    least_characters: Positive = 1
    """Drop what has a shorter response or text."""
    decontaminate: Decontamination | None = None
    """Drop what shares a run of words with an evaluation set."""
    exact_duplicates: bool = True
    """Drop what is equal to an earlier example but for case and white space."""
    near_duplicates: Annotated[float, Field(ge=0.3, lt=1)] | None = None
    """Drop what shares this much (Jaccard) of its runs of five words with an earlier example."""


class Mix(StrictModel):
    """What a model is trained on."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    about: str = ""
    """One sentence."""
    sources: Annotated[tuple[Use, ...], Field(min_length=1)]
    """Of two equal examples the first is kept."""
    cleaning: Cleaning = Cleaning()
    held_out: Annotated[int, Field(ge=2)] | None = 50
    """Every so manieth example of each source is never trained on; None: all are."""
    seed: int = 0
    """Of the order."""

    @model_validator(mode="after")
    def _once(self) -> Mix:
        names = [use.name for use in self.sources]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} is named twice; use repeat")
        return self


def names() -> list[str]:
    """Of the mixes that come with the project."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_mix(name: str) -> Mix:
    """A mix that comes with the project, or a YAML file.

    Raises:
        MicroStepError: there is none, or it is wrong.
    """
    path = FOLDER / f"{name}.yaml" if name in names() else Path(name).expanduser()
    if not path.is_file():
        raise MicroStepError(f"there is no mix {name!r}; {_nearest(name, names(), 'give a YAML file or one of ')}")
    mix = read_yaml(path, Mix)
    uses = tuple(
        use if use.file is None else use.model_copy(update={"file": str(_from(path, use.file))}) for use in mix.sources
    )
    return mix.model_copy(update={"sources": uses})


def _from(mix: Path, file: str) -> Path:
    return (mix.parent / Path(file).expanduser()).absolute()


def _nearest(name: str, known: list[str], head: str = "there are ") -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"{head}{', '.join(known)}"
