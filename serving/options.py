"""Options of the command `serve`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from model.command_options import EPS_HELP, ByCost


@dataclass(frozen=True)
class AddressOptions:
    """Where the server listens, and who may use it."""

    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 is every one of this machine.")] = "127.0.0.1"
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8000
    api_key: Annotated[
        str | None,
        typer.Option(envvar="MICRO_STEP_API_KEY", help="Key that requests must carry; better given in the variable."),
    ] = None
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(help="A name under which the server is reached, beside localhost; may be repeated."),
    ] = None


@dataclass(frozen=True)
class SegmentOptions:
    """How segments end where a request does not say it."""

    rule: Annotated[str, typer.Option(help="When a segment ends: confidence, product or stop_head.")] = "confidence"
    confidence: Annotated[float, typer.Option(min=0, help="tau of the rule; above 1 the base alone writes.")] = 0.8
    lossless: Annotated[
        bool | None, typer.Option("--lossless/--merged", help="Default: what the model was trained for.")
    ] = None
    max_segment_length: Annotated[
        int | None, typer.Option(min=1, help="M, the most tokens of a segment; the model's own if not given.")
    ] = None
    eps: Annotated[float, typer.Option(help=EPS_HELP)] = 1.0
    by_cost: ByCost = False


@dataclass(frozen=True)
class LimitOptions:
    """What requests may ask for."""

    max_rows: Annotated[int, typer.Option(min=1, help="Answers that are written at once.")] = 16
    max_waiting: Annotated[int, typer.Option(min=0, help="Answers that may wait; further requests get 429.")] = 64
    read_at_once: Annotated[
        int, typer.Option(min=1, help="Tokens of prompts that are read between two steps of the answers under way.")
    ] = 256
    max_body: Annotated[int, typer.Option(min=1, help="Bytes of a request.")] = 2_000_000
    timeout: Annotated[int, typer.Option(min=1, help="Seconds for an answer, waiting included.")] = 600
