"""The token strip of the answers of two runs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.strips.generation import legend
from analysis.token_strip.rows import Detail, Strip, TokenRow
from evals.report.side_by_side import segments
from evals.report.token_spans import locate_tokens
from evals.samples import WrittenAnswer


def sample_strip(answers: Sequence[tuple[str, str, WrittenAnswer]]) -> Strip | None:
    """Answers below each other if their texts are equal, else one after another; None if nothing was written.

    Args:
        answers: letter, name and answer of each run.
    """
    written = [(key, name, piece, locate_tokens(piece)) for key, name, piece in answers if piece.tokens]
    if not written:
        return None
    one = len({spans[0] for *_, spans in written}) == 1
    rows = tuple(
        _row(key, name, piece, start, end, None if one else text) for key, name, piece, (text, start, end) in written
    )
    return Strip(written[0][3][0] if one else "", rows, legend(), one)


def _row(key: str, name: str, piece: WrittenAnswer, start: np.ndarray, end: np.ndarray, text: str | None) -> TokenRow:
    of, place = segments(piece)
    known = piece.probability is not None
    probability = np.clip(np.array(piece.probability or np.full(len(of), np.nan), dtype=np.float32), 0, 1)
    alone = not place.any()  # all segments are single tokens, so numbers would only add noise
    details = (Detail("macro step", of + 1, digits=0), Detail("micro position", place, digits=0))
    return TokenRow(
        key=key,
        title=name,
        start=start,
        end=end,
        value=1 - probability if known else None,
        scale="sequential" if known else "none",
        details=(*((Detail("probability", probability, digits=3),) if known else ()), *details),
        display=piece.tokens,
        boundary=place == 0,
        labels=None if alone else tuple(map(str, (of + 1).tolist())),
        text=text,
    )
