"""Dataclasses in one .npz file: their arrays as arrays, the rest as a JSON tree. Nothing in the file is ever run.

The file names no class. The type that the reader expects decides what a value becomes, and what does not fit it is
refused, on writing as on reading. Arrays of one dtype lie behind each other in one array, each array once, and their
first bytes before their second ones, which compresses well.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from types import GenericAlias, NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from model.errors import MicroStepError
from model.reading.declared_sizes import read_npz
from model.reading.json_text import parse_json

TREE = "tree"  # the file's member that holds the JSON
PLAIN = (bool, int, float, str)
DTYPES = "biufU"  # kinds of arrays that are stored: truth values, integers, floats, text
# Field: bits kept of its mantissas; all others are exact. Probabilities of the best tokens have an error of 2^-13 at
# most, relatively: they are shown with three digits, and are never summed or subtracted. Statistics of heads,
# which come from weights in float32, keep 2^-20.
ROUNDED = {"topk_probability": 13, "statistics": 20}


class Arrays:
    """The arrays of a file, flat, by dtype."""

    def __init__(self) -> None:
        self._flat = dict[str, list[NDArray[Any]]]()
        self._places = dict[tuple[str, bytes], int]()

    def put(self, array: NDArray[Any]) -> int:
        """Add an array, unless an equal one is there, and return its place among those of its dtype."""
        same = self._flat.setdefault(array.dtype.str, [])
        key = array.dtype.str, array.tobytes()
        if key not in self._places:
            self._places[key] = sum(map(len, same))
            same.append(array)
        return self._places[key]

    def members(self) -> dict[str, NDArray[Any]]:
        """A member of the file a dtype: the first bytes of all its values, the second bytes, ..."""
        flat = {dtype: np.concatenate(same) for dtype, same in self._flat.items()}
        return {dtype: every.view(np.uint8).reshape(len(every), -1).T.copy() for dtype, every in flat.items()}


def _gathered(member: NDArray[np.uint8], dtype: str) -> NDArray[Any]:
    """The values of a member."""
    kind = np.dtype(dtype)
    if kind.kind not in DTYPES:
        raise ValueError(f"arrays of {dtype} are not stored")
    return np.ascontiguousarray(member.T).view(kind).ravel()


def _rounded(name: str, value: Any) -> Any:
    """The value of a field, with the digits that are stored of it."""
    if name not in ROUNDED or not isinstance(value, np.ndarray) or value.dtype.kind != "f":
        return value
    mantissa, exponent = np.frexp(value)
    scale = 2.0 ** ROUNDED[name]
    return np.ldexp(np.round(mantissa * scale) / scale, exponent).astype(value.dtype)


class CodecError(MicroStepError):
    """A value does not have the expected type, or the type cannot be stored."""


def write_npz(parts: Mapping[str, tuple[Any, Any]]) -> bytes:
    """The file that holds some values, by name: (type, value).

    Raises:
        CodecError: a value cannot be stored.
    """
    arrays = Arrays()
    tree = {name: _encode(hint, value, arrays) for name, (hint, value) in parts.items()}
    members = arrays.members()
    members[TREE] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **members)
    return file.getvalue()


class StoredFile:
    """A file that `write_npz` made.

    Raises:
        CodecError: it is no such file.
    """

    def __init__(self, content: bytes) -> None:
        try:
            members = read_npz(io.BytesIO(content))
            self._arrays = {name: _gathered(member, name) for name, member in members.items() if name != TREE}
            self._tree: dict[str, Any] = parse_json(members[TREE].tobytes())
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise CodecError(f"this is not a file of stored results ({error})") from error

    def read(self, name: str, hint: Any) -> Any:
        """One of its values, of this type.

        Raises:
            CodecError: the file does not hold it, or it has another type.
        """
        if name not in self._tree:
            raise CodecError(f"the file holds no {name}")
        return _decode(hint, self._tree[name], self._arrays)


def key_of(value: Any) -> str:
    """A dataclass as one line of JSON: equal values, equal lines. Fields that do not count for equality are left out.

    Raises:
        CodecError: it holds something else than plain values.
    """
    arrays = Arrays()
    line = json.dumps([type(value).__name__, _encode(type(value), value, arrays, True)])
    if arrays.members():
        raise CodecError(f"{type(value).__name__} holds arrays, so it cannot be a key")
    return line


def _encode(hint: Any, value: Any, arrays: Arrays, compared: bool = False) -> Any:
    """The tree of a value; its arrays are put to those of their dtype."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        for place, member in enumerate(arguments):
            try:
                return None if value is None else [place, _encode(member, value, arrays, compared)]
            except CodecError:
                continue  # it may be the next
    elif isinstance(value, np.ndarray):
        if value.dtype.kind in DTYPES and _holds(hint, value):
            return {"dtype": value.dtype.str, "shape": value.shape, "at": arrays.put(value.ravel())}
    elif hint in PLAIN or hint is Any or origin is Literal or hint is NoneType:
        plain = value.item() if isinstance(value, np.generic) else value
        if _is_plain(hint, plain):
            return plain
    elif dataclasses.is_dataclass(hint) and type(value) is hint:
        kinds = _fields(cast(type, hint), compared)
        return {
            name: _encode(kind, _rounded(name, getattr(value, name)), arrays, compared) for name, kind in kinds.items()
        }
    elif origin in (tuple, list, Sequence) and isinstance(value, (tuple, list)):
        return [_encode(kind, each, arrays, compared) for kind, each in _members(hint, value)]
    elif origin in (dict, Mapping) and isinstance(value, Mapping):
        return [_encode(GenericAlias(tuple, arguments), pair, arrays, compared) for pair in value.items()]
    raise CodecError(f"{_name(hint)} was expected, which a {type(value).__name__} is not")


