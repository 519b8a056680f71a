"""`micro-step attribute`: what a number at a token depends on."""

from __future__ import annotations

from functools import cache
from typing import Annotated

from analysis.attribution.options import AttributionOptions, AttributionView
from analysis.options import Out, TextOptions, check_output, figure_option, load_shown, print_answer, progress
from analysis.segmentation.options import SegmentsOptions
from model.command_options import LoadOptions, ModelsOptions, flatten_options

FIGURE_NAMES = ("attribution", "units", "curves")


@flatten_options
def attribute(
    models: ModelsOptions,
    text: TextOptions,
    loading: LoadOptions,
    options: AttributionOptions,
    segmented: SegmentsOptions,
    view: AttributionView,
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """What a number at one token depends on: one row per token, word, segment or line before it.

    Quantities: entropy and surprisal of the prediction at the token; kl = KL(A||B), of --a and --b;
    micro_confidence, the micro decoder's largest probability at a token inside a segment; stop, the stop head's
    logit that the segment ends before the token. The last two are of a micro_step model, in the segments of
    --strategy.

    Methods: integrated_gradients (steps are doubled until the values sum to the difference within 5%),
    input_x_gradient, feature_ablation and shapley_sampling, which move --features. Values of a larger --group-by
    are sums of its tokens'.

    Shown with the table: F on the text, F on the baseline, the convergence delta, and the area between the
    insertion and the deletion curve beside that of random orders.
    """
    from analysis.attribution.answer import attribution

    check_output(out, figure, FIGURE_NAMES)
    specs, read, segmenter = models.some(loading), text.input(), segmented.segmenter()
    with progress("attributing") as tell:
        answer = attribution(specs, read, options, segmenter, view, cache(load_shown), tell)
    print_answer(answer, figure, out, f"{answer.raw.found.facts[0].name}: ")
