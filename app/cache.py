"""What outlives a rerun, shared by all users: at most two loaded models, and the last answers. The only st.cache_*.

Models hold no run; answers are frozen. One run at a time: memory was estimated for one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import streamlit as st

from analysis.compare import Comparison
from analysis.export import chrome
from analysis.request import Request
from model.catalog import DefaultPair, default_pair
from model.forward import Progress
from model.loading import LoadedModel, ModelSpec, load
from model.terminal import Tell

ANSWERS = 12  # kept; a comparison of 10,000 tokens takes about 3 MB
Stamp = tuple[float, ...]  # of a model's files: an answer of an older checkpoint is not an answer


class Workshop:
    """The models that are loaded, and the answers that were given."""

    def __init__(self) -> None:
        self._models: dict[tuple[ModelSpec, Stamp], LoadedModel] = {}
        self._answers: OrderedDict[tuple[Request, Stamp], Comparison] = OrderedDict()
        self._guard = threading.Lock()
        self._running = threading.Lock()

    def answer(self, request: Request) -> Comparison | None:
        """The answer, if it was given before."""
        key = request, _stamp(request.a, request.b)
        with self._guard:
            if key in self._answers:
                self._answers.move_to_end(key)
            return self._answers.get(key)

    @contextmanager
    def turn(self, wait: Callable[[], None]) -> Iterator[None]:
        """Hold the machine for one run; `wait` is called while another one has it, and may raise to give up."""
        while not self._running.acquire(timeout=0.5):
            wait()
        try:
            yield
        finally:
            self._running.release()

    def load(self, request: Request, tell: Tell) -> tuple[LoadedModel, LoadedModel]:
        """Both models of a request; every other is let go first, so that at most two are in memory."""
        wanted = {(spec, _stamp(spec)) for spec in (request.a, request.b)}
        for key in set(self._models) - wanted:
            del self._models[key]
        loaded = []
        for spec in (request.a, request.b):
            key = spec, _stamp(spec)
            if key not in self._models:
                self._models[key] = load(spec, tell)
            loaded.append(self._models[key])
        return loaded[0], loaded[1]

    def run(self, request: Request, progress: Progress) -> Comparison:
        """Answer a request with the models that were loaded for it, and keep the answer."""
        found = request.run(lambda spec: self._models[spec, _stamp(spec)], progress)
        with self._guard:
            self._answers[request, _stamp(request.a, request.b)] = found
            while len(self._answers) > ANSWERS:
                self._answers.popitem(last=False)
        return found


def _stamp(*specs: ModelSpec) -> Stamp:
    """When the files of local models last changed."""
    times = []
    for name in (name for spec in specs for name in (spec.name, spec.adapter or "") if name):
        try:
            path = Path(name).expanduser()
            files = [file for file in path.iterdir() if file.is_file()] if path.is_dir() else [path]
            times.append(max((file.stat().st_mtime for file in files), default=0.0))
        except (OSError, ValueError, RuntimeError):  # no path: a name on the hub, or none that a file could have
            continue
    return tuple(times)


@st.cache_resource
def workshop() -> Workshop:
    """The server's one workshop."""
    return Workshop()


@st.cache_resource(show_spinner=False, ttl=600)
def first_pair() -> DefaultPair:
    """What to compare on the first visit; asks once whether the hub is there."""
    return default_pair()


@st.cache_resource(show_spinner=False, ttl=600)
def static_images() -> bool:
    """Whether this machine can draw PNG, SVG and PDF."""
    return chrome() is not None
