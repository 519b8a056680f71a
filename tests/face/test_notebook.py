"""What results show in a notebook: the strip as one piece of HTML, its static picture, and figures."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import numpy as np
import plotly.io as pio
import pytest

import micro_step as ms
from analysis.token_strip.notebook import MOST_TOKENS, NotebookStrip
from analysis.token_strip.rows import Legend, Strip, TokenRow
from analysis.token_strip.still import LONGEST, SEGMENTS, still_html
from tests.support.reader import HOSTILE

TEXT = "A cat sat."


def row(text: str, **changes: object) -> TokenRow:
    """One token a character."""
    at = np.arange(len(text), dtype=np.int32)
    value = np.linspace(0, 1, len(text), dtype=np.float32)
    return dataclasses.replace(TokenRow("A", "model", at, at + 1, value, "sequential"), **changes)


def strip(text: str = TEXT, **changes: object) -> Strip:
    return Strip(text, (row(text, **changes),), Legend("sure", "unsure"))


class Tags(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.named: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.named |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_nothing_of_a_text_becomes_an_element():
    shown = NotebookStrip(strip(HOSTILE + "\ud800", key="<b>", title="</script>")).html
    tags = Tags(shown)
    assert set(tags.seen) == {"div", "pre", "span", "p", "script"} and tags.seen.count("script") == 1
    assert tags.named == {"data-micro-step", "style"}
    assert "<b>" in tags.text and "window.hostile" in tags.text
    assert "hostile" not in shown[shown.index("<script>") :]  # packed in base64
    shown.encode("utf-8")


def test_a_strip_is_small_and_equal_ones_are_equal():
    shown = NotebookStrip(strip())
    assert shown.html == NotebookStrip(strip()).html != NotebookStrip(strip(), pinned=3).html
    assert NotebookStrip(strip(), pinned=99).html == shown.html  # beyond the text, nothing is pinned
    assert len(shown.html) < 75_000
    assert shown.html.count("class TokenStrip") == 1
    assert not re.search(r"\n\s*(//|\*|import |export )", shown.html)
    assert set(shown._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_a_strip_that_is_too_long_is_a_picture():
    shown = NotebookStrip(strip("x" * (MOST_TOKENS + 1))).html
    assert "<script" not in shown and f"{MOST_TOKENS:,}" in shown
    assert f"{MOST_TOKENS + 1 - LONGEST:,} more characters" in shown
    assert len(shown) < 100_000


def test_the_picture_has_the_colours_of_values_and_of_segments():
    def fills(made: Strip) -> list[str]:
        return re.findall(r'<span style="background-color:(#\w{6})', still_html(made))

    values = fills(strip("abc", value=np.array([0, np.nan, 1], np.float32)))
    assert values == ["#ffffff", "#ffffff", "#cf5212"]
    signed = fills(strip("abc", value=np.array([-1, 0, 1], np.float32), scale="diverging"))
    assert signed == ["#4a86f0", "#ffffff", "#db6222"]
    parts = fills(strip("abc", value=None, scale="none", boundary=np.array([True, False, True])))
    assert parts == [SEGMENTS[1], SEGMENTS[1], SEGMENTS[0]]


def test_a_character_of_several_tokens_is_shown_once_and_hidden_rows_are_not():
    start, end = np.array([0, 0, 1], np.int32), np.array([1, 1, 2], np.int32)
    both = row("ab", start=start, end=end, value=np.zeros(3, np.float32))
    hidden = row("ab", key="hidden", hidden=True)
    shown = Tags(still_html(Strip("ab", (both, hidden), Legend("", "")))).text
    assert shown.split() == ["A", "ab", "(light)", "to", "(dark)"]


def test_rows_of_texts_of_their_own_follow_each_other():
    rows = tuple(dataclasses.replace(row(text), key=key, text=text) for key, text in (("A", "ab"), ("B", "cde")))
    shown = Tags(still_html(Strip("", rows, Legend("", "", scale="none"), aligned=False))).text
    assert shown.split() == ["A", "ab", "B", "cde"]


def test_results_have_strips_and_say_where_they_have_none(models):
    compared = ms.compare(models["base"], models["sft"], TEXT)
    assert "data-micro-step" in compared._repr_html_()
    assert compared.strip(lens="a", pinned=2).pinned == 2
    assert [each.hidden for each in compared.strip(lens="change").strip.rows] == [True, True, False, True]
    with pytest.raises(ms.MicroStepError, match="lens"):
        compared.strip(lense="a")
    without = dataclasses.replace(compared, lay=None)
    with pytest.raises(ms.MicroStepError, match="no token strip"):
        without.strip()
    for result, rows in (
        (ms.score(models["base"], TEXT), 1),
        (ms.segment(models["base"], TEXT, "entropy"), 2),
        (ms.attention(models["base"], TEXT), 1),
        (ms.attribute(models["base"], TEXT, method="input_x_gradient"), 1),
    ):
        assert len(result.strip().strip.rows) == rows
        assert result.strip().strip.text == TEXT


def test_a_figure_has_its_head_and_words_where_plotly_is_not(models, monkeypatch):
    result = ms.score(models["base"], TEXT)
    figure = result.figure("line")
    assert models["base"].name in figure.layout.title.text
    monkeypatch.setattr(pio.renderers, "default", "plotly_mimetype")
    bundle = figure._repr_mimebundle_()
    assert set(bundle) == {"application/vnd.plotly.v1+json", "text/html"}
    assert "<table" in bundle["text/html"] and "<script" not in bundle["text/html"]
    monkeypatch.setattr(pio.renderers, "default", "notebook")
    assert "<table" not in figure._repr_mimebundle_()["text/html"]  # plotly's own
