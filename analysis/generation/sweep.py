"""One prompt with several values of tau, and of eps where drafts are checked: how segments, answer and speed change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.generation.request import GenerationRequest
from analysis.generation.result import Decoding, Generation
from analysis.query import ModelLoader, RunCost
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec
from model.hub.wrap_base import wrap
from model.progress import Progress, part

TAUS = (0.3, 0.5, 0.7, 0.9, 1.01)  # the last: the base alone writes
MOST = 12


@dataclass(frozen=True)
class Sweep:
    """A generation for each eps and tau, all with the same answer of the base."""

    generations: tuple[Generation, ...]  # in the order of falling eps, and for each eps of rising tau

    @property
    def taus(self) -> tuple[float, ...]:
        """The values of tau."""
        return tuple(dict.fromkeys(each.how.tau for each in self.generations))

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The values of eps."""
        return tuple(dict.fromkeys(each.how.eps for each in self.generations))

    def name_of(self, generation: Generation) -> str:
        """What tells one of the generations from the others."""
        eps = f", eps {generation.how.eps:g}" if len(self.epsilons) > 1 else ""
        return f"{generation.how.tau:g}{eps}"

    @property
    def one_text(self) -> bool:
        """Whether all texts are equal, so that their segments can be aligned."""
        return len({each.micro.text for each in self.generations}) == 1


@dataclass(frozen=True)
class SweepRequest:
    """A request, and the values of tau and eps that replace its own.

    Raises:
        MicroStepError: there are no values, too many, or one that tau or eps cannot have.
    """

    request: GenerationRequest
    taus: tuple[float, ...] = TAUS
    epsilons: tuple[float, ...] = ()  # none: the request's own

    def __post_init__(self) -> None:
        taus = tuple(sorted(set(self.taus)))
        epsilons = tuple(sorted(set(self.epsilons) or {self.request.how.eps}, reverse=True))
        if not 1 <= len(taus) * len(epsilons) <= MOST:
            raise MicroStepError(
                f"a sweep takes 1 to {MOST} different values of tau, times those of eps; got {len(taus)} times"
                f" {len(epsilons)}"
            )
        object.__setattr__(self, "taus", taus)
        object.__setattr__(self, "epsilons", epsilons)
        # requests that differ only in their own tau and eps give the same sweep
        object.__setattr__(self, "request", replace(self.request, how=self.settings[0]))

    @property
    def settings(self) -> tuple[Decoding, ...]:
        """How each answer is decoded."""
        how = self.request.how
        return tuple(replace(how, tau=tau, eps=eps) for eps in self.epsilons for tau in self.taus)

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """The one model."""
        return self.request.specs

    def cost(self, loaded: LoadedModel) -> RunCost:
        """The cost of all answers."""
        one = self.request.cost(loaded)
        return replace(one, work=one.work * (len(self.settings) + 1) / 2)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> Sweep:
        """All answers; raises as `GenerationRequest.run`."""
        request, found = self.request, list[Generation]()
        ready, base = wrap(load(request.model)), None
        count = len(self.settings) + 1
        for i, how in enumerate(self.settings):
            begin = (i + (i > 0)) / count
            run = request.begin(ready, how, part(progress, begin, begin + 2 / count))
            run.write()
            if base is None:
                run.write_base()
            done = run.done(base)
            base = done.base
            found.append(done)
        if progress is not None:
            progress(1.0)
        return Sweep(tuple(found))


def parse_values(text: str, name: str) -> tuple[float, ...]:
    """Read values of tau or eps: numbers separated by spaces, commas or semicolons.

    Raises:
        MicroStepError: a part is not a number.
    """
    words = text.replace(",", " ").replace(";", " ").split()
    try:
        found = [float(word) for word in words]
    except ValueError:
        raise MicroStepError(f"values of {name} are numbers such as 0.3 0.5 0.9, got {text!r}") from None
    if not all(math.isfinite(value) for value in found):
        raise MicroStepError(f"values of {name} are numbers such as 0.3 0.5 0.9, got {text!r}")
    return tuple(found)


def sweep_of(request: GenerationRequest, taus: Sequence[float], epsilons: Sequence[float] = ()) -> SweepRequest:
    """The sweep of a request, over the default values of tau if none are given."""
    return SweepRequest(request, tuple(taus) or TAUS, tuple(epsilons))
