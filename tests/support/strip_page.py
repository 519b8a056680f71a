"""A page with nothing but the token strip, on made data; `?case=` says which, `&pin=` what is pinned at first."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import streamlit as st

from analysis.token_strip.rows import BarRow, Detail, Legend, LineRow, Strip, TokenRow, TopK
from app.styles import inject_css
from app.token_strip import token_strip

PROSE = (
    "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May. How many clips "
    "did Natalia sell altogether in April and May?\nIn May she sold 48 / 2 = 24 clips. Altogether she sold 48 + 24 = "
    '72 clips.\n\ndef total(april: int) -> int:\n    """Clips sold in April and May."""\n\tmay = april // 2\n'
    "    return april + may\n"
)
WIDE = (
    "北京是中国的首都，人口很多。 東京都は日本の首都である。 서울은 한국의 수도이다.\n"
    "cafe\u0301 nai\u0308ve \U0001f468\u200d\U0001f469\u200d\U0001f467 family \U0001f1eb\U0001f1f7 flag \u2764\ufe0f "
    "a\u200bb \u0915\u094d\u0937\u093f x\n"
)
RIGHT_TO_LEFT = "This line reads from the left.\nשלום עולם, מה שלומך? 123\nالسلام عليكم ورحمة الله\nAnd this one too.\n"
HOSTILE = (
    "<script>alert(1)</script> <img src=x onerror=alert(2)> <b>bold</b> ![p](http://example.invalid/p.png)\n"
    "**strong** $\\frac{1}{2}$ \x1b[31mred\x1b[0m \x00 \x07 \u202egnp.exe \ud800 &amp; </style> {{x}} \u2028 end\n"
)


def spans(text: str, pattern: str) -> tuple[np.ndarray, np.ndarray]:
    found = [match.span() for match in re.finditer(pattern, text, re.DOTALL)]
    start, end = np.array(found or np.zeros((0, 2)), np.int32).T
    return start, end


def words(text: str) -> tuple[np.ndarray, np.ndarray]:
    return spans(text, r"\n| ?\w+| ?[^\w\s]+|\s")


def fours(text: str) -> tuple[np.ndarray, np.ndarray]:
    return spans(text, r"\n| ?[^\s]{1,4}|\s")


def row(key: str, title: str, text: str, cut: Callable[[str], tuple], seed: int, *, own: bool = False) -> TokenRow:
    start, end = cut(text)
    n = len(start)
    random = np.random.default_rng(seed)
    entropy = np.float32(8) * random.beta(0.8, 2.2, n).astype(np.float32)
    entropy[:1] = np.nan
    tokens = [text[a:b] for a, b in zip(start, end, strict=True)]
    strings = tuple(dict.fromkeys([*tokens, " the", "\n", "<b>x</b>"]))
    details = (
        Detail("entropy, bits", entropy),
        Detail("confidence", random.random(n, np.float32)),
        Detail("surprisal, bits", entropy * np.float32(0.9)),
        Detail("margin", random.random(n, np.float32)),
        Detail("rank", random.integers(1, 50_000, n).astype(np.float32), digits=0),
    )
    probability = -np.sort(-random.dirichlet(np.ones(6), n)[:, :5].astype(np.float32), axis=1)
    topk = TopK(random.integers(0, len(strings), (n, 5)).astype(np.int32), probability, strings)
    return TokenRow(
        key=key,
        title=title,
        start=start,
        end=end,
        value=entropy / 8,
        scale="sequential",
        details=details,
        topk=topk,
        text=text if own else None,
    )


def difference(text: str) -> BarRow:
    start, end = spans(text, r"\n| ?\w{1,6}|.")
    value = np.random.default_rng(5).normal(0, 0.3, len(start)).clip(-1, 1).astype(np.float32)
    return BarRow("", "B minus A, bits", start, end, value, up="B less sure", down="B more sure")


LEGEND = Legend("sure", "unsure, 8 bits or more")


def pair(text: str) -> Strip:
    a = row("A", "gemma-3-270m", text, words, 1)
    b = row("B", "SmolLM2-135M-Instruct", text, fours, 2)
    return Strip(text, (a, b, difference(text)), LEGEND)


def split(text: str = "na\u00efve \U0001f600 caf\u00e9 ok") -> Strip:
    """The emoji is four tokens in B; in A the accented letter and the next one share a token border."""
    a = row("A", "words", text, words, 3)
    start = np.array([0, 6, 6, 6, 6, 7, 12], np.int32)
    end = np.array([6, 7, 7, 7, 7, 12, len(text)], np.int32)
    value = np.array([0.1, 0.2, 0.9, 0.3, np.nan, 0.5, 1], np.float32)
    display = ("na\u00efve ", *(f"<0x{b:02X}>" for b in "\U0001f600".encode()), " caf\u00e9", " ok")
    b = TokenRow("B", "bytes", start, end, value, "sequential", (Detail("entropy", value * 8),), display=display)
    return Strip(text, (a, b), LEGEND)


def segments(text: str = PROSE) -> Strip:
    rows: list[TokenRow | LineRow] = []
    start, end = fours(text)
    score = np.random.default_rng(7).beta(1, 2, len(start)).astype(np.float32)
    rows.append(LineRow("H", "entropy, 0 to 8 bits", start, end, score, threshold=0.4))
    for key, level in (("entropy > 3.2", 0.4), ("relative", 0.25), ("budget", 0.6)):
        boundary = score > level
        boundary[0] = True
        details = (Detail("entropy, bits", score * 8),)
        rows.append(TokenRow(key, f"{key} on B", start, end, details=details, boundary=boundary))
    macro = np.cumsum(boundary).astype(str)
    chosen = TokenRow(
        key="macro",
        title="macro steps, by confidence",
        start=start,
        end=end,
        value=1 - score,
        scale="sequential",
        boundary=boundary,
        labels=tuple(macro),
        muted=np.arange(len(start)) < 12,
    )
    return Strip(text, (*rows, chosen), Legend("unsure", "sure", "numbers: macro steps"))


def lens(text: str = PROSE) -> Strip:
    """One row of what changed; both models in the inspector alone. A turn starts at each second paragraph."""
    a = row("A", "base", text, words, 1)
    b = row("B", "tuned", text, words, 2)
    value = np.random.default_rng(3).normal(0, 0.3, len(a.start)).clip(-1, 1).astype(np.float32)
    value[::7] = np.nan
    change = TokenRow("B−A", "difference", a.start, a.end, value, "diverging", (Detail("entropy, bits", value),))
    jumps = np.sort(a.start[np.argsort(-np.nan_to_num(np.abs(value)))[:5]])
    hidden = tuple(dataclasses.replace(each, hidden=True) for each in (a, b))
    return Strip(
        text,
        (*hidden, change),
        Legend("B is more sure", "B is less sure", scale="diverging"),
        turns=((0, "user"), (text.index("\n") + 1, "assistant")),
        jumps=tuple(jumps.tolist()),
        jump_to="the 5 largest changes",
        overview="B−A",
    )


def diverging(text: str = PROSE) -> Strip:
    start, end = words(text)
    value = np.random.default_rng(8).uniform(-1, 1, len(start)).astype(np.float32)
    only = TokenRow("dH", "attribution of the pinned entropy", start, end, value, "diverging")
    return Strip(text, (only,), Legend("lowers it", "raises it", scale="diverging"))


def unaligned() -> Strip:
    texts = (PROSE, "A quite different answer: she sold 72 clips.\nIndeed.")
    a = row("A", "gemma-3-270m", texts[0], words, 1, own=True)
    b = row("B", "SmolLM2-135M-Instruct", texts[1], fours, 2, own=True)
    return Strip("", (a, b), LEGEND, aligned=False)


CASES: dict[str, Callable[[], Strip]] = {
    "pair": lambda: pair(PROSE),
    "wide": lambda: pair(WIDE),
    "rtl": lambda: pair(RIGHT_TO_LEFT),
    "hostile": lambda: pair(HOSTILE),
    "large": lambda: pair(PROSE * 90),
    "huge": lambda: pair((PROSE * 250)[:100_000]),
    "oneline": lambda: pair("word " * 20_000),
    "empty": lambda: pair(""),
    "split": split,
    "segments": segments,
    "diverging": diverging,
    "unaligned": unaligned,
    "lens": lambda: lens(PROSE * 3),
}

st.set_page_config(layout="wide")
inject_css()  # it lays the strip over the space that is reserved for it
case = st.query_params.get("case", "pair")
asked = st.number_input("pin from Python", value=int(st.query_params.get("pin", -1)), step=1)
told = st.session_state.setdefault("told", [])
with st.container(border=True):
    place = token_strip(
        CASES[case](),
        key="strip",
        pinned=int(asked) if asked >= 0 else None,
        height=560,
        on_pin=told.append,
        on_edit=told.append,
    )
st.text(f"pinned: {place}")
st.text(f"told: {told}")
