"""The program that a written answer holds: as the bare continuation of a prompt, in a fence of its own, or after prose.

Works on text alone: nothing is parsed or run here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from evals.answers.result import without_reasoning

NO_PROGRAM = "the answer holds no program"

_FENCE = re.compile(r"```[ \t]*([A-Za-z]\w*)?")  # with the language, if it names one
_BEGINS = re.compile(r"(?:def|class|import|from|async def)\s|@\w|[A-Za-z_]\w*\s*=[^=]")  # a program after prose
_AT_THE_EDGE = re.compile(  # a line of a program that is not indented
    r"(?:def|class|import|from|async|if|elif|else|for|while|with|try|except|finally|return|print|assert|raise|global|del|pass)\b"
    r"|[@#)\]}]|\"\"\"|'''|[A-Za-z_][\w.]*(?:\[[^\]\n]*\])?\s*(?:[-+*/%&|^]?=|\(|:\s*\w[^=\n]*=)"
)


@dataclass(frozen=True)
class Program:
    """The program of an answer."""

    code: str
    reason: str | None = None  # why none was found; `code` is then what stands in its place


def program_in(text: str, name: str | None = None) -> Program:
    """The code of an answer to a prompt that ends where a program is to begin, or to go on.

    Args:
        text: what was written.
        name: of the function that was asked for; of several blocks of code the last that defines it is taken, else the
            first block.
    """
    said = without_reasoning(text)
    if said.value is None:
        return Program("", said.reason)
    whole = said.value.replace("\r\n", "\n")
    blocks = [block for block in _blocks(whole) if block.strip()]
    if not blocks:
        return Program(_FENCE.split(whole, maxsplit=1)[0], NO_PROGRAM)
    named = [block for block in blocks if name is not None and defines(block, name)]
    return Program(named[-1] if named else blocks[0])


def defines(code: str, name: str) -> bool:
    """Whether code defines a function of that name at its left edge."""
    return re.search(rf"^(?:async\s+)?def\s+{re.escape(name)}\s*\(", code, re.MULTILINE) is not None


def _blocks(text: str) -> list[str]:
    """The pieces of code of a text, in its order.

    Code before the first fence goes on with the prompt's, which a bare fence then closes; any other first fence is the
    answer's own.
    """
    fences = list(_FENCE.finditer(text))
    head = text[: fences[0].start()] if fences else text
    if not fences:
        return [head if _looks_like_code(head) else _after_prose(head)]
    blocks = [head] if _looks_like_code(head) else []
    inside = not blocks or fences[0].group(1) is not None
    for fence, following in zip(fences, [*fences[1:], None], strict=True):
        if inside:
            blocks.append(text[fence.end() : len(text) if following is None else following.start()])
        inside = not inside
    return blocks


def _looks_like_code(text: str) -> bool:
    """Whether the first line that is not blank is indented, or begins as a line of Python does."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return first[:1].isspace() or _AT_THE_EDGE.match(first) is not None


def _after_prose(text: str) -> str:
    """The code after some sentences and before others; nothing where no line begins as a program does."""
    lines = text.split("\n")
    begins = [i for i, line in enumerate(lines) if _BEGINS.match(line)]
    if not begins:
        return ""
    code = lines[begins[0] :]
    prose = [i for i, line in enumerate(code) if line[:1].strip() and _AT_THE_EDGE.match(line) is None]
    return "\n".join(code[: prose[0]] if prose else code)
