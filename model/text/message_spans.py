"""Where the contents of messages stand in a rendered chat: by marks, so that a place is known and never guessed.

Most templates put each content somewhere as it is, or stripped: rendering once with a mark for each content shows what
the template writes around them. Where that does not explain the text (a template that takes out reasoning), the
characters themselves are marked: each is replaced by one of its own from the private use planes of Unicode, and where
that comes out, the character stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jinja2 import Environment

from model.errors import TextError

REWRITES = "the model's chat template rewrites a message of this conversation"
_PRIVATE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


@dataclass(frozen=True)
class ContentSpan:
    """Characters [begin, end) of a turn's content stand in the rendered text from `start` on."""

    turn: int
    begin: int
    end: int
    start: int


def place(
    contents: Sequence[str], text: str, apply: Callable[[Sequence[str]], str], source: str
) -> tuple[ContentSpan, ...]:
    """Find the contents of a conversation in its rendered text.

    Args:
        contents: of the turns.
        text: what the template made of them.
        apply: renders the same turns with other contents.
        source: of the template.

    Raises:
        TextError: the template rewrites, moves or repeats contents, or drops a message.
    """
    found = _between_gaps(contents, text, apply)
    return found if found is not None else _by_characters(contents, text, apply, source)


# --- contents as they are, or stripped


def _between_gaps(
    contents: Sequence[str], text: str, apply: Callable[[Sequence[str]], str]
) -> tuple[ContentSpan, ...] | None:
    used = set().union(*contents)
    mark = next((chr(code) for code in range(0xE000, 0xF8FF) if chr(code) not in used), None)
    marked = [i for i, content in enumerate(contents) if content]
    if mark is None:
        return None
    try:
        rest = apply([f"{mark}{i}{mark}" if content else "" for i, content in enumerate(contents)])
    except TextError:
        return None
    gaps = []
    for i in marked:
        before, there, rest = rest.partition(f"{mark}{i}{mark}")
        if not there:
            return None
        gaps.append(before)
    gaps.append(rest)
    position = len(gaps[0])
    if not text.startswith(gaps[0]) or (not marked and text != gaps[0]):
        return None
    found = []
    for i, gap in zip(marked, gaps[1:], strict=True):
        kept = _kept(text, position, contents[i], gap, last=i == marked[-1])
        if kept is None:
            return None
        begin = contents[i].find(kept)
        found.append(ContentSpan(i, begin, begin + len(kept), position))
        position += len(kept) + len(gap)
    return tuple(found)


def _kept(text: str, position: int, content: str, gap: str, last: bool) -> str | None:
    """The form in which the template kept a message: as it is, or stripped at one end or both."""
    for form in (content, content.strip(), content.lstrip(), content.rstrip()):
        end = position + len(form)
        follows = text[end:] == gap if last else text.startswith(gap, end)
        if text.startswith(form, position) and follows:
            return form
    return None


# --- character by character


def _by_characters(
    contents: Sequence[str], text: str, apply: Callable[[Sequence[str]], str], source: str
) -> tuple[ContentSpan, ...]:
    """Longest stretches of contents that stand in the text, from characters that are each marked.

    White space stays, since templates strip it, and so do the words that the template itself knows, such as <think>:
    they stand where the marked characters beside them stand.
    """
    words = _words(source)
    for known in ([word for word in words if not word.isalnum()], words):
        marks = _Marks(contents, known)
        try:
            marked = apply(marks.contents)
        except TextError:
            continue
        if marks.restored(marked) == text:
            return _checked(contents, text, _stretches(contents, text, marks, marked))
    raise TextError(REWRITES)


def _words(source: str) -> list[str]:
    """The string literals of a template that are more than white space."""
    try:
        found = {value[1:-1] for _, kind, value in Environment().lex(source) if kind == "string"}
    except Exception:  # noqa: BLE001 - the template was rendered: what cannot be told apart holds no words
        return []
    plain = {word.encode("ascii", "backslashreplace").decode("unicode-escape") for word in found}
    return sorted(word for word in plain if word.strip())


