"""Where a figure of an attribution comes from: what a bundle holds, and the command that reproduces the figure."""

from __future__ import annotations

from analysis.attribution.options import AttributionOptions
from analysis.attribution.view import ShownAttribution
from analysis.options import Reader, text_provenance
from analysis.provenance import Provenance, plain_values
from analysis.segmentation.options import SegmentsOptions
from model.command_options import options_from


def origin(shown: ShownAttribution) -> Provenance:
    """Where a figure comes from; both models of kl read the same tokens, which are told once."""
    request, found, query = shown.request, shown.found, shown.asked
    asked = plain_values(request) | {"strategy": None if query is None else str(query.segmenter.strategy)}
    readers = [
        Reader(key.lower(), spec, facts, *(None, None) if i else (found.encoded.text, found.notes))
        for i, ((key, spec), facts) in enumerate(zip(request.models, found.facts, strict=True))
    ]
    segments = SegmentsOptions() if query is None else SegmentsOptions.of(query.segmenter)
    options = options_from(AttributionOptions, request), segments, shown.view
    return text_provenance("attribute", asked, request.text, shown.view, readers, *options)
