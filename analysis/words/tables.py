"""Tables of scored texts: a row a word (or a region), or a row a token, with the columns of the texts.

A table comes in pieces of some rows, since the columns of a text are repeated on each of its rows. The surprisal of a
word is the sum over its tokens, so is `entropy_sum`; `entropy_first` is of its first token alone.
A sum over a token without a score is missing. With two models every score has one column for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.score_registry import PER_NAT, SCORES, Unit
from analysis.words.spans import token_words
from analysis.words.stimuli import Stimuli
from data.corpus.scored_rows import ROLE_NAMES, ScoredRows
from model.errors import TextError

FIRST = "no token stands before it"
CUT_OFF = "beyond the context"
NO_TOKEN = "no token begins in it"  # a token of the word before holds its first characters, and all others


@dataclass(frozen=True)
class _Words:
    """The N tokens of one model, by the W words of all texts."""

    document: NDArray[np.int64]  # [N]
    first: NDArray[np.int64]  # [N] number of a word among all; -1 in the chat template
    last: NDArray[np.int64]  # [N]


def word_tables(
    stimuli: Stimuli, sides: Mapping[str, ScoredRows], unit: Unit, characters: int | None = None
) -> Iterator[pd.DataFrame]:
    """A row for each word: the columns of its text, its place, and the scores of each model.

    Args:
        stimuli: D texts.
        sides: "" and one model's tokens of these texts, or "a" and "b" and two models'.
        unit: of surprisal and entropy.
        characters: a piece has at most so many in the columns of its texts, or one row; None: one piece has all rows.
    """
    counts = np.array([len(spans) for spans in stimuli.spans], dtype=np.int64)
    document = np.repeat(np.arange(len(counts)), counts)
    position = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    spans = np.concatenate([np.zeros((0, 2), dtype=np.int64), *stimuli.spans])
    texts = zip(document.tolist(), spans.tolist(), strict=True)
    ours: dict[str, object] = {
        "document": document + stimuli.first,
        "position": position,
        "word": pd.array([stimuli.texts[i][a:b] for i, (a, b) in texts], dtype="str"),
        "start": spans[:, 0],
        "end": spans[:, 1],
    }
    scored = {key: _word_scores(stimuli, rows, spans[:, 1], document, unit) for key, rows in sides.items()}
    ours |= _side_by_side(scored)
    if len(sides) == 2:
        ours["surprisal_difference"] = scored["b"]["surprisal"] - scored["a"]["surprisal"]
    yield from _pieces(stimuli, stimuli.row_of(document, position), ours, unit, characters)


def token_tables(
    stimuli: Stimuli, sides: Mapping[str, ScoredRows], unit: Unit, characters: int | None = None
) -> Iterator[pd.DataFrame]:
    """A row for each token, with the word that it belongs to; arguments as `word_tables`.

    Raises:
        TextError: two models read different tokens.
    """
    rows, *others = sides.values()
    for other in others:
        if not np.array_equal(rows.ids, other.ids) or not np.array_equal(rows.start, other.start):
            raise TextError("the two models read different tokens; words can be compared: --by word")
    words, base = _words(stimuli, rows), _first_words(stimuli)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(words.document, minlength=len(stimuli.texts)))])
    inside = zip(words.document.tolist(), rows.start.tolist(), rows.end.tolist(), strict=True)
    position = np.where(words.first < 0, -1, words.first - base[words.document])
    word_position = pd.array(position, dtype="Int64")
    word_position[position < 0] = pd.NA
    ours: dict[str, object] = {
        "document": words.document + stimuli.first,
        "position": np.arange(len(rows.ids)) - offsets[words.document],
        "token_id": rows.ids,
        "token": pd.array([stimuli.texts[i][a:b] if a >= 0 else "" for i, a, b in inside], dtype="str"),
        "start": rows.start,
        "end": rows.end,
        "role": pd.array(np.array(ROLE_NAMES)[rows.role], dtype="str"),
        "word_position": word_position,
        "shared_token": words.first != words.last,
    }
    ours |= _side_by_side({key: _token_scores(each, unit) for key, each in sides.items()})
    yield from _pieces(stimuli, stimuli.row_of(words.document, position), ours, unit, characters)


def _first_words(stimuli: Stimuli) -> NDArray[np.int64]:
    """[D] the number of each text's first word among all."""
    counts = np.array([len(spans) for spans in stimuli.spans], dtype=np.int64)
    return np.cumsum(counts) - counts


