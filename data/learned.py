"""Which tokens of scored conversations and texts are learned, and at which of them a base's states are kept."""

import numpy as np
from numpy.typing import NDArray

from data.corpus.scored_rows import ROLE_NAMES, ScoredRows

_ASSISTANT, _TEXT = ROLE_NAMES.index("assistant"), ROLE_NAMES.index("text")


def learned_tokens(rows: ScoredRows, ended: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return [N] bool, the tokens in the loss; and [N] bool, the tokens up to the last of them in their row.

    In the loss are the last answer and the one token that closes it. A truncated answer is not closed. A plain text is
    an answer except for its first token.

    Args:
        rows: R rows of N tokens in all.
        ended: [R] bool, False for truncated answers.
    """
    row, position = np.repeat(np.arange(len(rows)), np.diff(rows.offsets)), np.arange(len(rows.ids))
    first = np.zeros(len(rows.ids), dtype=bool)
    first[rows.offsets[:-1][np.diff(rows.offsets) > 0]] = True
    answer = (rows.role == _ASSISTANT) | ((rows.role == _TEXT) & ~first)
    other_turn = ~answer & (rows.start >= 0) & ~((rows.role == _TEXT) & first)  # what another speaker said
    last_other = np.full(len(rows), -1)
    np.maximum.at(last_other, row[other_turn], position[other_turn])
    loss_mask = answer & (position > last_other[row])
    last = np.full(len(rows), -1)
    np.maximum.at(last, row[loss_mask], position[loss_mask])
    closing = last[(last >= 0) & ended] + 1
    closing = closing[(closing < len(rows.ids))]
    closing = closing[(row[closing] == row[np.maximum(closing - 1, 0)]) & (rows.role[closing] != _TEXT)]
    loss_mask[closing] = True
    last[row[closing]] = closing
    return loss_mask, position <= last[row]


def draft_positions(
    loss_mask: NDArray[np.bool_], offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return [P] rows and [P] tokens at which a draft may begin: the two tokens after them are learned.

    Args:
        loss_mask: [N] bool, the learned tokens of all rows, end to end.
        offsets: [R + 1] where each row begins.
    """
    at = np.arange(max(0, len(loss_mask) - 2))
    row = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    chosen = at[(row[at] == row[at + 2]) & loss_mask[at + 1] & loss_mask[at + 2]]
    return row[chosen], chosen


def kept_positions(rows: ScoredRows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return [P] rows and [P] tokens whose states are kept: `draft_positions`, as if every answer had ended.

    So they depend on the rows alone. Of a truncated answer there is one more than are used, its last.
    """
    loss_mask, _ = learned_tokens(rows, np.ones(len(rows), dtype=bool))
    return draft_positions(loss_mask, rows.offsets)
