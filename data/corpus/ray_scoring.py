"""Score a corpus into a store on a Ray cluster: the same shards by the same code, distributed over many actors.

The driver reads and tokenises the corpus once to find where the shards begin. Each actor holds the model, reads the
corpus itself, and writes the shards that it is given, each with its mark. Corpus and store lie on a disk that all
machines share. The store equals that of one process byte for byte if each actor has as many threads as that process.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any, cast

import numpy as np

from data.corpus.documents import Corpus, CorpusEntry
from data.corpus.options import CorpusOptions
from data.corpus.progress import ScoringProgress
from data.corpus.scoring import begin_store, finish_store, score_shard, scoring_title, stopped_by_numbers
from data.corpus.shards import Shard, planned, stream_windows, take_shard
from data.corpus.store import CorpusStore, Mark, read_mark
from data.corpus.store_writer import writing
from model import errors
from model.errors import MicroStepError, NumericalError, TextError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.progress import Tell, silent
from model.storage.places import Place, absolute

IMPORTED_FROM = Path(__file__).resolve().parents[__name__.count(".")]  # the folder of the outermost package
RAY = 'pip install "ray[data]==2.60.0"'
_NUMBERS = ("number", "document", "window", "left", "tokens")


@dataclass(frozen=True)
class RayOptions:
    actors: int | None = None  # number of models; None: one per GPU, or as many as fit the CPUs with the threads of one
    threads: int | None = None  # threads of an actor on CPUs; None: as many as this process has


def score_corpus_with_ray(
    load_model: Callable[[], LoadedModel],
    corpus: Corpus,
    path: Place,
    options: CorpusOptions | None = None,
    tell: Tell = silent,
    cluster: RayOptions | None = None,
) -> CorpusStore:
    """Score a corpus into the store at `path` with Ray, or resume a run that was stopped; see `score_corpus`.

    The cluster is the one that RAY_ADDRESS names or that this process is in; otherwise this machine alone.

    Raises:
        MicroStepError: Ray is not installed, or an actor died.
        ExportError: the folder cannot be used, holds a store of something else, or another process writes to it.
        TextError: the corpus is damaged, changed, or holds no token.
        TooLarge: there is not enough memory or disk.
    """
    if find_spec("ray") is None:
        raise MicroStepError(f"--ray needs Ray: {RAY}; without --ray, one process does the scoring")
    with writing(path):
        loaded, options = begin_store(load_model, corpus, path, options)
        items = []
        done = total = 0
        for shard in planned(loaded, corpus, options, path):
            total += shard.tokens
            tell(f"{scoring_title(corpus)}: finding the shards, {total:,} tokens", None)
            if isinstance(shard, Mark):
                done += shard.tokens
            elif shard.last and not total:
                score_shard(loaded, shard, options, path, ScoringProgress(tell, scoring_title(corpus), 0))  # raises
            else:
                items.append(_item(shard))
        if items:
            meter = ScoringProgress(tell, scoring_title(corpus), done)
            meter.expected = total
            job = _Job(_with_absolute_paths(loaded.spec), _absolute(corpus), options, absolute(path))
            try:
                _run(job, items, cluster or RayOptions(), loaded.model.device.type == "cuda", meter)
            except NumericalError as error:
                raise stopped_by_numbers(path, error, begun=True) from error  # other actors may have scored theirs
        marks: list[Mark] = []
        for number in count():
            mark = read_mark(path, number)
            if mark is None:
                raise MicroStepError(f"shard {number} of {path} is missing; run the same command again")
            marks.append(mark)
            if mark.last:
                return finish_store(corpus, path, marks)
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class _Job:
    spec: ModelSpec
    corpus: Corpus
    options: CorpusOptions
    path: Place


class _Scorer:
    """Holds a model, and scores one shard after another."""

    def __init__(self, job: _Job, threads: int | None) -> None:
        import torch

        if threads is not None:
            torch.set_num_threads(threads)
        self._job, self._loaded = job, load(job.spec)
        self._corpus = cast(Corpus, _ForwardReader(job.corpus))
        self._meter = ScoringProgress(silent, scoring_title(job.corpus), 0)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Score the shards of a batch; return their tokens, or the project's own error that ended it."""
        try:
            for values in zip(*(batch[name].tolist() for name in _NUMBERS), strict=True):
                self._score(*values)
        except MicroStepError as error:
            return {"tokens": np.array([0]), "error": np.array([type(error).__name__]), "told": np.array([str(error)])}
        nothing = np.full(len(batch["tokens"]), "")
        return {"tokens": batch["tokens"], "error": nothing, "told": nothing}

    def _score(self, number: int, document: int, window: int, left: int, tokens: int) -> None:
        limit = None if left < 0 else left
        options = self._job.options
        stream = stream_windows(self._loaded, self._corpus, options, (document, window))
        pieces, ahead = take_shard(stream, next(stream, None), options.shard_tokens, limit)
        shard = Shard(number, pieces, ahead, limit)
        if shard.tokens != tokens:
            name = self._job.corpus.spec.data
            raise TextError(f"{name} is not the same for all of Ray's actors; put it on a disk that all machines share")
        score_shard(self._loaded, shard, options, self._job.path, self._meter)


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