def _decode(hint: Any, tree: Any, arrays: Mapping[str, NDArray[Any]]) -> Any:
    """The value of a tree."""
    origin, arguments = get_origin(hint), get_args(hint)
    try:
        if origin in (Union, UnionType):
            if tree is None and NoneType in arguments:
                return None
            return _decode(arguments[tree[0]], tree[1], arrays)
        if dataclasses.is_dataclass(hint):
            kinds = _fields(cast(type, hint))
            if tree.keys() == kinds.keys():
                return cast(type, hint)(**{name: _decode(kind, tree[name], arrays) for name, kind in kinds.items()})
        elif isinstance(tree, dict):
            start, shape = tree["at"], tree["shape"]
            array = arrays[tree["dtype"]][start : start + int(np.prod(shape))].reshape(shape)
            if _holds(hint, array):
                return array
        elif hint in PLAIN or hint is Any or origin is Literal or hint is NoneType:
            if _is_plain(hint, tree):
                return tree
        elif origin in (tuple, list, Sequence):
            values = [_decode(kind, each, arrays) for kind, each in _members(hint, tree)]
            return values if origin is list else tuple(values)
        elif origin in (dict, Mapping):
            return dict(_decode(GenericAlias(tuple, arguments), pair, arrays) for pair in tree)
    except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
        raise CodecError(f"the file does not hold a {_name(hint)} ({error})") from error
    raise CodecError(f"the file does not hold a {_name(hint)}")


def _is_plain(hint: Any, value: Any) -> bool:
    """Whether a value is of a type that JSON has; an integer will do for a float, and Any is any of these."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if hint is Any:
        return value is None or type(value) in PLAIN
    return type(value) is hint or (hint is float and type(value) is int)


def _holds(hint: Any, array: NDArray[Any]) -> bool:
    """Whether a type is that of the array: NDArray[np.float32] of one of float32."""
    if hint is Any:
        return True
    if get_origin(hint) is not np.ndarray:
        return False
    (kind,) = get_args(get_args(hint)[1])
    return kind is Any or np.issubdtype(array.dtype, kind)


def _members(hint: Any, values: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """The members of a tuple or list with their types."""
    arguments = get_args(hint)
    if get_origin(hint) is tuple and arguments[-1:] != (...,):
        yield from zip(arguments, values, strict=True)
    else:
        yield from ((arguments[0], each) for each in values)


@cache
def _fields(kind: type, compared: bool = False) -> dict[str, Any]:
    """The fields of a dataclass with their types; those alone that count for equality if `compared`."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind) if field.compare or not compared}


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))
