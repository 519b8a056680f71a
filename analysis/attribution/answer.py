"""An attribution from models and options, as the command and the face give it."""

from __future__ import annotations

from dataclasses import replace

from analysis.answer import Result
from analysis.attribution.figures import FIGURES, draw
from analysis.attribution.options import AttributionOptions, AttributionView
from analysis.attribution.provenance import origin
from analysis.attribution.quantities import QUANTITIES
from analysis.attribution.request import AttributionRequest, SegmentsQuery, default_target
from analysis.attribution.view import ShownAttribution
from analysis.query import ModelLoader
from analysis.segmentation.strategy import Segmenter
from analysis.strips.attribution import attribution_strip, explained
from analysis.token_strip.notebook import NotebookStrip
from analysis.uncertainty.scoring import score_document
from model.errors import MicroStepError
from model.hub.loading import ModelSpec
from model.progress import Progress
from model.text.document import TextInput


def attribution(
    models: tuple[tuple[str, ModelSpec], ...],
    text: TextInput,
    options: AttributionOptions,
    segmenter: Segmenter,
    view: AttributionView,
    load: ModelLoader,
    progress: Progress | None = None,
) -> Result[ShownAttribution]:
    """Attribute a number at one token to the tokens before it.

    Args:
        models: A; for kl, A and B.
        text: as the models read it.
        options: what is attributed, and how.
        segmenter: of segments, where the quantity or the view needs them.
        view: how it is looked at.
        load: gives the models, each once.
        progress: told the share done.
    """
    if (len(models) == 2) != (options.quantity == "kl"):
        raise MicroStepError("the quantity kl needs two models, A and B; every other quantity needs one")
    segmented = options.quantity in QUANTITIES and QUANTITIES[options.quantity].segmented
    request = AttributionRequest(
        models,
        text,
        options.at or 0,
        options.quantity,
        options.method,
        options.baseline,
        options.features,
        segmenter if segmented else None,
    )
    view = replace(view, group_by=view.group_by or request.moved or "tokens")
    if view.group_by == "tokens" and request.moved == "words":
        raise MicroStepError("words were moved, so there are no sums over tokens; take words, segments or lines")
    query = SegmentsQuery(*models[0], text, segmenter) if segmented or view.group_by == "segments" else None
    segments = None if query is None else query.run(load)
    if options.at is None:
        scored = score_document(load(models[0][1]), text)
        request = replace(request, at=default_target(scored, options.quantity, segments))
    found = request.run(load, progress, segments if segmented else None)
    shown = ShownAttribution(request, found, view, query, segments)
    return Result(
        "attribute",
        shown,
        tuple(FIGURES),
        view,
        shown.table,
        lambda: f"{shown.what}: {shown.finding}",
        lambda name, view: draw(name, replace(shown, view=view)),
        lambda _, view: origin(replace(shown, view=view)),
        found.notes,
        lambda view: _laid(replace(shown, view=view)),
    )


def _laid(shown: ShownAttribution) -> NotebookStrip:
    return NotebookStrip(attribution_strip(shown), explained(shown))
