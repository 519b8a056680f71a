"""Find the program in a generated answer: a bare continuation of the prompt, a fenced block, or code after prose.

This works on text alone: nothing is parsed or run here.
"""

import re
from dataclasses import dataclass

from evals.answers.result import without_reasoning

NO_PROGRAM = "the answer holds no program"

_FENCE = re.compile(r"```[ \t]*([A-Za-z]\w*)?")  # with its language, if named
_BEGINS = re.compile(r"(?:def|class|import|from|async def)\s|@\w|[A-Za-z_]\w*\s*=[^=]")  # a program after prose
_AT_THE_EDGE = re.compile(  # a line of a program that is not indented
    r"(?:def|class|import|from|async|if|elif|else|for|while|with|try|except|finally|return|print|assert|raise|global|del|pass)\b"
    r"|[@#)\]}]|\"\"\"|'''|[A-Za-z_][\w.]*(?:\[[^\]\n]*\])?\s*(?:[-+*/%&|^]?=|\(|:\s*\w[^=\n]*=)"
)


@dataclass(frozen=True)
class Program:
    code: str
    reason: str | None = None  # why none was found; `code` is then used instead


def program_in(text: str, name: str | None = None) -> Program:
    """Return the code of an answer to a prompt that ends where a program begins or continues.

    Args:
        text: the generated text.
        name: name of the requested function; of several code blocks, the last that defines it is used, else the first.
    """
    reply = without_reasoning(text)
    if reply.value is None:
        return Program("", reply.reason)
    whole = reply.value.replace("\r\n", "\n")
    blocks = [block for block in _blocks(whole) if block.strip()]
    if not blocks:
        return Program(_FENCE.split(whole, maxsplit=1)[0], NO_PROGRAM)
    named = [block for block in blocks if name is not None and defines(block, name)]
    return Program(named[-1] if named else blocks[0])


def defines(code: str, name: str) -> bool:
    """True if code defines a function of that name at the left edge."""
    return re.search(rf"^(?:async\s+)?def\s+{re.escape(name)}\s*\(", code, re.MULTILINE) is not None


def _blocks(text: str) -> list[str]:
    """Return the blocks of code in a text, in order.

    Code before the first fence continues the prompt's code, which a bare fence then closes; any other first fence opens
    a block of the answer.
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
    """True if the first line that is not blank is indented, or begins like a line of Python."""
    first = next((line for line in text.split("\n") if line.strip()), "")
    return first[:1].isspace() or _AT_THE_EDGE.match(first) is not None


def _after_prose(text: str) -> str:
    """Return the code after some sentences and before others; empty if no line begins a program."""
    lines = text.split("\n")
    begins = [i for i, line in enumerate(lines) if _BEGINS.match(line)]
    if not begins:
        return ""
    code = lines[begins[0] :]
    prose = [i for i, line in enumerate(code) if line[:1].strip() and _AT_THE_EDGE.match(line) is None]
    return "\n".join(code[: prose[0]] if prose else code)
