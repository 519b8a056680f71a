"""One prompt under several values of tau: how the segments change, what it does to the answer and to the speed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.generation.request import GenerationRequest
from analysis.generation.result import Generation
from analysis.query import ModelLoader, RunCost
from model.causal_lm.forward import Progress
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec
from model.hub.wrap_base import wrap

TAUS = (0.3, 0.5, 0.7, 0.9, 1.01)  # the last: the base alone writes
MOST = 12


@dataclass(frozen=True)
class Sweep:
    """A generation for each tau, with one and the same answer of the base beside all."""

    generations: tuple[Generation, ...]  # tau rises

    @property
    def taus(self) -> tuple[float, ...]:
        """The values."""
        return tuple(each.how.tau for each in self.generations)

    @property
    def one_text(self) -> bool:
        """Whether all wrote the same, so that their segments can stand under each other."""
        return len({each.micro.text for each in self.generations}) == 1


@dataclass(frozen=True)
class SweepRequest:
    """A request, and the values that its tau takes instead of its own.

    Raises:
        MicroStepError: no values, too many, or one that tau cannot have.
    """

    request: GenerationRequest
    taus: tuple[float, ...] = TAUS

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.taus)) <= MOST:
            raise MicroStepError(f"a sweep takes 1 to {MOST} different values of tau, got {len(set(self.taus))}")
        object.__setattr__(self, "taus", tuple(sorted(set(self.taus))))
        # equal sweeps of requests that differ only in their own tau are one
        object.__setattr__(self, "request", replace(self.request, how=replace(self.request.how, tau=self.taus[0])))
        for tau in self.taus:
            replace(self.request.how, tau=tau)

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """The one model."""
        return self.request.specs

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What all answers take."""
        one = self.request.cost(loaded)
        return replace(one, work=one.work * (len(self.taus) + 1) / 2)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> Sweep:
        """All answers; see `GenerationRequest.run` for the errors."""
        request, found = self.request, list[Generation]()
        ready, base = wrap(load(request.model)), None
        count = len(self.taus) + 1
        for i, tau in enumerate(self.taus):
            run = request.begin(ready, replace(request.how, tau=tau), _part(progress, (i + (i > 0)) / count, count))
            run.write()
            if base is None:
                run.write_base()
            done = run.done(base)
            base = done.base
            found.append(done)
        if progress is not None:
            progress(1.0)
        return Sweep(tuple(found))


def parse_taus(text: str) -> tuple[float, ...]:
    """Numbers between spaces, commas or semicolons.

    Raises:
        MicroStepError: something is no number.
    """
    words = text.replace(",", " ").replace(";", " ").split()
    try:
        found = [float(word) for word in words]
    except ValueError:
        raise MicroStepError(f"values of tau are numbers such as 0.3 0.5 0.9, got {text!r}") from None
    if not all(math.isfinite(tau) for tau in found):
        raise MicroStepError(f"values of tau are numbers such as 0.3 0.5 0.9, got {text!r}")
    return tuple(found)


def of_taus(request: GenerationRequest, taus: Sequence[float] | None) -> SweepRequest:
    """The sweep of a request; over the usual values if none are given."""
    return SweepRequest(request, tuple(taus) if taus else TAUS)


def _part(progress: Progress | None, begin: float, count: int) -> Progress | None:
    """Of a run's own share, which is 0.5 once the micro_step model has written."""
    return None if progress is None else lambda share: progress(min(1.0, begin + 2 * min(share, 1) / count))
