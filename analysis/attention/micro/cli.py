"""`micro-step micro-attention`: the attention of a micro_step model's micro decoder."""

from __future__ import annotations

from typing import Annotated

from analysis.attention.micro.options import MicroView, WrittenOptions
from analysis.generation.options import AnswerOptions, StoppingOptions
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
from model.command_options import LoadOptions, ModelOptions, SamplingOptions, flatten_options
from model.errors import MicroStepError

FIGURE_NAMES = ("micro_segments", "micro_weights", "micro_shares", "micro_evenness")


@flatten_options
def micro_attention(
    model: ModelOptions,
    text: TextOptions,
    segmented: SegmentsOptions,
    writing: WrittenOptions,
    stopping: StoppingOptions,
    loading: LoadOptions,
    view: MicroView,
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """Attention of a micro_step model's micro decoder: one row per layer, head, micro position and slot.

    Slots are the context states, by the base's layer, and the segment's own tokens. Of the mean over a text, low and
    high are the 95% interval over its segments. Segments are those of the model's training unless --strategy or
    --written is given.
    """
    from analysis.attention.micro.figures import draw
    from analysis.attention.micro.provenance import origin
    from analysis.attention.micro.request import MicroRequest
    from analysis.attention.micro.tables import finding, weight_table

    check_output(out, figure, FIGURE_NAMES)
    if writing.written and segmented.strategy is not None:
        raise MicroStepError("give either --strategy, or --written for the segments that the model writes")
    request = MicroRequest(
        model.spec(loading),
        text.input(),
        segmented.read(),
        AnswerOptions().decoding(stopping, SamplingOptions(), stopping.tau) if writing.written else None,
        segmented.max_length,
        segmented.features(),
    )
    with progress("reading") as told:
        found = request.run(load_shown, told)
    print_notes(f"{found.facts.name}: ", (f"segments: {found.cut}", *found.notes))
    if figure is not None:
        found.check(view.segment, view.layer)
        save_drawn(draw(figure, found, view), out, origin(request, found, view))
        return
    table = weight_table(found, view.segment)
    if out is not None:
        print_notes("", (finding(found.sums),))
    print_or_save(table, out, finding(found.sums))
