"""The choice that a written answer to a question with several choices names."""

from __future__ import annotations

import re
from collections.abc import Mapping

from evals.answers.result import Read, without_reasoning

NO_LETTER = "it names no choice"
MANY_LETTERS = "it names more than one choice"
UNFINISHED = "it was cut off before it chose"

_MARKS = r"[*_`\"'(\[]*"  # around a letter in Markdown, or in brackets
_OPEN = r"[*_`\"'(\[{$\\\s]*(?:text\s*\{\s*)?"
# a capital, or a small letter that cannot be the article "a"
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
_LISTED = re.compile(r"^[^\w\n]*([A-E])[).:]", re.MULTILINE)  # the choices written out again
_MENTIONED = re.compile(
    r"(?<![A-Za-z0-9'\u2019])"
    r"(?:(?i:option|choice)\s+\(?([A-E])\b|\(([A-E])\)|\*\*\(?([A-E])[).:]?\s*\*\*|^[^\w\n]*([A-E])[^\w\n]*$)",
    re.MULTILINE,
)


def letter(text: str, forced: bool, ended: bool = True, choices: Mapping[str, str] | None = None) -> Read:
    """The choice that an answer names.

    What it states to be the answer counts, the last statement if there are several; else a letter that it begins with;
    else the only choice that it mentions; else the only choice whose whole text it gives as its answer.

    Args:
        text: what was written; after the forced prefix "The best answer is" the letter comes first.
        forced: whether that prefix stood before it.
        ended: whether it ended by itself: what is merely mentioned in a text that was cut off is no choice.
        choices: the text of each letter's choice.
    """
    said = without_reasoning(text)
    if said.value is None:
        return said
    whole = said.value
    if forced and (first := _FIRST_FORCED.match(whole)) is not None:
        return _alone(whole, first)
    stated = [found for statement in _STATEMENTS for found in statement.finditer(whole)]
    stated = [found for found in stated if not _NEGATED.search(found.group())]
    if stated:
        return _alone(whole, max(stated, key=lambda found: found.end()))
    mentioned = {next(filter(None, groups)) for groups in _MENTIONED.findall(whole)}
    if (first := _FIRST.match(whole)) is not None and set(_LISTED.findall(whole)) <= {first[1]}:
        return _alone(whole, first)
    if not ended:
        return Read(None, UNFINISHED)
    if len(mentioned) == 1:
        return Read(mentioned.pop())
    if (by_text := _by_text(whole, choices or {})) is not None:
        return Read(by_text)
    return Read(None, MANY_LETTERS if mentioned else NO_LETTER)


def _alone(text: str, found: re.Match[str]) -> Read:
    """The letter that was found, unless another one stands beside it: "A or B"."""
    at = next(i for i, group in enumerate(found.groups(), 1) if group)
    named, other = found.group(at).upper(), _AND_ANOTHER.match(text, found.end(at))
    return Read(None, MANY_LETTERS) if other is not None and other.group(1) != named else Read(named)


def _by_text(text: str, choices: Mapping[str, str]) -> str | None:
    """The choice whose words the text's statement, or the whole of a short text, consists of."""
    statement = re.split(r"(?i)\b(?:answer|choice)\b[*_]*\s*(?:is|:)\s*", text)[-1]
    words = _words(statement.strip().split("\n", 1)[0])
    same = [key for key, choice in choices.items() if _words(choice) and words == _words(choice)]
    return same[0] if len(same) == 1 else None


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
