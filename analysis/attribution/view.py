"""What an attribution shows under a view: values by unit, their table, and what it comes to in words."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from analysis.attribution.faithfulness import ROWS
from analysis.attribution.grouping import Grouped, grouped, offered
from analysis.attribution.methods import METHODS
from analysis.attribution.options import AttributionUnit, AttributionView
from analysis.attribution.quantities import QUANTITIES, AttributionTarget
from analysis.attribution.request import AttributionRequest, SegmentsQuery
from analysis.attribution.result import Attribution, UnitSegments
from analysis.score_registry import PER_NAT, significant
from model.errors import MicroStepError
from model.short_repr import ShortRepr
from model.text.encoding import EncodedText


@dataclass(frozen=True, eq=False, repr=False)
class ShownAttribution(ShortRepr):
    """An attribution under a view; with the segments of a strategy, where they were asked for."""

    request: AttributionRequest
    found: Attribution
    view: AttributionView = field(default_factory=AttributionView)
    asked: SegmentsQuery | None = None
    segments: UnitSegments | None = None

    def __post_init__(self) -> None:
        if self.summed_over not in self.units:
            why = "words were moved" if self.request.moved == "words" else "there is no strategy"
            raise MicroStepError(f"no sums over {self.summed_over}: {why}; use one of {', '.join(self.units)}")

    @property
    def quantity(self) -> AttributionTarget:
        return QUANTITIES[self.request.quantity]

    @property
    def summed_over(self) -> AttributionUnit:
        """What values are summed over."""
        return self.view.group_by or self.request.moved or "tokens"

    @property
    def units(self) -> tuple[AttributionUnit, ...]:
        starts = None if self.segments is None else self.segments.starts
        return offered(self.found.encoded, self.found.feature, starts)

    @property
    def scale(self) -> float:
        return PER_NAT[self.view.unit] if self.quantity.information else 1.0

    @property
    def unit(self) -> str:
        return self.view.unit if self.quantity.information else self.quantity.unit

    @cached_property
    def groups(self) -> Grouped:
        starts = None if self.segments is None else self.segments.starts
        return grouped(self.found.encoded, self.found.values, self.summed_over, self.found.batches, starts)

    def table(self) -> pd.DataFrame:
        return unit_table(self.groups, self.found.encoded, self.scale, self.unit)

    @property
    def what(self) -> str:
        """What is attributed, and how, in words."""
        names = " and ".join(facts.name for facts in self.found.facts)
        method = METHODS[self.request.method].title
        title = self.quantity.title[0].upper() + self.quantity.title[1:]
        return f"{title} of {names} at token {self.found.target}, by {method}"

    @property
    def finding(self) -> str:
        """The values on the text and on the baseline, how exact the method was, and how faithful."""
        found, check = self.found.found, self.found.faithfulness
        parts = [
            f"{significant(found.f_input * self.scale)} {self.unit} on the text",
            f"{significant(found.f_baseline * self.scale)} on the baseline",
        ]
        parts += [f"delta {significant(found.delta * self.scale)}"] if found.delta is not None else []
        parts += [f"{found.steps} steps"] if found.steps is not None else []
        area = f"area {significant(check.own)}, random {significant(float(check.random.mean()))}"
        return ", ".join([*parts, f"{found.passes + ROWS} rows read", area])


def unit_table(units: Grouped, encoded: EncodedText, scale: float = 1.0, unit: str = "nats") -> pd.DataFrame:
    """A row for each unit: text, first and last token, characters of the text that the model read, and attribution.

    Attributions are multiplied by `scale`; `unit` is what they then are in: bits, nats or probability.
    """
    missing = np.full(len(units), np.nan)
    return pd.DataFrame(
        {
            "group": np.arange(len(units)),
            "text": pd.Series(units.text, dtype="str"),
            "first_token": units.first,
            "last_token": units.last,
            "start": encoded.start[units.first],
            "end": encoded.end[units.last],
            "attribution": units.value * scale,
            "standard_error": (missing if units.standard_error is None else units.standard_error) * scale,
            "unit": unit,
        }
    )
