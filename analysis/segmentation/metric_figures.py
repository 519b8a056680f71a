"""Figures that judge segmentations: statistics, length histograms, agreement, and parameter against mean length."""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from analysis.figures.figure import Figure
from analysis.figures.theme import INK, SERIES, colorscale, styled
from analysis.score_registry import significant, unit_of
from analysis.segmentation.comparison import StrategyComparison
from analysis.segmentation.segmented_text import SegmentedText
from analysis.segmentation.strategy import scale
from analysis.segmentation.view import METRICS, CutView
from analysis.view import Theme
from model.segmentation.segment import Parameter
from model.segmentation.solver import length_curve

MANY_TOKENS = 200_000  # with more strategies than this, curves have fewer points
FEW_POINTS = 13


def statistics(bench: StrategyComparison, view: CutView) -> Figure:
    """The mean length of every segmentation, with all other statistics in the data."""
    data = bench.statistics_table()

    def make() -> go.Figure:
        figure = go.Figure()
        mean = data["mean_length"]
        figure.add_scatter(
            x=mean,
            y=np.arange(len(data)),
            mode="markers",
            marker={"size": 9, "color": [_color(cut, view.theme) for cut in bench.judged]},
            error_x={
                "array": data["mean_length_high"] - mean,
                "arrayminus": mean - data["mean_length_low"],
                "color": INK[view.theme],
                "thickness": 1,
            },
            hovertemplate="%{x:.3g} tokens<extra></extra>",
        )
        figure.update_xaxes(title="mean segment length, tokens", range=[0.9, bench.request.max_length + 0.1])
        figure.update_yaxes(
            tickvals=np.arange(len(data)), ticktext=list(data["segmentation"]), range=[len(data) - 0.5, -0.5]
        )
        return styled(figure, view.theme, 110 + 26 * len(data))

    return Figure(
        "statistics",
        "Lengths and words",
        "Tokens per segment with the 95% interval if there are enough segments, without the prompt. Words: agreement "
        "of boundaries with word starts.",
        make,
        lambda: data,
    )


def lengths(bench: StrategyComparison, view: CutView) -> Figure:
    """The share of segments of each length."""
    longest = bench.request.max_length
    rows = []
    for cut in bench.judged:
        histogram = np.zeros(longest + 1)
        found = bench.statistics(cut).histogram[: longest + 1]
        histogram[: len(found)] = found
        for length in range(1, longest + 1):
            share = histogram[length] / histogram.sum() if histogram.sum() else np.nan
            rows.append(
                {"segmentation": cut.name, "length": length, "segments": int(histogram[length]), "share": share}
            )
    data = pd.DataFrame(rows, columns=["segmentation", "length", "segments", "share"])

    def make() -> go.Figure:
        figure = go.Figure()
        for cut in bench.judged:
            own = data[data["segmentation"] == cut.name]
            figure.add_bar(
                x=own["length"],
                y=own["share"],
                name=cut.name,
                marker={"color": _color(cut, view.theme), "pattern": {"shape": _pattern(bench, cut)}},
                customdata=own["segments"],
                hovertemplate="%{customdata} segments of %{x}, %{y:.1%}<extra>" + cut.name + "</extra>",
            )
        figure.update_xaxes(title="tokens of a segment", dtick=1 if longest <= 24 else None)
        figure.update_yaxes(title="share of segments", tickformat=".0%")
        return styled(figure, view.theme, 340).update_layout(barmode="group", showlegend=len(bench.judged) > 1)

    return Figure(
        "lengths",
        "How long segments are",
        f"Share of segments of each length, without the prompt; the longest possible segment has {longest} tokens.",
        make,
        lambda: data,
    )


def agreement(bench: StrategyComparison, view: CutView) -> Figure:
    """The agreement of every pair of segmentations."""
    title, meaning = METRICS[view.metric]
    names = [cut.name for cut in bench.judged]
    rows = []
    for reference in bench.judged:
        for hypothesis in bench.judged:
            found, between = bench.agreement(reference, hypothesis)
            measures = {name: getattr(found, name) for name in METRICS}
            rows.append(
                {"reference": reference.name, "hypothesis": hypothesis.name, **measures, "k": found.k, "over": between}
            )
    data = pd.DataFrame(rows)
    matrix = data[view.metric].to_numpy(dtype=np.float64).reshape(len(names), len(names)) if rows else np.empty((0, 0))

    def make() -> go.Figure:
        figure = go.Figure(
            go.Heatmap(
                z=matrix.astype(np.float32),
                x=np.arange(len(names)),
                y=np.arange(len(names)),
                zmin=0,
                zmax=1,
                colorscale=colorscale(view.theme),
                text=[[significant(float(value), 2) for value in row] for row in matrix],
                texttemplate="%{text}",
                hovertemplate="row %{y}, column %{x}<br>%{z:.3f}<extra></extra>",
                xgap=2,
                ygap=2,
                colorbar={"thickness": 10, "title": title},
            )
        )
        ticks = {"tickvals": np.arange(len(names)), "ticktext": names}
        figure.update_xaxes(**ticks, title="column", tickangle=-35)
        figure.update_yaxes(**ticks, title="row: the reference", autorange="reversed")
        return (
            styled(figure, view.theme, 190 + 30 * len(names)).update_xaxes(showgrid=False).update_yaxes(showgrid=False)
        )

    return Figure(
        "agreement",
        "Where they agree",
        f"{title}: {meaning} Compared by tokens if both models have the same ones, else by characters. Starts "
        "that every rule has (first token or score, prompt) do not count; no window crosses the end of a document.",
        make,
        lambda: data,
    )


