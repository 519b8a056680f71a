"""The figures of a sweep over tau and eps: curves over tau, quality over passes saved, and all segments."""

from __future__ import annotations

from collections.abc import Callable

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.figure import Figure, check_figure
from analysis.figures.static_strip import LONGEST, Page, around, wrap
from analysis.figures.theme import BLUE, ORANGE, SERIES, SOFT, styled
from analysis.generation.figures import LEGEND, MARGIN, honest, still_row
from analysis.generation.sweep import Sweep
from analysis.generation.tables import sweep_table, sweep_token_table
from analysis.generation.view import GenerationView

DASHES = ("solid", "dash", "dot")  # of the values of eps, from 1 down


def curves(sweep: Sweep, view: GenerationView) -> Figure:
    """Tokens per macro step, agreement, NLL and speed over tau."""
    return Figure(
        "sweep",
        "What tau does",
        f"{honest(sweep.generations[0])}The same prompt with several values of tau; above 1, the base alone writes. "
        f"{_dashes(sweep)}Horizontal, dashed: the base. Speed was measured in these runs on this machine, and differs "
        "between runs.",
        lambda: _draw(sweep, view),
        lambda: sweep_table(sweep, view.unit),
    )


def quality(sweep: Sweep, view: GenerationView) -> Figure:
    """What fewer passes cost: the nll ratio over tokens per macro step."""
    return Figure(
        "sweep_quality",
        "What fewer passes cost",
        f"{honest(sweep.generations[0])}A point for each run; nll ratio: the nats per token that the base gives the "
        "answer, divided by those of its own answer. The diamond is the base alone, at 1 and 1.",
        lambda: _draw_quality(sweep, view),
        lambda: sweep_table(sweep, view.unit),
    )


def segments(sweep: Sweep, view: GenerationView) -> Figure:
    """The segments for each tau."""
    how = honest(sweep.generations[0]) + "A row for each tau, shaded by the probability of each token; a gap starts a "
    "segment."
    return Figure(
        "sweep_segments",
        "Segments for each tau",
        how if sweep.one_text else f"{how} The texts differ, so they are not aligned.",
        lambda: _draw_segments(sweep, view),
        lambda: sweep_token_table(sweep),
    )


def _dashes(sweep: Sweep) -> str:
    """Which line belongs to which eps."""
    if len(sweep.epsilons) < 2:
        return ""
    told = (f"eps {eps:g} {DASHES[i % len(DASHES)]}" for i, eps in enumerate(sweep.epsilons))
    return f"Lines: {', '.join(told)}. "


def _draw(sweep: Sweep, view: GenerationView) -> go.Figure:
    table = sweep_table(sweep, view.unit)
    panels = (
        ("tokens_per_macro_step", "tokens per macro step", 1.0, ".2f"),
        _agreement(sweep, float(table["likeliest_base"].iloc[0])),
        ("nll", f"{view.unit} per token under the base", table["nll_base"].iloc[0], ".2f"),
        ("speed_ratio", "speed over the base's", 1.0, ".2f"),
    )
    figure = make_subplots(
        rows=2,
        cols=2,
        shared_xaxes=True,
        horizontal_spacing=0.1,
        vertical_spacing=0.16,
        subplot_titles=[title for _, title, _, _ in panels],
    )
    for i, (name, title, level, form) in enumerate(panels):
        place = {"row": i // 2 + 1, "col": i % 2 + 1}
        color = BLUE[view.theme] if name == "speed_ratio" else ORANGE[view.theme]
        for number, (eps, line) in enumerate(table.groupby("eps", sort=False)):
            figure.add_trace(
                go.Scatter(
                    x=line["tau"],
                    y=line[name],
                    mode="lines+markers",
                    line={"color": color, "width": 2, "dash": DASHES[number % len(DASHES)]},
                    hovertemplate=f"tau %{{x}}, eps {eps:g}<br>{title} %{{y:{form}}}<extra></extra>",
                    showlegend=False,
                ),
                **place,
            )
        figure.add_hline(y=level, line={"color": SOFT[view.theme], "width": 1, "dash": "dash"}, **place)
    figure = styled(figure, view.theme, 460)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(tickformat=".0%", range=[0, 1.05], row=1, col=2)
    figure.update_xaxes(title="tau", row=2)
    figure.update_annotations(font={"size": 13})
    return figure


def _draw_quality(sweep: Sweep, view: GenerationView) -> go.Figure:
    table = sweep_table(sweep, view.unit)
    over, other = ("eps", "tau") if len(sweep.epsilons) > 1 else ("tau", "eps")
    figure = go.Figure()
    for number, (value, line) in enumerate(table.groupby(other, sort=False)):
        figure.add_scatter(
            x=line["tokens_per_macro_step"],
            y=line["nll_ratio"],
            text=[f"{over} {each:g}" for each in line[over]],
            mode="lines+markers+text",
            textposition="top center",
            cliponaxis=False,
            line={"color": SERIES[view.theme][number % len(SERIES[view.theme])], "width": 2},
            name=f"{other} {value:g}",
            hovertemplate="%{text}<br>%{x:.2f} tokens per macro step<br>nll ratio %{y:.3f}<extra></extra>",
            showlegend=len(table[other].unique()) > 1,
        )
    figure.add_scatter(
        x=[1], y=[1], mode="markers", name="the base alone", marker={"symbol": "diamond", "size": 10},
        marker_color=SOFT[view.theme], hovertemplate="the base alone<extra></extra>",
    )  # fmt: skip
    figure = styled(figure, view.theme, 340)
    figure.update_xaxes(title="tokens per macro step")
    figure.update_yaxes(title="nll ratio")
    return figure


def _agreement(sweep: Sweep, base: float) -> tuple[str, str, float, str]:
    """The title of the agreement panel: two sampled answers are not compared token by token."""
    if sweep.generations[0].how.sampled:
        return "likeliest", "tokens that are the base's likeliest", base, ".0%"
    return "agreement", "tokens equal to the base's", 1.0, ".0%"


def _draw_segments(sweep: Sweep, view: GenerationView) -> go.Figure:
    page = Page(view.theme)
    rows = [(sweep.name_of(each), each.micro, still_row(each, each.micro, own=True)) for each in sweep.generations]
    if sweep.one_text:
        text = rows[0][1].text
        for line in around(text, None):
            for name, _, row in rows:
                page.add_row(text, line, name, row)
            page.gap()
        return page.figure(LEGEND, MARGIN)
    for name, answer, row in rows:
        for line in wrap(answer.text, 0, min(len(answer.text), LONGEST // len(rows))):
            page.add_row(answer.text, line, name, row)
        page.gap()
    return page.figure(LEGEND, MARGIN)


FIGURES: dict[str, Callable[[Sweep, GenerationView], Figure]] = {
    "sweep": curves,
    "sweep_quality": quality,
    "sweep_segments": segments,
}


def draw(name: str, sweep: Sweep, view: GenerationView) -> Figure:
    """Draw a figure by name.

    Raises:
        MicroStepError: no figure has this name.
    """
    check_figure(name, FIGURES)
    return FIGURES[name](sweep, view)
