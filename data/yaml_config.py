"""Recipes as typed YAML, read into frozen pydantic models; every mistake gives one line.

No string of a recipe is ever executed: YAML is read as plain values, which must fit the fields.
"""

import difflib
import json
import math
import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from model.errors import MicroStepError
from model.git_lfs import pointer
from model.reading.regular_files import read_text

Kind = TypeVar("Kind", bound=BaseModel)
MOST_VALUES = 100_000  # in a file of YAML


class StrictModel(BaseModel):
    """An immutable model with exactly the named types; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def read_yaml(path: Path, kind: type[Kind]) -> Kind:
    if (problem := pointer(path)) is not None:
        raise MicroStepError(f"{path} cannot be read: {problem}")
    try:
        values = load_yaml(read_text(path))
    except OSError as error:
        raise MicroStepError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark is not None else ""
        raise MicroStepError(f"{path}{line} is not valid YAML: {getattr(error, 'problem', None) or error}") from None
    if not isinstance(values, dict):
        raise MicroStepError(f"{path} must hold keys and values, as in `name: value`")
    return as_model(values, kind, str(path))


def as_model(values: dict[str, Any], kind: type[Kind], place: str) -> Kind:
    try:
        as_json = json.dumps(values)  # in JSON a list may stand for a tuple, and types are still strict
    except (TypeError, ValueError) as error:
        raise MicroStepError(f"{place} holds a value that is not a text, number, list or mapping: {error}") from None
    try:
        return kind.model_validate_json(as_json)
    except ValidationError as error:
        raise MicroStepError(f"{place}: {_first(error, kind)}") from None


def dump_yaml(model: BaseModel) -> str:
    """Return a model as YAML, with every default written out."""
    text: str = yaml.dump(model.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _first(error: ValidationError, kind: type[BaseModel]) -> str:
    mistakes = sorted(error.errors(include_url=False), key=lambda mistake: mistake["type"] != "extra_forbidden")
    message = _message(mistakes[0], kind)
    return message if len(mistakes) == 1 else f"{message} ({len(mistakes) - 1} more)"


def _message(mistake: Any, kind: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "extra_forbidden":
        known = _fields(kind, mistake["loc"][:-1])
        close = difflib.get_close_matches(str(mistake["loc"][-1]), known, n=1, cutoff=0.5)
        return f"unknown key {place!r}" + (
            f"; did you mean {close[0]!r}?" if close else f"; choose from {', '.join(known)}"
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
    """Return the keys that are allowed at a place; indices of lists and keys of mappings lead no deeper."""
    kinds = [kind]
    for part in place:
        inner = [model.model_fields[part].annotation for model in kinds if part in model.model_fields]
        kinds = [inner_model for model in inner for inner_model in _models(model)] or kinds
    return [name for model in kinds for name in model.model_fields]


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Return the models in an annotation, as in `dict[str, tuple[Model, ...]] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]


def load_yaml(text: str) -> Any:
    """What a text of YAML says.

    Raises:
        yaml.YAMLError, ValueError: it is not valid, or its aliases stand for too much or for themselves.
        RecursionError: it is nested too deeply.
    """
    return yaml.load(text, _Loader)


class _Loader(yaml.SafeLoader):
    """Reads plain values only; a repeated key is a mistake, and 3e-3 is a number. Aliases stand for few values."""

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        if node is not None and _values(node, {}) > MOST_VALUES:
            raise yaml.constructor.ConstructorError(
                None, None, f"with its aliases, it holds more than {MOST_VALUES:,} values", node.start_mark
            )
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes texts that `_Loader` would read as numbers."""


# As in YAML 1.2; YAML 1.1, which PyYAML reads, needs a point and a sign in a number with an exponent (3.0e-3).
for _each in (_Loader, _Dumper):
    _each.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for, each alias counted as what it repeats; infinitely many if it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf  # while its parts are counted
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        inner = [each for part in parts for each in (part if isinstance(part, tuple) else (part,))]
        known[id(node)] = 1 + sum(_values(each, known) for each in inner)
    return known[id(node)]
