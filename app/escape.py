"""Makes text from users, models and files safe where Streamlit reads Markdown."""

from __future__ import annotations

import re

_LINK = re.compile(r"https?(?=:)|www(?=\.)|@", re.IGNORECASE)  # where Markdown turns plain text into a link
_JOINER = "\u2060"  # an invisible character that breaks such a link
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$~:&^=])")


def escape_markdown(text: str, longest: int = 300) -> str:
    """Escape a text so that it shows literally: no emphasis, links, images, HTML, LaTeX, icons or colours."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    visible = "".join(c if c.isprintable() else " " for c in short)
    return _SPECIAL.sub(r"\\\1", _LINK.sub(rf"\g<0>{_JOINER}", visible))
