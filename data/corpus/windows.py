"""Turn the documents of a corpus into pieces of tokens that are scored together: whole, or divided into windows.

Windows of tokens fill a model's context, and differ between tokenizers. Windows of characters are the same text under
every model, so two models can be compared on them. This module knows nothing about scores or stores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data.corpus.documents import MAX_CHARACTERS, Corpus, CorpusEntry
from data.corpus.options import CorpusOptions
from model.errors import TextError, TooLarge
from model.text.document import PLAIN, Document, TextInput
from model.text.encoding import EncodedText, encode


@dataclass(frozen=True)
class TokenizeOptions:
    """How documents become tokens, and how many tokens a piece has."""

    tokenizer: Any  # the model's tokenizer
    known: int  # the model knows only smaller ids; a document with any other is refused
    options: CorpusOptions

    @property
    def longest(self) -> int:
        """Maximum number of tokens in a piece."""
        return self.options.max_tokens or 1


@dataclass(frozen=True)
class TokenWindow:
    """A document, or a window of one, as the n tokens that are scored together."""

    document: int  # index of the document in the corpus
    number: int  # index of the window in the document
    at: int  # number of the document's tokens before the window
    encoded: EncodedText | None  # None if the document is empty or cannot be read
    source: str  # the document's own text
    document_tokens: int
    left_out: int  # number of the document's tokens after the window that are not scored
    problem: str | None  # why the document cannot be read
    share: float | None  # approximate share of the corpus that has been read
    columns: Mapping[str, object] = field(default_factory=dict)  # the document's other columns

    @property
    def n(self) -> int:
        return len(self.encoded) if self.encoded is not None else 0

    @property
    def text(self) -> tuple[str, int]:
        """The characters of the document that these tokens cover, and where they start in it."""
        if self.encoded is None or not (inside := self.encoded.source_start >= 0).any():
            return "", 0
        start = int(self.encoded.source_start[inside].min())
        return self.source[start : int(self.encoded.source_end[inside].max())], start

    def head(self, n: int) -> TokenWindow:
        """Return the first n tokens, as the last ones of the document that are scored."""
        encoded = self.encoded.head(n) if self.encoded is not None else None
        return replace(self, encoded=encoded, left_out=self.document_tokens - self.at - n)


def tokenized_windows(corpus: Corpus, reading: TokenizeOptions, start: tuple[int, int]) -> Iterator[TokenWindow]:
    """Tokenise the documents of a corpus.

    Raises:
        TextError: see `Corpus.entries`; or windows of characters are requested for a conversation.
        TooLarge: a document is too long to be tokenised.
    """
    for entry in corpus.entries(start[0]):
        windows = _of_characters(entry, reading) if reading.options.window_characters else _of_tokens(entry, reading)
        yield from (window for window in windows if (entry.index, window.number) >= start)


def character_windows(text: str, max_characters: int) -> list[tuple[int, int]]:
    """Divide a text into windows [start, end) of at most `max_characters` characters.

    A window ends before the last line break of its second half, else before its last space, else inside a word. The
    separator between two words thus goes with the second one, as in most tokenizers.
    """
    windows, begin = [], 0
    while len(text) - begin > max_characters:
        half, end = begin + max_characters // 2, begin + max_characters
        split = max(text.rfind("\n", half, end + 1), half)
        if split == half:
            split = text.rfind(" ", half, end + 1)
        split = split if split > begin else end
        windows.append((begin, split))
        begin = split
    return [*windows, (begin, len(text))]


def _of_tokens(entry: CorpusEntry, reading: TokenizeOptions) -> Iterator[TokenWindow]:
    encoded, problem = _encoded(entry, entry.document, reading)
    source, total = _source(entry), len(encoded) if encoded is not None else 0
    windows = reading.options.windows
    left_out = 0 if windows else max(0, total - reading.longest)
    starts = range(0, total, reading.longest) if windows and total else (0,)
    for number, at in enumerate(starts):
        part = encoded.part(at, at + reading.longest) if encoded is not None else None
        yield TokenWindow(entry.index, number, at, part, source, total, left_out, problem, entry.share, entry.columns)


def _of_characters(entry: CorpusEntry, reading: TokenizeOptions) -> Iterator[TokenWindow]:
    document, source = entry.document, _source(entry)
    if document is not None and any(message.role != PLAIN for message in document.messages):
        raise TextError(f"document {entry.index} is a conversation; windows of characters are for plain texts")
    spans = character_windows(source, reading.options.window_characters or 1)
    parts: list[EncodedText | None] = []
    problem = entry.problem
    for a, b in spans:
        encoded, refused = _encoded(entry, None if document is None else Document.plain(source[a:b]), reading)
        problem = problem or refused
        parts.append(None if encoded is None else _moved(encoded, a))
    if problem is not None:  # a problem in one window: the whole document is refused
        parts = [None]
    lengths = [0 if part is None else len(part) for part in parts]
    at, total = 0, sum(lengths)
    for number, (part, n) in enumerate(zip(parts, lengths, strict=True)):
        left_out = max(0, n - reading.longest)
        kept = part.head(reading.longest) if part is not None else None
        yield TokenWindow(entry.index, number, at, kept, source, total, left_out, problem, entry.share, entry.columns)
        at += n


def _source(entry: CorpusEntry) -> str:
    return entry.document.text if entry.document is not None else ""


def _encoded(
    entry: CorpusEntry, document: Document | None, reading: TokenizeOptions
) -> tuple[EncodedText | None, str | None]:
    """Return the tokens of a document, or why there are none."""
    if document is None or not any(message.content for message in document.messages):
        return None, entry.problem
    if len(document.text) > MAX_CHARACTERS:
        raise TooLarge(
            f"document {entry.index} has {len(document.text):,} characters, at most {MAX_CHARACTERS:,} are supported;"
            " divide the corpus into documents (--documents paragraph for a .txt) or windows (--window-characters)"
        )
    try:
        options = reading.options
        arguments = tuple(sorted({**dict(document.arguments), **dict(options.template or ())}.items()))
        document = replace(document, arguments=arguments, date=options.template_date)
        encoded = encode(TextInput(document, options.chat, options.force_bos), reading.tokenizer)
    except TextError as error:
        return None, str(error)
    if int(encoded.ids.max(initial=0)) >= reading.known:
        return None, "it holds a special token that this model does not know"
    return encoded, None


def _moved(encoded: EncodedText, by: int) -> EncodedText:
    """Shift the tokens of a window that begins at character `by` of its document."""
    inside = encoded.source_start >= 0
    return replace(
        encoded,
        source_start=encoded.source_start + by * inside.astype("int32"),
        source_end=encoded.source_end + by * inside.astype("int32"),
    )
