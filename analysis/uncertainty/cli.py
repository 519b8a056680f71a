"""`python -m analysis score`, `compare` and `figure`: one or two models on one text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from analysis.options import (
    UNIT,
    FigureOut,
    LoadOptions,
    ModelOptions,
    Out,
    PairOptions,
    Pinned,
    TextOptions,
    Theme,
    Unit,
    check_table,
    flatten_options,
    load_shown,
    print_notes,
    print_or_save,
    progress,
)

commands = typer.Typer()


@commands.command()
@flatten_options
def score(
    model: ModelOptions,
    text: TextOptions,
    loading: LoadOptions,
    unit: Unit = UNIT,
    history: Annotated[int, typer.Option(min=0, help="Limit the history to so many tokens; 0 is all.")] = 0,
    history_method: Annotated[Literal["exact", "strided", "banded"], typer.Option(help="How it is limited.")] = "exact",
    history_stride: Annotated[int, typer.Option(min=1, help="For strided: a window every so many tokens.")] = 16,
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


@commands.command()
@flatten_options
def compare(
    pair: PairOptions,
    text: TextOptions,
    loading: LoadOptions,
    unit: Unit = UNIT,
    cells: Annotated[Path | None, typer.Option(help="Also write a row for each common piece of text.")] = None,
    out: Out = None,
) -> None:
    """Compare two models on one text: means, differences with their 95% intervals, by role."""
    from analysis.export import save_table
    from analysis.uncertainty.summary import summarise
    from analysis.uncertainty.tables import cell_table, summary_table

    check_table(out)
    check_table(cells)
    request = pair.request(text, loading)
    with progress("comparing") as told:
        comparison = request.run(load_shown, told)
    for side, scored in (("A", comparison.a), ("B", comparison.b)):
        print_notes(f"{side} {scored.facts.name}: ", scored.notes)
    if cells is not None:
        save_table(cell_table(comparison, unit), cells)
    summary = summarise(comparison, unit)
    print_or_save(summary_table(comparison, unit), out, summary.finding, turned=True)


@commands.command()
@flatten_options
def figure(
    name: Annotated[str, typer.Argument(help="strip, line, scatter, distribution or changes.")],
    pair: PairOptions,
    text: TextOptions,
    loading: LoadOptions,
    out: FigureOut,
    score: Annotated[str, typer.Option(help="entropy, confidence, margin or surprisal.")] = "entropy",
    unit: Unit = UNIT,
    theme: Theme = "light",
    pinned: Pinned = None,
    role: Annotated[
        Literal["all", "text", "system", "user", "assistant", "tool"],
        typer.Option(help="Only tokens of this role; all for every one."),
    ] = "all",
) -> None:
    """Make a figure of two models on one text, or the data behind it: the command that export bundles name."""
    from analysis.export import FIGURE_FORMATS, check_out, save_figure
    from analysis.uncertainty.figures import check_name, draw
    from analysis.view import View

    check_name(name, paired=not pair.new_tokens)
    check_out(out, FIGURE_FORMATS)
    view = View(score, unit, theme, pinned, role)
    request = pair.request(text, loading)
    with progress("comparing") as told:
        comparison = request.run(load_shown, told)
    save_figure(draw(name, comparison, view), out, request.origin(comparison, view))
    print(out)