def _item(shard: Shard) -> dict[str, int]:
    first = shard.pieces[0]
    left = -1 if shard.left is None else shard.left
    return dict(zip(_NUMBERS, (shard.number, first.document, first.number, left, shard.tokens), strict=True))


def _run(job: _Job, items: list[dict[str, int]], cluster: RayOptions, gpu: bool, meter: ScoringProgress) -> None:
    """Let actors score shards, and count them as they finish."""
    import ray
    import ray.data
    import torch

    started = not ray.is_initialized()
    if started:
        environment = {"env_vars": {"PYTHONPATH": str(IMPORTED_FROM)}}
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", runtime_env=environment)
    try:
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # its messages are not for our users
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = context.print_on_execution_start = False
        threads = None if gpu else cluster.threads or torch.get_num_threads()
        resources = ray.cluster_resources()
        capacity = int(resources.get("GPU", 0)) if gpu else int(resources.get("CPU", 1)) // (threads or 1)
        scored = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
            _Scorer,
            fn_constructor_args=(job, threads),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(len(items), cluster.actors or max(1, capacity))),
            num_gpus=1 if gpu else None,
            num_cpus=None if gpu else min(threads or 1, int(resources.get("CPU", 1))),
        )
        for batch in scored.iter_batches(batch_size=None, batch_format="numpy"):
            for tokens, error, message in zip(batch["tokens"], batch["error"], batch["told"], strict=True):
                if error:
                    raise getattr(errors, str(error), MicroStepError)(str(message))
                meter.add(int(tokens))
    except ray.exceptions.RayError as error:
        why = (str(getattr(error, "cause", None) or error).strip().splitlines() or [type(error).__name__])[-1]
        raise MicroStepError(
            f"Ray stopped ({why}); the complete shards are kept; run the same command again to resume"
        ) from error
    finally:
        if started:
            ray.shutdown()


def _with_absolute_paths(spec: ModelSpec) -> ModelSpec:
    """Return the spec with absolute paths, for a process in another folder."""

    def place(name: str) -> str:
        path = Path(name).expanduser()
        return str(absolute(path)) if path.exists() else name

    adapter, tokenizer = (None if name is None else place(name) for name in (spec.adapter, spec.tokenizer))
    return replace(spec, name=place(spec.name), adapter=adapter, tokenizer=tokenizer)


def _absolute(corpus: Corpus) -> Corpus:
    if corpus.facts.kind == "hub":
        return corpus
    return replace(corpus, spec=replace(corpus.spec, data=str(Path(corpus.spec.data).expanduser().resolve())))
