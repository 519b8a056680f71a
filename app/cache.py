"""What outlives a rerun, shared by all users: at most two loaded models, and the last answers. The only st.cache_*.

Models hold no run; answers are frozen. One run at a time: memory was estimated for one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import streamlit as st

from analysis.export import chrome
from analysis.query import ModelLoader, Query
from analysis.runs.log_cache import LogCache
from analysis.segmentation.corpus_view import StoreSides
from evals.report.score_rows import Evaluated, read_folder
from evals.samples import SampleFile, read_samples
from model.causal_lm.forward import Progress
from model.hub.default_pair import DefaultPair, default_pair
from model.hub.loading import LoadedModel, ModelSpec, load
from model.terminal import Tell

ANSWERS = 24  # kept; a comparison of 10,000 tokens takes about 3 MB
MODELS = 2  # kept in memory
Answer = TypeVar("Answer")
Stamp = tuple[float, ...]  # of a model's files: an answer of an older checkpoint is not an answer


class ModelPool:
    """The models that are loaded, and the answers that were given."""

    def __init__(self) -> None:
        self._models: OrderedDict[tuple[ModelSpec, Stamp], LoadedModel] = OrderedDict()
        self._answers: OrderedDict[tuple[Query[Any], Stamp], Any] = OrderedDict()
        self._guard = threading.Lock()
        self._running = threading.Lock()

    def answer(self, asked: Query[Answer]) -> Answer | None:
        """The answer, if it was given before."""
        key = asked, _stamp(*asked.specs.values())
        with self._guard:
            if key in self._answers:
                self._answers.move_to_end(key)
            found: Answer | None = self._answers.get(key)
            return found

    @contextmanager
    def turn(self, wait: Callable[[], None]) -> Iterator[None]:
        """Hold the machine for one run; `wait` is called while another one has it, and may raise to give up."""
        while not self._running.acquire(timeout=0.5):
            wait()
        try:
            yield
        finally:
            self._running.release()

    def load(self, asked: Query[Any], tell: Tell) -> dict[str, LoadedModel]:
        """The models of a question. Those that were used longest ago are let go first: at most MODELS are in memory."""
        wanted = {name: (spec, _stamp(spec)) for name, spec in asked.specs.items()}
        needed = set(wanted.values())
        while len(needed | self._models.keys()) > MODELS and (spare := [k for k in self._models if k not in needed]):
            del self._models[spare[0]]
        for key in needed:
            if key not in self._models:
                self._models[key] = load(key[0], tell)
            self._models.move_to_end(key)
        return {name: self._models[key] for name, key in wanted.items()}

    def run(
        self, asked: Query[Answer], progress: Progress, run: Callable[[ModelLoader, Progress], Answer] | None = None
    ) -> Answer:
        """Answer a question with the models that were loaded for it, and keep the answer; `run` is its own if None."""
        found = (run or asked.run)(lambda spec: self._models[spec, _stamp(spec)], progress)
        with self._guard:
            self._answers[asked, _stamp(*asked.specs.values())] = found
            while len(self._answers) > ANSWERS:
                self._answers.popitem(last=False)
        return found


def _stamp(*specs: ModelSpec) -> Stamp:
    """When the files of local models last changed."""
    times = [_changed(name) for spec in specs for name in (spec.name, spec.adapter, spec.tokenizer) if name]
    return tuple(time for time in times if time is not None)


def _changed(name: str) -> float | None:
    """When a file, or the files of a folder, last changed."""
    try:
        path = Path(name).expanduser()
        files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
        return max((file.stat().st_mtime for file in files), default=0.0)
    except (OSError, ValueError, RuntimeError):  # no path: a name on the hub, or none that a file could have
        return None


@st.cache_resource
def workshop() -> ModelPool:
    """The server's one workshop."""
    return ModelPool()


@st.cache_resource
def shelf() -> LogCache:
    """The logs of training runs, as far as they were read."""
    return LogCache()


@st.cache_resource(show_spinner=False, ttl=600)
def first_pair() -> DefaultPair:
    """What to compare on the first visit, of what is on this machine."""
    return default_pair()


@st.cache_resource(show_spinner=False, ttl=600)
def static_images() -> bool:
    """Whether this machine can draw PNG, SVG and PDF."""
    return chrome() is not None


def store_sides(path: Path) -> StoreSides:
    """A corpus store, read; anew when it has changed.

    Raises:
        TextError: the folder holds no complete store.
    """
    return _store_sides(path, _changed(str(path)))


@st.cache_resource(show_spinner="reading the store", max_entries=2)
def _store_sides(path: Path, changed: float | None) -> StoreSides:
    return StoreSides.read(path)


def evaluation(path: Path) -> Evaluated:
    """An evaluation's scores, without prompts and answers; read anew when it has changed.

    Raises:
        TextError: it is none, or it is damaged.
    """
    return _evaluation(path.absolute(), _changed(str(path)))


def sample_file(path: Path) -> SampleFile | None:
    """A file of samples with all that was written; read anew when it has changed.

    Raises:
        TextError: it is damaged.
    """
    return _sample_file(path.absolute(), _changed(str(path)))


@st.cache_resource(show_spinner="reading the evaluation", max_entries=48)
def _evaluation(path: Path, changed: float | None) -> Evaluated:
    return read_folder(path, texts=False)


@st.cache_resource(show_spinner="reading the samples", max_entries=6)
def _sample_file(path: Path, changed: float | None) -> SampleFile | None:
    found = read_samples(path)
    return None if found is None else found[0]
