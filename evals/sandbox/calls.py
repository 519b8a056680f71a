"""A program and its tests in two processes: values, calls and errors cross between them as data, never as code.

The process of the tests never runs a line of the program, so that nothing but right values lets a test pass. What can
be written down crosses as itself (numbers, text, bytes, and lists, tuples, sets, dictionaries and ranges of them, each
as the built-in type). Everything else stays with the program, and the tests hold a handle. A handle is compared by
identity: the program is never asked whether two values are equal. child.py loads this file by its path, in a bare
interpreter: it uses the standard library alone.
"""

import builtins
import importlib
import json
import operator
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, BinaryIO

_REASON_CHARACTERS = 200
_BYTES: dict[str, Any] = {"bytes": bytes, "bytearray": bytearray}
_SEVERAL: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}


class ProgramGone(BaseException):
    """The program's process ended, or stopped answering."""


class ProgramError(Exception):
    """An error of the program of a class of its own."""


def encode(value: Any, hold: Callable[[Any], int]) -> Any:
    """Return a value as data for JSON; `hold` keeps what cannot be written down, and returns its number."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return {"int": hex(value)}  # decimal digits are limited
    if isinstance(value, float):
        return {"float": float(value).hex()}
    if isinstance(value, complex):
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if isinstance(value, range):
        return {"range": [encode(bound, hold) for bound in (value.start, value.stop, value.step)]}
    if isinstance(value, dict):
        return {"dict": [[encode(key, hold), encode(each, hold)] for key, each in dict.items(value)]}
    for name, kind in _BYTES.items():
        if isinstance(value, kind):
            return {name: value.hex()}
    for name, several in _SEVERAL.items():
        if isinstance(value, several):
            return {name: [encode(each, hold) for each in value]}
    if isinstance(value, ModuleType):
        return {"module": value.__name__}
    if isinstance(value, type):
        own = value.__name__
        if getattr(builtins, own, None) is value:
            return {"builtin": own}
    return {"held": hold(value)}


def decode(data: Any, held: Callable[[int], Any]) -> Any:
    """Return the value of such data, of which nothing is trusted: a value of a plain type, or what `held` returns."""
    if data is None or isinstance(data, (bool, str)):
        return data
    ((kind, inner),) = data.items()
    if kind == "int":
        return int(inner, 16)
    if kind == "float":
        return float.fromhex(inner)
    if kind == "complex":
        return complex(*map(float.fromhex, inner))
    if kind == "dict":
        return {decode(key, held): decode(each, held) for key, each in inner}
    if kind in _BYTES:
        return _BYTES[kind].fromhex(inner)
    if kind == "module" and inner in sys.stdlib_module_names:
        return importlib.import_module(inner)
    if kind == "builtin" and isinstance(getattr(builtins, inner), type):
        return getattr(builtins, inner)
    if kind == "held":
        return held(inner)
    values = [decode(each, held) for each in inner]
    return range(*values) if kind == "range" else _SEVERAL[kind](values)


def reason_of(error: BaseException) -> str:
    """Why a program failed, for readers."""
    if isinstance(error, MemoryError):
        return "MemoryError"
    if isinstance(error, SystemExit):
        return f"it left the interpreter ({str(error.code)[:40]})"
    if isinstance(error, ProgramError):
        return str(error)[:_REASON_CHARACTERS]
    return f"{type(error).__name__}: {str(error)[:_REASON_CHARACTERS]}"


# --- the program's process


def serve(program: str, requests: BinaryIO, replies: BinaryIO) -> None:
    """Run a program, then do what its tests ask, one request a line, until they end."""
    names: dict[str, Any] = {"__name__": "program"}
    kept: list[Any] = []

    def keep(value: Any) -> int:
        kept.append(value)
        return len(kept) - 1

    def run() -> None:
        exec(compile(program, "program", "exec", dont_inherit=True), names)  # noqa: S102

    def find(name: str) -> Any:
        if name not in names:
            raise NameError(f"name {name!r} is not defined")
        return names[name]

    def call(value: Any, arguments: list[Any], named: dict[str, Any]) -> Any:
        return value(*arguments, **named)

    actions: dict[str, Callable[..., Any]] = {
        **{"run": run, "find": find, "call": call, "get": getattr, "set": setattr, "item": operator.getitem},
        **{"iter": iter, "next": next, "len": len, "bool": bool, "str": str},
    }
    for line in requests:
        try:
            action, given = json.loads(line)
            reply = {"value": encode(actions[action](*decode(given, kept.__getitem__)), keep)}
        except BaseException as error:  # noqa: BLE001  # whatever a program may raise is its failure
            text = str(error.code if isinstance(error, SystemExit) else error)
            reply = {"raised": [type(error).__name__, text, reason_of(error)]}
        replies.write(json.dumps(reply).encode() + b"\n")
        replies.flush()


# --- the process of its tests


class RemoteProgram:
    """The other side, as the tests see it."""

    def __init__(self, requests: BinaryIO, replies: BinaryIO) -> None:
        self._requests, self._replies = requests, replies
        self.gone = False

    def ask(self, action: str, *given: Any) -> Any:
        """Let the program do something, and return the value, or raise what it raised."""
        request = json.dumps([action, encode(given, _number_of)]).encode() + b"\n"
        try:
            self._requests.write(request)
            self._requests.flush()
            line = self._replies.readline()
        except BrokenPipeError:
            line = b""
        if not line.endswith(b"\n"):
            self.gone = True
            raise ProgramGone
        try:
            reply = json.loads(line)
            raised = _error(*map(str, reply["raised"])) if "raised" in reply else None
            value = None if raised else decode(reply["value"], lambda number: Handle(self, int(number)))
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as error:
            raise ProgramError("its answer is no value") from error
        if raised:
            raise raised
        return value


def _number_of(value: Any) -> int:
    if not isinstance(value, Handle):
        raise TypeError(f"the tests pass a {type(value).__name__}, which cannot be given to another process")
    return int(object.__getattribute__(value, "_number"))


def _error(name: str, text: str, reason: str) -> BaseException:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, BaseException):
        try:
            return kind(text)
        except TypeError:  # such as UnicodeDecodeError, which takes more than a text
            return ProgramError(reason)
    return ProgramError(reason)


class Handle:
    """A value that stayed with the program: a function, a class, an object, an iterator."""

    __slots__ = ("_number", "_program")

    def __init__(self, program: RemoteProgram, number: int) -> None:
        object.__setattr__(self, "_program", program)
        object.__setattr__(self, "_number", number)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._program.ask("call", self, list(arguments), named)

    def __getattr__(self, name: str) -> Any:
        return self._program.ask("get", self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._program.ask("set", self, name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._program.ask("item", self, key)

    def __iter__(self) -> Any:
        return self._program.ask("iter", self)

    def __next__(self) -> Any:
        return self._program.ask("next", self)

    def __len__(self) -> int:
        return int(self._program.ask("len", self))

    def __bool__(self) -> bool:
        return bool(self._program.ask("bool", self))

    def __str__(self) -> str:
        return str(self._program.ask("str", self))


class _Names(dict[str, Any]):
    """The names of the tests: their own, then the program's, but those that are built in stay so."""

    def __init__(self, program: RemoteProgram, function: str | None) -> None:
        super().__init__(__name__="tests")
        self._program, self._function = program, function

    def __missing__(self, name: str) -> Any:
        built_in = hasattr(builtins, name)
        if built_in and name != self._function:
            raise KeyError(name)
        try:
            return self._program.ask("find", name)
        except NameError:
            if built_in:
                raise KeyError(name) from None
            raise


def examine(tests: str, function: str | None, requests: BinaryIO, replies: BinaryIO) -> dict[str, Any]:
    """Let a program run, then run its tests, and return whether all held.

    Args:
        tests: code, whose unknown names are the program's; empty: a program that reaches its end passes.
        function: the name that is the program's even if Python has it too.
        requests: where the program listens.
        replies: where it answers.
    """
    program, reason = RemoteProgram(requests, replies), ""
    try:
        program.ask("run")
        exec(compile(tests, "tests", "exec", dont_inherit=True), _Names(program, function))  # noqa: S102
    except BaseException as error:  # noqa: BLE001
        reason = reason_of(error)
    return {"passed": not reason and not program.gone, "gone": program.gone, "reason": reason}
