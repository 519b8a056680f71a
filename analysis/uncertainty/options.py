"""Options of the commands `score` and `compare`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from analysis.options import HISTORY_METHOD, HISTORY_STRIDE, Method
from model.command_options import OnlyWith


@dataclass(frozen=True)
class HistoryOptions:
    """How much of the text before a token the model sees."""

    history: Annotated[int, typer.Option(min=0, help="Limit the history to this many tokens; 0 is all.")] = 0
    history_method: Annotated[Method, HISTORY_METHOD, OnlyWith("history")] = "exact"
    history_stride: Annotated[int, HISTORY_STRIDE, OnlyWith("history")] = 16


@dataclass(frozen=True)
class ContinuationOptions:
    """Whether models continue the text by themselves."""

    new_tokens: Annotated[
        int, typer.Option("--continue", min=0, help="Let each model continue by up to this many tokens.")
    ] = 0
