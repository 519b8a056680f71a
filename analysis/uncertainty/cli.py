"""`micro-step score` and `compare`: one or two models on one text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from analysis.options import (
    HistoryMethod,
    HistoryStride,
    Out,
    TextOptions,
    check_output,
    check_table,
    figure_option,
    load_shown,
    print_notes,
    print_or_save,
    progress,
    save_drawn,
)
from analysis.uncertainty.options import ContinuationOptions
from analysis.view import UNIT, UnitOption, View
from model.command_options import LoadOptions, ModelOptions, PairOptions, SamplingOptions, flatten_options

FIGURE_NAMES = ("strip", "line", "scatter", "distribution", "changes", "next")


@flatten_options
def score(
    model: ModelOptions,
    text: TextOptions,
    loading: LoadOptions,
    unit: UnitOption = UNIT,
    history: Annotated[int, typer.Option(min=0, help="Limit the history to this many tokens; 0 is all.")] = 0,
    history_method: HistoryMethod = "exact",
    history_stride: HistoryStride = 16,
    out: Out = None,
) -> None:
    """Score every token of a text: entropy, confidence, margin, surprisal, rank."""
    from analysis.uncertainty.scoring import score_document, score_limited
    from analysis.uncertainty.tables import token_table

    check_table(out)
    read = text.input()
    loaded = load_shown(model.spec(loading))
    with progress("scoring") as told:
        if history:
            scored = score_limited(loaded, read, history, history_method, history_stride, progress=told)
        else:
            scored = score_document(loaded, read, progress=told)
    print_notes(f"{scored.facts.name}: ", scored.notes)
    print_or_save(token_table(scored, unit), out, f"scores of {scored.facts.name}, entropy and surprisal in {unit}")


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
    from analysis.uncertainty.figures import check_name, draw
    from analysis.uncertainty.request import ComparisonQuery
    from analysis.uncertainty.summary import summarise
    from analysis.uncertainty.tables import cell_table, summary_table

    check_output(out, figure, FIGURE_NAMES)
    check_table(cells)
    if figure is not None:
        check_name(figure, paired=not continuing.new_tokens, lens=view.lens)
    query = ComparisonQuery(
        *pair.pair(loading),
        text.input(),
        continuing.new_tokens,
        sampling.sampling(),
    )
    with progress("comparing") as told:
        comparison = query.run(load_shown, told)
    for side, scored in (("A", comparison.a), ("B", comparison.b)):
        print_notes(f"{side} {scored.facts.name}: ", scored.notes)
    if cells is not None:
        save_table(cell_table(comparison, view.unit), cells)
    if figure is not None:
        save_drawn(draw(figure, comparison, view), out, query.origin(comparison, view))
        return
    summary = summarise(comparison, view.unit, score=view.score, measure=view.change.name)
    print_or_save(summary_table(comparison, view.unit), out, summary.finding, turned=True)
