"""How an attribution is looked at, and what a view of it shows. Changing the view runs no model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from analysis.attribution.grouping import AttributionUnit, Grouped, grouped, offered
from analysis.attribution.methods import METHODS
from analysis.attribution.request import AttributionRequest, SegmentsQuery
from analysis.attribution.result import Attribution, UnitSegments
from analysis.attribution.targets import QUANTITIES, AttributionTarget
from analysis.score_registry import PER_NAT, Unit
from analysis.view import UNIT, Theme
from model.errors import MicroStepError
from model.short_repr import ShortRepr


@dataclass(frozen=True)
class AttributionView:
    """How it is looked at."""

    unit: AttributionUnit = "tokens"
    information: Unit = UNIT  # of entropy, surprisal and KL
    theme: Theme = "light"


@dataclass(frozen=True, eq=False, repr=False)
class ShownAttribution(ShortRepr):
    """An attribution under a view; with the segments of a strategy, where they were asked for."""

    request: AttributionRequest
    found: Attribution
    view: AttributionView = AttributionView()
    asked: SegmentsQuery | None = None
    segments: UnitSegments | None = None

    def __post_init__(self) -> None:
        if self.view.unit not in self.units:
            why = "what was moved are words" if self.request.moved == "words" else "there is no strategy"
            raise MicroStepError(f"no sums over {self.view.unit}: {why}; use one of {', '.join(self.units)}")

    @property
    def quantity(self) -> AttributionTarget:
        """What is attributed."""
        return QUANTITIES[self.request.quantity]

    @property
    def units(self) -> tuple[AttributionUnit, ...]:
        """The units that it can be summed over."""
        starts = None if self.segments is None else self.segments.starts
        return offered(self.found.encoded, self.found.feature, starts)

    @property
    def scale(self) -> float:
        """From nats to what is shown."""
        return PER_NAT[self.view.information] if self.quantity.information else 1.0

    @property
    def unit(self) -> str:
        """In what numbers are shown."""
        return self.view.information if self.quantity.information else self.quantity.unit

    @cached_property
    def groups(self) -> Grouped:
        """The values by unit."""
        starts = None if self.segments is None else self.segments.starts
        return grouped(self.found.encoded, self.found.values, self.view.unit, self.found.batches, starts)

    @property
    def what(self) -> str:
        """What is attributed, and how, in words."""
        names = " and ".join(facts.name for facts in self.found.facts)
        method = METHODS[self.request.method].title
        title = self.quantity.title[0].upper() + self.quantity.title[1:]
        return f"{title} of {names} at token {self.found.target}, by {method}"
