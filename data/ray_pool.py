"""Share a list of items among the actors of a Ray cluster: each holds the model, and works on one item after another.

Ray places the actors, starts them, and notices when one dies. An actor that died with its process or its machine is not
started again in its place, as that place may be gone: its item is given to another actor, and a new actor is asked for
as long as the cluster has room for it. So a machine may be lost or join at any time.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated, Any

import typer

from model.command_options import OnlyWith
from model.errors import MicroStepError, first_line
from model.hub.spec import ModelSpec
from model.progress import Tell

if TYPE_CHECKING:
    from model.hub.loading import LoadedModel

IMPORTED_FROM = Path(__file__).resolve().parents[__name__.count(".")]  # the folder of the outermost package
RAY = "pip install ray==2.60.0"
DEATHS = 3  # of actors, one after another: then it is not by chance
SECONDS_BETWEEN_LOOKS = 1.0  # at the cluster's machines
_PACKAGES = ("ray", "torch", "transformers", "tokenizers", "numpy")  # of one version on all machines
_RESUME = "what is finished is kept; run the same command again to resume"

Make = Callable[["LoadedModel"], Callable[[Any], Any]]  # gives what an actor does with an item's value


@dataclass(frozen=True)
class RayOptions:
    """How the work is shared on a Ray cluster."""

    ray: Annotated[
        bool, typer.Option("--ray", help="Share the work on a Ray cluster, or with Ray on this machine.")
    ] = False
    ray_actors: Annotated[
        int | None,
        typer.Option(
            min=1, help="Models on the cluster; by default one per GPU, or as many as its processors can hold."
        ),
        OnlyWith("ray"),
    ] = None


@dataclass(frozen=True)
class RayItem:
    name: str  # for messages
    value: Any  # what an actor receives


def require_ray() -> None:
    if find_spec("ray") is None:
        raise MicroStepError(f"--ray needs Ray: {RAY}; without --ray, one process does the work")


def work_on_ray(
    loaded: LoadedModel, make: Make, items: Iterator[RayItem], cluster: RayOptions, tell: Tell
) -> Generator[tuple[RayItem, Any]]:
    """Yield items with their results as they are finished. Items are read no further ahead than there are actors.

    The cluster is the one that RAY_ADDRESS names, that this machine or process is in, or else this machine alone. Each
    actor has a GPU if the model here is on one, and otherwise as many threads as this process.

    Args:
        loaded: the model as it is here. That of each actor must be of the same files, and loaded by the same packages.
        make: called in each actor with its model.
        items: the work.
        cluster: how many actors.
        tell: told what is waited for.

    Raises:
        MicroStepError: the error of an item, or the cluster cannot be reached, or actors die again and again.
    """
    first = next(items, None)
    if first is None:  # Ray is not started for nothing
        return
    with _connected():
        pool = _Pool(loaded, make, cluster.ray_actors, tell)
        try:
            yield from pool.results(chain([first], items))
        finally:
            pool.end()


def quiet_ray() -> Any:
    """Import Ray so that it sends nothing to anyone, and prints no messages of its own to standard output."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^")
    import ray

    return ray


@contextmanager
def _connected() -> Iterator[None]:
    ray = quiet_ray()
    if ray.is_initialized():
        yield
        return
    environment = {"env_vars": {"PYTHONPATH": str(IMPORTED_FROM)}}
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error", runtime_env=environment)
    except (ConnectionError, RuntimeError, ValueError) as error:
        place = os.environ.get("RAY_ADDRESS", "this machine")
        raise MicroStepError(f"Ray's cluster at {place} cannot be used: {first_line(error)}") from error
    try:
        yield
    finally:
        ray.shutdown()


