"""Catches every error of a page, fragment, callback or download, and shows it as one sentence.

Without it, Streamlit would only say that the message is redacted. Streamlit's own signals (rerun, stop) pass through.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import streamlit as st
from streamlit.errors import FragmentHandledException

from app.access.settings import settings
from app.escape import escape_markdown
from app.links import fragment_done
from model.crash_log import fault
from model.errors import MicroStepError

Given = ParamSpec("Given")
Result = TypeVar("Result")

_PENDING = "pending_errors"  # in the session: errors from places where nothing can be drawn
_LONGEST = 1000
SERVED = "Something unexpected went wrong. Whoever runs this server finds the details in its log."
# Streamlit would print the traceback of a failed download to the terminal; our log has it already.
logging.getLogger("streamlit.runtime.backend_operation_handler").setLevel(logging.CRITICAL)


@contextmanager
def caught() -> Iterator[None]:
    """Show an error of this block on the page, after the errors of earlier callbacks and downloads."""
    for earlier in _pending():
        st.error(escape_markdown(earlier, _LONGEST))
    _pending().clear()
    try:
        yield
    except FragmentHandledException:
        raise
    except Exception as error:  # noqa: BLE001 - the outer net: shown in one sentence, and logged
        st.error(escape_markdown(error_sentence(error), _LONGEST))


def fragment(function: Callable[Given, None], run_every: str | float | None = None) -> Callable[Given, None]:
    """Like `st.fragment`, but errors are caught: a fragment also runs without its page."""

    @functools.wraps(function)
    def guarded(*given: Given.args, **named: Given.kwargs) -> None:
        try:
            with caught():
                function(*given, **named)
        finally:
            fragment_done()

    wrapped: Callable[Given, None] = st.fragment(guarded, run_every=run_every)
    return wrapped


def safely(callback: Callable[Given, Result]) -> Callable[Given, Result | None]:
    """A widget's callback whose errors are caught; the next run of the page shows them."""

    def guarded(*given: Given.args, **named: Given.kwargs) -> Result | None:
        try:
            return callback(*given, **named)
        except Exception as error:  # noqa: BLE001 - as above
            _pending().append(error_sentence(error))
            return None

    return guarded


def download(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """The function behind a download button, which runs in another thread; the page's next run shows its errors."""
    pending = _pending()

    def guarded() -> bytes:
        try:
            return make()
        except Exception as error:
            pending.append(f"The file could not be made: {error_sentence(error)}")
            raise

    return guarded


def error_sentence(error: Exception) -> str:
    """The sentence that tells the reader of an error."""
    if isinstance(error, MicroStepError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The machine's memory is full. Shorten the text, or choose a smaller model or precision."
    said = fault(error, "the app")
    return SERVED if settings().serve else said


def _pending() -> list[str]:
    pending: list[str] = st.session_state.setdefault(_PENDING, [])
    return pending
