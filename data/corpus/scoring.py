"""Score a corpus once into a store, from Python: `score_corpus`.

A shard's documents follow from their order in the corpus alone; batching happens inside a shard, by length. So a run
that was stopped anywhere goes on to the same store. Neither the batches nor their padding enter the scores but by
rounding: against scoring each document alone, entropies differ by up to about 1e-4 nats in float32, .1 in bfloat16.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.corpus.budget import BYTES_A_TOKEN, check_disk, expected_bytes, resolve
from data.corpus.documents import Corpus
from data.corpus.options import CorpusOptions
from data.corpus.progress import ScoringProgress
from data.corpus.scored_rows import ROLE_NAMES, ScoredRows
from data.corpus.shards import Shard, planned
from data.corpus.store import (
    FORMAT,
    MANIFEST,
    CorpusStore,
    Mark,
    open_store,
    read_manifest,
)
from data.corpus.store_writer import begin, finish, write_shard, writing
from data.corpus.windows import TokenWindow
from model.errors import NumericalError, TextError
from model.hub.loading import LoadedModel
from model.progress import Tell, silent
from model.scoring import token_scores
from model.scoring.token_scores import TokenScores

_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow")


def score_corpus(
    load_model: Callable[[], LoadedModel],
    corpus: Corpus,
    path: Path,
    options: CorpusOptions | None = None,
    tell: Tell = silent,
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
        NumericalError: a document's scores are not finite: no statistic is made of the others alone.
    """
    with writing(path):
        loaded, options = begin_store(load_model, corpus, path, options)
        marks: list[Mark] = []
        meter: ScoringProgress | None = None
        for each in planned(loaded, corpus, options, path):
            if isinstance(each, Shard):
                meter = meter or ScoringProgress(
                    tell, interval, scoring_what(corpus), sum(mark.tokens for mark in marks)
                )
                try:
                    each = score_shard(loaded, each, options, path, meter)
                except NumericalError as error:
                    raise stopped_by_numbers(path, error, begun=bool(marks)) from error
            marks.append(each)
        return finish_store(corpus, path, marks)


def begin_store(
    load_model: Callable[[], LoadedModel], corpus: Corpus, path: Path, options: CorpusOptions | None
) -> tuple[LoadedModel, CorpusOptions]:
    """Load the model, and begin its store or see that the begun one is of the same; see `score_corpus`."""
    loaded = load_model()
    options, notes = resolve(loaded, options or CorpusOptions(), read_manifest(path))
    check_disk(path, expected_bytes(corpus, options))
    begin(path, _manifest(loaded, corpus, options, notes))
    return loaded, options


def finish_store(corpus: Corpus, path: Path, marks: list[Mark]) -> CorpusStore:
    """Note that all shards are there.

    Raises:
        TextError: the corpus was changed meanwhile.
    """
    if not corpus.unchanged():
        raise TextError(f"{corpus.spec.data} was changed while it was scored; remove {path} and start again")
    finish(path, marks)
    return open_store(path)


def stopped_by_numbers(path: Path, error: NumericalError, begun: bool) -> NumericalError:
    """The error for a user; a store of another precision is another store, and one without a shard is taken away."""
    if begun:
        return NumericalError(f"{error}, with another --out than {path}, which holds what was scored before")
    (path / MANIFEST).unlink()  # so that the folder goes as it came
    return error


def scoring_what(corpus: Corpus) -> str:
    """What is going on, for whoever is told."""
    return f"scoring {corpus.facts.name}"


def _manifest(loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, notes: tuple[str, ...]) -> dict[str, Any]:

    parameters = dataclasses.asdict(options)
    batch_tokens = parameters.pop("batch_tokens")  # it may change from run to run
    parameters["template"] = dict(options.template) if options.template else None
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


def score_shard(loaded: LoadedModel, shard: Shard, options: CorpusOptions, path: Path, meter: ScoringProgress) -> Mark:
    """Score the rows of one shard and write it.

    Raises:
        TextError: it is the whole corpus, and holds no token.
        TooLarge: the disk does not suffice.
        ExportError: it cannot be written.
        NumericalError: a document's scores are not finite; none of its shard is kept.
    """
    pieces, ahead, tokens = shard.pieces, shard.ahead, shard.tokens
    first = [piece for piece in pieces if piece.number == 0]
    refused = [piece for piece in first if piece.problem is not None]
    end = pieces[-1]
    if shard.last and shard.number == 0 and tokens == 0:
        (path / MANIFEST).unlink()
        reason = f"the first that was refused: {refused[0].problem}" if refused else "its documents are empty"
        raise TextError(f"there is no token to score in {meter.what.removeprefix('scoring ')}: {reason}")
    check_disk(path, 2 * tokens * BYTES_A_TOKEN)
    meter.expect(end, tokens, options.limit_tokens)
    rows = _score_rows(loaded, pieces, options.batch_tokens or 1, meter)
    mark = Mark(
        rows=len(pieces),
        tokens=tokens,
        next=(ahead.document, ahead.number) if ahead is not None else (end.document + 1, 0),
        last=shard.last,
        documents=len(first),
        empty=sum(piece.document_tokens == 0 for piece in first),
        refused=len(refused),
        refusal=refused[0].problem if refused else None,
        truncated=sum(piece.left_out > 0 for piece in pieces),
        left_out=sum(piece.left_out for piece in pieces),
        inexact=sum(piece.encoded is not None and not piece.encoded.exact for piece in first),
    )
    return write_shard(path, shard.number, rows, mark)


def _score_rows(
    loaded: LoadedModel, pieces: list[TokenWindow], batch_tokens: int, meter: ScoringProgress
) -> ScoredRows:
    """Score rows in batches of like lengths; the result is in the order of the rows."""
    lengths = np.array([piece.n for piece in pieces])
    found = [TokenScores.nothing(0, 1)] * len(pieces)
    for batch in _batches(lengths, batch_tokens):
        texts = [pieces[i].encoded for i in batch]
        prefix = next(text.prefix for text in texts if text is not None)
        ids = [text.ids for text in texts if text is not None]
        try:
            scored = token_scores.score(loaded.model, ids, prefix=prefix, k=1)
        except NumericalError as error:
            raise NumericalError(f"document {pieces[batch[error.row or 0]].document} of the corpus: {error}") from error
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
