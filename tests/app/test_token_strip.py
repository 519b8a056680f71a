"""The strip's Python side: shapes and ranges, packing (read back by an independent reader), who moves the pin."""

from __future__ import annotations

import dataclasses
import json
import struct
from typing import Any

import numpy as np
import pytest

from analysis.figures.theme import SEQUENTIAL
from analysis.token_strip.packing import MISSING, NO_CHANCE, Packed, pack, quantise
from analysis.token_strip.rows import BarRow, Detail, Legend, LineRow, Strip, TokenRow, TopK
from app.token_strip.pin import Pin, Report, TokenChoice, read_choice, read_report, settle

LEGEND = Legend("sure", "unsure")
START = np.array([0, 2, 2, 4], np.int32)
END = np.array([2, 4, 4, 6], np.int32)


def token_row(**changes: Any) -> TokenRow:
    base = TokenRow("A", "model", START, END, np.array([0, 0.5, np.nan, 1], np.float32), "sequential")
    return dataclasses.replace(base, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"end": END[:3]}, r"start has shape \(4,\), end \(3,\)"),
        ({"value": np.zeros(3, np.float32)}, r"value has shape \(3,\), start has \(4,\)"),
        ({"boundary": np.zeros(5, bool)}, r"boundary has shape \(5,\), start has \(4,\)"),
        ({"details": (Detail("entropy", np.zeros(2, np.float32)),)}, r"'entropy' has shape \(2,\), start has \(4,\)"),
        ({"display": ("a",)}, r"display has shape \(1,\), start has \(4,\)"),
        ({"value": np.array([0, 1.5, 0, 0], np.float32)}, "runs from 0 to 1.5, expected 0 to 1; clip it"),
        ({"scale": "none"}, "its scale must be"),
        ({"start": START[::-1].copy(), "end": START[::-1].copy()}, "go back in the text"),
    ],
)
def test_a_wrong_row_says_what_is_wrong(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        token_row(**changes)


def test_topk_names_both_shapes_and_the_table_it_points_into() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\), probability \(2, 2\)"):
        TopK(np.zeros((2, 3), np.int32), np.zeros((2, 2), np.float32), ("a",))
    with pytest.raises(ValueError, match="run from 0 to 4, there are 1"):
        TopK(np.array([[0, 4]], np.int32), np.zeros((1, 2), np.float32), ("a",))


def test_a_strip_holds_its_rows_to_their_text() -> None:
    with pytest.raises(ValueError, match="ends at 6, its text has 5"):
        Strip("abcde", (token_row(),), LEGEND)
    with pytest.raises(ValueError, match="has a text of its own"):
        Strip("abcdef", (token_row(text="abcdef"),), LEGEND)
    with pytest.raises(ValueError, match="needs its own text"):
        Strip("", (token_row(),), LEGEND, aligned=False)
    with pytest.raises(ValueError, match="at least one TokenRow"):
        Strip("abcdef", (), LEGEND)
    bars = BarRow("", "B minus A", START[:1], END[:1], np.ones(1, np.float32), "more", "less")
    with pytest.raises(ValueError, match="must be aligned"):
        Strip("", (bars, token_row(text="abcdef")), LEGEND, aligned=False)


def test_places_of_rows_with_texts_of_their_own() -> None:
    curve = LineRow("H", "entropy", START, END, np.zeros(4, np.float32))
    rows = (token_row(text="abcdef"), curve, token_row(key="B", text="uvwxyz!"))
    strip = Strip("", rows, LEGEND, aligned=False)
    assert [len(block) for _, block in strip.blocks()] == [1, 2]
    assert strip.length == 13


def test_quantised_values_keep_the_ends_the_middle_and_what_is_missing() -> None:
    values = np.array([0, 0.5, 1, np.nan], np.float32)
    assert quantise(values, "sequential").tolist() == [0, 127, 254, MISSING]
    assert quantise(np.array([-1, 0, 1], np.float32), "diverging").tolist() == [0, 127, 254]


def unpack(packed: Packed) -> dict[str, Any]:
    """As unpack.js and strip.js do it, written anew: the body and the look as one."""
    body, look = read_block(packed.body), read_block(packed.look)
    assert look.pop("body") == list(packed.body[:16])
    rows = [row | more for row, more in zip(body["rows"], look["rows"], strict=True)]
    return body | look | {"rows": rows}


def read_block(data: bytes) -> dict[str, Any]:
    (length,) = struct.unpack_from("<I", data, 16)
    body = data[20 + length :]
    assert (20 + length) % 8 == 0

    def restore(found: dict[str, Any]) -> Any:
        if "count" not in found:
            return found
        return np.frombuffer(body, "<" + found["type"], found["count"], found["at"]).tolist()

    header: dict[str, Any] = json.loads(data[20 : 20 + length], object_hook=restore)
    return header


