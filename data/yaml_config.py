"""Recipes as typed YAML: read into frozen pydantic models, with one line for every mistake.

No string of a recipe is ever executed: YAML is read as plain values, and these must fit the fields.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from model.errors import MicroStepError
from model.git_lfs import pointer

Kind = TypeVar("Kind", bound=BaseModel)


class StrictModel(BaseModel):
    """Values that cannot be changed, of exactly the types that are named; a key that is not named is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def read_yaml(path: Path, kind: type[Kind]) -> Kind:
    """Read a YAML file as a model.

    Args:
        path: the file.
        kind: a pydantic model that forbids unknown keys.

    Raises:
        MicroStepError: there is no such file, it is no YAML, or a key or value is wrong; file and key are named.
    """
    if (wrong := pointer(path)) is not None:
        raise MicroStepError(f"{path} cannot be read: {wrong}")
    try:
        said = yaml.load(path.read_text("utf-8"), _Loader)
    except OSError as error:
        raise MicroStepError(f"{path} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where is not None else ""
        raise MicroStepError(f"{path}{line} is no YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(said, dict):
        raise MicroStepError(f"{path} must hold keys and values, as in `name: value`")
    return as_model(said, kind, str(path))


def as_model(said: dict[str, Any], kind: type[Kind], place: str) -> Kind:
    """Plain values as a model.

    Args:
        said: as YAML gives them.
        kind: a pydantic model that forbids unknown keys.
        place: where they stand, for messages.

    Raises:
        MicroStepError: a key or value is wrong; it is named.
    """
    try:
        as_json = json.dumps(said)  # in which a list may stand for a tuple, strictly typed all the same
    except (TypeError, ValueError) as error:
        raise MicroStepError(f"{place} holds what is neither text, number, list nor mapping: {error}") from None
    try:
        return kind.model_validate_json(as_json)
    except ValidationError as error:
        raise MicroStepError(f"{place}: {_first(error, kind)}") from None


def dump_yaml(model: BaseModel) -> str:
    """A model as YAML, every default written out."""
    text: str = yaml.dump(model.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _first(error: ValidationError, kind: type[BaseModel]) -> str:
    """The first mistake, unknown keys before others, and how many more there are."""
    found = sorted(error.errors(include_url=False), key=lambda each: each["type"] != "extra_forbidden")
    told = _told(found[0], kind)
    return told if len(found) == 1 else f"{told} ({len(found) - 1} more)"


def _told(mistake: Any, kind: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        known = _fields(kind, mistake["loc"][:-1])
        close = difflib.get_close_matches(str(mistake["loc"][-1]), known, n=1, cutoff=0.5)
        return f"unknown key {place!r}" + (
            f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(known)}"
        )
    if mistake["type"] == "missing":
        return f"the key {place!r} is missing"
    message = str(mistake["msg"]).removeprefix("Value error, ")
    given = mistake.get("input")
    if mistake["type"] != "value_error" and isinstance(given, str | int | float | bool | None):
        message += f", got {given!r}" if len(repr(given)) < 60 else ""
    if mistake["type"] == "string_type" and isinstance(given, int | float):
        message += "; put it in quotes"
    return f"{place}: {message}" if place else message


def _fields(kind: type[BaseModel], place: tuple[Any, ...]) -> list[str]:
    """The keys that may stand at a place; the numbers of lists and the keys of mappings in it lead no deeper."""
    kinds = [kind]
    for part in place:
        inner = [each.model_fields[part].annotation for each in kinds if part in each.model_fields]
        kinds = [found for each in inner for found in _models(each)] or kinds
    return [name for each in kinds for name in each.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The models in an annotation, as in `dict[str, tuple[Model, ...]] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for each in get_args(annotation) for found in _models(each)]


class _Loader(yaml.SafeLoader):
    """Plain values only; a key that is given twice is a mistake, and 3e-3 a number."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Puts a text in quotes that `_Loader` would take for a number."""


# As in YAML 1.2: in 1.1, which PyYAML reads, a number with an exponent needs a point and a sign (3.0e-3).
for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )
