"""Everything that outlives a rerun and is shared by all users. Only this module uses `st.cache_*`.

`ModelPool` holds loaded models and the latest results. Models hold no state of a run, and results are frozen. Who runs
a query has the machine by its `queue`.
"""

from __future__ import annotations

import dataclasses
import sys
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import streamlit as st

from analysis.export import chrome
from analysis.query import ModelLoader, Query
from analysis.ranking.document_scores import ScoredDocuments, document_scores
from analysis.runs.log_cache import LogCache
from analysis.segmentation.corpus_view import StoreSides
from analysis.stored_results.store import FOLDER, stored_answer
from app.access.settings import settings
from app.scheduling.run_queue import RunLimits, RunQueue
from data.corpus.store import open_store
from evals.report.score_rows import Evaluated, read_folder
from evals.samples import SampleFile, read_samples
from model.causal_lm.device_memory import available_memory
from model.causal_lm.device_speed import multiplications_per_second
from model.hub.cache import FileState
from model.hub.default_pair import DefaultPair, default_pair
from model.hub.loading import LoadedModel, ModelSpec, content_of, load
from model.progress import Progress, Tell

RESULTS = 24  # kept in memory, whatever they take; a comparison of 10,000 tokens takes about 3 MB
RESULT_BYTES = 250_000_000  # more are kept while all take no more
MODELS = 2  # kept in memory, whatever they take
MODEL_SHARE = 0.1  # of the memory that is free: others are kept, too, while all take no more
STORES = 4  # of documents' sums, kept in memory: about 500 bytes a document
LONG = 2.0  # seconds of a run that tells the speed of this machine
WORK = 0.5  # seconds that it should take at least: of a run with less to do, the start takes most of the time
REACHED = 0.4  # share of a matrix product's speed that models reach on a CPU: measured, .3 to .6
Result = TypeVar("Result")
FilesState = tuple[tuple[tuple[str | int, ...], ...], bool]
Content = tuple[tuple[str, ...], ...]  # hashes of the files of a query's models: other weights give another answer


class ModelPool:
    """The loaded models, the latest results, and those that come with the project."""

    def __init__(self, limits: RunLimits | None = None) -> None:
        self._models: OrderedDict[ModelSpec, LoadedModel] = OrderedDict()
        self._results: OrderedDict[Query[Any], tuple[Content, Any, bool]] = OrderedDict()  # bool: it was stored
        self._sizes: dict[Query[Any], int] = {}  # bytes
        self._anew: set[Query[Any]] = set()  # questions whose stored answers are not wanted
        self._speed: float | None = None  # multiplications a second, in the latest run that took a while
        self.queue = RunQueue(limits)
        self.examples: Path | None = FOLDER  # of the answers that come with the project; None: use none
        self._guard = threading.Lock()

    def get(self, query: Query[Result]) -> Result | None:
        """The result of a query, if it is still in memory or comes with the project."""
        with self._guard:
            known = self._results.get(query)
        if known is not None and known[0] == _content(query):
            with self._guard:
                if query in self._results:
                    self._results.move_to_end(query)
            kept: Result = known[1]
            return kept
        folder = None if query in self._anew else self.examples
        stored = None if folder is None else stored_answer(query, folder)
        if stored is not None:
            self._keep(query, _content(query), stored, True)
        return stored

    def stored(self, query: Query[Any]) -> bool:
        """Whether the result in memory is one that comes with the project."""
        with self._guard:
            return self._results.get(query, ((), None, False))[2]

    def compute_anew(self, queries: Iterable[Query[Any]]) -> None:
        """From now on, have the models answer these, and not what comes with the project."""
        with self._guard:
            self._anew.update(queries)
            for query in [query for query, (_, _, stored) in self._results.items() if stored and query in self._anew]:
                del self._results[query], self._sizes[query]

    def computed(self) -> list[tuple[Query[Any], Any]]:
        """The latest results that models gave, with their queries."""
        with self._guard:
            return [(query, result) for query, (_, result, stored) in self._results.items() if not stored]

    def load(self, query: Query[Any], tell: Tell) -> dict[str, LoadedModel]:
        """Load the models of a query. Those used longest ago are dropped first."""
        needed = set(query.specs.values())
        for spec in needed & self._models.keys():
            if self._models[spec].content != content_of(spec):
                del self._models[spec]
        spare = [spec for spec in self._models if spec not in needed]
        while spare and len(needed | self._models.keys()) > MODELS and self._too_large():
            del self._models[spare.pop(0)]
        for spec in needed:
            if spec not in self._models:
                self._models[spec] = load(spec, tell)
            self._models.move_to_end(spec)
        return {name: self._models[spec] for name, spec in query.specs.items()}

    def _too_large(self) -> bool:
        """Whether the loaded models take more than their share of the memory that is free."""
        taken = Counter[str]()
        for loaded in self._models.values():
            taken[str(loaded.model.device)] += loaded.model.get_memory_footprint()
        return any(size > MODEL_SHARE * available_memory(device) for device, size in taken.items())

    def run(
        self,
        query: Query[Result],
        models: Mapping[str, LoadedModel],
        progress: Progress,
        run: Callable[[ModelLoader, Progress], Result] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> Result:
        """Run a query with the models loaded for it, and keep the result.

        Args:
            query: the question.
            models: those of the question, by its names for them.
            progress: told how far the run is.
            run: replaces the question's own method.
            clock: seconds that the run had the machine.
        """
        began = clock()
        by_spec = {spec: models[name] for name, spec in query.specs.items()}
        result = (run or query.run)(by_spec.__getitem__, progress)
        took = clock() - began
        if took > LONG:
            work = sum(query.cost(loaded).work for loaded in models.values())
            if work > WORK * REACHED * multiplications_per_second():
                self._speed = work / took
        self._keep(query, tuple(models[name].content for name in query.specs), result, False)
        return result

    def speed(self) -> float:
        """Multiplications a second: of an earlier run, or before the first a share of a bare matrix product's."""
        if self._speed is None:
            self._speed = REACHED * multiplications_per_second()
        return self._speed

    def _keep(self, query: Query[Any], content: Content, result: Any, stored: bool) -> None:
        with self._guard:
            self._results[query] = content, result, stored
            self._results.move_to_end(query)
            self._sizes[query] = _size(result)
            while len(self._results) > RESULTS and sum(self._sizes.values()) > RESULT_BYTES:
                oldest, _ = self._results.popitem(last=False)
                del self._sizes[oldest]


def _size(value: Any) -> int:
    """About how many bytes a result takes."""
    if isinstance(value, np.ndarray):
        return int(value.nbytes)
    if dataclasses.is_dataclass(value):
        value = [getattr(value, each.name) for each in dataclasses.fields(value)]
    if isinstance(value, Mapping):
        value = tuple(value.values())
    return sys.getsizeof(value) + (sum(map(_size, value)) if isinstance(value, tuple | list) else 0)


def _content(query: Query[Any]) -> Content:
    return tuple(content_of(spec) for spec in query.specs.values())


def _state(path: Path) -> FilesState:
    """The state of a file, or of the files of a folder. What is read while it settles is read once more afterwards."""
    try:
        files = sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]
        states = [FileState.of(file) for file in files]
    except OSError:
        return (), True
    named = tuple((file.name, *state) for file, state in zip(files, states, strict=True))
    return named, all(state.settled for state in states)


