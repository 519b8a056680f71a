"""Assign documents to the shards of a store; this depends only on their order in the corpus.

This module knows nothing about scores.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from data.corpus.documents import Corpus
from data.corpus.options import CorpusOptions
from data.corpus.store import Mark, read_mark
from data.corpus.windows import TokenizeOptions, TokenWindow, tokenized_windows
from model.hub.loading import LoadedModel
from model.storage.places import Place


@dataclass(frozen=True)
class Shard:
    """The rows of a shard that is still to be scored."""

    number: int
    pieces: list[TokenWindow]
    ahead: TokenWindow | None  # the first row of the next shard; None at the end of the corpus
    left: int | None  # number of tokens that may still be scored, including this shard's; None: all

    @property
    def tokens(self) -> int:
        """Number of tokens in all rows."""
        return sum(piece.n for piece in self.pieces)

    @property
    def last(self) -> bool:
        """True if the corpus, or the requested part of it, ends here."""
        return self.ahead is None or self.tokens == self.left


def planned(loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, path: Place) -> Iterator[Shard | Mark]:
    """Yield all shards in their order: those still to be scored, and the marks of finished ones."""
    done = 0
    stream: Iterator[TokenWindow] | None = None
    ahead: TokenWindow | None = None
    start = (0, 0)
    for number in count():
        shard: Shard | Mark | None = read_mark(path, number)
        if isinstance(shard, Mark):
            stream, start = None, shard.next  # a later, damaged shard starts somewhere else
        else:
            if stream is None:
                stream = stream_windows(loaded, corpus, options, start)
                ahead = next(stream, None)
            left = None if options.limit_tokens is None else options.limit_tokens - done
            pieces, ahead = take_shard(stream, ahead, options.shard_tokens, left)
            shard = Shard(number, pieces, ahead, left)
        done += shard.tokens
        yield shard
        if shard.last:
            break


def stream_windows(
    loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, start: tuple[int, int]
) -> Iterator[TokenWindow]:
    """Yield the tokenised corpus, starting from a document and a window of it."""
    known = int(loaded.model.get_input_embeddings().weight.shape[0])
    reading = TokenizeOptions(loaded.tokenizer, known, options)
    return tokenized_windows(corpus, reading, start)


def take_shard(
    stream: Iterator[TokenWindow], ahead: TokenWindow | None, shard_tokens: int, left: int | None
) -> tuple[list[TokenWindow], TokenWindow | None]:
    """Return the rows of one shard, and the first of the next one (None at the end of the corpus)."""
    windows: list[TokenWindow] = []
    size, left = 0, 1 << 62 if left is None else left
    while ahead is not None and size < shard_tokens and left > 0:
        window = ahead if ahead.n < left else ahead.head(left)
        windows.append(window)
        size, left = size + max(1, window.n), left - window.n
        ahead = next(stream, None)
    return windows, ahead
