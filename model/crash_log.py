"""Faults that nobody foresaw: one sentence for whoever meets one, and its details in the day's log file.

The log holds the time, what was being done, the versions and the traceback, but no values of variables or options:
no text and no prompt is in it, unless the error's own message quotes some of what it failed on.
"""

from __future__ import annotations

import os
import platform
import traceback
from datetime import datetime
from pathlib import Path

import platformdirs

DAYS = 14  # log files that are kept
_LONGEST = 200  # characters of an error's own message that are shown


def log_folder() -> Path:
    """Where the logs are: with the models where `$MICRO_STEP_CACHE` says where these are, else the platform's place."""
    own = os.environ.get("MICRO_STEP_CACHE")
    return Path(own).expanduser() / "log" if own else Path(platformdirs.user_log_dir("micro_step"))


def fault(error: BaseException, doing: str) -> str:
    """Write an unexpected error down; returns the sentence that says what happened and where the details are.

    Args:
        error: what was raised.
        doing: what was being done: a command or a page.
    """
    message = " ".join(str(error).split())
    message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
    said = f"{type(error).__name__}: {message}" if message else type(error).__name__
    told = f"something unexpected went wrong in {doing} ({said})"
    try:
        return f"{told}; the details, which a report of this fault needs, are in {_write(error, doing)}"
    except OSError as failed:
        return f"{told}; its details could not be written to {log_folder()} ({failed.strerror})"


def _write(error: BaseException, doing: str) -> Path:
    now = datetime.now().astimezone()
    folder = log_folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{now:%Y-%m-%d}.log"
    head = f"{now.isoformat(timespec='seconds')} {doing}, Python {platform.python_version()}, {platform.platform()}"
    whole = "".join(traceback.format_exception(error))
    with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(f"{head}\n{whole}\n")
    for old in sorted(folder.glob("????-??-??.log"))[:-DAYS]:
        old.unlink(missing_ok=True)
    return path
