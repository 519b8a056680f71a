"""Attention as the command and the face give it: models run for what is asked, and the answers are kept."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.attention.maps import MapWindow, window
from analysis.attention.options import options_of
from analysis.attention.positions import AttentionPositions, check_indices
from analysis.attention.result import AttentionRequest, AttentionResult, AttentionView, computed, read_sides, with_rows
from analysis.options import Reader, text_provenance
from analysis.provenance import Provenance, plain_values
from analysis.query import ModelLoader, Session
from analysis.segmentation.options import SegmentsOptions
from model.progress import Progress

NEEDS = {  # what each figure needs: the overview, the large map
    "maps": (True, False),
    "statistics": (True, False),
    "map": (False, True),
    "row": (False, True),
}


class AttentionMaps:
    """Attention of one model or two on a text."""

    def __init__(self, request: AttentionRequest, load: ModelLoader, progress: Progress | None = None) -> None:
        """Run the models for their positions, and for one more answer each if `progress` is to end at 1.

        Raises:
            MicroStepError: a text or its segments cannot be read, or the models have different positions.
        """
        self.request = request
        self._ask = Session(load, progress, 2 * len(request.models))
        self.readings: list[AttentionPositions] = [side.reading for side in self.result(AttentionView()).sides]

    def __repr__(self) -> str:
        names = ", ".join(reading.facts.name for reading in self.readings)
        return f"AttentionMaps({names}, {len(self.readings[0]):,} {self.readings[0].unit}s)"

    @property
    def summary(self) -> str:
        first, names = self.readings[0], " and ".join(reading.facts.name for reading in self.readings)
        return f"{names} on {len(first):,} {first.unit}s; segments: {first.strategy}"

    def result(self, view: AttentionView, figure: str | None = None) -> AttentionResult:
        """What one figure shows; without a figure nothing but the texts.

        Raises:
            MicroStepError: the layer or head does not exist, or a query fails.
        """
        overviews, rows = NEEDS.get(figure or "", (False, False))
        if rows:
            self._check([view.layer], [view.head])
        sides = read_sides(self.request, self._ask, overviews)
        assert sides is not None  # a session answers everything
        result = AttentionResult(self.request, sides, view)
        return with_rows(result, self._ask) if rows else result

    def weights(self, layer: int, head: int | None = None, *, number: int = 0) -> NDArray[np.float32]:
        """[queries, keys] the weights of a layer in full, as transformers' eager attention gives them.

        Args:
            layer: from 0.
            head: from 0. None: the mean of all heads.
            number: of the model, where there are two: 0 is A, 1 is B.

        Raises:
            MicroStepError: there is no such layer, head or model.
        """
        check_indices("model", [number], len(self.readings))
        view = AttentionView(layer=layer, head=head or 0, source="mean" if head is None else "head")
        rows = computed(self.result(view, "map").sides[number].rows)
        return np.nan_to_num(window(rows, MapWindow.of(rows.size)))

    def table(self, layers: Sequence[int] | None = None, heads: Sequence[int] | None = None) -> pd.DataFrame:
        """A row a layer and head, of all or of those that are given; of two models, of each."""
        self._check(layers or (), heads or ())
        sides = read_sides(self.request, self._ask, layers=None if layers is None else tuple(layers)) or ()
        tables = [computed(side.overview).table() for side in sides]
        if len(tables) > 1:
            tables = [table.assign(model=side.key) for table, side in zip(tables, sides, strict=True)]
        table = pd.concat(tables, ignore_index=True)
        return table[table["head"].isin(heads)].reset_index(drop=True) if heads else table

    def arrays(self, view: AttentionView) -> bytes:
        """The map of a view as an .npz file; see the command `attention`."""
        result = self.result(view, "map")
        reading, part = result.reading, result.window
        facts: dict[str, Any] = {
            "model": reading.facts.to_dict(), "layer": view.layer, "head": view.head if view.source == "head" else None,
            "source": view.source, "level": view.level, "strategy": reading.strategy, "positions": f"{reading.unit}s",
            "notes": list(reading.notes),
        }  # fmt: skip
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer,
            attention=np.nan_to_num(window(computed(result.sides[0].rows), part)),
            queries=np.arange(part.q0, part.q1),
            keys=np.arange(part.k0, part.k1),
            tokens=np.array(reading.words, dtype=np.str_),
            starts=reading.starts,
            rows=result.of_rows(),
            facts=np.array(json.dumps(facts, ensure_ascii=False)),
        )
        return buffer.getvalue()

    def _check(self, layers: Sequence[int], heads: Sequence[int]) -> None:
        from analysis.attention.passes.attend import check_heads, check_layers  # these need torch

        for _, spec in self.request.models:
            model = self._ask.load(spec).model
            if layers:
                check_layers(model, layers)
            if heads:
                check_heads(model, heads)


def origin(result: AttentionResult) -> Provenance:
    """Where a figure comes from: its bundle's manifest, and the command that reproduces it."""
    request, readers = result.request, []
    for (key, spec), side in zip(request.models, result.sides, strict=True):
        reading = side.reading
        readers.append(Reader(key.lower(), spec, reading.facts, reading.encoded.text, reading.notes))
    options = SegmentsOptions.of(request.segmenter), *options_of(result.view, request.pool)
    return text_provenance("attention", plain_values(request), request.text, result.view, readers, *options)