def _words(stimuli: Stimuli, rows: ScoredRows) -> _Words:
    document = np.repeat(rows.document, np.diff(rows.offsets)).astype(np.int64)
    edges = np.searchsorted(document, np.arange(len(stimuli.texts) + 1))
    first, last = np.full((2, len(document)), -1, dtype=np.int64)
    for i, base in enumerate(_first_words(stimuli).tolist()):
        here = slice(edges[i], edges[i + 1])
        a, b = token_words(stimuli.texts[i], stimuli.spans[i], rows.start[here], rows.end[here])
        first[here], last[here] = np.where(a < 0, -1, a + base), np.where(b < 0, -1, b + base)
    return _Words(document, first, last)


def _word_scores(
    stimuli: Stimuli, rows: ScoredRows, ends: NDArray[np.int64], document: NDArray[np.int64], unit: Unit
) -> dict[str, Any]:
    words, count = _words(stimuli, rows), len(ends)
    mine = np.flatnonzero(words.first >= 0)
    word = words.first[mine]
    tokens = np.bincount(word, minlength=count)
    missing = np.bincount(word, np.isnan(rows.surprisal[mine]), minlength=count) > 0
    reach = np.zeros(len(stimuli.texts), dtype=np.int64)  # [D] the character up to which a text was scored
    np.maximum.at(reach, words.document, rows.end)
    reason = np.full(count, None, dtype=object)
    reason[missing] = FIRST
    reason[tokens == 0] = NO_TOKEN
    reason[ends > reach[document]] = CUT_OFF
    known = ~missing & (tokens > 0) & (ends <= reach[document])
    scale = PER_NAT[unit]
    entropy_first = np.full(count, np.nan)
    numbers, at = np.unique(word, return_index=True)
    entropy_first[numbers] = rows.entropy[mine][at].astype(np.float64) * scale
    sums = {
        name: np.bincount(word, np.nan_to_num(getattr(rows, field)[mine].astype(np.float64), posinf=np.inf), count)
        * scale
        for name, field in (("surprisal", "surprisal"), ("entropy_sum", "entropy"))
    }
    shared = np.zeros(count + 1, dtype=np.int64)
    between = mine[words.first[mine] != words.last[mine]]
    np.add.at(shared, words.first[between], 1)
    np.add.at(shared, words.last[between] + 1, -1)
    return {
        "tokens": tokens,
        **{name: np.where(known, values, np.nan) for name, values in sums.items()},
        "entropy_first": np.where(known, entropy_first, np.nan),
        "shared_token": np.cumsum(shared)[:count] > 0,
        "missing": pd.array(reason, dtype="str"),
    }


def _token_scores(rows: ScoredRows, unit: Unit) -> dict[str, object]:
    scores = {
        name: getattr(rows, name).astype(np.float64) * (PER_NAT[unit] if SCORES[name].information else 1)
        for name in ("entropy", "confidence", "margin", "surprisal")
    }
    rank = pd.array(rows.rank, dtype="Int64")
    lacking = np.isnan(rows.surprisal)
    rank[lacking] = pd.NA
    reason = np.full(len(lacking), None, dtype=object)
    reason[lacking] = FIRST
    return {**scores, "rank": rank, "missing": pd.array(reason, dtype="str")}


def _side_by_side(scored: Mapping[str, Mapping[str, object]]) -> dict[str, object]:
    names = next(iter(scored.values()))
    return {f"{name}_{key}" if key else name: scored[key][name] for name in names for key in scored}


def _pieces(
    stimuli: Stimuli, row: NDArray[np.int64], ours: Mapping[str, object], unit: Unit, characters: int | None
) -> Iterator[pd.DataFrame]:
    """Our columns beside those of the table's rows, [n] of which `row` says."""
    scores = pd.DataFrame(ours).assign(unit=unit)
    ends = [len(row)]
    if characters is not None and stimuli.row_size is not None:
        full = np.cumsum(stimuli.row_size[row]) // characters
        ends = [*(np.flatnonzero(np.diff(full)) + 1).tolist(), len(row)]
    for begin, end in zip([0, *ends], ends, strict=False):
        theirs = stimuli.columns.iloc[row[begin:end]].reset_index(drop=True)
        yield _joined(theirs, scores.iloc[begin:end].reset_index(drop=True))


def _joined(theirs: pd.DataFrame, ours: pd.DataFrame) -> pd.DataFrame:
    """Both side by side; where a name is taken, ours is put behind `scored_`."""
    taken = set(map(str, theirs.columns))
    names = {}
    for name in ours:
        free = name
        while free in taken:
            free = f"scored_{free}"
        taken.add(free)
        names[name] = free
    return pd.concat([theirs, ours.rename(columns=names)], axis=1)
