"""One prompt with several values of tau: how segments, answer and speed change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.generation.request import GenerationRequest
from analysis.generation.result import Generation
from analysis.query import ModelLoader, RunCost
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec
from model.hub.wrap_base import wrap
from model.progress import Progress, part

TAUS = (0.3, 0.5, 0.7, 0.9, 1.01)  # the last: the base alone writes
MOST = 12


@dataclass(frozen=True)
class Sweep:
    """A generation for each tau, all with the same answer of the base."""

    generations: tuple[Generation, ...]  # in the order of rising tau

    @property
    def taus(self) -> tuple[float, ...]:
        """The values."""
        return tuple(each.how.tau for each in self.generations)

    @property
    def one_text(self) -> bool:
        """Whether all texts are equal, so that their segments can be aligned."""
        return len({each.micro.text for each in self.generations}) == 1


@dataclass(frozen=True)
class SweepRequest:
    """A request, and the values of tau that replace its own.

    Raises:
        MicroStepError: there are no values, too many, or one that tau cannot have.
    """

    request: GenerationRequest
    taus: tuple[float, ...] = TAUS

    def __post_init__(self) -> None:
        if not 1 <= len(set(self.taus)) <= MOST:
            raise MicroStepError(f"a sweep takes 1 to {MOST} different values of tau, got {len(set(self.taus))}")
        object.__setattr__(self, "taus", tuple(sorted(set(self.taus))))
        # requests that differ only in their own tau give the same sweep
        object.__setattr__(self, "request", replace(self.request, how=replace(self.request.how, tau=self.taus[0])))
        for tau in self.taus:
            replace(self.request.how, tau=tau)

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """The one model."""
        return self.request.specs

    def cost(self, loaded: LoadedModel) -> RunCost:
        """The cost of all answers."""
        one = self.request.cost(loaded)
        return replace(one, work=one.work * (len(self.taus) + 1) / 2)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> Sweep:
        """All answers; raises as `GenerationRequest.run`."""
        request, found = self.request, list[Generation]()
        ready, base = wrap(load(request.model)), None
        count = len(self.taus) + 1
        for i, tau in enumerate(self.taus):
            begin = (i + (i > 0)) / count
            run = request.begin(ready, replace(request.how, tau=tau), part(progress, begin, begin + 2 / count))
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
    """Read numbers separated by spaces, commas or semicolons.

    Raises:
        MicroStepError: a part is not a number.
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
    """The sweep of a request, over the default values if none are given."""
    return SweepRequest(request, tuple(taus) if taus else TAUS)
