"""What the token strip draws: rows of tokens, bars and lines over one text, as frozen dataclasses of arrays.

Positions are code points of `text` (Python's own string index), half open. Tokens may share characters: a character
that several tokens make up is drawn once and hatched. This module knows neither models nor streamlit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Scale = Literal["sequential", "diverging", "none"]
RANGE: dict[Scale, tuple[float, float]] = {"sequential": (0.0, 1.0), "diverging": (-1.0, 1.0)}


@dataclass(frozen=True, eq=False)
class Detail:
    """One line of the inspector, such as "entropy, bits"."""

    label: str
    values: NDArray[np.float32] | NDArray[np.integer]
    # [N], NaN where there is none; integers are counts, not negative
    digits: int = 2


@dataclass(frozen=True, eq=False)
class Note:
    """One line of the inspector in words, of which there are few."""

    label: str
    index: NDArray[np.integer]
    # [N], into `words`
    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.index.size and not (self.index.min() >= 0 and self.index.max() < len(self.words)):
            raise ValueError(
                f"note {self.label!r}: index runs from {self.index.min()} to {self.index.max()}, there are "
                f"{len(self.words)} words"
            )


@dataclass(frozen=True, eq=False)
class TopK:
    """The k likeliest tokens at each position, best first."""

    ids: NDArray[np.int32]
    # [N, k], into `strings`
    probability: NDArray[np.float32]
    # [N, k]
    strings: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.ids.ndim != 2 or self.ids.shape != self.probability.shape:
            raise ValueError(
                f"TopK: ids has shape {self.ids.shape}, probability {self.probability.shape}; both must be [N, k]"
            )
        if self.ids.size and not (self.ids.min() >= 0 and self.ids.max() < len(self.strings)):
            raise ValueError(
                f"TopK: ids run from {self.ids.min()} to {self.ids.max()}, there are {len(self.strings)} strings"
            )


@dataclass(frozen=True, eq=False)
class TokenRow:
    """One reading of the text as tokens: a model's, or a segmentation strategy's."""

    key: str  # stands before the row: "A"
    title: str  # the full name of the model or strategy
    start: NDArray[np.int32]
    # [N], never falling; start == end is a token without text, which is not drawn
    end: NDArray[np.int32]
    # [N]
    value: NDArray[np.float32] | None = None
    # [N], in RANGE[scale]; NaN is a missing score: hatched
    scale: Scale = "none"
    details: tuple[Detail, ...] = ()
    topk: TopK | None = None
    display: tuple[str, ...] | None = None  # [N], for the inspector; without it the token's characters
    boundary: NDArray[np.bool_] | None = None
    # [N], the token starts a segment
    labels: tuple[str, ...] | None = None  # [N], drawn above the tokens that start a segment
    muted: NDArray[np.bool_] | None = None
    # [N], drawn faint: the chat template's own tokens
    text: str | None = None  # the row's own text, where the strip is not aligned
    notes: tuple[Note, ...] = ()
    hidden: bool = False  # in the inspector only

    def __post_init__(self) -> None:
        where = f"TokenRow {self.key!r}"
        _check_spans(where, self.start, self.end)
        shape = self.start.shape
        for name, array in (("value", self.value), ("boundary", self.boundary), ("muted", self.muted)):
            if array is not None:
                _check_shape(where, name, array.shape, shape)
        for detail in self.details:
            _check_shape(where, f"detail {detail.label!r}", detail.values.shape, shape)
        for note in self.notes:
            _check_shape(where, f"note {note.label!r}", note.index.shape, shape)
        if self.topk is not None:
            _check_shape(where, "topk (positions)", self.topk.ids.shape[:1], shape)
        for name, strings in (("display", self.display), ("labels", self.labels)):
            if strings is not None:
                _check_shape(where, name, (len(strings),), shape)
        if self.value is not None and self.scale == "none":
            raise ValueError(f'{where}: it has values, so its scale must be "sequential" or "diverging"')
        if self.value is not None:
            _check_range(where, "value", self.value, RANGE[self.scale])


@dataclass(frozen=True, eq=False)
class BarRow:
    """Thin bars under the rows: a signed quantity per cell of characters, up is orange and down is blue."""

    key: str
    title: str
    start: NDArray[np.int32]
    # [C], never falling
    end: NDArray[np.int32]
    # [C]
    value: NDArray[np.float32]
    # [C], in [-1, 1] of its scale; NaN is none
    up: str  # what a bar upwards says: "B is less sure"
    down: str
    hidden: bool = False

    def __post_init__(self) -> None:
        where = f"BarRow {self.key!r}"
        _check_spans(where, self.start, self.end)
        _check_shape(where, "value", self.value.shape, self.start.shape)
        _check_range(where, "value", self.value, (-1.0, 1.0))


@dataclass(frozen=True, eq=False)
class LineRow:
    """A thin curve above the row that follows it: a score, orange on one side of the threshold."""

    key: str
    title: str
    start: NDArray[np.int32]
    # [N], never falling
    end: NDArray[np.int32]
    # [N]
    value: NDArray[np.float32]
    # [N], in [0, 1] of its axis; NaN is none
    threshold: float | None = None  # on the same axis; outside of [0, 1] it is not drawn
    marked: Literal["above", "below"] = "above"  # the side of it that is orange

    def __post_init__(self) -> None:
        where = f"LineRow {self.key!r}"
        _check_spans(where, self.start, self.end)
        _check_shape(where, "value", self.value.shape, self.start.shape)
        _check_range(where, "value", self.value, (0.0, 1.0))


Row = TokenRow | BarRow | LineRow


@dataclass(frozen=True)
class Legend:
    """What the colours mean, at the foot of the strip."""

    low: str  # "sure"
    high: str  # "unsure, 8 bits"
    note: str = ""
    scale: Scale = "sequential"
    beside: str = ""  # what bars, curves and numbers beside the tokens show


@dataclass(frozen=True, eq=False)
class Strip:
    """Rows over one text, or with `aligned=False` rows that each have a text of their own, one after another.

    A place in the strip is one number: the code point offset in `text`; where the rows are not aligned, the offset
    in their texts laid end to end.
    """

    text: str
    rows: tuple[Row, ...]
    legend: Legend
    aligned: bool = True
    turns: tuple[tuple[int, str], ...] = ()  # places at which a turn of a conversation starts, with its role
    jumps: tuple[int, ...] = ()  # places that n and p lead to, in the order of the text
    jump_to: str = ""  # what stands there: "the 20 largest changes"
    overview: str = ""  # key of the row of tokens that the map of the whole text shows; without it there is no map

    def __post_init__(self) -> None:
        if not any(isinstance(row, TokenRow) and not row.hidden for row in self.rows):
            raise ValueError(f"Strip: needs at least one TokenRow that is drawn, has {len(self.rows)} other rows")
        if self.aligned:
            self._check_aligned()
        for text, rows in self.blocks():
            for row in rows:
                _check_end(row, text)

    def _check_aligned(self) -> None:
        for row in self.rows:
            if isinstance(row, TokenRow) and row.text is not None:
                raise ValueError(f"TokenRow {row.key!r} has a text of its own; give Strip(aligned=False)")

    def blocks(self) -> tuple[tuple[str, tuple[Row, ...]], ...]:
        """Each text with the rows that stand on it: one block if aligned, else one for each TokenRow."""
        if self.aligned:
            return ((self.text, self.rows),)
        found: list[tuple[str, tuple[Row, ...]]] = []
        waiting: list[Row] = []
        for row in self.rows:
            if isinstance(row, BarRow):
                raise ValueError(f"BarRow {row.key!r} compares rows, so the strip must be aligned")
            waiting.append(row)
            if isinstance(row, TokenRow):
                if row.text is None:
                    raise ValueError(f"TokenRow {row.key!r} needs its own text, as the strip is not aligned")
                found.append((row.text, tuple(waiting)))
                waiting = []
        if waiting:
            raise ValueError(f"LineRow {waiting[0].key!r} must stand before the TokenRow whose curve it is")
        return tuple(found)

    @property
    def length(self) -> int:
        """How many places there are."""
        if self.aligned:
            return len(self.text)
        return sum(len(row.text) for row in self.rows if isinstance(row, TokenRow) and row.text is not None)


def _check_shape(where: str, name: str, found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if found != expected:
        raise ValueError(f"{where}: {name} has shape {found}, start has {expected}")


def _check_spans(where: str, start: NDArray[np.int32], end: NDArray[np.int32]) -> None:
    if start.ndim != 1 or start.shape != end.shape:
        raise ValueError(f"{where}: start has shape {start.shape}, end {end.shape}; both must be [N]")
    if start.size and (start.min() < 0 or (end < start).any() or (np.diff(start) < 0).any()):
        raise ValueError(f"{where}: spans must not be negative, end before they start, or go back in the text")


def _check_end(row: Row, text: str) -> None:
    last = int(row.end.max()) if row.end.size else 0
    if last > len(text):
        raise ValueError(f"{type(row).__name__} {row.key!r} ends at {last}, its text has {len(text)} characters")


def _check_range(where: str, name: str, array: NDArray[np.float32], bounds: tuple[float, float]) -> None:
    low, high = bounds
    if ((array < low) | (array > high)).any():
        raise ValueError(
            f"{where}: {name} runs from {np.nanmin(array):.3g} to {np.nanmax(array):.3g}, expected {low:g} to "
            f"{high:g}; clip it and say so in the legend"
        )