class _Marks:
    """Contents whose characters are replaced by marks, one each, but for those that a template may look for."""

    def __init__(self, contents: Sequence[str], known: Sequence[str]) -> None:
        used = set().union(*contents)
        pool: Iterator[str] = (chr(code) for codes in _PRIVATE for code in codes if chr(code) not in used)
        self.place: dict[str, tuple[int, int]] = {}  # of a mark: turn and character
        self.character: dict[int, str] = {}
        self.contents: list[str] = []
        for i, content in enumerate(contents):
            stays = [character.isspace() for character in content]
            for word in known:
                at = content.find(word)
                while at >= 0:
                    stays[at : at + len(word)] = [True] * len(word)
                    at = content.find(word, at + 1)
            made = []
            for at, character in enumerate(content):
                mark = character if stays[at] else next(pool, "")
                if not mark:
                    raise TextError(f"{REWRITES}, and it is too long to tell which characters are kept")
                if not stays[at]:
                    self.place[mark] = i, at
                    self.character[ord(mark)] = character
                made.append(mark)
            self.contents.append("".join(made))

    def restored(self, marked: str) -> str:
        """A text with marks as it is without."""
        return marked.translate(self.character)


def _stretches(contents: Sequence[str], text: str, marks: _Marks, marked: str) -> list[ContentSpan]:
    """Runs of marked characters that stand together in content and text, with the unmarked ones between and beside."""
    found: list[ContentSpan] = []
    for start, character in enumerate(marked):
        if character not in marks.place:
            continue
        turn, at = marks.place[character]
        last = found[-1] if found else None
        if last is not None and (turn, at) < (last.turn, last.end):
            raise TextError("the model's chat template moves or repeats a message of this conversation")
        if last is not None and turn == last.turn:
            begin, between = last.start + last.end - last.begin, contents[turn][last.end : at]
            if text[begin:start] == between:
                found[-1] = ContentSpan(turn, last.begin, at + 1, last.start)
                continue
        found.append(ContentSpan(turn, at, at + 1, start))
    for i in range(len(found)):  # what one takes, the next cannot
        found[i] = _widened(found[i], found[i - 1] if i else None, found[i + 1 : i + 2], contents, text)
    return found


def _widened(
    kept: ContentSpan, before: ContentSpan | None, following: Sequence[ContentSpan], contents: Sequence[str], text: str
) -> ContentSpan:
    """A stretch with the unmarked characters beside it; white space at the rim may be the template's, and is left."""
    content, after = contents[kept.turn], following[0] if following else None
    lowest = before.end if before is not None and before.turn == kept.turn else 0
    first = before.start + before.end - before.begin if before is not None else 0
    highest = after.begin if after is not None and after.turn == kept.turn else len(content)
    most = after.start if after is not None else len(text)
    begin, start, end = kept.begin, kept.start, kept.end
    stop = start + end - begin
    while begin > lowest and start > first and content[begin - 1] == text[start - 1]:
        begin, start = begin - 1, start - 1
    while end < highest and stop < most and content[end] == text[stop]:
        end, stop = end + 1, stop + 1
    while content[begin].isspace():
        begin, start = begin + 1, start + 1
    while content[end - 1].isspace():
        end -= 1
    return ContentSpan(kept.turn, begin, end, start)


def _checked(contents: Sequence[str], text: str, found: list[ContentSpan]) -> tuple[ContentSpan, ...]:
    """The stretches, once it is sure that they hold what they say and that no message is missing as a whole."""
    for kept in found:
        if contents[kept.turn][kept.begin : kept.end] != text[kept.start : kept.start + kept.end - kept.begin]:
            raise TextError(REWRITES)
    for one, other in pairwise(found):
        if one.turn == other.turn:  # what is left out between them may not stand there in other words
            out = contents[one.turn][one.end : other.begin].strip()
            instead = text[one.start + one.end - one.begin : other.start].strip()
            if out and instead and out not in instead:
                raise TextError(REWRITES)
    there = {kept.turn for kept in found}
    for i, content in enumerate(contents):
        if content.strip() and i not in there:
            raise TextError(f"the model's chat template drops message {i + 1} of this conversation")
    return tuple(found)
