"""Options of the commands `score` and `compare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer


@dataclass(frozen=True)
class ContinuationOptions:
    """Whether models continue the text by themselves."""

    new_tokens: Annotated[
        int, typer.Option("--continue", min=0, help="Let each model continue by up to this many tokens.")
    ] = 0
