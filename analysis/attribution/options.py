"""Options of the command `attribute`: what is attributed, how, and how it is looked at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from analysis.view import UNIT, ThemeOption, UnitOption

Quantity = Literal["entropy", "surprisal", "kl", "micro_confidence", "stop"]
Method = Literal["integrated_gradients", "input_x_gradient", "feature_ablation", "shapley_sampling"]
Baseline = Literal["mean", "zero", "eos"]
Features = Literal["tokens", "words"]
AttributionUnit = Literal["tokens", "words", "segments", "lines"]


@dataclass(frozen=True)
class AttributionOptions:
    """What is attributed, and how."""

    quantity: Annotated[Quantity, typer.Option(help="What is attributed.")] = "entropy"
    at: Annotated[
        int | None,
        typer.Option(
            help="The token, from 0. Default: of the first tokens that can be explained, that of highest entropy."
        ),
    ] = None
    method: Annotated[Method, typer.Option(help="Method of attribution.")] = "integrated_gradients"
    baseline: Annotated[Baseline, typer.Option(help="Baseline embedding that replaces a removed token.")] = "mean"
    features: Annotated[
        Features | None,
        typer.Option(help="What ablation and Shapley remove at once. Default: tokens for ablation, words for Shapley."),
    ] = None


@dataclass(frozen=True)
class AttributionView:
    """How an attribution is looked at. Changing it runs no model."""

    group_by: Annotated[
        AttributionUnit | None,
        typer.Option(
            "--group-by",
            "--sum-over",
            help="Units over which values are summed. Default: words if these were removed, else tokens.",
        ),
    ] = None
    unit: UnitOption = UNIT
    theme: ThemeOption = "light"
