"""The inputs of segmentation rules: arrays over one row of tokens, or over several rows laid end to end.

A rule never looks past the start of a row, so rows that are segmented together give the same result as alone, and there
is no padding. This module knows nothing about rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from model.short_repr import ShortRepr

if TYPE_CHECKING:  # these import torch and transformers, which the rules do without
    from model.scoring.scores import TokenScores
    from model.text.encoding import EncodedText

Values = NDArray[np.floating]
SCORES = ("entropy", "confidence", "margin", "surprisal")
TABLES = ("attention_mass", "micro_confidence")  # of W numbers a token
_SETTINGS = ("window", "layer")


@dataclass(frozen=True, repr=False)
class SegmentInputs(ShortRepr):
    """N tokens. Only the arrays that the chosen rule needs must be given; a missing score is NaN."""

    entropy: Values | None = None  # [N] nats
    confidence: Values | None = None  # [N] probability of the likeliest token
    margin: Values | None = None  # [N] best minus second best probability
    surprisal: Values | None = None  # [N] nats
    limited_entropy: Values | None = None  # [N] nats, from the last `window` tokens only
    window: int | None = None  # tokens
    word_start: NDArray[np.bool_] | None = None  # [N] see `word_starts`
    attention_mass: Values | None = None  # [N, W] column j - 1: the share that goes to the j tokens before
    attention_sparsity: Values | None = None  # [N] effective support over length, 0 to 1
    router: Values | None = None  # [N] half of (1 - cosine) between the hidden states of a token and the one before
    layer: int | None = None  # layer of `router`
    micro_confidence: Values | None = None  # [N, W] column j - 1: the confidence if the segment began j tokens before
    byte_entropy: Values | None = None  # [N] nats, the highest of a byte of the token, under a small byte model
    byte_rise: Values | None = None  # [N] nats, the highest rise of that entropy from one byte to the next
    prompt: NDArray[np.bool_] | None = None  # [N] tokens of the prompt, which each start a segment
    row_start: NDArray[np.bool_] | None = None  # [N] first tokens of rows; None: one row

    def __post_init__(self) -> None:
        shapes = {name: array.shape for name, array in self._arrays.items()}
        if not shapes:
            raise ValueError("SegmentInputs needs at least one array")
        n = next(iter(shapes.values()))[0]
        for name, shape in shapes.items():
            if shape[:1] != (n,) or len(shape) != (2 if name in TABLES else 1):
                raise ValueError(f"{name} must be [{n}{', W' if name in TABLES else ''}], got {list(shape)}")
        if n and self.row_start is not None and not self.row_start[0]:
            raise ValueError("row_start[0] must be true: the first token starts a row")

    @property
    def _arrays(self) -> dict[str, NDArray[Any]]:
        given = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _SETTINGS}
        return {name: array for name, array in given.items() if array is not None}

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    @cached_property
    def row_starts(self) -> NDArray[np.bool_]:
        """[N] bool, first tokens of rows."""
        return np.arange(len(self)) == 0 if self.row_start is None else self.row_start

    @cached_property
    def missing(self) -> NDArray[np.bool_]:
        """[N] bool, tokens without scores."""
        result = np.zeros(len(self), dtype=bool)
        for name in (*SCORES, "limited_entropy"):
            if getattr(self, name) is not None:
                result |= np.isnan(getattr(self, name))
        return result

    @cached_property
    def position(self) -> NDArray[np.int64]:
        """[N] place of each token in its row, from 0."""
        at = np.arange(len(self))
        result: NDArray[np.int64] = at - np.maximum.accumulate(np.where(self.row_starts, at, 0))
        return result

    @cached_property
    def forced(self) -> NDArray[np.bool_]:
        """[N] bool, tokens that start a segment under every rule.

        The first token of a row, any without scores, the first with scores, any of the prompt, and the first after it.
        """
        forced = self.row_starts | self.missing
        scored = np.cumsum(~self.missing)  # counted over all rows
        before_row = np.maximum.accumulate(np.where(self.row_starts, scored - ~self.missing, 0))
        forced |= ~self.missing & (scored - before_row == 1)
        if self.prompt is not None:
            forced |= self.prompt
            forced[1:] |= self.prompt[:-1]
        return forced

    def before(self, values: Values, steps: int = 1) -> NDArray[np.float64]:
        """Return [N] the value `steps` tokens before in the same row; NaN if there is none."""
        result = np.full(len(self), np.nan)
        result[steps:] = values[: max(0, len(self) - steps)]
        result[self.position < steps] = np.nan
        return result

    @classmethod
    def of(cls, scores: TokenScores, encoded: EncodedText | None = None, prompt_apart: bool = False) -> SegmentInputs:
        """Return the inputs of one scored text.

        Args:
            scores: scores of N tokens.
            encoded: the same N tokens, for the rule `word`.
            prompt_apart: treat everything that the assistant did not write as prompt, which is never merged.
        """
        return cls(
            **{name: getattr(scores, name) for name in SCORES},
            word_start=None if encoded is None else word_starts(encoded.text, encoded.start, encoded.continuation),
            prompt=encoded.role != "assistant" if encoded is not None and prompt_apart else None,
        )

    @classmethod
    def join(cls, rows: Sequence[SegmentInputs]) -> SegmentInputs:
        """Lay several rows end to end."""
        if not rows:
            raise ValueError("no rows to join")
        held = [(*sorted({*row._arrays, "row_start"}), row.window, row.layer) for row in rows]
        if len(set(held)) > 1:
            raise ValueError(f"rows that are joined must hold the same arrays, got {sorted(set(map(str, held)))}")
        names = [name for name in rows[0]._arrays if name != "row_start"]
        return cls(
            **{name: np.concatenate([getattr(row, name) for row in rows]) for name in names},
            window=rows[0].window,
            layer=rows[0].layer,
            row_start=np.concatenate([row.row_starts for row in rows]),
        )


def word_starts(text: str, start: NDArray[np.int32], continuation: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return [N] bool: tokens that start with white space or follow it. Line breaks are white space too."""
    characters = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    blank = np.concatenate([[True], _blank()[characters], [False]])  # blank[i + 1] is that of character i
    result: NDArray[np.bool_] = (blank[start + 1] | blank[start]) & ~continuation
    return result


@lru_cache(maxsize=1)
def _blank() -> NDArray[np.bool_]:
    """Return a table of code points: True for white space, as defined by `str.isspace`."""
    table = np.zeros(0x110000, dtype=bool)
    table[[code for code in range(0x3001) if chr(code).isspace()]] = True  # the last one is U+3000
    return table
