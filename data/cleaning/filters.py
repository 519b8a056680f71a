"""Cleaning rules that look at one text alone: line breaks and code languages. dedup.py has the others."""

import random
import re

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*\{?\.?([\w+#.-]*)[^\n`]*$", re.MULTILINE)
_ALIASES = {
    **dict.fromkeys(("py", "python3", "python2", "pycon", "ipython"), "python"),
    **dict.fromkeys(("txt", "plaintext", "plain", "output", "console", "none"), "text"),
    **dict.fromkeys(("sh", "shell", "zsh"), "bash"),
    **dict.fromkeys(("js", "jsx", "node"), "javascript"),
    **dict.fromkeys(("c++", "cc", "hpp"), "cpp"),
}

# A short string in quotes on one line. An apostrophe within a word opens none, nor do three quotes.
_QUOTED = re.compile(
    r'''"""|\'\'\'|(?<![\w\\])'(?:[^'\\\n]|\\.)*'(?!\w)|(?<!\\)"(?:[^"\\\n]|\\.)*"|(?<!`)`[^`\n]*`(?!`)'''
)
# TeX commands that begin with \n. In a text with other TeX, every \n before a lower-case letter counts as one.
_COMMANDS = r"abla|ewcommand|ewline|ewpage|eq|otin|oindent|onumber|earrow|warrow"
_LITERAL = re.compile(rf"(?<!\\)(?:\\r)?\\n(?!(?:{_COMMANDS})(?![A-Za-z]))")
_IN_TEX = re.compile(r"(?<!\\)(?:\\r)?\\n(?![a-z])")
_TEX = re.compile(r"\$|\\[(\[]|\\(?:frac|d?frac|text|times|theta|sqrt|boxed|alpha|pi|cdot|left|begin|leq?|geq?)\b")
_ALONE = re.compile(r"(?:^|(?<=\s))\\n(?=[\s,.;:)]|$)")  # a word of its own: mentioned, not meant


def real_line_breaks(text: str) -> str:
    r"""Turn literal line breaks, ``\n``, into line breaks, in a text that was written with them.

    A text counts as one if, outside quotes, it holds literal ones that are not words of their own, and at least ten
    times as many of them as real line breaks. Then all of them outside quotes are replaced; inside quotes they are what
    a program prints. TeX commands (``\nabla``, ``\neq``) and doubled backslashes are not literal line breaks. The rule
    is repeated until it changes nothing, so it is idempotent.
    """
    while True:
        literal = _IN_TEX if _TEX.search(text) else _LITERAL
        parts, count, position = [], 0, 0
        for quoted in _QUOTED.finditer(text):
            if quoted[0] not in ('"""', "'''"):
                parts.append((text[position : quoted.start()], quoted[0]))
                position = quoted.end()
        parts.append((text[position:], ""))
        count = sum(len(literal.findall(outside)) - len(_ALONE.findall(outside)) for outside, _ in parts)
        if count < 1 or text.count("\n") * 10 > count:
            return text
        text = "".join(literal.sub("\n", outside) + quoted for outside, quoted in parts)


def literal_line_breaks(text: str) -> str:
    r"""Turn every line break into a literal ``\n``, for an ablation."""
    return text.replace("\n", "\\n")


def languages(text: str) -> list[str]:
    """Return the languages of fenced blocks, in order, under their usual names; "" for a block without a label."""
    labels: list[str] = []
    opened: str | None = None
    for fence, label in _FENCE.findall(text):
        if opened is None:
            opened = fence
            labels.append(_ALIASES.get(label.lower(), label.lower()))
        elif not label and fence.startswith(opened):  # a closing fence
            opened = None
    return labels


def mistyped(text: str, share: float, key: str) -> str:
    """Return a text in which this share of the Latin letters is mistyped, the same ones for the same key.

    A letter is replaced by its neighbour on the keyboard, left out, doubled, or swapped with the character after it,
    each equally often.
    """
    chance = random.Random(f"{key}/{share}")
    out, at = [], 0
    while at < len(text):
        letter, at = text[at], at + 1
        if letter.lower() not in _NEIGHBOUR or chance.random() >= share:
            out.append(letter)
            continue
        kind = chance.choice(("replaced", "left out", "doubled", "swapped"))
        if kind == "replaced":
            near = chance.choice(_NEIGHBOUR[letter.lower()])
            out.append(near.upper() if letter.isupper() else near)
        elif kind == "doubled":
            out.append(letter * 2)
        elif kind == "swapped":
            out.append(text[at : at + 1] + letter)
            at += 1
    return "".join(out)


_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_NEIGHBOUR = {letter: row[max(0, i - 1) : i] + row[i + 1 : i + 2] for row in _KEYBOARD for i, letter in enumerate(row)}
