"""What results show in a notebook: the strip as one piece of HTML, its static picture, and figures."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import json
import re
from html.parser import HTMLParser

import numpy as np
import plotly.io as pio
import pytest

import micro_step as ms
from analysis.token_strip.notebook import MOST_TOKENS, NotebookStrip
from analysis.token_strip.rows import BarRow, Legend, Strip, TokenRow
from analysis.token_strip.still import ABOVE, BELOW, LONGEST, MARK, STRONGEST, TONE, still_html
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
    assert len(shown.html) < 32_000
    told = json.loads(re.search(r"load\((\{.*\})\);", shown.html).group(1))
    code = gzip.decompress(base64.b64decode(told["code"])).decode()
    assert code.count("class TokenStrip") == 1
    assert not re.search(r"\n\s*(//|\*|import |export )", code + shown.html)
    assert set(shown._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_a_strip_that_is_too_long_is_a_picture():
    shown = NotebookStrip(strip("x" * (MOST_TOKENS + 1))).html
    assert "<script" not in shown and f"{MOST_TOKENS:,}" in shown
    assert f"{MOST_TOKENS + 1 - LONGEST:,} more characters" in shown
    assert len(shown) < 100_000


def test_the_picture_has_the_colours_of_values_and_of_segments():
    def looks(made: Strip) -> list[str]:
        return re.findall(r'<span style="([^"]*)"', still_html(made).split("</pre>")[0])

    orange, blue = (f"background-color:#{bytes(colour).hex()}" for colour in (ABOVE, BELOW))
    values = looks(strip("abcd", value=np.array([0, np.nan, 0.5, 1], np.float32)))
    assert values == [f"background-color:{TONE};", f"{orange}60;", f"{orange}bf;"]  # 0 has none
    assert looks(strip("abc", value=np.array([-1, 0, 1], np.float32), scale="diverging")) == [
        f"{blue}bf;",
        f"{orange}bf;",
    ]
    starts = np.array([True, False, True, True])
    parts = looks(strip("abcd", value=None, scale="none", boundary=starts))
    tone = f"background-color:{TONE};"
    assert parts == [tone + MARK, tone, MARK, tone + MARK]
    long = "x" * 200  # a token on three lines starts once
    one = np.array([True])
    ends = {"start": np.array([0], np.int32), "end": np.array([200], np.int32)}
    assert still_html(strip(long, value=None, scale="none", boundary=one, **ends)).count(MARK) == 1


@pytest.mark.parametrize("colour", [ABOVE, BELOW])
@pytest.mark.parametrize(("ink", "ground"), [(0, 255), (0x21, 255), (0xE0, 0), (255, 0x11)])
def test_text_is_readable_on_every_colour_in_light_and_dark_pages(colour, ink, ground):
    def luminance(rgb: np.ndarray) -> float:
        x = rgb / 255
        return float(np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722])

    for opacity in np.linspace(0, STRONGEST, 20):
        mixed = luminance(np.array(colour) * opacity + ground * (1 - opacity))
        letter = luminance(np.full(3, float(ink)))
        assert (max(mixed, letter) + 0.05) / (min(mixed, letter) + 0.05) >= 4.5


def test_the_caption_names_what_is_drawn_and_nothing_else():
    at = np.arange(2, dtype=np.int32)
    bars = BarRow("B", "difference", at, at + 1, np.zeros(2, np.float32), "more", "less")
    seen = row("ab", title="<b>model</b>", value=np.array([np.nan, 1], np.float32))
    hidden = row("ab", key="H", hidden=True)
    legend = Legend("0, sure", "1, unsure", "entropy", beside="bars: B minus A")
    shown = still_html(Strip("ab", (seen, hidden, bars), legend))
    caption = Tags(shown[shown.index("<p>") :]).text
    assert [each.strip() for each in caption.replace("\u00a0", "").split(";")] == [
        "0, sure  1, unsure",
        "no score",
        "A: <b>model</b>",
        "entropy",
    ]


def test_a_character_of_several_tokens_is_shown_once_and_hidden_rows_are_not():
    start, end = np.array([0, 0, 1], np.int32), np.array([1, 1, 2], np.int32)
    both = row("ab", start=start, end=end, value=np.zeros(3, np.float32))
    hidden = row("ab", key="hidden", hidden=True)
    shown = Tags(still_html(Strip("ab", (both, hidden), Legend("", "")))).text
    assert shown.split("\n")[0].split() == ["A", "ab"] and "hidden" not in shown
    assert "several tokens" in shown


def test_rows_of_texts_of_their_own_follow_each_other():
    rows = tuple(dataclasses.replace(row(text), key=key, text=text) for key, text in (("A", "ab"), ("B", "cde")))
    shown = Tags(still_html(Strip("", rows, Legend("", "", scale="none"), aligned=False))).text
    assert shown.split()[:4] == ["A", "ab", "B", "cde"]


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
    assert set(bundle) == {"application/vnd.plotly.v1+json", "text/plain"}
    assert "Over the text" in bundle["text/plain"] and "entropy" in bundle["text/plain"]
    monkeypatch.setattr(pio.renderers, "default", "notebook")
    assert set(figure._repr_mimebundle_()) == {"text/html"}  # plotly's own
