"""The known sources by name: `sources.yaml` as frozen values.

schema.py defines a source, and reading.py reads its records; this module opens only the YAML.
"""

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
    by_name: dict[str, Source] = {}
    for source in read_yaml(FILE, _Sources).sources:
        if source.name in by_name:
            raise MicroStepError(f"{FILE}: two sources are called {source.name!r}")
        by_name[source.name] = source
    return by_name


def source(name: str) -> Source:
    known = sources()
    if name not in known:
        raise MicroStepError(f"there is no data source {name!r}; choose from {', '.join(known)}")
    return known[name]
