"""Read the number in a generated answer of GSM8K, in three ways.

An unreadable answer is invalid, and the reason is kept. `strict` and `flexible` are the harness's own filters, flaws
included, so that scores are comparable with others'; `ours` is meant to read what a person would.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from evals.answers.result import EMPTY, Read, without_reasoning

NO_NUMBER = "it contains no number"
UNFINISHED = "it was truncated before an answer was marked"
EMPTY_MARK = "no number follows the mark of an answer"
NOT_MARKED = "the number is not marked as the harness expects"

# --- the harness's two readers

_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_IGNORED = (",", r"\$", r"(?s).*#### ", r"\.$")  # removed by the harness on both sides before it compares


def strict(text: str, pattern: str = r"The answer is (\-?[0-9\.\,]+).") -> Read:
    """Read like the harness's `strict-match`: the first match of a regular expression.

    It requires a character after the number, so "The answer is 72" at the very end of a text gives "7".
    """
    matches = re.findall(pattern, text)
    if not matches:
        return Read(None, EMPTY if not text.strip() else NOT_MARKED)
    return Read(str(matches[0]).strip())


def flexible(text: str) -> Read:
    """Read like the harness's `flexible-extract`: the last run of digits, dollar signs, dots and commas."""
    matches = _FLEXIBLE.findall(text)
    if not matches:
        return Read(None, EMPTY if not text.strip() else NO_NUMBER)
    return Read(next(part for part in matches[-1] if part).strip())


def harness_equal(value: str, target: str) -> bool:
    """True if the harness's `exact_match` of GSM8K holds: equal texts, after some characters are removed."""
    for pattern in _IGNORED:
        value, target = re.sub(pattern, "", value), re.sub(pattern, "", target)
    return value.lower() == target.lower()


# --- our reader

_CURRENCY = "$€£¥₹"
_SPACE = " \u00a0\u2009\u202f"  # characters that group digits: plain, no-break, thin, narrow no-break space
_DIGITS = rf"\d{{1,3}}(?:,\d{{2}})*(?:,\d{{3}})+|\d{{1,3}}(?:[{_SPACE}'\u2019]\d{{3}})+(?!\d)|\d+"
_NUMBER = re.compile(
    rf"(?<![A-Za-z0-9_.])-?[{_CURRENCY}]?\s?-?(?:(?:{_DIGITS})(?:\.\d+)?|\.\d+)"
    r"(?:\s\d+\s?/\s?\d+(?!\d)|\s?/\s?\d+(?!\d))?"  # 2 1/2, 1/2
    r"(?:\s(?:thousand|million|billion)\b)?",
    re.IGNORECASE,
)
_MARK = re.compile(
    r"####"
    r"|\\boxed\s*\{"
    r"|<answer>"
    r"|(?<!\bto )\banswer\b[*_]*(?:,?\s+(?:to|in|for)\b[^.\n\d:=]{0,40}?,?|\s*\([^)\n]*\))?[*_]*\s*"
    r"(?:\b(?:is|was|equals|of|(?:would|should|will|must) be|comes (?:out )?to)\b|=|:)"
    r"|^[^\w\n]*(?:final )?answer[^\w\n]*$"  # a heading
    r"|(?:答案|答)\s*(?:是|为|:|\uff1a)",
    re.IGNORECASE | re.MULTILINE,
)
_FILLER = re.compile(r"(?:[\s:*_`\"'\[(<>]|\uff1a|\\[\[(]|\\(?:text|mathrm|mathbf|bf)\b|\{)*")  # before a marked number
_BOLD = re.compile(rf"\*\*\s*({_NUMBER.pattern}(?:\s[A-Za-z%]+){{0,3}})[.!]?\s*\*\*", re.IGNORECASE)
_UNIT = r"(?:\s*[A-Za-z%]+){0,2}"
_TERM = rf"[(\s]*[{_CURRENCY}]?\s?-?[\d.,]*\d\)?{_UNIT}\)?\s*"
_SUM = re.compile(rf"{_TERM}(?:[-+*/\u00d7\u00f7x^]{_TERM})+=(?:{_TERM}(?:[-+*/\u00d7\u00f7x^]{_TERM})*=)*\s*")
_NEXT_QUESTION = re.compile(r"\n\s*(?:Q|Question)\s*:")
_AFTER_MARK = 60  # number of characters within which the number must begin
_ONES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_ONES += ["thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_WORDS = {word: n for n, word in enumerate(_ONES)} | {word: 10 * n for n, word in enumerate(_TENS, 2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_WORD_NUMBER = re.compile(
    rf"(?:(?:a|{'|'.join((*_WORDS, *_SCALES))})\b[\s-]*(?:and\s+)?)+", re.IGNORECASE
)  # "a hundred and twenty-five"


