"""A mix: its sources, how often each is used, how they are cleaned and what is held out. Mixes are YAML files."""

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
    """Turns a plain text into a pair: the user gives its beginning, and the assistant continues."""

    ask: str  # instruction before the beginning
    characters: Positive = 200
    """Approximate length of the beginning: it ends with a sentence or line in its second half, else with a word."""


class Use(StrictModel):
    """A source of a mix: a known one, or the user's own file with its columns."""

    source: str | None = None
    file: str | None = None
    """.txt, .jsonl, .json (a list), each also .gz, or .parquet; a relative path starts at the mix's folder."""
    columns: Shape | None = None  # columns of `file`
    licence: str = "not given"  # licence of `file`
    repeat: Positive = 1  # number of times that its examples occur in an epoch
    limit: Positive | None = None  # take only this many clean examples, the first ones; the rest is not read
    opening: Opening | None = None  # for plain texts

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
                raise ValueError(f"{self.source} is for evaluation only and must not be trained on")
        elif self.columns is None:
            raise ValueError("a file needs columns, as in `columns: {prompt: question, response: answer}`")
        else:
            self.columns.check()
        return self

    @property
    def name(self) -> str:
        """Name of the source, or of the file without its folder."""
        return self.source or Path(self.file or "").name

    @property
    def definition(self) -> Source:
        """The source, or the file described as a source."""
        if self.source is not None:
            return source(self.source)
        shape = {name: getattr(self.columns, name) for name in Shape.model_fields}
        return Source(name=self.name, title=self.name, licence=self.licence, local=self.file, **shape)


class Decontamination(StrictModel):
    """Evaluation sets that must be kept out of the training data."""

    against: Annotated[tuple[str, ...], Field(min_length=1)]  # names of sources
    words: Annotated[int, Field(ge=5)] = 13  # length of the word runs that an example must not share with them

    @model_validator(mode="after")
    def _known(self) -> Decontamination:
        for name in self.against:
            if name not in sources():
                raise ValueError(f"no data source is called {name!r}; {_nearest(name, list(sources()))}")
        return self


class Cleaning(StrictModel):
    """The rules, each switched on by its value, in the order in which they apply. The effects of each are counted."""

    line_breaks: Literal["real", "literal"] | None = "real"
    r"""real: literal \n become line breaks in a text that was written with them, see filters.py. literal: all line
    breaks become literal, after all other rules, so the same examples are kept. None: texts stay unchanged."""
    typing_noise: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Mistype this share of the letters, after all other rules, so the same examples are kept."""
    code_languages: tuple[str, ...] | None = None
    """Drop an example with a fenced block labelled with any other language; blocks without a label are allowed."""
    prompt_characters: Positive | None = None  # drop an example with a longer prompt
    response_characters: Positive | None = None  # drop an example with a longer response or text
    least_characters: Positive = 1  # drop an example with a shorter response or text
    decontaminate: Decontamination | None = None  # drop an example that shares a run of words with an evaluation set
    exact_duplicates: bool = True  # drop an example that equals an earlier one except for case and white space
    near_duplicates: Annotated[float, Field(ge=0.3, lt=1)] | None = None
    """Drop an example that shares this much (Jaccard) of its runs of five words with an earlier one."""


class Mix(StrictModel):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    about: str = ""  # one sentence
    sources: Annotated[tuple[Use, ...], Field(min_length=1)]  # of two equal examples, the first is kept
    cleaning: Cleaning = Cleaning()
    held_out: Annotated[int, Field(ge=2)] | None = 50  # every n-th example of each source is held out; None: none is
    seed: int = 0  # seed of the order

    @model_validator(mode="after")
    def _once(self) -> Mix:
        names = [use.name for use in self.sources]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{twice[0]} is named twice; use repeat")
        return self


def names() -> list[str]:
    """Return the names of the bundled mixes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_mix(name: str) -> Mix:
    """Return a bundled mix, or read a YAML file."""
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


def _nearest(name: str, known: list[str], head: str = "choose from ") -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"{head}{', '.join(known)}"
