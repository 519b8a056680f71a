"""The film as a figure: one self-contained page of HTML, a still picture, and the table behind both."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.figures.figure import Figure
from analysis.figures.theme import BLUE, CARD, INK, ORANGE, SOFT, styled
from analysis.generation.film import Film
from analysis.generation.result import Generation
from analysis.generation.summary import finding, kind
from analysis.generation.view import GenerationView

HERE = Path(__file__).parent


def script() -> str:
    """The module that draws a film; its default export mounts it."""
    return (HERE / "film.js").read_text("utf-8")


def style() -> str:
    """Its style sheet."""
    return (HERE / "film.css").read_text("utf-8")


def film(generation: Generation, view: GenerationView) -> Figure:
    """What each macro step drafted, kept and refused."""
    made = Film(generation)
    return Figure(
        "film",
        "The generation as a film",
        f"{made.folding} {made.movable}",
        lambda: _still(made, view),
        made.table,
        lambda: page(generation, view),
    )


def page(generation: Generation, view: GenerationView) -> str:
    """One page of HTML that needs no network and allows none: its policy names the hashes of its script and style."""
    data = {"reel": Film(generation).reel(), "theme": view.theme}
    start = "mount({parentElement: document.getElementById('film'), data});"
    read = "const data = JSON.parse(document.getElementById('data').textContent);"
    module = "\n".join([script().replace("export default function", "function"), read, start])
    ground, ink = CARD[view.theme], INK[view.theme]
    sheet = (
        f"{style()}body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem; background: {ground}; color: {ink}; }}"
    )
    sheet += (
        "h1, body > p { font-family: system-ui, sans-serif; } h1 { font-size: 1.2rem; } body > p { font-size: 0.9rem; }"
    )
    policy = f"default-src 'none'; script-src '{_hash(module)}'; style-src '{_hash(sheet)}'"
    return _PAGE.format(
        policy=policy,
        sheet=sheet,
        title=html.escape(f"{generation.facts.name}: {kind(generation)}"),
        finding=html.escape(finding(generation)),
        text=html.escape(generation.micro.text),
        data=_inert(data),
        module=module,
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode()}"


def _inert(data: dict[str, Any]) -> str:
    """JSON that cannot end the element that it stands in."""
    return json.dumps(data, ensure_ascii=True).replace("<", "\\u003c")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>micro_step: a generation as a film</title>
<style>{sheet}</style>
</head>
<body>
<h1>{title}</h1>
<p>{finding}</p>
<main id="film"></main>
<noscript><pre>{text}</pre></noscript>
<script type="application/json" id="data">{data}</script>
<script type="module">{module}</script>
</body>
</html>
"""


def _still(film: Film, view: GenerationView) -> go.Figure:
    """The macro steps side by side: what the base wrote, and what was drafted, kept and refused."""
    play = film.at(film.found.how.tau)
    step = np.arange(len(play.starts)) + 1
    figure = go.Figure()
    for name, count, color in (
        ("written by the base", np.ones_like(step), BLUE[view.theme]),
        ("drafted and kept", play.kept, ORANGE[view.theme]),
        ("drafted and refused", play.drafted - play.kept, SOFT[view.theme]),
    ):
        hover = f"macro step %{{x}}<br>{name}: %{{y}}<extra></extra>"
        figure.add_trace(go.Bar(x=step, y=count, name=name, marker={"color": color}, hovertemplate=hover))
    figure.update_xaxes(title="macro step")
    figure.update_yaxes(title="tokens", dtick=1)
    figure = styled(figure, view.theme, 320)
    figure.update_layout(barmode="stack")
    return figure
