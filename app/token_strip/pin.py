"""What the browser reports, and who moves the pin: the last to move it wins, and nothing bounces."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Report:
    """What the browser says: the reader has pinned `at`; `turn` grows with each move."""

    at: int | None
    turn: float


@dataclass(frozen=True)
class Pin:
    """What one run of the script leaves for the next."""

    at: int | None  # what is pinned
    asked: int | None  # what the page asked for
    heard: float | None  # the turn of the last report of the browser
    turn: int  # how often the page moved the pin; the browser follows when this grows


@dataclass(frozen=True)
class TokenChoice:
    """A token that the reader wants in place of another."""

    row: str  # key of the row
    token: int  # its place in the row
    rank: int  # which of the row's likeliest tokens is wanted there, from 0


def read_choice(value: Any) -> TokenChoice | None:
    """What a browser says as a choice; None where it is none."""
    if not isinstance(value, dict) or not isinstance(value.get("row"), str):
        return None
    token, rank = value.get("token"), value.get("rank")
    return TokenChoice(value["row"], token, rank) if isinstance(token, int) and isinstance(rank, int) else None


def read_report(value: Any) -> Report | None:
    """The component's state, which comes from a browser, as a report; None where it is none."""
    if not isinstance(value, dict) or not isinstance(value.get("turn"), int | float):
        return None
    at = value.get("at")
    return Report(at if isinstance(at, int) and at >= 0 else None, value["turn"])


def settle(last: Pin | None, *, asked: int | None, report: Report | None, length: int) -> Pin:
    """The pin after one more run, in a strip of `length` places."""
    heard = report.turn if report else None
    if last is None:
        pin = Pin(at=asked, asked=asked, heard=None, turn=1)
    else:
        pin = replace(last, asked=asked)
        if asked != last.asked and asked != last.at:
            pin = replace(pin, at=asked, turn=last.turn + 1)
    if report is not None and heard != pin.heard:
        pin = replace(pin, at=report.at, heard=heard, turn=last.turn if last else 1)
    if pin.at is not None and not 0 <= pin.at < length:
        pin = replace(pin, at=None)
    return pin
