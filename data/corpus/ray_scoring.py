"""Score a corpus into a store on a Ray cluster: the same shards by the same code, shared among many actors.

The driver reads and tokenises the corpus to find where the shards begin, a little ahead of the actors. Each actor reads
the corpus itself, and writes the shards that it is given, each with its mark. Corpus and store lie on a disk that all
machines share, or in object storage. The store equals that of one process byte for byte.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import cast

from data.corpus.documents import Corpus, CorpusEntry
from data.corpus.options import CorpusOptions
from data.corpus.progress import ScoringProgress
from data.corpus.scoring import begin_store, finish_store, score_shard, scoring_title, stopped_by_numbers
from data.corpus.shards import Shard, planned, stream_windows, take_shard
from data.corpus.store import CorpusStore, Mark, read_marks
from data.corpus.store_writer import writing
from data.corpus.text_files import file_place
from data.ray_pool import RayItem, RayOptions, require_ray, work_on_ray
from model.errors import MicroStepError, NumericalError, TextError
from model.hub.loading import LoadedModel
from model.progress import Tell, silent
from model.storage.places import Place, absolute


def score_corpus_with_ray(
    load_model: Callable[[], LoadedModel],
    corpus: Corpus,
    path: Place,
    options: CorpusOptions | None = None,
    tell: Tell = silent,
    cluster: RayOptions | None = None,
) -> CorpusStore:
    """Score a corpus into the store at `path` with Ray, or resume a run that was stopped; see `score_corpus`.

    Raises:
        MicroStepError: Ray is not installed, its cluster cannot be used, or its actors die again and again.
        ExportError: the folder cannot be used, holds a store of something else, or another process writes to it.
        TextError: the corpus is damaged, changed, or holds no token.
        TooLarge: there is not enough memory or disk.
    """
    require_ray()
    with writing(path) as check:
        loaded, options = begin_store(load_model, corpus, path, options, tell)
        job = _Job(_absolute(corpus), options, absolute(path))
        meter = ScoringProgress(tell, scoring_title(corpus), 0)
        items = _items(loaded, corpus, options, path, meter)
        try:
            with closing(work_on_ray(loaded, partial(_Scorer, job), items, cluster or RayOptions(), tell)) as scored:
                for _, tokens in scored:
                    check()
                    meter.add(tokens)
        except NumericalError as error:
            raise stopped_by_numbers(path, error, begun=True) from error  # other actors may have scored theirs
        marks = read_marks(path)
        if not marks or not marks[-1].last:
            raise MicroStepError(f"shard {len(marks)} of {path} is missing; run the same command again")
        return finish_store(corpus, path, marks)


def _items(
    loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, path: Place, meter: ScoringProgress
) -> Iterator[RayItem]:
    """Yield the shards that are still to be scored."""
    total = 0
    for shard in planned(loaded, corpus, options, path):
        total += shard.tokens
        if isinstance(shard, Mark):
            meter.done, meter.before = meter.done + shard.tokens, meter.before + shard.tokens
            continue
        if shard.last and not total:
            score_shard(loaded, shard, options, path, meter)  # raises
        first = shard.pieces[0]
        meter.expect(shard.pieces[-1], total - meter.done, options.limit_tokens)
        name = f"shard {shard.number}, from document {first.document} of {corpus.facts.name} on"
        yield RayItem(name, _Span(shard.number, first.document, first.number, shard.left, shard.tokens))


@dataclass(frozen=True)
class _Span:
    """Where a shard begins, and how long it is."""

    number: int
    document: int
    window: int
    left: int | None  # number of tokens that may still be scored, including this shard's; None: all
    tokens: int


@dataclass(frozen=True)
class _Job:
    corpus: Corpus
    options: CorpusOptions
    path: Place


class _Scorer:
    """Holds a model, and scores one shard after another."""

    def __init__(self, job: _Job, loaded: LoadedModel) -> None:
        self._job, self._loaded = job, loaded
        self._corpus = cast(Corpus, _ForwardReader(job.corpus))
        self._meter = ScoringProgress(silent, scoring_title(job.corpus), 0)

    def __call__(self, span: _Span) -> int:
        """Score a shard; return its number of tokens."""
        options = self._job.options
        stream = stream_windows(self._loaded, self._corpus, options, (span.document, span.window))
        pieces, ahead = take_shard(stream, next(stream, None), options.shard_tokens, span.left)
        shard = Shard(span.number, pieces, ahead, span.left)
        if shard.tokens != span.tokens:
            name = self._job.corpus.spec.data
            raise TextError(f"{name} is not the same for all of Ray's actors; put it on a disk that all machines share")
        score_shard(self._loaded, shard, options, self._job.path, self._meter)
        return shard.tokens


class _ForwardReader:
    """The documents of a corpus for a reader that only moves forward, so that each is read once."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._entries: Iterator[CorpusEntry] = iter(())
        self._held: CorpusEntry | None = None

    def entries(self, start: int = 0) -> Iterator[CorpusEntry]:
        if self._held is None or start < self._held.index:
            self._entries = self._corpus.entries(start)
        elif start == self._held.index:
            yield self._held
        for entry in self._entries:
            self._held = entry
            if entry.index >= start:
                yield entry


def _absolute(corpus: Corpus) -> Corpus:
    if corpus.facts.kind == "hub":
        return corpus
    return replace(corpus, spec=replace(corpus.spec, data=str(absolute(file_place(corpus.spec)))))
