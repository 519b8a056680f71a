"""Figures of samples: two answers in segments, one below the other, and the tables beside them."""

from collections.abc import Mapping

import numpy as np
import plotly.graph_objects as go

from analysis.figures.figure import Figure, safe
from analysis.figures.static_strip import LONGEST, Page, StillRow, wrap
from analysis.figures.table_figure import table_figure
from analysis.score_registry import significant
from analysis.view import Theme
from evals.report.sample_tables import document_table, fact_table, invalid_table, token_table
from evals.report.side_by_side import KEYS, SHOWS, SampleSide, Show, SideBySide, segments
from evals.report.token_spans import locate_tokens
from evals.samples import WrittenAnswer

MARGIN = 4  # columns for a row's name
LEGEND = "Probability from 1 (pale) to 0 (dark). A gap starts a segment."
SHOWN: Mapping[Show, str] = dict(
    zip(SHOWS, ("all", "differing", "wrong in A, right in B", "wrong in B, right in A", "invalid"), strict=True)
)


def documents(comparison: SideBySide, show: Show = "all", theme: Theme = "light") -> Figure:
    """Return the selected documents, with both runs' scores."""
    return Figure(
        "documents",
        "Documents",
        f"Judged by {comparison.score}; shown: {SHOWN[show]}. {named(comparison)}",
        lambda: table_figure(document_table(comparison, show), theme),
        lambda: document_table(comparison, show),
    )


def tokens(comparison: SideBySide, document: int, answer: int = 1, theme: Theme = "light") -> Figure:
    """Return the answers to a document, token by token."""
    return Figure(
        "tokens",
        f"Answers to document {document:,}" + (f", number {answer}" if answer > 1 else ""),
        "Each token is shaded by its probability under the part that generated it; numbers count macro steps. "
        f"A plain model has no probabilities, and generates one token per step. {named(comparison)}",
        lambda: _draw_tokens(comparison, document, answer, theme),
        lambda: token_table(comparison, document, answer),
    )


def facts(comparison: SideBySide, document: int, theme: Theme = "light") -> Figure:
    """Return scores, reasons and costs of a document's samples."""
    return Figure(
        "facts",
        f"Scores and costs of document {document:,}",
        f"Over all answers to it. {named(comparison)}",
        lambda: table_figure(fact_table(comparison, document), theme),
        lambda: fact_table(comparison, document),
    )


def invalid(side: SampleSide, way: str, theme: Theme = "light") -> Figure:
    """Return the answers that could not be read."""
    return Figure(
        "invalid",
        "Invalid answers",
        f"Answers that {way} could not read, and why. {side.name}.",
        lambda: table_figure(invalid_table(side, way), theme),
        lambda: invalid_table(side, way),
    )


def named(comparison: SideBySide) -> str:
    """Return the names of the runs behind the letters."""
    return "; ".join(f"{key}: {side.name}" for key, side in zip(KEYS, comparison.sides, strict=False)) + "."


def written_answers(comparison: SideBySide, document: int, answer: int) -> list[tuple[str, str, WrittenAnswer]]:
    """Return letter, name and answer of each run that has one."""
    return [
        (key, side.name, sample.answers[answer - 1])
        for key, side, sample in zip(KEYS, comparison.sides, comparison.of(document), strict=False)
        if sample is not None and len(sample.answers) >= answer
    ]


def _draw_tokens(comparison: SideBySide, document: int, answer: int, theme: Theme) -> go.Figure:
    page = Page(theme)
    for key, _, answer_text in written_answers(comparison, document, answer):
        text, row = _static_row(answer_text)
        for line in wrap(text, 0, min(len(text), LONGEST)):
            page.add_row(text, line, key, row)
            page.gap()
    return page.figure(LEGEND, MARGIN)


def _static_row(answer: WrittenAnswer) -> tuple[str, StillRow]:
    text, start, end = locate_tokens(answer)
    segment, place = segments(answer)
    probability = np.full(len(answer.tokens), np.nan) if answer.probability is None else np.array(answer.probability)

    def hover(i: int) -> str:
        shown = significant(float(probability[i]))
        return f"{safe(answer.tokens[i])}<br>probability {shown}<br>macro step {segment[i] + 1}"

    return text, StillRow(start, end, 1 - probability, hover, place == 0)
