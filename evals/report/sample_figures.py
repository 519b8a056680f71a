"""Figures of samples: two answers in segments under each other, and the tables beside them."""

from __future__ import annotations

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

MARGIN = 4  # columns of a row's name
LEGEND = "Probability, pale to dark: 1: sure, 0: unsure. A gap starts a segment."
SHOWN: Mapping[Show, str] = dict(
    zip(SHOWS, ("all", "differing", "wrong in A, right in B", "wrong in B, right in A", "invalid"), strict=True)
)


def documents(beside: SideBySide, show: Show = "all", theme: Theme = "light") -> Figure:
    """The documents that are shown, with both runs' scores."""
    return Figure(
        "documents",
        "Documents",
        f"Judged by {beside.score}; shown: {SHOWN[show]}. {named(beside)}",
        lambda: table_figure(document_table(beside, show), theme),
        lambda: document_table(beside, show),
    )


def tokens(beside: SideBySide, document: int, answer: int = 1, theme: Theme = "light") -> Figure:
    """The answers to a document, token by token."""
    return Figure(
        "tokens",
        f"Answers to document {document:,}" + (f", number {answer}" if answer > 1 else ""),
        "Each token is shaded by its probability under whoever wrote it, the numbers count macro steps. A plain model "
        f"keeps none, and writes a token a step. {named(beside)}",
        lambda: _draw_tokens(beside, document, answer, theme),
        lambda: token_table(beside, document, answer),
    )


def facts(beside: SideBySide, document: int, theme: Theme = "light") -> Figure:
    """Scores, reasons and costs of a document's samples."""
    return Figure(
        "facts",
        f"Scores and costs of document {document:,}",
        f"Of all answers to it. {named(beside)}",
        lambda: table_figure(fact_table(beside, document), theme),
        lambda: fact_table(beside, document),
    )


def invalid(side: SampleSide, way: str, theme: Theme = "light") -> Figure:
    """The answers that could not be read."""
    return Figure(
        "invalid",
        "Invalid answers",
        f"Answers that {way} could not read, and why. {side.name}.",
        lambda: table_figure(invalid_table(side, way), theme),
        lambda: invalid_table(side, way),
    )


def named(beside: SideBySide) -> str:
    """Which runs the letters are."""
    return "; ".join(f"{key}: {side.name}" for key, side in zip(KEYS, beside.sides, strict=False)) + "."


def pieces(beside: SideBySide, document: int, answer: int) -> list[tuple[str, str, WrittenAnswer]]:
    """Letter, name and answer of each run that wrote one."""
    return [
        (key, side.name, sample.answers[answer - 1])
        for key, side, sample in zip(KEYS, beside.sides, beside.of(document), strict=False)
        if sample is not None and len(sample.answers) >= answer
    ]


def _draw_tokens(beside: SideBySide, document: int, answer: int, theme: Theme) -> go.Figure:
    page = Page(theme)
    for key, _, piece in pieces(beside, document, answer):
        text, row = _still(piece)
        for line in wrap(text, 0, min(len(text), LONGEST)):
            page.add_row(text, line, key, row)
            page.gap()
    return page.figure(LEGEND, MARGIN)


def _still(piece: WrittenAnswer) -> tuple[str, StillRow]:
    text, start, end = locate_tokens(piece)
    of, place = segments(piece)
    probability = np.full(len(piece.tokens), np.nan) if piece.probability is None else np.array(piece.probability)

    def hover(i: int) -> str:
        return f"{safe(piece.tokens[i])}<br>probability {significant(float(probability[i]))}<br>macro step {of[i] + 1}"

    return text, StillRow(start, end, 1 - probability, hover, place == 0)
