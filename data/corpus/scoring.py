"""Score a corpus once into a store, from Python: `score_corpus`.

A shard's documents depend only on their order in the corpus; batches are formed inside a shard, by length. A run that
was stopped anywhere therefore resumes to the same store. Batches and padding affect the scores only by rounding:
compared with scoring each document alone, entropies differ by up to about 1e-4 nats in float32 and 0.1 in bfloat16.
"""

import dataclasses
import importlib.metadata
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data.corpus.budget import BYTES_A_TOKEN, expected_bytes, longest_read, resolve
from data.corpus.documents import Corpus
from data.corpus.options import CorpusOptions
from data.corpus.progress import ScoringProgress
from data.corpus.scored_rows import ROLE_NAMES, ScoredRows, unscored_rows
from data.corpus.shards import Shard, planned
from data.corpus.store import (
    ENGINE,
    FORMAT,
    MANIFEST,
    CorpusStore,
    Mark,
    open_store,
    read_manifest,
)
from data.corpus.store_writer import begin, finish, write_shard, writing
from data.corpus.windows import TokenWindow
from data.states.estimate import check_room
from data.states.files import PartSource
from data.states.recording import StateRecorder
from model.errors import NumericalError, TextError
from model.hub.loading import LoadedModel
from model.progress import Tell, silent
from model.scoring import token_scores
from model.scoring.engine import EngineModel
from model.scoring.scores import TokenScores
from model.storage.places import Place, need_room, remove
from model.text.encoding import prefix_ids

_MORE_DISK = "free some, or give --limit-tokens; complete shards are kept"
_PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pyarrow")


def score_corpus(
    load_model: Callable[[], LoadedModel],
    corpus: Corpus,
    path: Place,
    options: CorpusOptions | None = None,
    tell: Tell = silent,
) -> CorpusStore:
    """Score a corpus into a store, or resume a run that was stopped.

    Args:
        load_model: loads the model once the store is known to be writable.
        corpus: what is scored.
        path: a folder, or an address of object storage.
        options: how it is scored.
        tell: receives progress messages.

    Raises:
        ExportError: the folder cannot be used, holds a store of something else, or another process writes to it.
        TextError: the corpus is damaged, changed, or holds no token.
        TooLarge: there is not enough memory or disk.
        NumericalError: a document's scores are not finite; no statistic is computed from the others alone.
    """
    with writing(path) as check:
        loaded, options = begin_store(load_model, corpus, path, options, tell)
        marks: list[Mark] = []
        meter: ScoringProgress | None = None
        for item in planned(loaded, corpus, options, path):
            if isinstance(item, Shard):
                meter = meter or ScoringProgress(tell, scoring_title(corpus), sum(mark.tokens for mark in marks))
                try:
                    item = score_shard(loaded, item, options, path, meter, check)
                except NumericalError as error:
                    raise stopped_by_numbers(path, error, begun=bool(marks)) from error
            marks.append(item)
        return finish_store(corpus, path, marks)


def begin_store(
    load_model: Callable[[], LoadedModel],
    corpus: Corpus,
    path: Place,
    options: CorpusOptions | None,
    tell: Tell = silent,
) -> tuple[LoadedModel, CorpusOptions]:
    """Load the model, and begin its store or check that the begun one has the same settings; see `score_corpus`."""
    loaded = load_model()
    options, notes = resolve(loaded, options or CorpusOptions(), read_manifest(path))
    need_room(path, expected_bytes(corpus, options), "the store", _MORE_DISK)
    if options.states is not None:
        check_room(loaded, corpus, options, options.states, tell)
    if isinstance(loaded, EngineModel):
        loaded.engine.start(longest_read(loaded, options))
    begin(path, _manifest(loaded, corpus, options, notes))
    return loaded, options


def finish_store(corpus: Corpus, path: Place, marks: list[Mark]) -> CorpusStore:
    if not corpus.unchanged():
        raise TextError(f"{corpus.spec.data} was changed while it was being scored; remove {path} and start again")
    finish(path, marks)
    return open_store(path)


def stopped_by_numbers(path: Place, error: NumericalError, begun: bool) -> NumericalError:
    """Return the error for the user.

    Another precision needs another store; a store without any shard is removed.
    """
    if begun:
        return NumericalError(f"{error}, and use another --out than {path}, which holds the scores so far")
    remove(path / MANIFEST)  # so that the folder is left as it was
    return error


def scoring_title(corpus: Corpus) -> str:
    return f"scoring {corpus.facts.name}"


def _manifest(loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, notes: tuple[str, ...]) -> dict[str, Any]:
    parameters = dataclasses.asdict(dataclasses.replace(options, states=None))
    del parameters["states"]  # kept beside the store, by this run or by a later one
    batch_tokens = parameters.pop("batch_tokens")  # it may differ between runs
    parameters["template"] = dict(options.template) if options.template else None
    engine = {ENGINE: loaded.engine.name} if isinstance(loaded, EngineModel) else {}
    return {
        "format": FORMAT,
        "model": loaded.facts.to_dict(),
        **engine,
        "data": dataclasses.asdict(corpus.facts) | {"column": corpus.spec.column, "documents": corpus.spec.documents},
        "parameters": parameters,
        "prefix": list(prefix_ids(loaded.tokenizer, options.force_bos)),
        "batch_tokens": batch_tokens,
        "roles": list(ROLE_NAMES),
        "units": {"entropy": "nats", "surprisal": "nats", "start": "characters of the document", "end": "characters"},
        "packages": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "notes": list(notes),
        "ids": list(corpus.spec.ids),  # a store without this entry is older than columns, and gets none
    }


