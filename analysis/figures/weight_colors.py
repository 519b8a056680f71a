"""The colours of attention weights, by their square root since most weights are small; from 0 to 1, or -1 to 1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.figures.theme import BLUE, CARD, ORANGE, SEQUENTIAL
from analysis.view import Theme

STOPS = 24
MARKS = (0.01, 0.1, 0.25, 0.5, 1.0)  # weights that a legend names
Scale = list[list[float | str]]


def sequential(theme: Theme, root: bool = True) -> Scale:
    """The sequential scale, by the square root of the value or evenly."""
    ramp = np.array(SEQUENTIAL[theme], dtype=float)
    return [[float(at**2 if root else at), _color(ramp, at)] for at in np.linspace(0, 1, STOPS + 1)]


def diverging(theme: Theme, root: bool = True) -> Scale:
    """The diverging scale around the card's colour, by the square root of the distance from the middle or evenly."""
    ramp = np.array([_rgb(BLUE[theme]), _rgb(CARD[theme]), _rgb(ORANGE[theme])], dtype=float)
    places = np.linspace(-1, 1, 2 * STOPS + 1)
    moved = np.sign(places) * places**2 if root else places
    return [[float((at + 1) / 2), _color(ramp, (i + 1) / 2)] for at, i in zip(moved, places, strict=True)]


def bytes_of(weight: NDArray[np.floating], signed: bool) -> NDArray[np.uint8]:
    """Weights as 1 to 255 by their square root, NaN as 0: a quarter of the bytes of float32 for the browser."""
    known = np.nan_to_num(weight)
    root = np.sign(known) * np.sqrt(np.clip(np.abs(known), 0, 1))
    step = 128 + 127 * root if signed else 1 + 254 * root
    return np.where(np.isnan(weight), 0, np.rint(step)).astype(np.uint8)


def byte_scale(theme: Theme, signed: bool) -> Scale:
    """The colour scale of `bytes_of`; NaN has no colour."""
    inner = diverging(theme, root=False) if signed else sequential(theme, root=False)
    nothing: Scale = [[0.0, "rgba(0,0,0,0)"], [0.9 / 255, "rgba(0,0,0,0)"]]
    return nothing + [[(1 + 254 * float(at)) / 255, color] for at, color in inner]


def byte_marks(signed: bool) -> dict[str, list[float] | list[str]]:
    """The legend's marks on the scale of `bytes_of`."""
    values = sorted([*(-each for each in MARKS if signed), 0.0, *MARKS])
    values = [each for each in values if not (signed and abs(each) in (0.01, 0.5))]
    places = bytes_of(np.array(values), signed).astype(float).tolist()
    return {"tickvals": places, "ticktext": [f"{each:+g}" if signed and each else f"{each:g}" for each in values]}


def _color(ramp: NDArray[np.floating], at: float) -> str:
    steps = np.linspace(0, 1, len(ramp))
    return "rgb({:.0f},{:.0f},{:.0f})".format(*(np.interp(at, steps, ramp[:, i]) for i in range(3)))


def _rgb(code: str) -> tuple[int, int, int]:
    return int(code[1:3], 16), int(code[3:5], 16), int(code[5:7], 16)
