"""A comparison as one figure: how near to the base, how fast and how small the cache is, by tokens a pass."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figures.figure import safe
from analysis.figures.theme import INK, SERIES, SOFT, styled

Row = dict[str, Any]
TOKENS = "tokens_per_macro_step"
PANELS = {
    "nll_ratio": "NLL under the base over its own answers'",
    "agreement": "Tokens that the base would choose",
    "speedup": "Speed over the base's",
    "cache_of_base": "Cache over the base's",
}
WAYS = ("model", "rule", "by_cost")  # these have lines of their own
SETTINGS = {"tau": "tau", "eps": "eps", "max_segment_length": "M"}
LABELS = ("top right", "bottom right", "top left", "bottom left")  # lines share points
DASHES = ("solid", "dash", "dot")


def draw(report: dict[str, Any]) -> go.Figure:
    """A panel a quantity over tokens a pass, a line a model and setting that varies, with 95% intervals.

    A point is labelled with the value of the setting. The base is at 1 token a pass, and at 1 in all ratios.
    """
    figure = make_subplots(2, 2, subplot_titles=list(PANELS.values()), vertical_spacing=0.16)
    rows = [row for row in report["rows"] if row["tau"] is not None]
    sizes = sorted({row["at_a_time"] for row in rows})
    lines = list(_lines([row for row in rows if row["at_a_time"] == sizes[-1]], report["crossed"]))
    for number, (name, setting, longest) in enumerate(lines):
        for size in sizes:
            own = (*WAYS, *SETTINGS)
            line = [row for of in longest for row in rows if _of(row, own) == _of(of, own) and row["at_a_time"] == size]
            for place, key in enumerate(PANELS):
                if size != sizes[-1] and key != "speedup":
                    continue  # it hardly depends on how many are answered at a time
                value, low, high = np.array([row[key] for row in line], dtype=float).T
                figure.add_trace(
                    go.Scatter(
                        x=[row[TOKENS][0] for row in line],
                        y=value,
                        error_y={"array": high - value, "arrayminus": value - low, "thickness": 1, "width": 3},
                        mode="lines+markers+text",
                        text=[f"{row[setting]:g}" for row in line],
                        textposition=LABELS[number % len(LABELS)],
                        textfont={"size": 10, "color": SERIES["light"][number % len(SERIES["light"])]},
                        line={
                            "color": SERIES["light"][number % len(SERIES["light"])],
                            "dash": DASHES[sizes.index(size) % len(DASHES)],
                        },
                        name=name + (f", {size} at a time" if len(sizes) > 1 else ""),
                        legendgroup=f"{number} {size}",
                        showlegend=key == "speedup",
                    ),
                    row=place // 2 + 1,
                    col=place % 2 + 1,
                )
    for place in range(len(PANELS)):
        at = {"row": place // 2 + 1, "col": place % 2 + 1}
        figure.add_hline(y=1, line={"color": SOFT["light"], "dash": "dot"}, **at)
        base = go.Scatter(
            x=[1], y=[1], name="base", mode="markers", marker={"color": INK["light"], "symbol": "square", "size": 8}
        )
        figure.add_trace(base.update(showlegend=not place, legendgroup="base"), **at)
    styled(figure, "light", 800)
    figure.update_xaxes(title="tokens a pass")
    figure.update_layout(legend={"y": 1.06}, margin={"t": 90})
    return figure


def _lines(rows: Sequence[Row], crossed: bool) -> Iterator[tuple[str, str, list[Row]]]:
    """Name, setting and rows of each line: the rows of a model that differ in this setting alone.

    Of settings that were crossed, it is the first one that has several values, and there is a line for each combination
    of the others. Else it is each that has several, and the others have their first value.
    """
    for model, rule, by_cost in dict.fromkeys(_of(row, WAYS) for row in rows):
        own = [row for row in rows if _of(row, WAYS) == (model, rule, by_cost)]
        varied = [key for key in SETTINGS if len({row[key] for row in own}) > 1] or ["tau"]
        for setting in varied[:1] if crossed else varied:
            others = [key for key in SETTINGS if key != setting]
            for fixed in dict.fromkeys(_of(row, others) for row in (own if crossed else own[:1])):
                line = [row for row in own if _of(row, others) == fixed]
                at = [
                    f"{SETTINGS[key]} {value:g}" for key, value in zip(others, fixed, strict=True) if value is not None
                ]
                name = ", ".join([f"{safe(model)}, {rule}: {SETTINGS[setting]} varies", *at, *["by cost"] * by_cost])
                yield name, setting, sorted(line, key=lambda row: row[setting])


def _of(row: Row, keys: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[key] for key in keys)
