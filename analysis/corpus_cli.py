"""Score a corpus once into a store, from Python (`score_corpus`) and as `python -m analysis corpus`.

A shard's documents follow from their order in the corpus alone; batching happens inside a shard, by length. So a run
that was stopped anywhere goes on to the same store. Neither the batches nor their padding enter the scores but by
rounding: against scoring each document alone, entropies differ by up to about 1e-4 nats in float32, .1 in bfloat16.
Torch is only imported once a corpus is scored.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analysis import cli
from analysis.corpus import Corpus, CorpusSpec, Cut, Piece, open_corpus
from model.errors import TextError, TooLarge
from model.loading import LoadedModel, ModelSpec, load
from model.terminal import Tell, one_line, progress_bar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from analysis.corpus_store import CorpusStore, Mark, ScoredRows

SHARD_TOKENS = 65_536  # what a kill costs at most: about two minutes on two cores, two seconds on a GPU
MOST_BATCH_TOKENS = {"cpu": 4096, "cuda": 32_768, "mps": 8192}  # more is no faster
_BYTES_A_TOKEN = 24  # on disk, texts included, rounded up; for the check that there is room
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow")


@dataclass(frozen=True)
class CorpusOptions:
    """How a corpus is scored."""

    chat: bool = False
    force_bos: bool = False
    windows: bool = False
    """Cut longer documents into windows, each scored as a text of its own; otherwise their ends are left out."""
    max_tokens: int | None = None
    """Of a document, or of a window; None: the model's context, or what memory holds of it."""
    limit_tokens: int | None = None
    """Stop after so many tokens."""
    shard_tokens: int = SHARD_TOKENS
    batch_tokens: int | None = None
    """Tokens of a batch, padding included; None: what memory holds. Scores do not depend on it."""


def score_corpus(
    load_model: Callable[[], LoadedModel],
    corpus: Corpus,
    path: Path,
    options: CorpusOptions | None = None,
    tell: Tell = lambda message, fraction: None,
    interval: float = 1.0,
) -> CorpusStore:
    """Score a corpus into the store at `path`, or go on where a run was stopped.

    Args:
        load_model: called once the store's lock is held.
        corpus: what to score.
        path: folder of the store, made if it is not there.
        options: how.
        tell: told about the progress, at most every `interval` seconds.
        interval: seconds.

    Raises:
        ExportError: the folder cannot be used, holds a store of something else, or another process writes in it.
        TextError: the corpus is damaged, changed, or holds no token.
        TooLarge: memory or disk do not suffice.
    """
    from analysis.corpus_store import begin, finish, open_store, read_manifest, read_mark, writing

    with writing(path):
        loaded = load_model()
        options, notes = _resolve(loaded, options or CorpusOptions(), read_manifest(path))
        _check_disk(path, _expected_bytes(corpus, options))
        begin(path, _manifest(loaded, corpus, options, notes))
        marks: list[Mark] = []
        meter: _Meter | None = None
        stream: Iterator[Piece] | None = None
        ahead: Piece | None = None
        for number in count():
            mark = read_mark(path, number, check=True)
            if mark is None:
                done = sum(each.tokens for each in marks)
                meter = meter or _Meter(tell, interval, f"scoring {corpus.facts.name}", done)
                if stream is None:
                    stream = _pieces(loaded, corpus, options, marks[-1].next if marks else (0, 0))
                    ahead = next(stream, None)
                left = None if options.limit_tokens is None else options.limit_tokens - done
                pieces, ahead = _gather(stream, ahead, options.shard_tokens, left)
                mark = _score_shard(loaded, pieces, ahead, left, options, path, number, meter)
            else:
                stream = None  # a later, damaged shard starts somewhere else
            marks.append(mark)
            if mark.last:
                break
        if not corpus.unchanged():
            raise TextError(f"{corpus.spec.data} was changed while it was scored; remove {path} and start again")
        finish(path, marks)
        return open_store(path)