def test_what_is_packed_can_be_read_back() -> None:
    chances = np.full((4, 2), 0.25, np.float32)
    chances[3] = np.nan
    topk = TopK(np.array([[0, 1], [1, 0], [0, 0], [2, 2]], np.int32), chances, ("a", "b", "c"))
    row = token_row(
        details=(Detail("rank", np.array([1, 2, 3, 4e4], np.float32), digits=0),),
        topk=topk,
        display=("b", "x", "x", "c"),
        boundary=np.array([True, False, True, False]),
    )
    bars = BarRow("", "B minus A", START[:1], END[:1], np.array([-0.5], np.float32), "more", "less")
    found = unpack(pack(Strip("abcdef", (row, bars), LEGEND), key="k", height=300))
    tokens, drawn_bars = found["rows"]
    strings = found["strings"]
    assert found["texts"] == ["abcdef"]
    assert tokens["start"] == START.tolist()
    assert tokens["end"] == END.tolist()
    assert tokens["value"] == [0, 127, MISSING, 254]
    assert tokens["details"][0] == {"label": "rank", "digits": 0, "values": [1, 2, 3, 4e4]}
    assert [strings[i] for i in tokens["topk"]["ids"]] == ["a", "b", "b", "a", "a", "a", "c", "c"]
    assert np.array(tokens["topk"]["probability"][:6]) / 65534 == pytest.approx([0.25] * 6, abs=1e-5)
    assert tokens["topk"]["probability"][6:] == [NO_CHANCE, NO_CHANCE]
    assert [strings[i] for i in tokens["display"]] == ["b", "x", "x", "c"]
    assert sorted(strings) == ["a", "b", "c", "x"]  # each once
    assert tokens["boundary"] == [1, 0, 1, 0]
    assert drawn_bars["value"] == [-0.5]
    assert found["colours"]["dark"]["ramp"] == [list(c) for c in SEQUENTIAL["dark"]]


def test_equal_strips_are_packed_equally_and_others_are_not() -> None:
    same = [pack(Strip("abcdef", (token_row(),), LEGEND), key="k", height=300) for _ in range(2)]
    other = pack(Strip("abcdeg", (token_row(),), LEGEND), key="k", height=300)
    assert same[0] == same[1]
    assert same[0].body[:16] != other.body[:16]
    coloured = token_row(value=np.zeros(4, np.float32), scale="diverging")
    lens = pack(Strip("abcdef", (coloured,), Legend("less", "more", scale="diverging")), key="k", height=300)
    assert lens.body == same[0].body  # another score or lens sends the look alone
    assert lens.look != same[0].look


def test_a_choice_of_the_browser_is_read_with_care() -> None:
    assert read_choice({"row": "A", "token": 3, "rank": 0, "turn": 5}) == TokenChoice("A", 3, 0)
    for wrong in (None, "A", {"row": 1, "token": 3, "rank": 0}, {"row": "A", "token": "3", "rank": 0}):
        assert read_choice(wrong) is None


def test_text_that_utf8_cannot_hold_keeps_its_positions() -> None:
    found = unpack(pack(Strip("a\ud800\x00\udfffef", (token_row(),), LEGEND), key="k", height=300))
    assert found["texts"] == ["a\ufffd\x00\ufffdef"]


def test_ten_thousand_tokens_twice_stay_small() -> None:
    n, k = 10_000, 10
    random = np.random.default_rng(0)
    start = np.arange(n, dtype=np.int32) * 4
    strings = tuple(f" tok{i}" for i in range(49_152))

    def row(key: str) -> TokenRow:
        details = tuple(Detail(f"score {i}", random.random(n, np.float32)) for i in range(5))
        topk = TopK(random.integers(0, 49_152, (n, k)).astype(np.int32), random.random((n, k), np.float32), strings)
        return TokenRow(
            key, "model", start, start + 4, random.random(n, np.float32), "sequential", details, topk, strings[:n]
        )

    strip = Strip("abc " * n, (row("A"), row("B")), LEGEND)
    packed = pack(strip, key="k", height=300)
    assert len(packed.body) < 2_100_000  # the worst case: every word of the vocabulary comes up among the guesses
    assert len(packed.look) < 30_000


# Who moves the pin


def test_the_page_pins_first_and_again_only_when_it_changes_its_mind() -> None:
    first = settle(None, asked=5, report=None, length=10)
    assert (first.at, first.turn) == (5, 1)
    second = settle(first, asked=5, report=None, length=10)
    assert second == first
    third = settle(second, asked=7, report=None, length=10)
    assert (third.at, third.turn) == (7, 2)


def test_the_readers_move_wins_over_what_the_page_asked_before_and_does_not_bounce() -> None:
    first = settle(None, asked=5, report=None, length=10)
    moved = settle(first, asked=5, report=Report(8, turn=100), length=10)
    assert (moved.at, moved.turn) == (8, 1)
    echoed = settle(moved, asked=8, report=Report(8, turn=100), length=10)
    assert (echoed.at, echoed.turn) == (8, 1)
    unpinned = settle(echoed, asked=8, report=Report(None, turn=101), length=10)
    assert unpinned.at is None
    followed = settle(unpinned, asked=None, report=Report(None, turn=101), length=10)
    assert (followed.at, followed.turn) == (None, 1)
    again = settle(followed, asked=8, report=Report(None, turn=101), length=10)
    assert (again.at, again.turn) == (8, 2)


def test_a_strip_that_comes_back_keeps_the_pin() -> None:
    moved = Pin(at=8, asked=5, heard=100, turn=1)
    assert settle(moved, asked=5, report=None, length=10).at == 8


@pytest.mark.parametrize("state", [None, 7, {}, {"turn": "x"}, {"at": "<b>", "turn": 1}, {"at": -4, "turn": 1}])
def test_what_a_browser_sends_is_not_trusted(state: Any) -> None:
    report = read_report(state)
    assert report is None or report.at is None


def test_a_pin_beyond_the_text_is_none() -> None:
    assert settle(None, asked=12, report=None, length=10).at is None
    assert settle(None, asked=None, report=Report(99, 1), length=10).at is None
