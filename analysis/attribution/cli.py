"""`python -m analysis attribute` and `attribution-figure`: what a number at a token depends on, and the figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.attention.cli import Models
from analysis.options import (
    UNIT,
    Adapter,
    FigureOut,
    LoadOptions,
    ModelOptions,
    Out,
    Revision,
    TextOptions,
    Theme,
    Unit,
    check_table,
    flatten_options,
    load_shown,
    print_notes,
    print_or_save,
    progress,
)
from model.errors import MicroStepError
from model.segmentation.segment import MAX_LENGTH, RULES

if TYPE_CHECKING:
    from analysis.attribution.provenance import AttributionView, ShownAttribution
    from analysis.attribution.request import AttributionRequest, SegmentsQuery
    from model.hub.loading import LoadedModel, ModelSpec

commands = typer.Typer()

DEFINITIONS = """What a number at one token depends on: a row a token, word, segment or line before it.

Quantities: entropy and surprisal of the prediction at the token; kl = KL(A||B), of --model and --b; micro_confidence,
the micro decoder's largest probability at a token inside a segment; stop, the stop head's logit that the segment ends
before the token. The last two are of a micro_step model, in the segments of --strategy.

Methods: integrated_gradients (steps are doubled until the values sum to the difference within 5%), input_x_gradient,
feature_ablation and shapley_sampling, which move --features. Values of a larger --unit are sums of its tokens'.

Shown with the table: F on the text, F on the baseline, the convergence delta, and the area between the insertion and
the deletion curve beside that of random orders."""


@dataclass(frozen=True)
class AttributeOptions:
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
        typer.Option(help="How."),
    ] = "integrated_gradients"
    baseline: Annotated[Literal["mean", "zero", "eos"], typer.Option(help="What stands for nothing: an embedding.")] = (
        "mean"
    )
    features: Annotated[
        Literal["tokens", "words"] | None,
        typer.Option(help="What ablation and Shapley move. Default: tokens for ablation, words for Shapley."),
    ] = None
    strategy: Annotated[
        str | None,
        typer.Option(help=f"Segments, as in entropy:threshold=1.2, in nats; one of {', '.join(RULES)}. Default: word."),
    ] = None
    max_length: Annotated[int, typer.Option(min=1, help="The most tokens that a segment has.")] = MAX_LENGTH
    prompt_apart: Annotated[
        bool | None,
        typer.Option(help="Each token that the assistant did not write is a segment. Default: in a chat with answer."),
    ] = None
    unit: Annotated[
        Literal["tokens", "words", "segments", "lines"] | None,
        typer.Option(help="What values are summed over. Default: words where these were moved, else tokens."),
    ] = None

    def asked(
        self, models: tuple[tuple[str, ModelSpec], ...], text: TextOptions
    ) -> tuple[AttributionRequest, SegmentsQuery]:
        """The request, at token 0 where none is given, and the question for the segments."""
        from analysis.attribution.request import AttributionRequest, SegmentsQuery
        from analysis.attribution.targets import QUANTITIES
        from analysis.segmentation.strategy import Segmenter, Strategy
        from model.segmentation.features import FeatureOptions

        strategy, how = Strategy.parse(self.strategy or "word"), FeatureOptions(prompt_apart=self.prompt_apart)
        segmenter, read = Segmenter(strategy, self.max_length, how), text.input()
        segments = SegmentsQuery(*models[0], read, segmenter)
        request = AttributionRequest(
            models,
            read,
            0 if self.at is None else self.at,
            self.quantity,
            self.method,
            self.baseline,
            self.features,
            segmenter if QUANTITIES[self.quantity].segmented else None,
        )
        return request, segments

    def shown(
        self, models: tuple[tuple[str, ModelSpec], ...], text: TextOptions, view: AttributionView
    ) -> ShownAttribution:
        """Run the models."""
        from analysis.attribution.provenance import ShownAttribution
        from analysis.attribution.request import default_target
        from analysis.uncertainty.scoring import score_document

        request, asked = self.asked(models, text)
        if view.unit == "tokens" and request.moved == "words":
            raise MicroStepError("no sums over tokens: what is moved are words; use words, segments or lines")
        loaded: dict[ModelSpec, LoadedModel] = {}
        for _, spec in models:
            loaded[spec] = loaded.get(spec) or load_shown(spec)
        wanted = request.segments is not None or view.unit == "segments"
        with progress("attributing") as told:
            segments = asked.run(loaded.__getitem__) if wanted else None
            if self.at is None:
                first = score_document(loaded[models[0][1]], request.text)
                request = replace(request, at=default_target(first, self.quantity, segments))
            found = request.run(loaded.__getitem__, told, segments if request.segments is not None else None)
        return ShownAttribution(request, found, view, asked if wanted else None, segments)

    @property
    def summed(self) -> Literal["tokens", "words", "segments", "lines"]:
        """What values are summed over."""
        from analysis.attribution.methods import METHODS

        return self.unit or self.features or METHODS[self.method].features or "tokens"


@commands.command("attribute", help=DEFINITIONS)
@flatten_options
def attribute(
    model: ModelOptions,
    text: TextOptions,
    loading: LoadOptions,
    options: AttributeOptions,
    b: Annotated[str | None, typer.Option("--b", help="Model B, for kl: catalog name, hub id or folder.")] = None,
    b_revision: Revision = None,
    b_adapter: Adapter = None,
    information: Unit = UNIT,
    out: Out = None,
) -> None:
    """See DEFINITIONS."""
    check_table(out)
    if (b is not None) != (options.quantity == "kl"):
        raise MicroStepError("--b goes with --quantity kl, and kl needs it")
    models = (("A", model.spec(loading)), *([("B", loading.spec(b, b_revision, b_adapter))] if b is not None else []))
    from analysis.attribution.provenance import AttributionView
    from analysis.attribution.summary import finding
    from analysis.attribution.tables import unit_table

    shown = options.shown(models, text, AttributionView(options.summed, information))
    said = finding(shown)
    print_notes(f"{shown.found.facts[0].name}: ", shown.found.notes)
    if out is not None:
        print_notes("", (f"{shown.what}: {said}",))
    print_or_save(unit_table(shown.groups, shown.found.encoded, shown.scale, shown.unit), out, f"{shown.what}: {said}")


@commands.command("attribution-figure")
@flatten_options
def attribution_figure(
    name: Annotated[str, typer.Argument(help="attribution, units or curves.")],
    models: Models,
    text: TextOptions,
    loading: LoadOptions,
    options: AttributeOptions,
    out: FigureOut,
    information: Unit = UNIT,
    theme: Theme = "light",
) -> None:
    """Draw an attribution: the command that export bundles name."""
    from analysis.attribution.figures import FIGURES, draw
    from analysis.attribution.provenance import AttributionView, origin
    from analysis.export import FIGURE_FORMATS, check_out, save_figure
    from analysis.figures.figure import check_figure

    check_figure(name, FIGURES)
    check_out(out, FIGURE_FORMATS)
    shown = options.shown(models.specs(loading), text, AttributionView(options.summed, information, theme))
    print_notes(f"{shown.found.facts[0].name}: ", shown.found.notes)
    save_figure(draw(name, shown), out, origin(shown))
    print(out)
