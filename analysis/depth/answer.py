"""Depth as the command and the face give it."""

from __future__ import annotations

from analysis.answer import Result
from analysis.depth.figures import FIGURES, draw
from analysis.depth.options import DepthView
from analysis.depth.request import DepthRequest, read_depth
from analysis.depth.result import Depth
from analysis.depth.tables import finding, layer_table
from analysis.query import ModelLoader, Session
from analysis.strips.depth import depth_strip
from analysis.token_strip.notebook import NotebookStrip
from model.progress import Progress


def depth_answer(
    request: DepthRequest, view: DepthView, load: ModelLoader, progress: Progress | None = None
) -> Result[Depth]:
    """What every layer predicts, of one model or of two.

    Raises:
        MicroStepError: a model's layers or the text cannot be read, or memory does not suffice.
    """
    depth = read_depth(request, Session(load, progress, len(request.models)))
    assert depth is not None  # a session answers everything
    return Result(
        "depth",
        depth,
        tuple(FIGURES),
        view,
        lambda: layer_table(depth, view.unit, view.role),
        lambda: finding(depth, view.role),
        lambda name, view: draw(name, depth, view),
        lambda _, view: request.origin(depth, view),
        depth_notes(depth),
        lambda view: NotebookStrip(depth_strip(depth, view), view.pinned),
    )


def depth_notes(depth: Depth) -> tuple[str, ...]:
    """What a reader must know of each model."""
    letters = [f"{key} " if len(depth.sides) > 1 else "" for key in depth.keys]
    return tuple(
        f"{letter}{side.scored.facts.name}: {note}"
        for letter, side in zip(letters, depth.sides, strict=True)
        for note in side.scored.notes
    )
