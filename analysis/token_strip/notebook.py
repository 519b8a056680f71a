"""A strip as an object that a notebook shows, with the same JavaScript as in the app, and without a kernel.

Its HTML is a static picture (`still`) and a script that puts the strip in its place. Where scripts do not run, as in a
notebook that is not trusted, the picture stays. Nothing is loaded from anywhere: each output carries the strip's code,
compressed, since outputs may be deleted, moved, or shown in frames of their own (Colab); a page unpacks it once.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from analysis.token_strip.packing import DIGEST, pack
from analysis.token_strip.rows import Strip, TokenRow
from analysis.token_strip.script import script, style
from analysis.token_strip.still import still_html

HEIGHT = 480  # CSS pixels, of the scrolling part at most
MOST_TOKENS = 40_000  # of all rows together; a longer strip is a static picture
STATIC = "This is a static picture."
TRUST = "In a trusted notebook you can point at a token to see its values, and click to pin it."
_COMMENT = re.compile(r"/\*.*?\*/|^\s*//[^\n]*", re.DOTALL | re.MULTILINE)
HERE = Path(__file__).parent


@dataclass(frozen=True, repr=False, eq=False)
class NotebookStrip:
    """The token strip of a result, which notebooks show: point at a token to see its values, click to pin it.

    Arrow keys move the pin, Esc removes it. `html` is what is shown, for a page of your own.
    """

    strip: Strip
    pinned: int | None = None  # a place of the strip
    title: str = "token strip"

    @property
    def tokens(self) -> int:
        """How many tokens all rows have."""
        return sum(len(row.start) for row in self.strip.rows if isinstance(row, TokenRow))

    @property
    def html(self) -> str:
        """The strip as a piece of HTML that needs no network."""
        still = still_html(self.strip)
        if self.tokens > MOST_TOKENS:
            why = f"The strip has {self.tokens:,} tokens; with up to {MOST_TOKENS:,} you could point at each."
            return f"<div>{still}<p>{STATIC} {why}</p></div>"
        pin = self.pinned if self.pinned is not None and 0 <= self.pinned < self.strip.length else None
        packed = pack(self.strip, key="", height=HEIGHT)
        name = _name(packed.body[:DIGEST] + packed.look[:DIGEST] + str(pin).encode())
        data = {"name": name, "pin": pin, "body": _text(packed.body), "look": _text(packed.look), **_script()}
        return (
            f'<div data-micro-step="{name}">{still}<p>{STATIC} {TRUST}</p>'
            f"<script>(() => {{\n{_loader()}\nload({json.dumps(data)});\n}})();</script></div>"
        )

    def __repr__(self) -> str:
        return f"<{self.title}: {self.tokens:,} tokens>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self.html}


def _name(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=6).hexdigest()


def _text(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")


@cache
def _loader() -> str:
    return _bare((HERE / "loader.js").read_text("utf-8"))


@cache
def _script() -> dict[str, str]:
    """The JavaScript and the style sheet as one script, compressed, and the name of this version of it."""
    modules = script().replace("export default function", "function")
    sheet = _bare(style() + (HERE / "notebook.css").read_text("utf-8"))
    show = (HERE / "notebook.js").read_text("utf-8")
    code = _bare(f"const STYLE = {json.dumps(sheet)};\n{modules}\n{show}").encode()
    return {"version": _name(code), "code": _text(code)}


def _bare(source: str) -> str:
    """Without comments and indentation."""
    return re.sub(r"\s*\n\s*", "\n", _COMMENT.sub("", source))
