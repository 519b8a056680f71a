"""The figures of a generation: the answer in segments, its timeline, and how segments ended."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray

from analysis.figures.figure import Figure, check_figure, safe
from analysis.figures.static_strip import LONGEST, Page, StillRow, around, wrap
from analysis.figures.theme import BLUE, CARD, INK, ORANGE, SERIES, SOFT, styled
from analysis.generation.film_page import film
from analysis.generation.result import Answer, Generation
from analysis.generation.tables import answer_table, segment_table, timeline_table, why_ended
from analysis.generation.view import GenerationView
from analysis.score_registry import significant
from model.decoding.stopping import REASONS

MARGIN = 6  # columns for the names of rows
LEGEND = "Probability, pale to dark: 1 (sure) to 0 (unsure). A gap starts a segment."


def answer(generation: Generation, view: GenerationView) -> Figure:
    """Both answers, shaded by the probability of each token."""
    how = (
        honest(generation)
        + "Each token is shaded by its probability under the model that wrote it; numbers count macro steps."
    )
    if generation.base is not None:
        same = "wrote the same" if generation.micro.text == generation.base.text else "wrote a different text"
        how += f" The base alone {same}."
    return Figure(
        "answer",
        "The answer, segment by segment",
        how,
        lambda: _draw_answer(generation, view),
        lambda: answer_table(generation, view.unit),
    )


def timeline(generation: Generation, view: GenerationView) -> Figure:
    """Tokens over time, or over passes of the base."""
    over = "wall-clock time of this run on this machine" if view.over == "time" else "passes of the base"
    return Figure(
        "timeline",
        "Macro and micro steps",
        f"{honest(generation)}Tokens written over {over}. Square: a macro step, written by the base. Ring: a "
        "micro step." + (" In the data, columns of seconds differ between runs." if view.over == "time" else ""),
        lambda: _draw_timeline(generation, view),
        lambda: timeline_table(generation),
    )


def endings(generation: Generation, view: GenerationView) -> Figure:
    """The number of segments by length and by reason for ending."""
    return Figure(
        "endings",
        "How segments ended",
        f"{honest(generation)}Segments by number of tokens, and why they ended.",
        lambda: _draw_endings(segment_table(generation), generation.how.max_segment_length, view),
        lambda: segment_table(generation),
    )


def honest(generation: Generation) -> str:
    """The start of the caption for an untrained model."""
    return "Untrained modules. " if generation.untrained else ""


def still_row(generation: Generation, answer: Answer, own: bool) -> StillRow:
    """A row of tokens shaded by probability, with gaps between the segments of the model's own answer."""
    segments, display = generation.segments, answer.display
    of = segments.of_token
    begins: NDArray[np.bool_] | None = None
    if own:
        begins = np.zeros(len(answer), dtype=bool)
        begins[segments.starts] = True

    def hover(i: int) -> str:
        said = f"{safe(display[i])}<br>probability {significant(float(answer.probability[i]))}"
        if not own:
            return said
        return f"{said}<br>macro step {of[i] + 1}, ended: {why_ended(generation, int(of[i]))}"

    return StillRow(answer.start, answer.end, 1 - answer.probability, hover, begins)


def _draw_answer(generation: Generation, view: GenerationView) -> go.Figure:
    page = Page(view.theme)
    micro, base = generation.micro, generation.base
    own = still_row(generation, micro, own=True)
    if base is not None and base.text == micro.text:
        other = still_row(generation, base, own=False)
        for line in around(micro.text, view.pinned):
            page.add_row(micro.text, line, "micro", own)
            page.add_row(micro.text, line, "base", other)
            page.gap()
        return page.figure(LEGEND, MARGIN)
    rows = [("micro", micro, own)]
    if base is not None:
        rows.append(("base", base, still_row(generation, base, own=False)))
    for name, each, row in rows:
        for line in wrap(each.text, 0, min(len(each.text), LONGEST)):
            page.add_row(each.text, line, name, row)
            page.gap()
    return page.figure(LEGEND, MARGIN)