def score_shard(
    loaded: LoadedModel,
    shard: Shard,
    options: CorpusOptions,
    path: Place,
    meter: ScoringProgress,
    check: Callable[[], None] = lambda: None,
) -> Mark:
    """Score the rows of one shard and write it; `check` of `writing` is called before.

    Raises:
        TextError: the shard is the whole corpus and holds no token.
        TooLarge: there is not enough disk.
        ExportError: the shard cannot be written.
        NumericalError: a document's scores are not finite; nothing of its shard is kept.
    """
    pieces, ahead, tokens = shard.pieces, shard.ahead, shard.tokens
    first = [piece for piece in pieces if piece.number == 0]
    refused = [piece for piece in first if piece.problem is not None]
    end = pieces[-1]
    if shard.last and shard.number == 0 and tokens == 0:
        remove(path / MANIFEST)
        reason = f"the first that was refused: {refused[0].problem}" if refused else "its documents are empty"
        raise TextError(f"there is no token to score in {meter.what.removeprefix('scoring ')}: {reason}")
    need_room(path, 2 * tokens * BYTES_A_TOKEN, "the store", _MORE_DISK)
    meter.expect(end, tokens, options.limit_tokens)
    recorder = None
    if options.states is not None and tokens:
        lead = next(len(piece.encoded.prefix) for piece in pieces if piece.encoded is not None)
        recorder = StateRecorder(loaded.model, options.states, unscored_rows(pieces), lead)
    rows = score_rows(loaded, pieces, options.batch_tokens or 1, meter, recorder)
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
    columns = [piece.columns for piece in first] if "ids" in (read_manifest(path) or {}) else []
    check()
    hashes = recorder.write(shard.number) if recorder is not None else {}
    mark = write_shard(path, shard.number, rows, mark, columns)
    if recorder is not None:
        recorder.mark(shard.number, part_source(loaded, mark.sha256), hashes)
    return mark


def score_rows(
    loaded: LoadedModel,
    pieces: list[TokenWindow],
    batch_tokens: int,
    meter: ScoringProgress,
    recorder: StateRecorder | None = None,
) -> ScoredRows:
    """Score rows in batches of similar lengths; return them in their original order.

    A recorder keeps more of the same passes.
    """
    lengths = np.array([piece.n for piece in pieces])
    elsewhere = isinstance(loaded, EngineModel)  # such an engine keeps no top-k, and forms its batches itself
    scores = [TokenScores.missing_scores(0, 0 if elsewhere else 1)] * len(pieces)
    batches = [np.flatnonzero(lengths).tolist()] if elsewhere else batches_of(lengths, batch_tokens)
    for batch in filter(None, batches):
        texts = [pieces[i].encoded for i in batch]
        prefix = next(text.prefix for text in texts if text is not None)
        ids = [text.ids for text in texts if text is not None]
        try:
            scored = _score(loaded, ids, prefix, meter.add, recorder)
        except NumericalError as error:
            raise NumericalError(f"document {pieces[batch[error.row or 0]].document} of the corpus: {error}") from error
        if recorder is not None:
            recorder.add(batch, scored)
        for i, row_scores in zip(batch, scored, strict=True):
            scores[i] = row_scores if recorder is None else row_scores.likeliest(1)

    all_scores = TokenScores.join(scores)
    return dataclasses.replace(
        unscored_rows(pieces),
        **{name: getattr(all_scores, name) for name in ("entropy", "confidence", "margin", "surprisal")},
        rank=all_scores.rank.astype(np.int32),
    )


def _score(
    loaded: LoadedModel,
    ids: list[NDArray[np.int64]],
    prefix: Sequence[int],
    done: Callable[[int], None],
    recorder: StateRecorder | None,
) -> list[TokenScores]:
    """Score the texts of a batch; `done` is called with numbers of scored tokens."""
    if isinstance(loaded, EngineModel):
        return loaded.engine.score(ids, prefix, done)
    with nullcontext() if recorder is None else recorder.reading():
        scored = token_scores.score(loaded.model, ids, prefix=prefix, k=1 if recorder is None else recorder.top)
    done(sum(map(len, ids)))
    return scored


def part_source(loaded: LoadedModel, scores: str) -> PartSource:
    """Return where the states of a shard with these scores come from."""
    return PartSource(scores, loaded.facts.revision, str(loaded.model.dtype).removeprefix("torch."))


def batches_of(lengths: NDArray[np.int64], batch_tokens: int) -> Iterator[list[int]]:
    """Yield rows of similar lengths, longest first; rows x longest is at most `batch_tokens`, unless a row is alone."""
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
