"""The reader's choice of another token, as a document."""

from __future__ import annotations

import numpy as np

from analysis.uncertainty.result import Comparison
from app.token_strip import TokenChoice
from model.text.document import Document


def edited(comparison: Comparison, choice: TokenChoice) -> Document | None:
    """The document with a token replaced by an alternative; None where the choice fits no token of it."""
    side = {"A": comparison.a, "B": comparison.b}.get(choice.row)
    if side is None:
        return None
    tokens = np.flatnonzero(side.encoded.source_start >= 0)
    if not (0 <= choice.token < len(tokens) and 0 <= choice.rank < side.scores.topk_ids.shape[1]):
        return None
    i = int(tokens[choice.token])
    start, end = int(side.encoded.source_start[i]), int(side.encoded.source_end[i])
    written = side.strings.get(int(side.scores.topk_ids[i, choice.rank]))
    return None if written is None else comparison.document.replaced(start, end, written)