def _draw_timeline(generation: Generation, view: GenerationView) -> go.Figure:
    table = timeline_table(generation)
    over = "seconds" if view.over == "time" else "base_passes"
    figure = go.Figure()
    of_base = table[table["answer"] == "base"]
    own = table[table["answer"] == "micro_step"]
    macro, micro = own[own["micro_position"] == 0], own[own["micro_position"] > 0]
    orange, blue = ORANGE[view.theme], BLUE[view.theme]
    for part, name, color in ((of_base, "base alone", blue), (own, "micro_step", orange)):
        figure.add_trace(
            go.Scatter(
                x=part[over],
                y=part["tokens"],
                mode="lines",
                line={"color": color, "width": 1.5, "shape": "hv"},
                name=name,
                hoverinfo="skip",
            )
        )
    ground = CARD[view.theme]
    marks = (
        (of_base, "base's tokens", {"color": blue, "size": 4}, False),
        (macro, "macro step (base)", {"color": orange, "size": 8, "symbol": "square"}, True),
        (micro, "micro step", {"color": ground, "size": 6, "line": {"color": orange, "width": 1.5}}, True),
    )
    for part, name, marker, shown in marks:
        figure.add_trace(
            go.Scatter(
                x=part[over],
                y=part["tokens"],
                mode="markers",
                marker=marker,
                name=name,
                showlegend=shown,
                customdata=_places(generation, part),
                hovertemplate="%{customdata[1]}<br>token %{y}, " + _at(view) + "<br>%{customdata[2]}<extra></extra>",
            )
        )
    for x, y in _pinned(generation, view, table, over):
        ring = {"color": "rgba(0,0,0,0)", "size": 15, "line": {"color": INK[view.theme], "width": 2}}
        figure.add_trace(go.Scatter(x=[x], y=[y], mode="markers", marker=ring, hoverinfo="skip", showlegend=False))
    figure.update_xaxes(title="seconds, prompt included" if view.over == "time" else "passes of the base")
    figure.update_xaxes(rangemode="tozero")
    figure.update_yaxes(title="tokens written", rangemode="tozero")
    return styled(figure, view.theme, 380)


def _at(view: GenerationView) -> str:
    return "%{x:.2f} s" if view.over == "time" else "base pass %{x}"


def _places(generation: Generation, table: pd.DataFrame) -> list[list[object]]:
    """For each token: its place in the strip, its text, and which model wrote it."""
    micro, base = generation.micro, generation.base
    shift = 0 if base is not None and base.text == micro.text else len(micro.text)
    found: list[list[object]] = []
    for whose, i, token, who in zip(
        table["answer"], table["position"], table["token"], table["written_by"], strict=True
    ):
        place = int(micro.start[i]) if whose == "micro_step" or base is None else shift + int(base.start[i])
        found.append([place, safe(token), f"written by: {who}"])
    return found


def _pinned(generation: Generation, view: GenerationView, table: pd.DataFrame, over: str) -> list[tuple[float, int]]:
    """The places in the figure of the tokens at the pinned character."""
    if view.pinned is None:
        return []
    micro, base = generation.micro, generation.base
    shared = base is not None and base.text == micro.text
    sides = [("micro_step", micro, 0)]
    if base is not None:
        sides.append(("base", base, 0 if shared else len(micro.text)))
    found = []
    for whose, each, shift in sides:
        at = view.pinned - shift
        rows = table[table["answer"] == whose]
        hit = np.flatnonzero((each.start <= at) & (at < each.end))
        found += [(float(rows[over].iloc[i]), int(rows["tokens"].iloc[i])) for i in hit.tolist()]
    return found


def _draw_endings(table: pd.DataFrame, most: int, view: GenerationView) -> go.Figure:
    figure = go.Figure()
    reasons: dict[str, str] = {**dict(REASONS.items()), "stopped": "the run was stopped here"}
    lengths = np.arange(1, most + 1)
    for i, (why, name) in enumerate(reasons.items()):
        counts = table.loc[table["why"] == why, "tokens"].value_counts().reindex(lengths, fill_value=0)
        if not counts.any():
            continue
        figure.add_trace(
            go.Bar(
                x=lengths,
                y=counts,
                name=name,
                marker={"color": SOFT[view.theme] if why == "stopped" else SERIES[view.theme][i]},
                hovertemplate=f"%{{y}} segments of %{{x}} tokens<br>{name}<extra></extra>",
            )
        )
    figure.update_xaxes(title="tokens of a segment", dtick=1, range=[0.5, most + 0.5])
    figure.update_yaxes(title="segments", rangemode="tozero")
    figure = styled(figure, view.theme, 340)
    figure.update_layout(barmode="stack", showlegend=True)
    return figure


FIGURES: dict[str, Callable[[Generation, GenerationView], Figure]] = {
    "answer": answer,
    "film": film,
    "timeline": timeline,
    "endings": endings,
}


def draw(name: str, generation: Generation, view: GenerationView) -> Figure:
    """Draw a figure by name.

    Raises:
        MicroStepError: no figure has this name.
    """
    check_figure(name, FIGURES)
    return FIGURES[name](generation, view)
