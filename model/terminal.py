"""How every command line of the project behaves: one line for a mistake, progress on standard error, a clean stop."""

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any

import typer
from rich.console import Console

from model.crash_log import fault
from model.errors import MicroStepError
from model.progress import INTERVAL, Tell

_INTERRUPTED = 130  # as shells count it: 128 + SIGINT
_NOBODY_READS = 141  # 128 + SIGPIPE
_FAULT = 70  # as sysexits.h calls an internal error of a program
_STOPPED = "Stopped; nothing was left half-written."


def start(program: str = "") -> None:
    """Run the command that `sys.argv` gives; the import of its module is guarded, too.

    A user's mistake ends with one line on standard error and the exit code 1 or 2; so does what nobody foresaw, with
    70, and its traceback in a log file. No output is written to whoever stopped reading it.

    Args:
        program: analysis, model, ... where it was started as `python -m PROGRAM`, with the commands of before.
    """
    guarded(lambda: import_module("micro_step.cli").run(program))


def guarded(work: Callable[[], Any]) -> None:
    """Run a command so that every end of it is a clean one: see `start`."""
    threading.excepthook = lambda failed: _tell_fault(failed.exc_value)
    try:
        code = work()
        if sys.stdout is not None:  # closed by whoever started the command
            sys.stdout.flush()
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still held goes nowhere
        sys.exit(_NOBODY_READS)
    except MicroStepError as error:
        _end(f"Error: {error}", 1)
    except MemoryError:
        _end("Error: the machine's memory is full; shorten the text or choose a smaller model or dtype", 1)
    except Exception as error:  # noqa: BLE001 - the outer net: told in one sentence, written down in the log
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a wrong option or argument
            if not error.format_message():  # no arguments at all: the help was shown instead
                sys.exit(2)
            _end(f"Error: {error.format_message()}", 2)
        _tell_fault(error)
        sys.exit(_FAULT)
    if code == _INTERRUPTED:
        _end(_STOPPED, _INTERRUPTED)
    if code:
        sys.exit(code)


def _end(message: str, code: int) -> None:
    print(one_line(message), file=sys.stderr)
    sys.exit(code)


def _tell_fault(error: BaseException | None) -> None:
    if error is not None:
        print(one_line(f"Error: {fault(error, _command())}"), file=sys.stderr)


def _command() -> str:
    """The command and its options, without what was given for them: a text is nobody else's business."""
    shown = [word.partition("=")[0] for i, word in enumerate(sys.argv[1:]) if word.startswith("--") or i == 0]
    return " ".join(["micro-step", *shown])


def one_line(message: str) -> str:
    """One printable line, whatever a name, a file or a library's message held: no control character gets through."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))


@contextmanager
def progress_bar() -> Iterator[Tell]:
    """A callback that draws a bar on standard error, when that is a terminal, and says each step once when not."""
    console = Console(stderr=True)
    interval = INTERVAL.set(0.2 if console.is_terminal else 10.0)  # a bar, or lines of a log
    try:
        with _bar(console) if console.is_terminal else nullcontext(_line_teller()) as tell:
            yield tell
    finally:
        INTERVAL.reset(interval)


@contextmanager
def resumable(out: object, holds: str) -> Iterator[Tell]:
    """A progress bar around a run that goes on where it was stopped; whoever stops it is told so."""
    try:
        with progress_bar() as tell:
            yield tell
    except KeyboardInterrupt:
        print(one_line(f"{out} holds {holds}; run the same command again to resume"), file=sys.stderr)
        raise


def _line_teller() -> Tell:
    printed: set[str] = set()

    def tell(message: str, fraction: float | None) -> None:
        if message not in printed:
            printed.add(message)
            print(one_line(message), file=sys.stderr, flush=True)

    return tell


@contextmanager
def _bar(console: Console) -> Iterator[Tell]:
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)

        def draw(message: str, fraction: float | None) -> None:
            total = None if fraction is None else 1.0
            bar.update(task, description=one_line(message), total=total, completed=fraction or 0.0)

        yield draw
