"""Report unexpected errors: one sentence for the user, and the details in the day's log file.

The log holds the time, the command or page, the versions and the traceback, but no values of variables or options. It
holds no text and no prompt, unless the error's own message quotes one.
"""

import os
import platform
import traceback
from datetime import datetime
from pathlib import Path

import platformdirs

DAYS = 14  # number of log files to keep
_LONGEST = 200  # characters shown of an error's own message


def log_folder() -> Path:
    """Return the folder of the logs.

    It lies beside the models if `$MICRO_STEP_CACHE` is set, otherwise where the platform keeps logs.
    """
    own = os.environ.get("MICRO_STEP_CACHE")
    return Path(own).expanduser() / "log" if own else Path(platformdirs.user_log_dir("micro_step"))


def fault(error: BaseException, doing: str) -> str:
    """Write an unexpected error to the log and return a sentence that says what happened and where the details are."""
    message = " ".join(str(error).split())
    message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}..."
    cause = f"{type(error).__name__}: {message}" if message else type(error).__name__
    summary = f"something unexpected went wrong in {doing} ({cause})"
    try:
        return f"{summary}; the details, to be sent with a bug report, are in {_write(error, doing)}"
    except OSError as write_error:
        return f"{summary}; its details could not be written to {log_folder()} ({write_error.strerror})"


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
