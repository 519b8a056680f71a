"""The colours of every figure and of the token strip, and nothing else.

One sequential scale for "how much" and one diverging pair for "A or B", "more or less". Both are readable with the
common forms of colour blindness (orange against blue) and in grey print (lightness is monotone).
"""

from __future__ import annotations

RGB = tuple[int, int, int]

SEQUENTIAL_LIGHT: tuple[RGB, ...] = ((255, 255, 255), (253, 230, 200), (246, 173, 98), (196, 72, 10))
SEQUENTIAL_DARK: tuple[RGB, ...] = ((27, 30, 34), (76, 58, 36), (158, 88, 30), (236, 140, 44))
ORANGE = {"light": "#c2410c", "dark": "#fb923c"}  # model A; "more"
BLUE = {"light": "#1d4ed8", "dark": "#60a5fa"}  # model B; "less"
