"""Which documents go into which shard of a store: it follows from their order in the corpus alone.

Knows nothing about scores.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from data.corpus.documents import Corpus
from data.corpus.options import CorpusOptions
from data.corpus.store import Mark, read_mark
from data.corpus.windows import TokenizeOptions, TokenWindow, pieces
from model.hub.loading import LoadedModel


@dataclass(frozen=True)
class Shard:
    """The rows of a shard that is still to be scored."""

    number: int
    pieces: list[TokenWindow]
    ahead: TokenWindow | None
    """The first of the next shard; None where the corpus ends."""
    left: int | None
    """Tokens that may still be scored, this shard's included; None: all."""

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return sum(piece.n for piece in self.pieces)

    @property
    def last(self) -> bool:
        """Whether the corpus, or what was asked of it, ends here."""
        return self.ahead is None or self.tokens == self.left


def planned(loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, path: Path) -> Iterator[Shard | Mark]:
    """All shards in their order: those that are to be scored, and the marks of those that are there."""
    done = 0
    stream: Iterator[TokenWindow] | None = None
    ahead: TokenWindow | None = None
    start = (0, 0)
    for number in count():
        found: Shard | Mark | None = read_mark(path, number, check=True)
        if isinstance(found, Mark):
            stream, start = None, found.next  # a later, damaged shard starts somewhere else
        else:
            if stream is None:
                stream = stream_pieces(loaded, corpus, options, start)
                ahead = next(stream, None)
            left = None if options.limit_tokens is None else options.limit_tokens - done
            pieces, ahead = gather(stream, ahead, options.shard_tokens, left)
            found = Shard(number, pieces, ahead, left)
        done += found.tokens
        yield found
        if found.last:
            break


def stream_pieces(
    loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, start: tuple[int, int]
) -> Iterator[TokenWindow]:
    """The corpus, tokenised, from a document and a window of it on."""
    known, longest = int(loaded.model.get_input_embeddings().weight.shape[0]), options.max_tokens or 1
    windows, characters = options.windows, options.window_characters
    reading = TokenizeOptions(
        loaded.tokenizer,
        known,
        longest,
        windows,
        characters,
        options.chat,
        options.force_bos,
        options.template or (),
        options.template_date,
    )
    return pieces(corpus, reading, start)


def gather(
    stream: Iterator[TokenWindow], ahead: TokenWindow | None, shard_tokens: int, left: int | None
) -> tuple[list[TokenWindow], TokenWindow | None]:
    """The rows of one shard, and the first of the next one (None where the corpus ends)."""
    pieces: list[TokenWindow] = []
    size, left = 0, 1 << 62 if left is None else left
    while ahead is not None and size < shard_tokens and left > 0:
        piece = ahead if ahead.n < left else ahead.head(left)
        pieces.append(piece)
        size, left = size + max(1, piece.n), left - piece.n
        ahead = next(stream, None)
    return pieces, ahead
