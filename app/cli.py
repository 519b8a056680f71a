"""`micro-step app`: the web app, in a browser."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from model.errors import MicroStepError


def serve(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the address on this machine.")] = 8501,
) -> None:
    """Start the app and open it in a browser; Ctrl-C ends it."""
    if find_spec("streamlit") is None:
        raise MicroStepError("the app needs Streamlit: pip install 'micro_step[app]'")
    main = Path(__file__).with_name("main.py")
    command = [sys.executable, "-m", "streamlit", "run", str(main), "--server.port", str(port)]
    os.execv(sys.executable, command)  # in place of this process, so that Ctrl-C and exit codes are its own
