r"""The rules of cleaning that look at one text alone: line breaks and code languages. The others: seen.py."""

from __future__ import annotations

import re

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*\{?\.?([\w+#.-]*)[^\n`]*$", re.MULTILINE)
_ALIASES = {
    **dict.fromkeys(("py", "python3", "python2", "pycon", "ipython"), "python"),
    **dict.fromkeys(("txt", "plaintext", "plain", "output", "console", "none"), "text"),
    **dict.fromkeys(("sh", "shell", "zsh"), "bash"),
    **dict.fromkeys(("js", "jsx", "node"), "javascript"),
    **dict.fromkeys(("c++", "cc", "hpp"), "cpp"),
}

# A short string in quotes on one line; an apostrophe within a word opens none. Three quotes open no such string.
_QUOTED = re.compile(
    r'''"""|\'\'\'|(?<![\w\\])'(?:[^'\\\n]|\\.)*'(?!\w)|(?<!\\)"(?:[^"\\\n]|\\.)*"|(?<!`)`[^`\n]*`(?!`)'''
)
# Commands of TeX that begin with \n; where a text holds other TeX, every \n before a small letter is taken for one.
_COMMANDS = r"abla|ewcommand|ewline|ewpage|eq|otin|oindent|onumber|earrow|warrow"
_LITERAL = re.compile(rf"(?<!\\)(?:\\r)?\\n(?!(?:{_COMMANDS})(?![A-Za-z]))")
_IN_TEX = re.compile(r"(?<!\\)(?:\\r)?\\n(?![a-z])")
_TEX = re.compile(r"\$|\\[(\[]|\\(?:frac|d?frac|text|times|theta|sqrt|boxed|alpha|pi|cdot|left|begin|leq?|geq?)\b")
_ALONE = re.compile(r"(?:^|(?<=\s))\\n(?=[\s,.;:)]|$)")  # as a word of its own: spoken of, not meant


def real_line_breaks(text: str) -> str:
    r"""Turn literal ``\n`` into line breaks, in a text whose line breaks were written so.

    A text is taken for one if outside quotes it holds literal ones that do not stand as words of their own, and at
    least ten times as many of them as real line breaks. Then every one outside quotes is turned; one inside quotes is
    what a program prints. Commands of TeX (``\nabla``, ``\neq``) and doubled backslashes are no literal line breaks.
    The rule is applied until it changes nothing, so that it does nothing to its own result.
    """
    while True:
        literal = _IN_TEX if _TEX.search(text) else _LITERAL
        turned, count, at = [], 0, 0
        for quoted in _QUOTED.finditer(text):
            if quoted[0] not in ('"""', "'''"):
                turned.append((text[at : quoted.start()], quoted[0]))
                at = quoted.end()
        turned.append((text[at:], ""))
        count = sum(len(literal.findall(outside)) - len(_ALONE.findall(outside)) for outside, _ in turned)
        if count < 1 or text.count("\n") * 10 > count:
            return text
        text = "".join(literal.sub("\n", outside) + quoted for outside, quoted in turned)


def literal_line_breaks(text: str) -> str:
    r"""The other way round, for an ablation: every line break becomes a literal ``\n``."""
    return text.replace("\n", "\\n")


def languages(text: str) -> list[str]:
    """The labels of fenced blocks, in order, as the usual names of languages; "" for a block without one."""
    found: list[str] = []
    opened: str | None = None
    for fence, label in _FENCE.findall(text):
        if opened is None:
            opened = fence
            found.append(_ALIASES.get(label.lower(), label.lower()))
        elif not label and fence.startswith(opened):  # it closes
            opened = None
    return found
