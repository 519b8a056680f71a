"""Where a figure of an attribution comes from: what a bundle holds, and the command that draws the figure again."""

from __future__ import annotations

import dataclasses

from analysis.attribution.options import AttributionOptions
from analysis.attribution.view import ShownAttribution
from analysis.document_file import document_file
from analysis.options import TextOptions
from analysis.provenance import Provenance, plain_values
from analysis.segmentation.options import SegmentsOptions
from model.command_options import LoadOptions, ModelsOptions, figure_command, options_from


def origin(shown: ShownAttribution) -> Provenance:
    """Where a figure comes from."""
    request, found = shown.request, shown.found
    asked = plain_values(request)
    asked["strategy"] = None if shown.asked is None else str(shown.asked.segmenter.strategy)
    return Provenance(
        command=figure_command(
            "attribute",
            ModelsOptions.of(
                [(key, spec, facts) for (key, spec), facts in zip(request.models, found.facts, strict=True)]
            ),
            TextOptions.of(request.text),
            LoadOptions.of(request.models[0][1], found.facts),
            options_from(AttributionOptions, request),
            SegmentsOptions() if shown.asked is None else SegmentsOptions.of(shown.asked.segmenter),
            shown.view,
        ),
        request=asked,
        view=dataclasses.asdict(shown.view),
        models={key.lower(): facts for (key, _), facts in zip(request.models, found.facts, strict=True)},
        notes={request.models[0][0].lower(): found.notes},
        files=dict([document_file(request.text.document)]),
        read={request.models[0][0].lower(): found.encoded.text},
    )
