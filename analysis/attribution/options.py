"""Options of the command `attribute`: what is attributed, how, and how it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from analysis.view import UNIT, ThemeOption, UnitOption

if TYPE_CHECKING:
    from analysis.attribution.request import AttributionRequest
    from analysis.attribution.view import AttributionView


@dataclass(frozen=True)
class AttributionOptions:
    """What is attributed, and how."""

    quantity: Annotated[
        Literal["entropy", "surprisal", "kl", "micro_confidence", "stop"], typer.Option(help="What is attributed.")
    ] = "entropy"
    at: Annotated[
        int | None,
        typer.Option(help="The token, from 0. Default: the one of greatest entropy among the first that can be."),
    ] = None
    method: Annotated[
        Literal["integrated_gradients", "input_x_gradient", "feature_ablation", "shapley_sampling"],
        typer.Option(help="Method of attribution."),
    ] = "integrated_gradients"
    baseline: Annotated[
        Literal["mean", "zero", "eos"], typer.Option(help="Baseline embedding that replaces a removed token.")
    ] = "mean"
    features: Annotated[
        Literal["tokens", "words"] | None,
        typer.Option(help="What ablation and Shapley move. Default: tokens for ablation, words for Shapley."),
    ] = None

    @classmethod
    def of(cls, request: AttributionRequest) -> AttributionOptions:
        """The options that say the same."""
        quantity: Any = request.quantity  # the request has checked that it is one of these
        method: Any = request.method
        return cls(quantity, request.at, method, request.baseline, request.features)


@dataclass(frozen=True)
class AttributionViewOptions:
    """How it is looked at."""

    sum_over: Annotated[
        Literal["tokens", "words", "segments", "lines"] | None,
        typer.Option(help="What values are summed over. Default: words where these were moved, else tokens."),
    ] = None
    unit: UnitOption = UNIT
    theme: ThemeOption = "light"

    @classmethod
    def of(cls, view: AttributionView) -> AttributionViewOptions:
        """The options that say the same."""
        return cls(view.unit, view.information, view.theme)
