"""Where a figure of micro attention comes from: what a bundle holds, and the command that draws it again."""

from __future__ import annotations

import dataclasses

from analysis.attention.micro.options import MicroView, WrittenOptions
from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.result import MicroAttention
from analysis.document_file import document_file
from analysis.generation.options import StoppingOptions
from analysis.options import TextOptions
from analysis.provenance import Provenance, plain_values
from analysis.segmentation.options import SegmentsOptions
from model.command_options import LoadOptions, ModelOptions, figure_command


def origin(request: MicroRequest, found: MicroAttention, view: MicroView) -> Provenance:
    """Where a figure comes from."""
    asked = plain_values(request)
    asked["strategy"] = None if request.strategy is None else str(request.strategy)
    return Provenance(
        command=figure_command(
            "micro-attention",
            ModelOptions.of(request.model, found.facts),
            TextOptions.of(request.text),
            LoadOptions.of(request.model, (found.facts,)),
            SegmentsOptions(
                None if request.strategy is None else str(request.strategy),
                None,
                found.positions + 1,
                request.how.prompt_apart,
            ),
            WrittenOptions(request.written is not None),
            StoppingOptions()
            if request.written is None
            else StoppingOptions.of(request.written, request.written.lossless),
            view,
        ),
        request={name: value for name, value in asked.items() if name != "side"},
        view=dataclasses.asdict(view),
        models={"model": found.facts},
        notes={"model": (found.cut, *found.notes)},
        files=dict([document_file(request.text.document)]),
        read={"model": found.encoded.text},
    )
