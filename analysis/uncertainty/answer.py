"""Scores of one text, and a comparison of two models, as the commands and the face give them."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from analysis.answer import Result
from analysis.options import Reader, text_provenance
from analysis.provenance import Provenance
from analysis.query import ModelLoader
from analysis.score_registry import PER_NAT, significant
from analysis.strips.uncertainty import comparison_strip, score_strip
from analysis.token_strip.notebook import NotebookStrip
from analysis.uncertainty import figures, score_figures
from analysis.uncertainty.options import HistoryOptions
from analysis.uncertainty.request import ComparisonQuery
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.scoring import score_document, score_limited
from analysis.uncertainty.summary import summarise
from analysis.uncertainty.tables import summary_table, token_table
from analysis.view import ScoreView, View
from model.hub.loading import ModelSpec
from model.progress import Progress
from model.text.document import TextInput


@dataclass(frozen=True)
class ScoreRequest:
    """One model on one text, with all of the text before a token or a part of it."""

    model: ModelSpec
    text: TextInput
    history: HistoryOptions


def scores(
    request: ScoreRequest, view: ScoreView, load: ModelLoader, progress: Progress | None = None
) -> Result[ScoredText]:
    """Score every token of a text.

    Raises:
        MicroStepError: the model or the text cannot be read, or memory does not suffice.
    """
    loaded, limit = load(request.model), request.history
    if limit.history:
        history = limit.history, limit.history_method, limit.history_stride
        scored = score_limited(loaded, request.text, *history, progress=progress)
    else:
        scored = score_document(loaded, request.text, progress=progress)
    return Result(
        "score",
        scored,
        tuple(score_figures.FIGURES),
        view,
        lambda: token_table(scored, view.unit),
        lambda: _means(scored, view),
        lambda name, view: score_figures.draw(name, scored, view),
        lambda _, view: _origin(request, scored, view),
        scored.notes,
        lambda view: NotebookStrip(score_strip(scored, request.text.document, view), view.pinned),
    )


def _means(scored: ScoredText, view: ScoreView) -> str:
    content, count = scored.content, int(scored.content.sum())
    if not count:
        return f"{scored.facts.name} scored no token of the text"
    entropy, surprisal = (
        significant(float(values[content].mean()) * PER_NAT[view.unit])
        for values in (scored.scores.entropy, scored.scores.surprisal)
    )
    return (
        f"{scored.facts.name} on {count:,} tokens: mean entropy {entropy} {view.unit}, mean surprisal {surprisal}"
        f" {view.unit}"
    )


def _origin(request: ScoreRequest, scored: ScoredText, view: ScoreView) -> Provenance:
    asked = asdict(request.text) | {"model": asdict(request.model)} | asdict(request.history)
    reader = Reader("model", request.model, scored.facts, scored.encoded.text, scored.notes)
    return text_provenance("score", asked, request.text, view, [reader], request.history, view)


def comparison(
    query: ComparisonQuery, view: View, load: ModelLoader, progress: Progress | None = None
) -> Result[Comparison]:
    """Compare two models on one text; errors as `ComparisonQuery.run`."""
    compared = query.run(load, progress)
    sides = ("A", compared.a), ("B", compared.b)
    return Result(
        "compare",
        compared,
        tuple(name for name in figures.FIGURES if compared.cells is not None or name not in figures.PAIRED),
        view,
        lambda: summary_table(compared, view.unit),
        lambda: summarise(compared, view.unit, score=view.score, measure=view.change.name).finding,
        lambda name, view: figures.draw(name, compared, view),
        lambda _, view: query.origin(compared, view),
        tuple(f"{key} {side.facts.name}: {note}" for key, side in sides for note in side.notes),
        lambda view: _shown(compared, view),
    )


def _shown(compared: Comparison, view: View) -> NotebookStrip:
    found = comparison_strip(compared, view)
    return NotebookStrip(found.strip, found.place(view.pinned))
