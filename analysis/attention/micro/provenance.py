"""Where a figure of micro attention comes from: what a bundle holds, and the command that reproduces the figure."""

from __future__ import annotations

from analysis.attention.micro.options import MicroView, WrittenOptions
from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.result import MicroAttention
from analysis.generation.options import StoppingOptions
from analysis.options import Reader, text_provenance
from analysis.provenance import Provenance, plain_values
from analysis.segmentation.options import SegmentsOptions


def origin(request: MicroRequest, found: MicroAttention, view: MicroView) -> Provenance:
    """Where a figure comes from."""
    strategy, written = None if request.strategy is None else str(request.strategy), request.written
    asked = {name: value for name, value in plain_values(request).items() if name != "side"} | {"strategy": strategy}
    reader = Reader("model", request.model, found.facts, found.encoded.text, (found.cut, *found.notes))
    options = (
        SegmentsOptions(strategy, None, found.positions + 1, request.how.prompt_apart),
        WrittenOptions(written is not None),
        StoppingOptions() if written is None else StoppingOptions.of(written, written.lossless),
        view,
    )
    return text_provenance("micro-attention", asked, request.text, view, [reader], *options)
