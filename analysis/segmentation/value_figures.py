"""Figures over the text: segments as a static strip, a rule's values, unstable boundaries, limited history."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from numpy.typing import NDArray
from plotly.subplots import make_subplots

from analysis.figures.figure import Figure, safe
from analysis.figures.static_strip import Page, StillRow, around
from analysis.figures.theme import BLUE, INK, LINE, ORANGE, SOFT, styled
from analysis.score_registry import PER_NAT, significant, unit_of
from analysis.segmentation.comparison import StrategyComparison, value_axis
from analysis.segmentation.metrics import Stability, stability
from analysis.segmentation.segmented_text import SegmentedText, TokenizedText
from analysis.segmentation.strategy import scale
from analysis.segmentation.view import CutView
from analysis.view import Theme
from model.errors import MicroStepError

MOST_POINTS = 2000  # points of a curve in the picture; its data has all
TONES = (0.14, 0.34)  # shades of neighbouring segments, on the sequential scale


def segments(bench: StrategyComparison, view: CutView) -> Figure:
    """The segments of all strategies, one below the other and aligned by character."""

    def make() -> go.Figure:
        page = Page(view.theme)
        rows = [(name, _still(cuts[0])) for name, cuts in bench.rows]
        text = bench.sides[0].text if bench.sides else ""
        for line in around(text, view.pinned):
            for name, row in rows:
                page.add_row(text, line, name, row)
            page.gap()
        widest = max((len(name) for name, _ in rows), default=0)
        return page.figure("Neighbouring segments differ in tone; a gap is a boundary.", margin=widest + 2)

    return Figure(
        "segments",
        "Segment by segment",
        "A row for each strategy, and one for both models where they segment alike: neighbouring segments differ in "
        "tone, and a notch is a boundary. The prompt of a chat is faint, since it is not merged.",
        make,
        lambda: bench.token_table(view.unit),
    )


def _still(cut: SegmentedText) -> StillRow:
    tone = np.array(TONES)[cut.found.segment % 2]

    def hover(i: int) -> str:
        return f"segment {int(cut.found.segment[i])}, {int(cut.found.lengths[cut.found.segment[i]])} tokens"

    return StillRow(cut.side.start, cut.side.end, tone, hover, cut.found.starts)


def values(bench: StrategyComparison, view: CutView) -> Figure:
    """The values that the chosen strategy compares with its threshold, token by token."""
    chosen = bench.chosen(view)
    strategy = chosen[0].strategy
    rule, factor = strategy.rule, scale(strategy.rule.unit, view.unit)
    bar = None if strategy.bar is None else strategy.bar * factor

    def table() -> pd.DataFrame:
        tables = [bench.tokens(cut, view.unit) for cut in chosen]
        return pd.concat(tables, ignore_index=True).assign(bar=np.nan if bar is None else bar)

    def make() -> go.Figure:
        figure = go.Figure()
        for cut in chosen:
            side, compared = cut.side, cut.found.value.astype(np.float64) * factor
            seen = np.flatnonzero((side.start >= 0) & ~np.isnan(compared))
            seen = seen[_outline(compared[seen])]
            x, y, starts = (side.start[seen] + side.end[seen]) / 2, compared[seen], cut.found.starts[seen]
            words = np.array([safe(side.display[i]) for i in seen.tolist()], dtype=object)
            template = f"%{{customdata}}<br>%{{y:.3g}}<extra>{cut.name}</extra>"
            color = _side_color(side, view.theme)
            figure.add_scatter(
                x=x, y=y, name=cut.name, mode="lines", line={"color": color, "width": 1},
                customdata=words, hovertemplate=template,
            )  # fmt: skip
            if len(seen) < MOST_POINTS // 2:
                figure.add_scatter(
                    x=x[starts], y=y[starts], name=f"{cut.name}, starts a segment", mode="markers",
                    marker={"color": color, "size": 5}, customdata=words[starts], hovertemplate=template,
                    showlegend=False,
                )  # fmt: skip
        if bar is not None:  # a trace, not a shape: plotly leaves old shapes behind if they move fast
            figure.add_scatter(
                x=[0, max(1, len(chosen[0].side.text))], y=[bar, bar], mode="lines+text", showlegend=False,
                line={"color": INK[view.theme], "width": 1.5, "dash": "dash"}, hoverinfo="skip",
                text=["", significant(bar)], textposition="middle right", textfont={"color": INK[view.theme]},
                cliponaxis=False,
            )  # fmt: skip
        _pin(figure, view)
        figure.update_xaxes(title="character of the text")
        figure.update_yaxes(title=value_axis(rule, view.unit))
        figure.update_layout(uirevision=strategy.name, showlegend=len(chosen) > 1)
        return styled(figure, view.theme, 300).update_layout(margin_r=52)

    side = "above" if rule.opens == "above" else "below"
    return Figure(
        "values",
        f"What decides: {rule.value}",
        f"{rule.title}: a token starts a segment when {rule.meaning}. Dots mark the starts: {side} the dashed "
        f"threshold, or at the longest segment of {bench.request.max_length} tokens.",
        make,
        table,
    )


def _outline(values: NDArray[np.floating]) -> NDArray[np.int64]:
    """At most MOST_POINTS positions that keep a curve's outline: the extremes of each stretch."""
    n = len(values)
    if n <= MOST_POINTS:
        return np.arange(n)
    edges = np.linspace(0, n, MOST_POINTS // 2 + 1).astype(int)
    kept = [
        place
        for a, b in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True)
        for place in sorted({a + int(values[a:b].argmin()), a + int(values[a:b].argmax())})
    ]
    return np.array(kept)


