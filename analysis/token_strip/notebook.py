"""A strip as an object that a notebook shows, with the same JavaScript as in the app, and without a kernel.

Its HTML is a static picture (`still`) and a script that puts the strip in its place. Where scripts do not run, as in a
notebook that is not trusted, the picture stays. Nothing is loaded from anywhere.
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
            return (
                f"<div>{still}<p>{self.tokens:,} tokens: a notebook shows up to {MOST_TOKENS:,} as a strip.</p></div>"
            )
        pin = self.pinned if self.pinned is not None and 0 <= self.pinned < self.strip.length else None
        packed = pack(self.strip, key="", height=HEIGHT)
        digests = packed.body[:DIGEST] + packed.look[:DIGEST] + str(pin).encode()
        name = hashlib.blake2b(digests, digest_size=6).hexdigest()
        data = {"name": name, "style": _sheet(), "body": _text(packed.body), "look": _text(packed.look), "pin": pin}
        show = f"show(document.currentScript?.getRootNode() ?? document, {json.dumps(data)});"
        return f'<div data-micro-step="{name}">{still}<script>(() => {{\n{_module()}\n{show}\n}})();</script></div>'

    def __repr__(self) -> str:
        return f"<{self.title}: {self.tokens:,} tokens>"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self.html}


def _text(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, mtime=0)).decode("ascii")


@cache
def _module() -> str:
    """The JavaScript without its comments, as the body of a function."""
    modules = script().replace("export default function", "function") + (HERE / "notebook.js").read_text("utf-8")
    return re.sub(r"\s*\n\s*", "\n", _COMMENT.sub("", modules))


@cache
def _sheet() -> str:
    return style() + (HERE / "notebook.css").read_text("utf-8")
