"""Still pictures of texts: what a reader calls a character is drawn once, in a place of its own."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.figures.static_strip import WIDTH, Page, StillRow, wrap

FAMILY, THUMB, FLAG, KEYCAP = "\U0001f469\u200d\U0001f469\u200d\U0001f467", "👍🏽", "🇩🇪", "1\ufe0f\u20e3"


def drawn(text: str, ends: list[int] | None = None) -> Page:
    """A page with one row: tokens that end at these code points, or one token a code point."""
    end = np.array(ends or range(1, len(text) + 1), dtype=np.int32)
    start = np.concatenate([[0], end[:-1]]).astype(np.int32)
    page = Page("light")
    for line in wrap(text, 0, len(text)):
        page.add_row(text, line, "A", StillRow(start, end, np.full(len(end), 0.1), lambda i: str(i)))
    return page


@pytest.mark.parametrize(
    ("text", "shown", "columns"),
    [
        (f"a{FAMILY}b", ["a", FAMILY, "b"], [1, 3, 1]),  # was drawn as five, the joiners' names across the rest
        (f"{THUMB}{FLAG}{KEYCAP}", [THUMB, FLAG, KEYCAP], [2, 2, 2]),
        ("cafe\u0301s", ["c", "a", "f", "e\u0301", "s"], [1] * 5),  # the accent stood apart, beside its letter
        ("日本", ["日", "本"], [2, 2]),
        ("\u1112\u1161\u11ab", ["\u1112\u1161\u11ab"], [2]),  # one syllable of three letters
        ("o\u200bk", ["o", "\\u200b", "k"], [1, 6, 1]),  # a name of six columns was given none
        ("a\r\n", ["a", "↵¶"], [1, 2]),
        ("<b>&", ["&lt;", "b", "&gt;", "&amp;"], [1] * 4),
    ],
)
def test_a_character_is_drawn_once_and_has_its_own_columns(text: str, shown: list[str], columns: list[int]) -> None:
    glyphs = drawn(text).glyphs["ink"]
    assert [each for _, _, each in glyphs] == shown
    left = np.concatenate([[0], np.cumsum(columns)])
    assert [x for x, _, _ in glyphs] == pytest.approx(((left[1:] + left[:-1]) / 2).tolist())


def test_tokens_that_split_a_character_share_its_columns() -> None:
    page = drawn("xe\u0301y", ends=[2, 3, 4])
    assert [(box.x, box.width) for box in page.cells] == [(0, 1.5), (1.5, 0.5), (2, 1)]
    assert [each for _, _, each in page.glyphs["ink"]] == ["x", "e\u0301", "y"]


def test_lines_are_broken_between_characters() -> None:
    """The text is whole, no line is too wide, and no character is cut in two."""
    text = ("cafe\u0301 " + FAMILY * 3 + FLAG) * 20 + "\r\n" + "日" * 200
    lines = wrap(text, 0, len(text))
    assert "".join(text[a:b] for a, b in lines) == text and [a for a, _ in lines[1:]] == [b for _, b in lines[:-1]]
    for a, b in lines:
        assert text[a] not in "\u0301\u200d\n" and (b == len(text) or text[b] not in "\u0301\u200d\n")
        page = drawn(text[a:b])
        assert sum(box.width for box in page.cells) <= WIDTH
