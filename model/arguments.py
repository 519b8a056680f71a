"""Refuses values that are not what their annotations say, or that do not exist, each with the same clear error."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterable, Sequence
from functools import cache, wraps
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from model.errors import MicroStepError

Parameters = ParamSpec("Parameters")
Returned = TypeVar("Returned")
_KINDS: dict[Any, tuple[str, tuple[type, ...]]] = {
    bool: ("True or False", (bool, np.bool_)),
    int: ("a whole number", (Integral,)),
    float: ("a number", (Real,)),
    str: ("a string", (str,)),
    NoneType: ("None", (NoneType,)),
}


def checked(function: Callable[Parameters, Returned]) -> Callable[Parameters, Returned]:
    """Let a function check its arguments against its annotations before it runs."""

    @wraps(function)
    def call(*args: Parameters.args, **options: Parameters.kwargs) -> Returned:
        for name, value in inspect.signature(function).bind(*args, **options).arguments.items():
            _check(name, value, _hints(function)[name])
        return function(*args, **options)

    return call


def check_fields(view: Any) -> None:
    """Raise MicroStepError unless each field of a dataclass holds what its annotation says."""
    for field in dataclasses.fields(view):
        _check(field.name, getattr(view, field.name), _hints(view.__class__)[field.name])


def check_choice(what: str, name: object, known: Iterable[str]) -> None:
    """Raise MicroStepError if a name is not one of the known ones."""
    if name not in (names := tuple(known)):
        raise MicroStepError(f"unknown {what} {name!r}; use one of {', '.join(names)}")


@cache
def _hints(annotated: Any) -> dict[str, Any]:
    return get_type_hints(annotated)


def _check(name: str, value: object, hint: Any) -> None:
    if not _fits(value, hint):
        raise MicroStepError(f"{name} must be {_words(hint)}, got {value!r}")


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)


def _fits(value: object, hint: Any) -> bool:
    """Whether a value is of a type. Only numbers, strings, choices and sequences of them are looked at."""
    origin, members = get_origin(hint), get_args(hint)
    if len(_members(hint)) > 1:
        return any(_fits(value, member) for member in members)
    if origin is Literal:
        return any(type(value) is type(member) and value == member for member in members)
    if origin in (tuple, Sequence):
        if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
            return False
        pair = origin is tuple and members[-1] is not Ellipsis
        return (not pair or len(value) == len(members)) and all(_fits(each, members[0]) for each in value)
    if hint in _KINDS:
        return isinstance(value, _KINDS[hint][1]) and (hint is bool or not isinstance(value, bool | np.bool_))
    return True


def _words(hint: Any) -> str:
    """A type in words: "a whole number or None"."""
    if len(_members(hint)) > 1:
        return " or ".join(map(_words, _members(hint)))
    origin, members = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, members))}"
    if origin in (tuple, Sequence):
        count = f"{len(members)} " if origin is tuple and members[-1] is not Ellipsis else ""
        return f"a list of {count}{_words(members[0]).removeprefix('a ')}s"
    return _KINDS[hint][0] if hint in _KINDS else str(getattr(hint, "__name__", hint))