def unstable(bench: StrategyComparison, view: CutView) -> Figure:
    """Boundaries that change with a small change of the parameter, or in another precision."""
    found = [(cut, _stability(bench, cut, view)) for cut in bench.shown]
    tables = []
    for cut, each in found:
        side, flips = cut.side, each.by_parameter | each.by_scores
        columns = {
            "segmentation": cut.name,
            "position": np.flatnonzero(flips),
            "start": side.start[flips],
            "token": pd.Series([side.display[i] for i in np.flatnonzero(flips)], dtype="str"),
            "by_parameter": each.by_parameter[flips],
            "by_precision": each.by_scores[flips],
            "distance": each.distance[flips].astype(np.float64) * scale(cut.strategy.rule.unit, view.unit),
            "unit": unit_of(cut.strategy.rule.unit, view.unit),
            "share_by_parameter": each.by_parameter.mean(),
            "share_by_precision": each.by_scores.mean() if bench.others else np.nan,
        }
        tables.append(pd.DataFrame(columns))
    data = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()

    def make() -> go.Figure:
        figure = go.Figure()
        kinds = [("by_parameter", "small change of the parameter", ORANGE, -0.18)]
        kinds += [("by_scores", "other precision", BLUE, 0.18)] if bench.others else []
        for name, title, color, lift in kinds:
            x: list[float] = []
            y: list[float] = []
            words: list[str] = []
            for i, (cut, each) in enumerate(found):
                for place in np.flatnonzero(getattr(each, name) & (cut.side.start >= 0)).tolist():
                    x.append((int(cut.side.start[place]) + int(cut.side.end[place])) / 2)
                    y.append(i + lift)
                    words.append(safe(cut.side.display[place]))
            marker = {"symbol": "line-ns-open", "size": 10, "color": color[view.theme], "line": {"width": 1.5}}
            figure.add_scatter(
                x=x, y=y, mode="markers", name=title, marker=marker, customdata=words,
                hovertemplate="%{customdata}, character %{x:.0f}<extra></extra>",
            )  # fmt: skip
        _pin(figure, view)
        figure.update_xaxes(title="character of the text", range=[0, max(1, len(bench.sides[0].text))])
        figure.update_yaxes(
            tickvals=list(range(len(found))),
            ticktext=[f"{cut.name}<br>{_shares(each, bool(bench.others))}" for cut, each in found],
            range=[len(found) - 0.5, -0.5],
        )
        figure.update_layout(showlegend=True)
        return styled(figure, view.theme, 130 + 44 * len(found))

    what = f"if its parameter is {view.change:.0%} smaller or larger (a whole number: by 1; 0: by {view.change:g}"
    what += f"{' nats' if any(cut.strategy.rule.unit == 'nats' for cut in bench.shown) else ''})"
    what += f", or if the model computes in {bench.others[0].facts.dtype}" if bench.others else ""
    return Figure(
        "unstable",
        "Which boundaries are unstable",
        f"A mark where a token changes between starting a segment and joining one, {what}. Shares are of all tokens.",
        make,
        lambda: data,
    )


def _shares(found: Stability, both: bool) -> str:
    shares = [found.by_parameter.mean(), *([found.by_scores.mean()] if both else [])]
    return " / ".join(f"{significant(100 * float(share))}%" for share in shares) + " flip"


