"""Find the choice that a generated answer to a multiple-choice question names."""

import re
from collections.abc import Mapping

from evals.answers.result import Read, without_reasoning

NO_LETTER = "it names no choice"
MANY_LETTERS = "it names more than one choice"
UNFINISHED = "it was truncated before it chose"

_MARKS = r"[*_`\"'(\[]*"  # around a letter in Markdown, or in brackets
_OPEN = r"[*_`\"'(\[{$\\\s]*(?:text\s*\{\s*)?"
# a capital, or a lower-case letter that cannot be the article "a"
_LETTER = r"(?:([A-E])(?![A-Za-z'\u2019])|([a-e])(?=[)\]}.:,*\"']|\s*$|\s*\n))"
_KIND = r"(?i:(?:option|choice|answer|letter)\s+)?"
_NAMED = rf"{_KIND}{_OPEN}{_LETTER}"
_IS = r"(?i:\b(?:is|would\s+be|should\s+be|must\s+be|seems\s+to\s+be)\b)"
_SURELY = r"(?i:(?:definitely|clearly|therefore|indeed|probably|the|my|a|option|choice|letter|answer)\s+)*"
_STATED = (
    rf"\\boxed\s*\{{{_OPEN}{_LETTER}",
    rf"(?:####|<answer>)\s*{_NAMED}",
    # "the answer to the question is B"
    rf"(?i:\b(?:answer|choice|option)\b(?:\s+(?:to|for)\b[^.\n]{{0,60}}?)?)[*_]*\s*(?:{_IS}|[:=])[\s:*_]*+{_SURELY}{_NAMED}",
    # "I would choose B"
    rf"(?i:\b(?:choose|chose|pick|select|go\s+with|going\s+with)\b)\s*:?\s*{_SURELY}{_NAMED}",
    # "B is the best answer"
    rf"(?<![A-Za-z'\u2019]){_KIND}{_MARKS}([A-E])[*_`\"')\].,:]*\s+{_IS}\s+{_SURELY}"
    r"(?i:\b(?:best|correct|right|true|most\s+\w+|final|answer\b|one\b))",
    # "it is B"
    rf"(?i:\bit\s+is|\bit['\u2019]s)\s+{_KIND}{_MARKS}([A-E])(?=[*_`\"')\].,;]|\s*$|\s+(?:that|because|since|as)\b)",
    r"\u7b54\u6848\s*(?:\u662f|\u4e3a|:|\uff1a)\s*[(\uff08]?([A-E])",
)
_STATEMENTS = tuple(map(re.compile, _STATED))
_NEGATED = re.compile(r"\bnot\b|n['\u2019]t\b|\bnever\b", re.IGNORECASE)
_AND_ANOTHER = re.compile(
    rf"[*_`\"')\]}}]*\s*(?:,|/|&|\bor\b|\band\b)\s*(?i:(?:option|choice)\s+)?{_MARKS}([A-E])(?![A-Za-z'\u2019])"
)
_FIRST = re.compile(rf"{_OPEN}(?:([A-E])(?:[)\].:,*\"'}}]|\s*$|\s*\n)|([a-e])(?:[).:]\s|\s*$))")
_FIRST_FORCED = re.compile(rf"{_OPEN}(?:(?i:option|choice)\s+{_OPEN})?([A-E])\b(?!['\u2019])")
_LISTED = re.compile(r"^[^\w\n]*([A-E])[).:]", re.MULTILINE)  # the choices listed again
_MENTIONED = re.compile(
    r"(?<![A-Za-z0-9'\u2019])"
    r"(?:(?i:option|choice)\s+\(?([A-E])\b|\(([A-E])\)|\*\*\(?([A-E])[).:]?\s*\*\*|^[^\w\n]*([A-E])[^\w\n]*$)",
    re.MULTILINE,
)


def letter(text: str, forced: bool, ended: bool = True, choices: Mapping[str, str] | None = None) -> Read:
    """Return the choice that an answer names.

    The answer that it states counts, the last statement if there are several; else a letter that it begins with; else
    the only choice that it mentions; else the only choice whose whole text it gives as its answer.

    Args:
        text: the generated text; after the forced prefix "The best answer is" the letter comes first.
        forced: whether that prefix came before it.
        ended: whether it ended by itself: a choice that is only mentioned in a truncated text does not count.
        choices: the text of each letter's choice.
    """
    reply = without_reasoning(text)
    if reply.value is None:
        return reply
    whole = reply.value
    if forced and (first := _FIRST_FORCED.match(whole)) is not None:
        return _unambiguous(whole, first)
    stated = [match for statement in _STATEMENTS for match in statement.finditer(whole)]
    stated = [match for match in stated if not _NEGATED.search(match.group())]
    if stated:
        return _unambiguous(whole, max(stated, key=lambda match: match.end()))
    mentioned = {next(filter(None, groups)) for groups in _MENTIONED.findall(whole)}
    if (first := _FIRST.match(whole)) is not None and set(_LISTED.findall(whole)) <= {first[1]}:
        return _unambiguous(whole, first)
    if not ended:
        return Read(None, UNFINISHED)
    if len(mentioned) == 1:
        return Read(mentioned.pop())
    if (by_text := _by_text(whole, choices or {})) is not None:
        return Read(by_text)
    return Read(None, MANY_LETTERS if mentioned else NO_LETTER)


def _unambiguous(text: str, match: re.Match[str]) -> Read:
    """Return the letter that was found, unless another one follows it directly: "A or B"."""
    group_index = next(i for i, group in enumerate(match.groups(), 1) if group)
    choice, another = match.group(group_index).upper(), _AND_ANOTHER.match(text, match.end(group_index))
    return Read(None, MANY_LETTERS) if another is not None and another.group(1) != choice else Read(choice)


def _by_text(text: str, choices: Mapping[str, str]) -> str | None:
    """Return the choice whose words equal the text's statement, or the whole of a short text."""
    statement = re.split(r"(?i)\b(?:answer|choice)\b[*_]*\s*(?:is|:)\s*", text)[-1]
    words = _words(statement.strip().split("\n", 1)[0])
    same = [key for key, choice in choices.items() if _words(choice) and words == _words(choice)]
    return same[0] if len(same) == 1 else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
