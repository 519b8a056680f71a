"""`score` and `compare`: how sure one model, or two, are at each token of a text."""

from __future__ import annotations

from analysis.answer import Result
from analysis.score_registry import PER_NAT, Unit, significant
from analysis.uncertainty import figures, score_figures
from analysis.uncertainty.request import ComparisonQuery
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.scoring import score_document, score_limited
from analysis.uncertainty.summary import summarise
from analysis.uncertainty.tables import summary_table, token_table
from analysis.view import View
from micro_step.inputs import ModelLike, Models, TextLike, as_text_input
from model.arguments import checked
from model.scoring.scores import Method, Sampling


@checked
def score(
    model: ModelLike,
    text: TextLike,
    *,
    chat: bool = False,
    force_bos: bool = False,
    history: int = 0,
    history_method: Method = "exact",
    history_stride: int = 16,
    unit: Unit = "nats",
) -> Result[ScoredText]:
    """Score every token of a text: entropy, confidence, margin, surprisal and rank.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        history: limit what the model sees to so many tokens before each; 0 is all.
        history_method: exact, strided or banded: how the history is limited.
        history_stride: of strided: a window every so many tokens.
        unit: bits or nats, of entropy and surprisal.

    Returns:
        A row a token in `table`.

    Raises:
        MicroStepError: the model or the text cannot be read, or memory does not suffice.
    """
    models = Models()
    loaded, read = models.load(models.spec(model)), as_text_input(text, chat, force_bos)
    if history:
        scored = score_limited(loaded, read, history, history_method, history_stride)
    else:
        scored = score_document(loaded, read)
    return Result(
        "score",
        scored,
        tuple(score_figures.FIGURES),
        View(unit=unit),
        lambda: token_table(scored, unit),
        lambda: _means(scored, unit),
        lambda name, view: score_figures.draw(name, scored, view),
        notes=scored.notes,
    )


def _means(scored: ScoredText, unit: Unit) -> str:
    content, scores = scored.content, scored.scores
    count = int(content.sum())
    if not count:
        return f"{scored.facts.name} scored no token of the text"
    entropy, surprisal = (
        float(values[content].mean()) * PER_NAT[unit] for values in (scores.entropy, scores.surprisal)
    )
    return (
        f"{scored.facts.name} on {count:,} tokens: mean entropy {significant(entropy)} {unit},"
        f" mean surprisal {significant(surprisal)} {unit}"
    )


@checked
def compare(
    a: ModelLike,
    b: ModelLike,
    text: TextLike,
    *,
    chat: bool = False,
    force_bos: bool = False,
    new_tokens: int = 0,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    unit: Unit = "nats",
) -> Result[Comparison]:
    """Compare two models on one text: which one is less sure, and by how much.

    Args:
        a: model A: a name, a path, a specification, or a loaded model.
        b: model B.
        text: a text, a `Document`, or a list of messages.
        chat: apply each model's own chat template.
        force_bos: put BOS first even if the tokenizer does not.
        new_tokens: above 0: each model continues the text by up to so many tokens, and its own are scored.
        temperature: of the continuation; 0 is greedy.
        top_p: sample from the likeliest tokens of this total probability.
        seed: of sampling.
        unit: bits or nats, of entropy and surprisal.

    Returns:
        A row for all roles and for each one in `table`: means, differences B - A, and their 95% intervals. The numbers
        behind the figures scatter and strip are a row a common piece of text, and a row a token.

    Raises:
        MicroStepError: a model or the text cannot be read, or memory does not suffice.
    """
    models = Models()
    request = ComparisonQuery(
        models.spec(a),
        models.spec(b),
        as_text_input(text, chat, force_bos),
        new_tokens,
        Sampling(temperature, top_p, seed),
    )
    comparison = request.run(models.load)
    possible = [name for name in figures.FIGURES if comparison.cells is not None or name not in figures.PAIRED]
    return Result(
        "compare",
        comparison,
        tuple(possible),
        View(unit=unit),
        lambda: summary_table(comparison, unit),
        lambda: summarise(comparison, unit).finding,
        lambda name, view: figures.draw(name, comparison, view),
        lambda _, view: request.origin(comparison, view),
        (*(f"A: {note}" for note in comparison.a.notes), *(f"B: {note}" for note in comparison.b.notes)),
    )