def _stability(bench: StrategyComparison, cut: SegmentedText, view: CutView) -> Stability:
    request = bench.request
    other = next((side for side in bench.others if side.key == cut.side.key), None)

    def make() -> Stability:
        inputs = None if other is None else other.inputs_for(request.segmenter(cut.strategy))
        return stability(
            cut.strategy.name, cut.inputs, inputs, request.max_length, view.change, **cut.strategy.parameters
        )

    return bench.kept.get(("stability", cut, other, view.change), make)


def history(bench: StrategyComparison, view: CutView) -> Figure:
    """Entropy with limited and with full history, and how much the far context matters.

    Raises:
        MicroStepError: no limited history was asked for, or it was not computed.
    """
    asked = bench.request.history
    sides = [side for side in bench.sides if asked in side.extras] if asked is not None else []
    if asked is None or not sides:
        raise MicroStepError("no limited history was computed; give --window, the tokens that the model sees")
    data = pd.concat([_excess(side, side.extras[asked].values["limited_entropy"], view) for side in sides])

    def make() -> go.Figure:
        figure = make_subplots(rows=len(sides) + 1, shared_xaxes=True, vertical_spacing=0.06)
        for row, side in enumerate(sides, 1):
            table = data[(data["model"] == side.key) & (data["start"] >= 0) & data["excess"].notna()]
            kept = table.iloc[_outline(table["excess"].to_numpy())]
            x, words = (kept["start"] + kept["end"]) / 2, [safe(token) for token in kept["token"]]
            color = _side_color(side, view.theme)
            for name, line in (("entropy", {"color": SOFT[view.theme]}), ("limited_entropy", {"color": color})):
                shown = name.replace("_entropy", " history").replace("entropy", "full history")
                figure.add_scatter(
                    x=x, y=kept[name], name=f"{side.key} {shown}", mode="lines", line={**line, "width": 1.2},
                    customdata=words, hovertemplate=f"%{{customdata}}<br>%{{y:.3g}} {view.unit}<extra></extra>",
                    row=row, col=1,
                )  # fmt: skip
            figure.update_yaxes(title=f"{side.key}: H, {view.unit}", rangemode="tozero", row=row, col=1)
            figure.add_bar(
                x=x, y=kept["excess"], name=f"{side.key} excess D", marker={"color": color, "line": {"width": 0}},
                customdata=words, hovertemplate=f"%{{customdata}}<br>D %{{y:+.3g}} {view.unit}<extra></extra>",
                opacity=0.7, row=len(sides) + 1, col=1,
            )  # fmt: skip
        figure.update_yaxes(title=f"D, {view.unit}", zerolinecolor=LINE[view.theme], row=len(sides) + 1, col=1)
        figure.update_xaxes(title="character of the text", row=len(sides) + 1, col=1)
        _pin(figure, view)
        return styled(figure, view.theme, 150 + 150 * len(sides) + 60)

    means = "; ".join(
        f"{side.key}: mean D {significant(float(data.loc[data['model'] == side.key, 'excess'].mean()))} {view.unit}"
        for side in sides
    )
    note = sides[0].extras[asked].note
    return Figure(
        "history",
        "How much the far context matters",
        f"Entropy given only the last tokens ({note}), and the full entropy; D is limited minus full. {means}.",
        make,
        lambda: data.reset_index(drop=True),
    )


def _excess(side: TokenizedText, limited: NDArray[np.floating], view: CutView) -> pd.DataFrame:
    full = side.inputs.entropy
    if full is None:
        raise MicroStepError("these tokens have no entropies to compare with")
    per = PER_NAT[view.unit]
    return pd.DataFrame(
        {
            "model": side.key,
            "position": np.arange(len(side)),
            "token": pd.Series(side.display, dtype="str"),
            "start": side.start,
            "end": side.end,
            "entropy": full.astype(np.float64) * per,
            "limited_entropy": limited.astype(np.float64) * per,
            "excess": (limited.astype(np.float64) - full.astype(np.float64)) * per,
            "unit": view.unit,
        }
    )


def _pin(figure: go.Figure, view: CutView) -> None:
    if view.pinned is not None:
        figure.add_vline(x=view.pinned + 0.5, line={"color": INK[view.theme], "width": 1, "dash": "dot"})


def _side_color(side: TokenizedText, theme: Theme) -> str:
    """The colour of a model, as in all figures: A is orange, B is blue."""
    return (BLUE if side.key == "B" else ORANGE)[theme]
