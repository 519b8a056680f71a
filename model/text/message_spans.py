"""Locate the contents of messages in a rendered chat by marks, so that a position is known and never guessed.

Most templates insert each content unchanged or stripped: rendering once with a mark for each content shows what the
template writes around them. If that does not explain the text (a template that removes reasoning), the characters
themselves are marked: each is replaced by one of its own from the private use planes of Unicode, and its position in
the output is the character's position.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jinja2 import Environment

from model.errors import TextError

REWRITES = "the model's chat template rewrites a message of this conversation"
_PRIVATE = (range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))


@dataclass(frozen=True)
class ContentSpan:
    """Characters [begin, end) of a turn's content start at `start` in the rendered text."""

    turn: int
    begin: int
    end: int
    start: int


def place(
    contents: Sequence[str], text: str, apply: Callable[[Sequence[str]], str], source: str
) -> tuple[ContentSpan, ...]:
    """Find the contents of a conversation in its rendered text.

    Raises:
        TextError: the template rewrites, moves or repeats contents, or drops a message.
    """
    spans = _between_gaps(contents, text, apply)
    return spans if spans is not None else _by_characters(contents, text, apply, source)


# --- contents unchanged, or stripped


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
        before, mark_found, rest = rest.partition(f"{mark}{i}{mark}")
        if not mark_found:
            return None
        gaps.append(before)
    gaps.append(rest)
    position = len(gaps[0])
    if not text.startswith(gaps[0]) or (not marked and text != gaps[0]):
        return None
    spans = []
    for i, gap in zip(marked, gaps[1:], strict=True):
        kept = _kept(text, position, contents[i], gap, last=i == marked[-1])
        if kept is None:
            return None
        begin = contents[i].find(kept)
        spans.append(ContentSpan(i, begin, begin + len(kept), position))
        position += len(kept) + len(gap)
    return tuple(spans)


def _kept(text: str, position: int, content: str, gap: str, last: bool) -> str | None:
    """Return the form in which the template kept a message: unchanged, or stripped at one end or both."""
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
    """Return the longest spans of contents that appear in the text, by marking each character.

    White space is not marked, since templates strip it, nor are the words that the template itself knows, such as
    <think>: their positions follow from the marked characters beside them.
    """
    words = _words(source)
    for known in ([word for word in words if not word.isalnum()], words):
        marks = _Marks(contents, known)
        try:
            marked = apply(marks.contents)
        except TextError:
            continue
        if marks.restored(marked) == text:
            return _checked(contents, text, _contiguous_spans(contents, text, marks, marked))
    raise TextError(REWRITES)


def _words(source: str) -> list[str]:
    """Return the string literals of a template that are more than white space."""
    try:
        literals = {value[1:-1] for _, kind, value in Environment().lex(source) if kind == "string"}
    except Exception:  # noqa: BLE001 - the template works, so a source without a parse has no words
        return []
    plain = {word.encode("ascii", "backslashreplace").decode("unicode-escape") for word in literals}
    return sorted(word for word in plain if word.strip())


class _Marks:
    """Contents with each character replaced by a mark, except for those that a template may look for."""

    def __init__(self, contents: Sequence[str], known: Sequence[str]) -> None:
        used = set().union(*contents)
        pool: Iterator[str] = (chr(code) for codes in _PRIVATE for code in codes if chr(code) not in used)
        self.place: dict[str, tuple[int, int]] = {}  # of each mark: turn and character
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
        return marked.translate(self.character)


def _contiguous_spans(contents: Sequence[str], text: str, marks: _Marks, marked: str) -> list[ContentSpan]:
    """Return runs of marked characters that are contiguous in content and text, with unmarked ones between."""
    spans: list[ContentSpan] = []
    for start, character in enumerate(marked):
        if character not in marks.place:
            continue
        turn, index = marks.place[character]
        last = spans[-1] if spans else None
        if last is not None and (turn, index) < (last.turn, last.end):
            raise TextError("the model's chat template moves or repeats a message of this conversation")
        if last is not None and turn == last.turn:
            begin, between = last.start + last.end - last.begin, contents[turn][last.end : index]
            if text[begin:start] == between:
                spans[-1] = ContentSpan(turn, last.begin, index + 1, last.start)
                continue
        spans.append(ContentSpan(turn, index, index + 1, start))
    for i in range(len(spans)):  # characters taken by one span are not available to the next
        spans[i] = _widened(spans[i], spans[i - 1] if i else None, spans[i + 1 : i + 2], contents, text)
    return spans


def _widened(
    kept: ContentSpan, before: ContentSpan | None, following: Sequence[ContentSpan], contents: Sequence[str], text: str
) -> ContentSpan:
    """Extend a span by the unmarked characters beside it.

    White space at its ends may belong to the template and is left out.
    """
    content, after = contents[kept.turn], following[0] if following else None
    lowest = before.end if before is not None and before.turn == kept.turn else 0
    first = before.start + before.end - before.begin if before is not None else 0
    highest = after.begin if after is not None and after.turn == kept.turn else len(content)
    last_stop = after.start if after is not None else len(text)
    begin, start, end = kept.begin, kept.start, kept.end
    stop = start + end - begin
    while begin > lowest and start > first and content[begin - 1] == text[start - 1]:
        begin, start = begin - 1, start - 1
    while end < highest and stop < last_stop and content[end] == text[stop]:
        end, stop = end + 1, stop + 1
    while content[begin].isspace():
        begin, start = begin + 1, start + 1
    while content[end - 1].isspace():
        end -= 1
    return ContentSpan(kept.turn, begin, end, start)


def _checked(contents: Sequence[str], text: str, spans: list[ContentSpan]) -> tuple[ContentSpan, ...]:
    """Check that the spans are correct and that no message is missing as a whole."""
    for kept in spans:
        if contents[kept.turn][kept.begin : kept.end] != text[kept.start : kept.start + kept.end - kept.begin]:
            raise TextError(REWRITES)
    for first, second in pairwise(spans):
        if first.turn == second.turn:  # text left out between them may not appear there in other words
            omitted = contents[first.turn][first.end : second.begin].strip()
            replacement = text[first.start + first.end - first.begin : second.start].strip()
            if omitted and replacement and omitted not in replacement:
                raise TextError(REWRITES)
    turns = {kept.turn for kept in spans}
    for i, content in enumerate(contents):
        if content.strip() and i not in turns:
            raise TextError(f"the model's chat template drops message {i + 1} of this conversation")
    return tuple(spans)
