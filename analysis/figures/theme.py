"""The colours of all figures and of the token strip, and the common layout of figures.

A sequential scale shows amounts, and a diverging pair shows A or B, more or less. Both are readable with the common
forms of colour blindness (orange and blue) and in grey print (lightness is monotone).
"""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.view import Theme

RGB = tuple[int, int, int]

# Text on the colours of a scale is black in the light theme and white in the dark one, never now one and now the other:
# each scale stays on its side of the lightness at which both can be read (4.5 to 1).
SEQUENTIAL: dict[Theme, tuple[RGB, ...]] = {
    "light": ((255, 255, 255), (253, 230, 200), (246, 173, 98), (207, 82, 18)),
    "dark": ((27, 30, 34), (66, 49, 34), (130, 68, 28), (196, 78, 16)),
}
DIVERGING: dict[Theme, tuple[RGB, ...]] = {
    "light": ((74, 134, 240), (255, 255, 255), (219, 98, 34)),  # less, equal, more
    "dark": ((46, 104, 226), (27, 30, 34), (196, 78, 16)),
}
ON_COLOUR: dict[Theme, str] = {"light": "#000000", "dark": "#ffffff"}
ORANGE = {"light": "#c2410c", "dark": "#fb923c"}  # model A; "more"
BLUE = {"light": "#1d4ed8", "dark": "#60a5fa"}  # model B; "less"

# For strategies, which are many and have no order: hues that colour-blind readers can tell apart (after Okabe and Ito).
SERIES = {
    "light": ("#0072b2", "#c2410c", "#00805c", "#a8457f", "#7a6000", "#3d8fc4", "#5d6066", "#6d3fa0"),
    "dark": ("#5bb5ec", "#fb923c", "#3ccf9f", "#e6a3c8", "#e3c04a", "#a6d8ff", "#b9bdc4", "#c39be0"),
}

INK = {"light": "#1d1f23", "dark": "#e7e8ea"}
SOFT = {"light": "#63686f", "dark": "#9aa0a8"}
LINE = {"light": "#e4e5e2", "dark": "#2a2e33"}
CARD = {"light": "#ffffff", "dark": "#1b1e22"}


def colorscale(theme: Theme, signed: bool = False) -> list[list[float | str]]:
    """The sequential scale, or the diverging one, in plotly's format."""
    ramp = (DIVERGING if signed else SEQUENTIAL)[theme]
    return [[i / (len(ramp) - 1), f"rgb{color}"] for i, color in enumerate(ramp)]


def styled(figure: go.Figure, theme: Theme, height: int) -> go.Figure:
    """Give a figure the project's style: font, grid, background and hover labels."""
    axis = {"gridcolor": LINE[theme], "zerolinecolor": LINE[theme], "linecolor": LINE[theme], "automargin": True}
    figure.update_layout(
        height=height,
        paper_bgcolor=CARD[theme],
        plot_bgcolor=CARD[theme],
        font={"color": INK[theme], "family": "system-ui, 'DejaVu Sans', sans-serif", "size": 13},
        hoverlabel={"font": {"family": "'DejaVu Sans Mono', ui-monospace, monospace"}, "align": "left"},
        margin={"l": 56, "r": 16, "t": 30, "b": 48},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        barmode="overlay",
        hovermode="closest",
    )
    figure.update_xaxes(**axis)
    figure.update_yaxes(**axis)
    return figure
