"""`micro-step score` and `compare`: one or two models on one text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.options import (
    Out,
    TextOptions,
    check_output,
    check_table,
    figure_option,
    load_shown,
    print_answer,
    progress,
)
from analysis.uncertainty.options import ContinuationOptions, HistoryOptions
from analysis.view import ScoreView, View
from model.command_options import LoadOptions, ModelOptions, PairOptions, SamplingOptions, flatten_options

SCORE_FIGURES = ("strip", "line", "distribution")
FIGURE_NAMES = ("strip", "line", "scatter", "distribution", "changes", "next")


@flatten_options
def score(
    model: ModelOptions,
    text: TextOptions,
    loading: LoadOptions,
    history: HistoryOptions,
    view: ScoreView,
    figure: Annotated[str | None, figure_option(SCORE_FIGURES)] = None,
    out: Out = None,
) -> None:
    """Score every token of a text: entropy, confidence, margin, surprisal, rank.

    Writes that table, or with --figure draws a figure.
    """
    from analysis.uncertainty.answer import ScoreRequest, scores

    check_output(out, figure, SCORE_FIGURES)
    request = ScoreRequest(model.spec(loading), text.input(), history)
    with progress("scoring") as tell:
        answer = scores(request, view, load_shown, tell)
    print_answer(answer, figure, out, f"{answer.raw.facts.name}: ")


@flatten_options
def compare_command(
    pair: PairOptions,
    text: TextOptions,
    continuing: ContinuationOptions,
    sampling: SamplingOptions,
    loading: LoadOptions,
    view: View,
    cells: Annotated[Path | None, typer.Option(help="Also write a row for each common piece of text.")] = None,
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """Compare two models on one text: means, differences with their 95% intervals, by role.

    Writes that table, or with --figure draws a figure.
    """
    from analysis.export import save_table
    from analysis.uncertainty.answer import comparison
    from analysis.uncertainty.figures import check_name
    from analysis.uncertainty.request import ComparisonQuery
    from analysis.uncertainty.tables import cell_table

    check_output(out, figure, FIGURE_NAMES)
    check_table(cells)
    if figure is not None:
        check_name(figure, paired=not continuing.new_tokens, lens=view.lens)
    query = ComparisonQuery(*pair.pair(loading), text.input(), continuing.new_tokens, sampling.sampling())
    with progress("comparing") as tell:
        answer = comparison(query, view, load_shown, tell)
    if cells is not None:
        save_table(cell_table(answer.raw, view.unit), cells)
    print_answer(answer, figure, out, turned=True)
