"""`micro-step attribute`: what a number at a token depends on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from analysis.attribution.options import AttributionOptions, AttributionViewOptions
from analysis.options import (
    Out,
    TextOptions,
    check_output,
    figure_option,
    load_shown,
    print_notes,
    print_or_save,
    progress,
    save_drawn,
)
from analysis.segmentation.options import SegmentsOptions
from model.command_options import LoadOptions, ModelsOptions, flatten_options
from model.errors import MicroStepError

if TYPE_CHECKING:
    from analysis.attribution.view import ShownAttribution
    from model.hub.loading import LoadedModel, ModelSpec

FIGURE_NAMES = ("attribution", "units", "curves")


@flatten_options
def attribute(
    models: ModelsOptions,
    text: TextOptions,
    loading: LoadOptions,
    options: AttributionOptions,
    segmented: SegmentsOptions,
    looking: AttributionViewOptions,
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """What a number at one token depends on: a row a token, word, segment or line before it.

    Quantities: entropy and surprisal of the prediction at the token; kl = KL(A||B), of --a and --b;
    micro_confidence, the micro decoder's largest probability at a token inside a segment; stop, the stop head's
    logit that the segment ends before the token. The last two are of a micro_step model, in the segments of
    --strategy.

    Methods: integrated_gradients (steps are doubled until the values sum to the difference within 5%),
    input_x_gradient, feature_ablation and shapley_sampling, which move --features. Values of a larger --sum-over
    are sums of its tokens'.

    Shown with the table: F on the text, F on the baseline, the convergence delta, and the area between the
    insertion and the deletion curve beside that of random orders.
    """
    from analysis.attribution.figures import draw
    from analysis.attribution.provenance import origin
    from analysis.attribution.summary import finding
    from analysis.attribution.tables import unit_table

    check_output(out, figure, FIGURE_NAMES)
    specs = models.some(loading)
    if (len(specs) == 2) != (options.quantity == "kl"):
        raise MicroStepError("--quantity kl is of two models, --a and --b; every other quantity is of one")
    shown = _shown(specs, text, options, segmented, looking)
    print_notes(f"{shown.found.facts[0].name}: ", shown.found.notes)
    if figure is not None:
        save_drawn(draw(figure, shown), out, origin(shown))
        return
    said = f"{shown.what}: {finding(shown)}"
    if out is not None:
        print_notes("", (said,))
    print_or_save(unit_table(shown.groups, shown.found.encoded, shown.scale, shown.unit), out, said)


def _shown(
    models: tuple[tuple[str, ModelSpec], ...],
    text: TextOptions,
    options: AttributionOptions,
    segmented: SegmentsOptions,
    looking: AttributionViewOptions,
) -> ShownAttribution:
    """Run the models."""
    from analysis.attribution.methods import METHODS
    from analysis.attribution.request import AttributionRequest, SegmentsQuery, default_target
    from analysis.attribution.targets import QUANTITIES
    from analysis.attribution.view import AttributionView, ShownAttribution
    from analysis.uncertainty.scoring import score_document

    summed = looking.sum_over or options.features or METHODS[options.method].features or "tokens"
    view = AttributionView(summed, looking.unit, looking.theme)
    segmenter, read = segmented.segmenter(), text.input()
    asked = SegmentsQuery(*models[0], read, segmenter)
    request = AttributionRequest(
        models,
        read,
        0 if options.at is None else options.at,
        options.quantity,
        options.method,
        options.baseline,
        options.features,
        segmenter if QUANTITIES[options.quantity].segmented else None,
    )
    if view.unit == "tokens" and request.moved == "words":
        raise MicroStepError("no sums over tokens: what is moved are words; use words, segments or lines")
    loaded: dict[ModelSpec, LoadedModel] = {}
    for _, spec in models:
        loaded[spec] = loaded.get(spec) or load_shown(spec)
    wanted = request.segments is not None or view.unit == "segments"
    with progress("attributing") as told:
        segments = asked.run(loaded.__getitem__) if wanted else None
        if options.at is None:
            first = score_document(loaded[models[0][1]], read)
            request = replace(request, at=default_target(first, options.quantity, segments))
        found = request.run(loaded.__getitem__, told, segments if request.segments is not None else None)
    return ShownAttribution(request, found, view, asked if wanted else None, segments)