def ours(text: str, ended: bool = True) -> Read:
    """Return the number after the last mark ("####", LaTeX's box, "answer is"); without a mark, the last number.

    Text in <think>, or after the start of another question, is not part of the answer. In a truncated text only a
    marked number counts, since its last number may be an intermediate result.

    Args:
        text: the generated text.
        ended: whether it ended by itself.
    """
    reply = without_reasoning(text)
    if reply.value is None:
        return reply
    answer = _NEXT_QUESTION.split(reply.value, maxsplit=1)
    whole, ended = plain_text(answer[0]), ended or len(answer) > 1
    if not whole.strip():
        return Read(None, EMPTY)
    marks = list(_MARK.finditer(whole))
    for mark in reversed(marks):
        if (number := _marked(whole[mark.end() :])) is not None:
            return Read(number)
    if not ended:
        return Read(None, UNFINISHED)
    if (bold := _BOLD.findall(whole.rstrip().rsplit("\n\n", 1)[-1])) and not marks:
        return Read(_NUMBER.findall(bold[-1])[0].strip())
    numbers = _NUMBER.findall(whole.replace("**", ""))
    if marks and not (numbers and _NUMBER.search(whole, marks[-1].end())):
        return Read(None, EMPTY_MARK)
    return Read(numbers[-1].strip()) if numbers else Read(None, NO_NUMBER)


def plain_text(text: str) -> str:
    """Normalise minus signs, digits and spaces, and remove LaTeX between a sign and its number."""
    text = text.translate(_TYPED)
    for pattern, typed in _LATEX:
        text = pattern.sub(typed, text)
    return text


_TYPED = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u2044": "/",
        "\u00bd": " 1/2",
        "\u00bc": " 1/4",
        "\u00be": " 3/4",
        "\uff04": "$",
        "\uff0c": ",",
        "\uff0e": ".",
        **{chr(0xFF10 + digit): str(digit) for digit in range(10)},  # full-width digits
    }
)
_LATEX = tuple(
    (re.compile(pattern), typed)
    for pattern, typed in (
        (r"\\[dt]?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}", r"\1/\2"),
        (r"(?<=\d)(?:\\[,;:! ]|\{,\}|~)(?=\d)", ","),  # 1\,250 and 1{,}250
        (r"\\[!,;: ]", " "),
        (r"\\([$%])", r"\1"),
        (r"\\text\s*\{\s*([^{}]*)\}", r"\1"),
        (r"\\times|\\cdot", "*"),
    )
)


def _marked(rest: str) -> str | None:
    """Return the number after a mark: on the same line, or alone at the start of the next one."""
    begun = _FILLER.match(rest)
    start = begun.end() if begun is not None else 0
    same_line = "\n" not in rest[:start]
    line = re.sub(r"\*\*|__", "", rest[start:].split("\n", 1)[0])
    if (sum_ := _SUM.match(line)) is not None and (result := _NUMBER.match(line, sum_.end())) is not None:
        return result.group().strip()  # "the answer is 5 + 3 = 8"
    for match in _NUMBER.finditer(line):
        if re.search(r"\bnot\s+$", line[: match.start()]):  # "the answer is not 12 but 18"
            continue
        if match.start() < _AFTER_MARK and (same_line or not re.search(r"[A-Za-z]", line[: match.start()])):
            return match.group().strip()
        break
    if (word := _WORD_NUMBER.match(line)) is not None:
        return _spelled(word.group())
    return None


def _spelled(words: str) -> str | None:
    """Return a number in words as digits; None if the words are not a number ("a")."""
    total, group, has_number = 0, 0, False
    for word in re.findall(r"[a-z]+", words.lower()):
        if word in _WORDS:
            group, has_number = group + _WORDS[word], True
        elif word == "hundred":
            group, has_number = max(1, group) * _SCALES[word], True
        elif word in _SCALES:
            total, group, has_number = total + max(1, group) * _SCALES[word], 0, True
    return str(total + group) if has_number else None


def equal_numbers(value: str, target: str) -> bool:
    """True if two texts are the same number, such as 1,000 and $1000.00."""
    try:
        return _fraction(value) == _fraction(target)
    except (ValueError, ZeroDivisionError):
        return False


def _fraction(text: str) -> Fraction:
    digits = plain_text(text.split("####")[-1]).strip().lower()
    digits, scale = re.sub(rf"[{_CURRENCY}]\s?", "", digits), 1
    for word in ("thousand", "million", "billion"):
        if digits.endswith(word):
            digits, scale = digits.removesuffix(word).strip(), _SCALES[word]
    if (mixed := re.fullmatch(r"(-?)(\d+)\s(\d+\s?/\s?\d+)", digits)) is not None:
        sign, whole, part = mixed.groups()
        return (-1 if sign else 1) * (int(whole) + Fraction(re.sub(r"\s", "", part)))
    return scale * Fraction(re.sub(r"[\s,'\u2019]", "", digits).rstrip("."))


@dataclass(frozen=True)
class NumberReader:
    read: Callable[[str, bool], Read]
    equal: Callable[[str, str], bool]


WAYS: dict[str, NumberReader] = {
    "strict": NumberReader(lambda text, ended: strict(text), harness_equal),
    "flexible": NumberReader(lambda text, ended: flexible(text), harness_equal),
    "ours": NumberReader(ours, equal_numbers),
}
