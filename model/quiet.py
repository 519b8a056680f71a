"""Silence transformers' warnings and progress bars while a block runs."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_ONE_AT_A_TIME = threading.RLock()  # the switches are global to the process


@contextmanager
def quiet() -> Iterator[None]:
    """Silence warnings and progress bars in a block; errors are still raised. Blocks in other threads wait."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # read once, at the first import of transformers
    from transformers.utils import logging

    with _ONE_AT_A_TIME:
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
