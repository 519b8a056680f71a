"""How every command line of the project behaves: one line for a mistake, progress on standard error, a clean stop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer
from rich.console import Console

from model.errors import MicroStepError

_INTERRUPTED = 130  # as shells count it: 128 + SIGINT
_STOPPED = "Stopped; nothing was left half-written."

Tell = Callable[[str, float | None], None]  # what is being done, and the share done (None: unknown)


def run(app: typer.Typer) -> None:
    """Run a command line; a user's mistake ends with one line on standard error and a non-zero exit code."""
    try:
        code = app(standalone_mode=False)  # typer returns the code of an Exit, and turns Ctrl-C into one of 130
    except (typer.Abort, KeyboardInterrupt):
        code = _INTERRUPTED
    except MicroStepError as error:
        _end(f"Error: {error}", 1)
    except MemoryError:
        _end("Error: the machine's memory is full; shorten the text or choose a smaller model or dtype", 1)
    except Exception as error:
        if hasattr(error, "format_message") and hasattr(error, "exit_code"):  # a wrong option or argument
            if not error.format_message():  # no arguments at all: the help was shown instead
                sys.exit(2)
            _end(f"Error: {error.format_message()}", 2)
        raise
    if code == _INTERRUPTED:
        _end(_STOPPED, _INTERRUPTED)
    if code:
        sys.exit(code)


def _end(message: str, code: int) -> None:
    print(one_line(message), file=sys.stderr)
    sys.exit(code)


def one_line(message: str) -> str:
    """One printable line, whatever a name, a file or a library's message held: no control character gets through."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(message.split()))


@contextmanager
def progress_bar() -> Iterator[Tell]:
    """A callback that draws a bar on standard error, when that is a terminal, and says each step once when not."""
    console = Console(stderr=True)
    if not console.is_terminal:
        said: set[str] = set()

        def tell(message: str, fraction: float | None) -> None:
            if message not in said:
                said.add(message)
                print(one_line(message), file=sys.stderr, flush=True)

        yield tell
        return
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
