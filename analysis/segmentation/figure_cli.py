"""`python -m analysis segmentation-figure`: strategies side by side, as the app's page shows them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.options import (
    UNIT,
    Adapter,
    FigureOut,
    LoadOptions,
    Pinned,
    Revision,
    TextOptions,
    Theme,
    Unit,
    flatten_options,
    load_shown,
    print_notes,
    progress,
)
from analysis.segmentation.cli import CutOptions
from model.errors import MicroStepError
from model.hub.loading import ModelSpec

commands = typer.Typer()


@dataclass(frozen=True)
class Models:
    """One model or two, or a store of scores."""

    a: Annotated[str | None, typer.Option("--a", help="Model A: catalog name, hub id or folder.")] = None
    b: Annotated[str | None, typer.Option("--b", help="Model B; one of the two is enough.")] = None
    a_revision: Revision = None
    b_revision: Revision = None
    a_adapter: Adapter = None
    b_adapter: Adapter = None
    store: Annotated[Path | None, typer.Option(help="Instead of models and text: folder of a corpus store.")] = None
    number: Annotated[int, typer.Option(min=0, help="The store's document that is shown token by token.")] = 0

    def specs(self, loading: LoadOptions) -> tuple[tuple[str, ModelSpec], ...]:
        """The models that are given, under their letters."""
        given = (("A", self.a, self.a_revision, self.a_adapter), ("B", self.b, self.b_revision, self.b_adapter))
        return tuple((key, loading.spec(name, revision, adapter)) for key, name, revision, adapter in given if name)


@commands.command("segmentation-figure")
@flatten_options
def segmentation_figure(
    name: Annotated[
        str,
        typer.Argument(help="segments, values, statistics, agreement, lengths, curves, unstable or history."),
    ],
    models: Models,
    text: TextOptions,
    loading: LoadOptions,
    cutting: CutOptions,
    strategy: Annotated[list[str], typer.Option(help="As in entropy:threshold=1.2; may be repeated. In nats.")],
    out: FigureOut,
    window: Annotated[int | None, typer.Option(min=1, help="For history: how many tokens the model sees.")] = None,
    other_precision: Annotated[
        bool, typer.Option("--other-precision", help="For unstable: run each model in bfloat16 (or float32) too.")
    ] = False,
    chosen: Annotated[int, typer.Option(min=1, help="For values: which of the strategies, from 1.")] = 1,
    metric: Annotated[
        Literal["f1", "precision", "recall", "window_diff", "pk"], typer.Option(help="For agreement.")
    ] = "f1",
    change: Annotated[float, typer.Option(help="For unstable: of the parameter, as a share of it.")] = 0.05,
    unit: Unit = UNIT,
    theme: Theme = "light",
    pinned: Pinned = None,
) -> None:
    """Cut a text by several strategies and draw them side by side: the command that export bundles name."""
    from analysis.export import FIGURE_FORMATS, check_out, save_figure
    from analysis.figures.figure import check_figure
    from analysis.segmentation.comparison import CutView, compare_strategies
    from analysis.segmentation.figures import FIGURES, draw
    from analysis.segmentation.provenance import origin
    from analysis.segmentation.request import CutRequest
    from analysis.segmentation.strategy import Strategy
    from model.segmentation.features import Feature

    check_figure(name, FIGURES)
    check_out(out, FIGURE_FORMATS)
    how, specs = cutting.gathering(), models.specs(loading)
    if (models.store is None) == (not specs):
        raise MicroStepError("give models with --a and --b, or a store with --store, one of them")
    if models.store is not None and text.given:
        raise MicroStepError("a store holds its own texts; leave --text out")
    request = CutRequest(
        specs,
        text.input() if models.store is None else None,
        tuple(Strategy.parse(word) for word in strategy),
        cutting.max_length,
        how,
        None if window is None else Feature("window", window=window, method=how.history, stride=how.stride),
        None if models.store is None else str(models.store),
        models.number,
    )
    with progress("scoring") as told:
        bench = compare_strategies(request, load_shown, told, other_precision)
    for side in bench.sides:
        print_notes(f"{side.key} {side.facts.name}: ", side.notes)
    view = CutView(unit, theme, pinned, chosen - 1, metric, change)
    save_figure(draw(name, bench, view), out, origin(bench, view))
    print(out)
