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
    need_chat,
    print_answer,
    progress,
)
from analysis.uncertainty.options import ContinuationOptions, HistoryOptions
from analysis.view import ScoreView, View
from analysis.words.options import StimulusOptions
from model.command_options import (
    LoadOptions,
    ModelsOptions,
    PairOptions,
    SamplingOptions,
    TemplateOptions,
    flatten_options,
)
from model.errors import ExportError, MicroStepError
from model.terminal import progress_bar

Data = Annotated[
    str | None,
    typer.Option(help="A table of texts instead of one: a .csv, .tsv, .json, .jsonl (also .gz) or .parquet file."),
]

SCORE_FIGURES = ("strip", "line", "distribution")
FIGURE_NAMES = ("strip", "line", "scatter", "distribution", "changes", "next")


@flatten_options
def score(
    models: ModelsOptions,
    text: TextOptions,
    stimuli: StimulusOptions,
    loading: LoadOptions,
    history: HistoryOptions,
    view: ScoreView,
    data: Data = None,
    figure: Annotated[str | None, figure_option(SCORE_FIGURES)] = None,
    out: Out = None,
) -> None:
    """Score every token of a text: entropy, confidence, margin, surprisal, rank.

    Writes that table, or with --figure draws a figure. With --data it scores all texts of a table, by word or by token,
    under one model or two, and keeps the table's own columns.
    """
    from analysis.uncertainty.answer import ScoreRequest, scores

    if data is not None:
        _score_table(models, text, data, stimuli, loading, history, view, figure, out)
        return
    if stimuli != StimulusOptions():
        raise MicroStepError("--column, --id, --by, --regions, --rows and --join-with are of a table: give --data, too")
    specs = models.some(loading)
    if len(specs) > 1:
        raise MicroStepError("two models on one text: `micro-step compare`; score takes two with --data")
    check_output(out, figure, SCORE_FIGURES)
    request = ScoreRequest(specs[0][1], text.input(), history)
    with progress("scoring") as tell:
        answer = scores(request, view, load_shown, tell)
    print_answer(answer, figure, out, f"{answer.raw.facts.name}: ")


def _score_table(
    models: ModelsOptions,
    text: TextOptions,
    data: str,
    stimuli: StimulusOptions,
    loading: LoadOptions,
    history: HistoryOptions,
    view: ScoreView,
    figure: str | None,
    out: Path | None,
) -> None:
    """The texts of a table."""
    from analysis.words.answer import score_pieces
    from analysis.words.cli import print_made
    from data.corpus.options import CorpusOptions

    if text.given or text.system is not None or text.answer is not None:
        raise MicroStepError("give either --data or one text")
    if figure is not None or history.history:
        raise MicroStepError("--figure and --history are of one text, not of --data")
    need_chat(text.chat, text.template_arg, text.template_date)
    check_table(out)
    if out is not None and Path(data).is_file() and out.exists() and out.samefile(data):
        raise ExportError(f"{out} is the table that is read; give another --out")
    specs = tuple(spec for _, spec in models.some(loading))
    template = TemplateOptions(text.template_arg, text.template_date)
    reading = CorpusOptions(text.chat, text.force_bos, template.arguments, text.template_date)
    with progress_bar() as tell:
        made = score_pieces(specs, data, stimuli, reading, view.unit, load_shown, tell).made(out)
    print_made(made, out)


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
