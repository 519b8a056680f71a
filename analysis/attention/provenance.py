"""Where a figure of the attention page comes from: its bundle's manifest, and the command that makes it again."""

from __future__ import annotations

import dataclasses

from analysis.attention.options import options_of
from analysis.attention.result import AttentionResult
from analysis.document_file import document_file
from analysis.options import TextOptions
from analysis.provenance import Provenance, plain_values
from analysis.segmentation.options import SegmentsOptions
from model.command_options import LoadOptions, ModelsOptions, figure_command


def origin(looked: AttentionResult) -> Provenance:
    """Where a figure of what is looked at comes from."""
    request = looked.request
    return Provenance(
        command=figure_command(
            "attention",
            ModelsOptions.of(
                [
                    (key, spec, side.reading.facts)
                    for (key, spec), side in zip(request.models, looked.sides, strict=True)
                ]
            ),
            TextOptions.of(request.text),
            LoadOptions.of(request.models[0][1], [side.reading.facts for side in looked.sides]),
            SegmentsOptions.of(request.segmenter),
            *options_of(looked.view, request.pool),
        ),
        request=plain_values(request),
        view=dataclasses.asdict(looked.view),
        models={side.key.lower(): side.reading.facts for side in looked.sides},
        notes={side.key.lower(): side.reading.notes for side in looked.sides},
        files=dict([document_file(request.text.document)]),
        read={side.key.lower(): side.reading.encoded.text for side in looked.sides},
    )
