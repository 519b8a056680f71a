"""The sources that there are, by name: `sources.yaml` as frozen values.

What a source is stands in source.py, how its records are read in reading.py; this module opens nothing but the YAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from data.sources.schema import Source
from data.yaml_config import Part, read_yaml
from model.errors import MicroStepError
from model.text.document import PLAIN

FILE = Path(__file__).parents[1] / "sources.yaml"
_DEMO = ("tinystories", "novels", "tinyshakespeare", "thealgorithms_python", "gsm8k", "dolly_hhrlhf")


class _Sources(Part):
    sources: tuple[Source, ...]


@cache
def sources() -> dict[str, Source]:
    """All known sources by name.

    Raises:
        MicroStepError: sources.yaml is wrong.
    """
    found: dict[str, Source] = {}
    for each in read_yaml(FILE, _Sources).sources:
        if each.name in found:
            raise MicroStepError(f"{FILE}: two sources are called {each.name!r}")
        found[each.name] = each
    return found


def source(name: str) -> Source:
    """The source called `name`.

    Raises:
        MicroStepError: no source has that name.
    """
    known = sources()
    if name not in known:
        raise MicroStepError(f"no data source is called {name!r}; choose one of {', '.join(known)}")
    return known[name]


# --- as the demonstration pair is made from them: see make_demo.py


@dataclass(frozen=True)
class Document:
    """A plain text (`prompt` is None), or a prompt and the response to it."""

    text: str
    prompt: str | None = None


SOURCES = {name: source(name) for name in _DEMO}


def read(source: Source, local_folder: Path | str | None = None) -> Iterator[Document]:
    """The documents of a source of texts or pairs.

    Raises:
        TextError: it cannot be read.
    """
    from data.sources.reading import readings

    for each in readings(source, None if local_folder is None else Path(local_folder)):
        if each.messages is not None and each.messages[0].role == PLAIN:
            yield Document(each.messages[0].content)
        elif each.messages is not None:
            yield Document(each.messages[-1].content, each.messages[-2].content)
