"""The outer net of the pages: whatever a page, fragment, callback or download did not foresee is one sentence.

Streamlit itself would say that its message is redacted. Its own signals (a rerun, a stop) are no errors and pass.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

import streamlit as st
from streamlit.errors import FragmentHandledException

from app.escape import escape_markdown
from model.crash_log import fault
from model.errors import MicroStepError

Given = ParamSpec("Given")
Result = TypeVar("Result")

_TOLD_LATER = "told_later"  # in the session: what went wrong where nothing can be drawn
_LONGEST = 1000
# It writes a download's traceback to the terminal, which is in the log by then.
logging.getLogger("streamlit.runtime.backend_operation_handler").setLevel(logging.CRITICAL)


@contextmanager
def caught() -> Iterator[None]:
    """Show what goes wrong in the block in its place, and what went wrong in a callback before."""
    for earlier in _told_later():
        st.error(escape_markdown(earlier, _LONGEST))
    _told_later().clear()
    try:
        yield
    except FragmentHandledException:
        raise
    except Exception as error:  # noqa: BLE001 - the outer net: told in one sentence, written down in the log
        st.error(escape_markdown(said(error), _LONGEST))


def fragment(function: Callable[Given, None], run_every: str | float | None = None) -> Callable[Given, None]:
    """As `st.fragment`, within the net: a fragment also runs without its page."""

    @functools.wraps(function)
    def guarded(*given: Given.args, **named: Given.kwargs) -> None:
        with caught():
            function(*given, **named)

    found: Callable[Given, None] = st.fragment(guarded, run_every=run_every)
    return found


def safely(callback: Callable[Given, Result]) -> Callable[Given, Result | None]:
    """A callback of a widget within the net: it is told in the run of the page that follows."""

    def guarded(*given: Given.args, **named: Given.kwargs) -> Result | None:
        try:
            return callback(*given, **named)
        except Exception as error:  # noqa: BLE001 - as above
            _told_later().append(said(error))
            return None

    return guarded


def download(make: Callable[[], bytes]) -> Callable[[], bytes]:
    """What a download button makes when it is pressed, in a thread of its own: why it fails is told in the next run."""
    later = _told_later()

    def guarded() -> bytes:
        try:
            return make()
        except Exception as error:
            later.append(f"The file could not be made: {said(error)}")
            raise

    return guarded


def said(error: Exception) -> str:
    """The sentence for an error."""
    if isinstance(error, MicroStepError):
        return str(error)
    if isinstance(error, MemoryError):
        return "The machine's memory is full. Shorten the text, or choose a smaller model or precision."
    return fault(error, "the app")


def _told_later() -> list[str]:
    found: list[str] = st.session_state.setdefault(_TOLD_LATER, [])
    return found