def _resolve(
    loaded: LoadedModel, options: CorpusOptions, there: dict[str, Any] | None
) -> tuple[CorpusOptions, tuple[str, ...]]:
    """Fill in what was left to the model and the memory, as it was when the store was begun; and the store's notes."""
    from analysis.scoring import remarks
    from model.cost import available_memory, estimate, tokens_that_fit
    from model.document import Document
    from model.encoding import encode
    from model.forward import context_length
    from model.uncertainty import chunk_positions

    probe = encode(Document.plain("a"), loaded.tokenizer, options.chat, options.force_bos)
    notes = remarks(loaded, probe, options.chat)
    device, chunk = loaded.model.device, chunk_positions(loaded.facts.vocab_size)
    context = context_length(loaded.model)
    room = None if context is None else context + (probe.bos is None)  # the last token is never read
    fits = tokens_that_fit(loaded, device, chunk=chunk)
    if options.max_tokens is None and there is not None:
        longest = int(there["parameters"]["max_tokens"])
    else:
        longest = min(options.max_tokens or room or 1 << 20, room or 1 << 62)
        while options.max_tokens is None and longest > max(fits, 1):
            longest //= 2
    if longest > fits:
        raise TooLarge(
            f"documents of {longest:,} tokens do not fit the free memory, {fits:,} do; give a lower"
            " --max-tokens-per-document, a smaller dtype or model"
        )

    def batch_fits(tokens: int) -> bool:
        n = min(tokens, longest)
        return estimate(loaded, n, max(1, tokens // n), chunk).run <= available_memory(device) / 2

    batch = options.batch_tokens
    if batch is None:
        batch = int(there["batch_tokens"]) if there else MOST_BATCH_TOKENS[device.type]
        while batch > 256 and not batch_fits(batch):
            batch //= 2
    return replace(options, max_tokens=longest, batch_tokens=batch), notes


def _manifest(loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, notes: tuple[str, ...]) -> dict[str, Any]:
    from analysis.corpus_store import FORMAT, ROLE_NAMES

    parameters = dataclasses.asdict(options)
    batch_tokens = parameters.pop("batch_tokens")  # it may change from run to run
    return {
        "format": FORMAT,
        "model": loaded.facts.to_dict(),
        "data": dataclasses.asdict(corpus.facts) | {"column": corpus.spec.column, "documents": corpus.spec.documents},
        "parameters": parameters,
        "batch_tokens": batch_tokens,
        "roles": list(ROLE_NAMES),
        "units": {"entropy": "nats", "surprisal": "nats", "start": "characters of the document", "end": "characters"},
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "notes": list(notes),
    }


# --- documents to shards


def _pieces(loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, start: tuple[int, int]) -> Iterator[Piece]:
    known, longest = int(loaded.model.get_input_embeddings().weight.shape[0]), options.max_tokens or 1
    return corpus.pieces(loaded.tokenizer, known, longest, options.windows, options.chat, options.force_bos, start)


def _gather(
    stream: Iterator[Piece], ahead: Piece | None, shard_tokens: int, left: int | None
) -> tuple[list[Piece], Piece | None]:
    """The rows of one shard, and the first of the next one (None where the corpus ends)."""
    pieces: list[Piece] = []
    size, left = 0, 1 << 62 if left is None else left
    while ahead is not None and size < shard_tokens and left > 0:
        piece = ahead if ahead.n < left else ahead.head(left)
        pieces.append(piece)
        size, left = size + max(1, piece.n), left - piece.n
        ahead = next(stream, None)
    return pieces, ahead


def _score_shard(
    loaded: LoadedModel,
    pieces: list[Piece],
    ahead: Piece | None,
    left: int | None,
    options: CorpusOptions,
    path: Path,
    number: int,
    meter: _Meter,
) -> Mark:
    """Score the rows of one shard and write it."""
    from analysis.corpus_store import MANIFEST, Mark, write_shard

    tokens = sum(piece.n for piece in pieces)
    first = [piece for piece in pieces if piece.number == 0]
    refused = [piece for piece in first if piece.problem is not None]
    end, last = pieces[-1], ahead is None or tokens == left
    if last and number == 0 and tokens == 0:
        (path / MANIFEST).unlink()
        reason = f"the first that was refused: {refused[0].problem}" if refused else "its documents are empty"
        raise TextError(f"there is no token to score in {meter.what.removeprefix('scoring ')}: {reason}")
    _check_disk(path, 2 * tokens * _BYTES_A_TOKEN)
    meter.expect(end, tokens, options.limit_tokens)
    rows = _score_rows(loaded, pieces, options.batch_tokens or 1, meter)
    mark = Mark(
        rows=len(pieces),
        tokens=tokens,
        next=(ahead.document, ahead.number) if ahead is not None else (end.document + 1, 0),
        last=last,
        documents=len(first),
        empty=sum(piece.document_tokens == 0 for piece in first),
        refused=len(refused),
        refusal=refused[0].problem if refused else None,
        truncated=sum(piece.left_out > 0 for piece in pieces),
        left_out=sum(piece.left_out for piece in pieces),
        inexact=sum(piece.encoded is not None and not piece.encoded.exact for piece in first),
    )
    return write_shard(path, number, rows, mark)


def _score_rows(loaded: LoadedModel, pieces: list[Piece], batch_tokens: int, meter: _Meter) -> ScoredRows:
    """Score rows in batches of like lengths; the result is in the order of the rows."""
    import numpy as np

    from analysis.corpus_store import ROLE_NAMES, ScoredRows
    from model.uncertainty import TokenScores, score

    lengths = np.array([piece.n for piece in pieces])
    found = [TokenScores.nothing(0, 1)] * len(pieces)
    for batch in _batches(lengths, batch_tokens):
        texts = [pieces[i].encoded for i in batch]
        bos = next(text.bos for text in texts if text is not None)
        scored = score(loaded.model, [text.ids for text in texts if text is not None], bos=bos, k=1)
        for i, scores in zip(batch, scored, strict=True):
            found[i] = scores
        meter.add(int(lengths[batch].sum()))

    code = {name: i for i, name in enumerate(ROLE_NAMES)}
    every = TokenScores.join(found)
    encoded = [piece.encoded for piece in pieces if piece.encoded is not None]
    text, text_start = zip(*(piece.text for piece in pieces), strict=True)

    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([[], *(getattr(each, name) for each in encoded)]).astype(np.int32)

    roles = [code[role] for each in encoded for role in each.role.tolist()]
    return ScoredRows(
        document=np.array([piece.document for piece in pieces], dtype=np.int32),
        piece=np.array([piece.number for piece in pieces], dtype=np.int32),
        document_tokens=np.array([piece.document_tokens for piece in pieces], dtype=np.int32),
        text_start=np.array(text_start, dtype=np.int32),
        text=text,
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids=joined("ids"),
        **{name: getattr(every, name) for name in ("entropy", "confidence", "margin", "surprisal")},
        rank=every.rank.astype(np.int32),
        start=joined("source_start"),
        end=joined("source_end"),
        role=np.array(roles, dtype=np.uint8),
    )


def _batches(lengths: NDArray[np.int64], batch_tokens: int) -> Iterator[list[int]]:
    """Rows of like lengths, the longest first; rows x longest is at most `batch_tokens` but for a row alone."""
    import numpy as np

    batch: list[int] = []
    for i in np.argsort(-lengths, kind="stable").tolist():
        if lengths[i] == 0:
            break
        if batch and (len(batch) + 1) * lengths[batch[0]] > batch_tokens:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


# --- what it takes


def _expected_bytes(corpus: Corpus, options: CorpusOptions) -> int:
    """What the store will take on disk, about: a token is some 4 characters, and packed files hold about 3 times."""
    if options.limit_tokens is not None:
        return options.limit_tokens * _BYTES_A_TOKEN
    size, name = corpus.file_size, corpus.facts.name.lower()
    if name.endswith((".txt", ".txt.gz")) and corpus.spec.documents == "file" and not options.windows:
        return (options.max_tokens or 0) * _BYTES_A_TOKEN
    return 0 if size is None else size * (1 if name.endswith((".txt", ".jsonl")) else 3) // 4 * _BYTES_A_TOKEN


def _check_disk(path: Path, size: int) -> None:
    free = shutil.disk_usage(path).free
    if free < size:
        raise TooLarge(
            f"the store needs about {size / 1e9:.2f} GB of disk in {path}, and {free / 1e9:.2f} GB are free; free some,"
            " or give --limit-tokens; complete shards stay"
        )


class _Meter:
    """Tells how far a run is, how fast, and how long it will take."""

    expected: float | None = None  # tokens in all

    def __init__(self, tell: Tell, interval: float, what: str, done: int) -> None:
        self.what, self.done, self.before = what, done, done
        self._tell, self._interval = tell, interval
        self._start = self._told = time.monotonic()

    def expect(self, last: Piece, tokens: int, limit: int | None) -> None:
        """Estimate the tokens in all, from what has been read up to the last row of a shard of so many tokens."""
        rest = last.document_tokens - last.at - last.n - last.left_out  # windows of the same document
        total = (self.done + tokens + rest) / last.share if last.share else None
        self.expected = min((bound for bound in (total, limit) if bound is not None), default=None)

    def add(self, tokens: int) -> None:
        """Count a batch, and tell if it is time."""
        self.done += tokens
        now = time.monotonic()
        if now - self._told < self._interval:
            return
        self._told = now
        rate = (self.done - self.before) / max(now - self._start, 1e-9)
        message = f"{self.what}: {self.done:,} tokens, {rate:,.0f} tokens/s"
        if self.expected is None:
            return self._tell(message, None)
        left = max(0, round((self.expected - self.done) / rate))
        clock = f"{left // 3600}:{left // 60 % 60:02d}:{left % 60:02d}"
        self._tell(f"{message}, about {clock} left", min(1.0, self.done / self.expected))


# --- the command


@cli.app.command("corpus")
def corpus_command(
    model: Annotated[str, typer.Option(help="Catalog name, hub id or folder.")],
    data: Annotated[str, typer.Option(help="A .txt, .jsonl (also .gz) or .parquet file, or a data set's hub id.")],
    out: Annotated[Path, typer.Option(help="Folder of the store; one that was begun is gone on with.")],
    column: Annotated[str, typer.Option(help="Holds the text or conversation; for all but .txt.")] = "text",
    documents: Annotated[Cut, typer.Option(help="What is a document of a .txt file.")] = "file",
    subset: Annotated[str | None, typer.Option(help="Configuration of a hub data set.")] = None,
    split: Annotated[str, typer.Option(help="Split of a hub data set.")] = "train",
    data_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub data set.")] = None,
    limit_tokens: Annotated[int | None, typer.Option(min=1, help="Stop after so many tokens.")] = None,
    max_tokens_per_document: Annotated[
        int | None, typer.Option(min=2, help="Leave out what is longer; by default what does not fit the context.")
    ] = None,
    windows: Annotated[
        bool, typer.Option("--windows", help="Cut longer documents into windows, each scored on its own.")
    ] = False,
    batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens at once; by default what fits.")] = None,
    shard_tokens: Annotated[int, typer.Option(min=1, help="Tokens of a shard.")] = SHARD_TOKENS,
    chat: cli.Chat = False,
    force_bos: cli.ForceBos = False,
    revision: cli.Revision = None,
    adapter: cli.Adapter = None,
    dtype: cli.Dtype = "auto",
    device: cli.Device = "auto",
    attn_implementation: cli.Attention = None,
    quantization: cli.Quantization = "none",
    trust_remote_code: cli.Trust = False,
) -> None:
    """Score a corpus once into a store of Parquet shards. Stopped, it goes on when started again."""
    spec = ModelSpec(model, revision, adapter, dtype, device, attn_implementation, quantization, trust_remote_code)
    corpus = open_corpus(CorpusSpec(data, column, documents, subset, split, data_revision))
    options = CorpusOptions(chat, force_bos, windows, max_tokens_per_document, limit_tokens, shard_tokens, batch_tokens)
    started = time.monotonic()
    try:
        with progress_bar() as tell:
            interval = 0.2 if sys.stderr.isatty() else 10.0  # lines of a log, or a bar
            store = score_corpus(lambda: load(spec, tell), corpus, out, options, tell, interval)
    except KeyboardInterrupt:
        print(one_line(f"{out} holds what was scored so far; start the same command again to go on"), file=sys.stderr)
        raise
    for note in store.notes:
        print(one_line(f"{store.facts.name}: {note}"), file=sys.stderr)
    size = sum(mark.size for mark in store.marks)
    print(
        f"{store.tokens:,} tokens of {store.documents:,} documents in {len(store.marks):,} shards,"
        f" {size / max(store.tokens, 1):.1f} bytes a token, {time.monotonic() - started:,.0f} s",
        file=sys.stderr,
    )
    print(out)
