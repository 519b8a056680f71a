"""The sources that there are, by name: `sources.yaml` as frozen values.

What a source is stands in source.py, how its records are read in reading.py; this module opens nothing but the YAML.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from data.sources.schema import Source
from data.yaml_config import StrictModel, read_yaml
from model.errors import MicroStepError

FILE = Path(__file__).parents[1] / "sources.yaml"


class _Sources(StrictModel):
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