class _Pool:
    def __init__(self, loaded: LoadedModel, make: Make, most: int | None, tell: Tell) -> None:
        import ray
        import torch

        self._ray, self._most, self._tell = ray, most, tell
        self._gpu = loaded.model.device.type == "cuda"
        threads = torch.get_num_threads()
        cores = max((int(size.get("CPU", 0)) for size in self._machines()), default=0)
        self._threads = min(threads, max(1, cores))  # that an actor claims
        claims: dict[str, int] = {"num_gpus": 1} if self._gpu else {"num_cpus": self._threads}
        spec = replace(with_absolute_paths(loaded.spec), device=loaded.model.device.type)
        self._given = ray.put((spec, make, None if self._gpu else threads))
        self._kind = ray.remote(_Actor).options(
            max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD", **claims
        )
        self._expected = _facts(loaded)
        self._starting: dict[Any, Any] = {}  # from the reference of a start to its actor
        self._idle: list[Any] = []
        self._working: dict[Any, tuple[Any, RayItem]] = {}
        self._waiting: deque[RayItem] = deque()
        self._deaths: Counter[str] = Counter()  # by the name of the item; "" for the start
        self._looked, self._room = 0.0, 1

    def results(self, items: Iterator[RayItem]) -> Iterator[tuple[RayItem, Any]]:
        more = True
        while True:
            if more and len(self._waiting) < self._places():
                item = next(items, None)
                more = item is not None
                if item is not None:
                    self._waiting.append(item)
            self._start()
            while self._idle and self._waiting:
                actor, item = self._idle.pop(), self._waiting.popleft()
                self._working[actor.work.remote(item.value)] = actor, item
            if not (more or self._waiting or self._working):
                return
            if not self._working:
                needs = "a GPU" if self._gpu else f"{self._threads} of a machine's processors"
                self._tell(f"waiting for Ray to start a model, which needs {needs}", None)
            ahead = more and len(self._waiting) < self._places()
            yield from self._finished(0 if ahead else SECONDS_BETWEEN_LOOKS)

    def end(self) -> None:
        """Let no actor outlive the work, also in a cluster that goes on."""
        for actor in [*self._starting.values(), *self._idle, *(actor for actor, _ in self._working.values())]:
            self._ray.kill(actor)

    def _machines(self) -> list[dict[str, float]]:
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _places(self) -> int:
        """Number of actors that may live at once; the cluster may have changed."""
        if self._most is not None:
            return self._most
        if time.monotonic() - self._looked > SECONDS_BETWEEN_LOOKS:
            name, size = ("GPU", 1) if self._gpu else ("CPU", self._threads)
            self._room = max(1, sum(int(machine.get(name, 0)) // size for machine in self._machines()))
            self._looked = time.monotonic()
        return self._room

    def _start(self) -> None:
        """Ask for actors, as long as there are items for them."""
        ready = len(self._idle) + len(self._starting)
        for _ in range(min(len(self._waiting) - ready, self._places() - ready - len(self._working))):
            actor = self._kind.remote()
            self._starting[actor.begin.remote(self._given)] = actor

    def _finished(self, seconds: float) -> Iterator[tuple[RayItem, Any]]:
        """Wait for the next start or item."""
        references = [*self._starting, *self._working]
        for reference in self._ray.wait(references, timeout=seconds)[0] if references else ():
            item = None
            if reference in self._starting:
                actor = self._starting.pop(reference)
            else:
                actor, item = self._working.pop(reference)
            try:
                result = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                self._idle.append(actor)
                if isinstance(error.cause, self._ray.exceptions.RayError):  # what was sent cannot be read there
                    raise MicroStepError(
                        f"a machine of the cluster cannot work ({first_line(error.cause)}); install the same"
                        " micro_step and packages on all machines, at the same path"
                    ) from error
                raise error.cause from error
            except self._ray.exceptions.RayError as error:
                self._died(actor, item, error)
                continue
            self._idle.append(actor)
            if item is not None:
                yield item, result
            else:
                self._deaths[""] = 0
                _compare(self._expected, result)

    def _died(self, actor: Any, item: RayItem | None, error: Exception) -> None:
        self._ray.kill(actor)  # where it only cannot be reached, it must not go on
        name = "" if item is None else item.name
        self._deaths[name] += 1
        if self._deaths[name] == DEATHS:
            why = shorten((str(error).strip().splitlines() or [type(error).__name__])[-1], 250, placeholder="...")
            what = "started" if item is None else f"worked on {name}"
            raise MicroStepError(f"{DEATHS} of Ray's actors died as they {what} ({why}); {_RESUME}") from error
        if item is not None:
            self._waiting.appendleft(item)


class _Actor:
    """Holds a model, and works on one item after another."""

    _act: Callable[[Any], Any]

    def begin(self, given: tuple[ModelSpec, Make, int | None]) -> dict[str, str]:
        """Load the model; return what must be as it is for the one that shares the work."""
        import torch

        from model.hub.loading import load

        spec, make, threads = given
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            loaded = load(spec)
            self._act = make(loaded)
        except MicroStepError as error:
            raise type(error)(f"{platform.node()}, a machine of the cluster: {error}") from error
        return _facts(loaded)

    def work(self, value: Any) -> Any:
        return self._act(value)


def _facts(loaded: LoadedModel) -> dict[str, str]:
    found = {name: version(name) for name in _PACKAGES}
    return found | {"dtype": loaded.facts.dtype, "files of the model": " ".join(loaded.content)}


def _compare(here: dict[str, str], there: dict[str, str]) -> None:
    different = [
        f"{name} ({here[name][:19]} here, {there[name][:19]} there)" for name in here if here[name] != there[name]
    ]
    if different:
        raise MicroStepError(
            f"a machine of the cluster would give other results: {', '.join(different)}; install the same on all"
        )


def with_absolute_paths(spec: ModelSpec) -> ModelSpec:
    """Return the spec with absolute paths, for a process in another folder."""

    def place(name: str) -> str:
        path = Path(name).expanduser()
        return str(path.resolve()) if path.exists() else name

    adapter, tokenizer = (None if name is None else place(name) for name in (spec.adapter, spec.tokenizer))
    return replace(spec, name=place(spec.name), adapter=adapter, tokenizer=tokenizer)