@st.cache_resource
def model_pool() -> ModelPool:
    """The one pool of the server."""
    return ModelPool(settings().limits)


@st.cache_resource
def log_cache() -> LogCache:
    """The training logs that were read so far."""
    return LogCache()


@st.cache_resource(show_spinner=False, ttl=600)
def first_pair() -> DefaultPair:
    """The two models of a first visit, of those on this machine."""
    return default_pair()


@st.cache_resource(show_spinner=False, ttl=600)
def static_images() -> bool:
    """Whether this machine can draw PNG, SVG and PDF."""
    return chrome() is not None


def store_sides(path: Path) -> StoreSides:
    """Read a corpus store; a changed store is read again.

    Raises:
        TextError: the folder holds no complete store.
    """
    return _store_sides(path, _state(path))


@st.cache_resource(show_spinner="reading the store", max_entries=2)
def _store_sides(path: Path, state: FilesState) -> StoreSides:
    return StoreSides.read(path)


class ReadStores:
    """The documents of the corpus stores that were read last."""

    def __init__(self) -> None:
        self._read: OrderedDict[tuple[Path, FilesState], ScoredDocuments] = OrderedDict()
        self._guard = threading.Lock()

    def get(self, path: Path) -> ScoredDocuments | None:
        """A store, if it was read and has not changed since."""
        with self._guard:
            return self._read.get((path, _state(path)))

    def read(self, path: Path, progress: Progress) -> ScoredDocuments:
        """Read a store.

        Raises:
            TextError: the folder holds no complete store, or it is damaged.
        """
        key = path, _state(path)
        scores = document_scores(open_store(path), progress)
        with self._guard:
            self._read[key] = scores
            while len(self._read) > STORES:
                self._read.popitem(last=False)
        return scores


@st.cache_resource
def read_stores() -> ReadStores:
    """The stores that the page Corpus has read."""
    return ReadStores()


def evaluation(path: Path) -> Evaluated:
    """Read an evaluation's scores, without prompts and answers; a changed evaluation is read again.

    Raises:
        TextError: the folder holds no evaluation, or it is damaged.
    """
    return _evaluation(path.absolute(), _state(path))


def sample_file(path: Path) -> SampleFile | None:
    """Read a file of samples with all answers; a changed file is read again.

    Raises:
        TextError: it is damaged.
    """
    return _sample_file(path.absolute(), _state(path))


@st.cache_resource(show_spinner="reading the evaluation", max_entries=48)
def _evaluation(path: Path, state: FilesState) -> Evaluated:
    return read_folder(path, texts=False)


@st.cache_resource(show_spinner="reading the samples", max_entries=6)
def _sample_file(path: Path, state: FilesState) -> SampleFile | None:
    read = read_samples(path)
    return None if read is None else read[0]