def curves(bench: StrategyComparison, view: CutView) -> Figure:
    """The mean length as a function of the parameter, for every strategy."""

    @cache
    def solved() -> list[tuple[SegmentedText, Parameter, NDArray[np.float64], NDArray[np.float64]]]:
        return [(cut, *_curve(bench, cut)) for cut in bench.judged if cut.strategy.rule.solves is not None]

    def table() -> pd.DataFrame:
        rows = []
        for cut, parameter, curve, lengths_there in solved():
            factor = scale(parameter.unit, view.unit)
            for value, length in zip(curve.tolist(), lengths_there.tolist(), strict=True):
                head = {
                    "segmentation": cut.name,
                    "parameter": parameter.name,
                    "unit": unit_of(parameter.unit, view.unit),
                }
                rows.append({**head, "value": value * factor, "mean_length": length})
        return pd.DataFrame(rows, columns=["segmentation", "parameter", "value", "mean_length", "unit"])

    def make() -> go.Figure:
        found = solved()
        units = list(dict.fromkeys(parameter.unit for _, parameter, _, _ in found))
        figure = make_subplots(cols=max(1, len(units)), shared_yaxes=True, horizontal_spacing=0.03)
        for cut, parameter, curve, there in found:
            column, factor = units.index(parameter.unit) + 1, scale(parameter.unit, view.unit)
            moving = _moving(there)
            color, dash = _color(cut, view.theme), "dash" if _pattern(bench, cut) else "solid"
            now = cut.strategy.parameters[parameter.name] * factor
            figure.add_scatter(
                x=curve[moving] * factor, y=there[moving], mode="lines", name=cut.name,
                line={"color": color, "dash": dash, "width": 1.6},
                hovertemplate=f"{parameter.name} %{{x:.3g}}: %{{y:.3g}} tokens<extra>{cut.name}</extra>",
                row=1, col=column,
            )  # fmt: skip
            figure.add_scatter(
                x=[now], y=[bench.statistics(cut).mean_length], mode="markers", showlegend=False,
                marker={"color": color, "size": 9, "line": {"color": INK[view.theme], "width": 1}},
                hovertemplate=f"now %{{x:.3g}}: %{{y:.3g}} tokens<extra>{cut.name}</extra>", row=1, col=column,
            )  # fmt: skip
        for column, unit in enumerate(units, 1):
            figure.update_xaxes(title=f"parameter, {unit_of(unit, view.unit)}", row=1, col=column)
        figure.update_yaxes(title="mean length, tokens", row=1, col=1)
        return styled(figure, view.theme, 360)

    return Figure(
        "curves",
        "Mean length by parameter",
        "Mean segment length in tokens, after the cap, for each value of the parameter; the dot marks the current "
        "value. One panel for each unit.",
        make,
        table,
    )


def _curve(bench: StrategyComparison, cut: SegmentedText) -> tuple[Parameter, NDArray[np.float64], NDArray[np.float64]]:
    strategy, longest = cut.strategy, bench.request.max_length
    points = FEW_POINTS if len(cut.found) > MANY_TOKENS else 33
    others = strategy.others
    key = ("curve", cut.side, strategy.name, tuple(others.items()), longest, bench.request.how)
    curve, there = bench.kept.get(key, lambda: length_curve(strategy.name, cut.inputs, longest, points, **others))
    return strategy.rule.parameter(str(strategy.rule.solves)), curve, there


def _moving(lengths_there: NDArray[np.float64]) -> slice:
    """The part of a curve that is not flat, with one more point at each end."""
    changes = np.flatnonzero(np.diff(lengths_there))
    if not len(changes):
        return slice(0, len(lengths_there))
    return slice(max(0, int(changes[0]) - 1), int(changes[-1]) + 3)


def _pattern(bench: StrategyComparison, cut: SegmentedText) -> str:
    """The pattern of a model: the second is hatched and dashed."""
    return "/" if bench.sides and cut.side.key != bench.sides[0].key else ""


def _color(cut: SegmentedText, theme: Theme) -> str:
    """The colour of a strategy; models differ by line and pattern."""
    return SERIES[theme][cut.number % len(SERIES[theme])]
