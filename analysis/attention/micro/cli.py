"""`python -m analysis micro-attention` and `micro-attention-figure`: what the micro decoder looks at in a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.options import (
    FigureOut,
    LoadOptions,
    ModelOptions,
    Out,
    TextOptions,
    Theme,
    check_table,
    flatten_options,
    load_shown,
    print_notes,
    print_or_save,
    progress,
)
from model.errors import MicroStepError

if TYPE_CHECKING:
    from analysis.attention.micro.request import MicroRequest
    from analysis.attention.micro.result import MicroAttention

commands = typer.Typer()

FIGURE_NAMES = ("micro_segments", "micro_weights", "micro_shares", "micro_evenness")
Segment = Annotated[
    int | None, typer.Option(min=1, help="Only this segment, of those with two tokens and more; default: their mean.")
]


@dataclass(frozen=True)
class SegmentOptions:
    """Which segments."""

    strategy: Annotated[
        str | None,
        typer.Option(help="As in entropy:threshold=1.2, in nats. Default: as the model was trained."),
    ] = None
    written: Annotated[
        bool, typer.Option("--written", help="Let the model answer the text, and take the segments that it writes.")
    ] = False
    max_length: Annotated[int | None, typer.Option(min=2, help="The most tokens of a segment; default 4.")] = None
    prompt_apart: Annotated[
        bool | None, typer.Option(help="Each token that the assistant did not write is a segment.")
    ] = None
    rule: Annotated[str, typer.Option(help="With --written: confidence, product or stop_head.")] = "confidence"
    confidence: Annotated[float, typer.Option(min=0, help="With --written: tau of the rule.")] = 0.8
    max_new_tokens: Annotated[int, typer.Option(min=1, help="With --written: of the answer.")] = 64
    lossless: Annotated[
        bool | None,
        typer.Option("--lossless/--merged", help="With --written. Default: what the model was trained for."),
    ] = None

    def request(self, model: ModelOptions, text: TextOptions, loading: LoadOptions) -> MicroRequest:
        """What is asked.

        Raises:
            MicroStepError: options that do not go together, or a strategy that does not exist.
        """
        from analysis.attention.micro.request import MicroRequest
        from analysis.generation.result import Decoding
        from analysis.segmentation.strategy import Strategy
        from model.segmentation.features import FeatureOptions

        if self.written and self.strategy is not None:
            raise MicroStepError("give the segments with --strategy or take those that are --written, one of them")
        how = Decoding(self.rule, self.confidence, lossless=self.lossless, max_new_tokens=self.max_new_tokens)
        return MicroRequest(
            model.spec(loading),
            text.input(),
            None if self.strategy is None else Strategy.parse(self.strategy),
            how if self.written else None,
            self.max_length,
            FeatureOptions(prompt_apart=self.prompt_apart),
        )


@commands.command("micro-attention")
@flatten_options
def micro_attention(
    model: ModelOptions,
    text: TextOptions,
    segments: SegmentOptions,
    loading: LoadOptions,
    segment: Segment = None,
    out: Out = None,
) -> None:
    """Attention of a micro_step model's micro decoder: a row a layer, head, micro position and slot.

    Slots are the context states, by the base's layer, and the segment's own tokens. Of the mean over a text, low and
    high are the 95% interval over its segments.
    """
    from analysis.attention.micro.tables import finding, weight_table

    check_table(out)
    found = _run(segments.request(model, text, loading))
    table = weight_table(found, None if segment is None else segment - 1)
    if out is not None:
        print_notes("", (finding(found.sums),))
    print_or_save(table, out, finding(found.sums))


@commands.command("micro-attention-figure")
@flatten_options
def micro_attention_figure(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(FIGURE_NAMES)}.")],
    model: ModelOptions,
    text: TextOptions,
    segments: SegmentOptions,
    loading: LoadOptions,
    out: FigureOut,
    layer: Annotated[int, typer.Option(min=1, help="Of the micro decoder, from 1.")] = 1,
    segment: Segment = None,
    theme: Theme = "light",
) -> None:
    """Draw the micro attention of a text, or give the data behind the figure: the command that export bundles name."""
    from analysis.attention.micro.figures import draw
    from analysis.attention.micro.provenance import MicroView, origin
    from analysis.export import FIGURE_FORMATS, check_out, save_figure
    from analysis.figures.figure import check_figure

    check_figure(name, FIGURE_NAMES)
    check_out(out, FIGURE_FORMATS)
    request = segments.request(model, text, loading)
    found = _run(request)
    view = MicroView(theme, layer - 1, None if segment is None else segment - 1)
    found.check(view.segment, view.layer)
    save_figure(draw(name, found, view), out, origin(request, found, view))
    print(out)


def _run(request: MicroRequest) -> MicroAttention:
    with progress("reading") as told:
        found = request.run(load_shown, told)
    print_notes(f"{found.facts.name}: ", (f"segments: {found.cut}", *found.notes))
    return found
