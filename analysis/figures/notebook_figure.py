"""A plotly figure that says in words and numbers what it shows where a notebook cannot draw it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

DRAWN = "application/vnd.plotly.v1+json"


class NotebookFigure(go.Figure):  # type: ignore[misc]
    """A figure that stays a plotly figure in all else.

    Plotly chooses how a notebook draws it (`plotly.io.renderers`). By default that is data alone, which JupyterLab and
    VS Code draw, and which loads nothing; plain text is added for all that cannot. It is no HTML, which viewers would
    prefer to the picture that JupyterLab stores with the notebook.
    """

    def __init__(self, *args: Any, words: Callable[[], str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._words = words

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(include, exclude, **kwargs)
        if bundle.keys() == {DRAWN} and self._words is not None:
            bundle["text/plain"] = self._words()
        return bundle

    def _ipython_display_(self) -> None:
        from IPython.display import display

        bundle = self._repr_mimebundle_()
        if bundle:
            display(bundle, raw=True)
        else:  # in a window of its own, from a terminal
            super()._ipython_display_()
