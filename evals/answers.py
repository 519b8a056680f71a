"""What a written answer says: the number of a GSM8K solution, read three ways, and the letter of a multiple choice.

An answer that holds nothing that can be read is invalid, and the reason is kept. `strict` and `flexible` are the
harness's own filters, flaws included, so that numbers can be compared with those of others; `ours` is meant to read
what a person would.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")  # by the harness, on both sides, before it compares
_NUMBER = re.compile(r"(?<![\w.])-?\$?\s?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:\s?/\s?\d+)?|-?\$?\.\d+")
_MARK = re.compile(r"####|\\boxed\s*\{|\banswer\s*(?:is|was|would be|=|:)", re.IGNORECASE)
_NEXT_QUESTION = re.compile(r"\n\s*(?:Q|Question)\s*:")
_AFTER_MARK = 60  # characters in which the number must begin
_LETTER = re.compile(  # a small "a" may be an article
    r"\b(?:[Aa]nswer|[Cc]hoice|[Oo]ption)\b(?:\s+(?:is|would be))?\s*:?\s*[*(\[{$\\\"' ]*"
    r"([A-E]\b(?!')|[a-e](?=[)\]}.:*\"]|\s*$))"
)
_LETTER_FIRST = re.compile(r"\s*[*(\[\"']*([A-E])(?:[)\].:,*\"']|\s*$|\s*\n)")

EMPTY = "nothing was written"
NO_NUMBER = "there is no number in it"
UNFINISHED = "it was cut off before an answer was marked"
EMPTY_MARK = "no number follows where it says that the answer follows"
NOT_MARKED = "the number is not marked in the harness's way"
NO_LETTER = "it names no choice"
MANY_LETTERS = "it names more than one choice"


@dataclass(frozen=True)
class Read:
    """What was read out of a text."""

    value: str | None
    reason: str | None = None  # why there is none

    @property
    def valid(self) -> bool:
        """Whether there is a value."""
        return self.value is not None


def strict(text: str, pattern: str = r"The answer is (\-?[0-9\.\,]+).") -> Read:
    """The harness's `strict-match`: a regular expression's first match.

    It asks for a character after the number, so that "The answer is 72" at the very end of a text gives "7".
    """
    found = re.findall(pattern, text)
    if not found:
        return Read(None, EMPTY if not text.strip() else NOT_MARKED)
    return Read(str(found[0]).strip())


def flexible(text: str) -> Read:
    """The harness's `flexible-extract`: the last thing of digits, dollar signs, dots and commas."""
    found = _FLEXIBLE.findall(text)
    if not found:
        return Read(None, EMPTY if not text.strip() else NO_NUMBER)
    return Read(next(part for part in found[-1] if part).strip())


def ours(text: str, ended: bool = True) -> Read:
    """The number after the last mark ("####", LaTeX's box, "answer is"); without a mark the last number of all.

    What stands behind the start of another question is not part of the answer. A text that was cut off has an answer
    only where it is marked: its last number is some number of the way.

    Args:
        text: what was written.
        ended: whether it ended by itself.
    """
    answer = _NEXT_QUESTION.split(text, maxsplit=1)
    whole, ended = answer[0], ended or len(answer) > 1
    if not whole.strip():
        return Read(None, EMPTY)
    marks = list(_MARK.finditer(whole))
    for mark in reversed(marks):
        line = whole[mark.end() :].lstrip().split("\n", 1)[0]
        found = _NUMBER.search(_plain(line)[:_AFTER_MARK])
        if found is not None:
            if mark.group() != "####" and "=" in line[found.end() :]:  # "the answer is 5 + 3 = 8"
                found = list(_NUMBER.finditer(_plain(line)))[-1]
            return Read(found.group().strip())
    if marks:
        return Read(None, EMPTY_MARK)
    if not ended:
        return Read(None, UNFINISHED)
    numbers = _NUMBER.findall(_plain(whole))
    return Read(numbers[-1].strip()) if numbers else Read(None, NO_NUMBER)


def _plain(text: str) -> str:
    """One minus sign, and no marks of Markdown or LaTeX between a sign and its number."""
    return text.replace("\u2212", "-").replace("\\$", "$").replace("**", "").replace("\\!", "").replace("{,}", ",")


def harness_equal(value: str, target: str) -> bool:
    """Equality as the harness's `exact_match` of GSM8K has it: text, after some characters are taken out."""
    for pattern in _IGNORED:
        value, target = re.sub(pattern, "", value), re.sub(pattern, "", target)
    return value.lower() == target.lower()


def equal_numbers(value: str, target: str) -> bool:
    """Whether two texts are the same number: 1,000 and $1000.00 are."""
    try:
        return _fraction(value) == _fraction(target)
    except (ValueError, ZeroDivisionError):
        return False


def _fraction(text: str) -> Fraction:
    return Fraction(re.sub(r"[\s,$]", "", text.split("####")[-1]).rstrip("."))


@dataclass(frozen=True)
class Way:
    """One way to read and judge an answer."""

    read: Callable[[str, bool], Read]
    equal: Callable[[str, str], bool]


WAYS: dict[str, Way] = {
    "strict": Way(lambda text, ended: strict(text), harness_equal),
    "flexible": Way(lambda text, ended: flexible(text), harness_equal),
    "ours": Way(ours, equal_numbers),
}


def letter(text: str, forced: bool) -> Read:
    """The choice that an answer names.

    Args:
        text: what was written; after the forced prefix "The best answer is" the letter comes first.
        forced: whether that prefix stood before it.
    """
    if not text.strip():
        return Read(None, EMPTY)
    named = [found.upper() for found in _LETTER.findall(text)]
    if not forced and named:
        return Read(named[-1])
    first = _LETTER_FIRST.match(text) or (re.match(r"\s*\(?([A-E])\b", text) if forced else None)
    alone = set(re.findall(r"(?<![\w'])\(?([A-E])\)", text))
    if first is not None and (forced or alone <= {first.group(1)}):
        return Read(first.group(1))
    if named:
        return Read(named[-1])
    if len(alone) == 1:
        return Read(alone.pop())
    return Read(None, MANY_LETTERS if alone else NO_LETTER)
