"""Where a figure of the segmentation page comes from: its bundle's manifest, and the command that reproduces it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from analysis.document_file import document_file
from analysis.options import TextOptions
from analysis.provenance import Provenance, plain_values, python_lines
from analysis.segmentation.comparison import StrategyComparison
from analysis.segmentation.options import ExtraRuns, SegmenterOptions, StoreOptions, StrategiesOptions
from analysis.segmentation.request import CutRequest
from analysis.segmentation.view import CutView
from model.command_options import LoadOptions, ModelsOptions, figure_command


def origin(bench: StrategyComparison, view: CutView) -> Provenance:
    """Where a figure of the bench comes from."""
    request = bench.request
    asked, source = plain_values(request), _source(request, bench)
    options = (
        StrategiesOptions.of(request.strategies),
        SegmenterOptions.of(request.max_length, request.how, request.strategies, request.history is not None),
        ExtraRuns(None if request.history is None else request.history.window, bool(bench.others)),
    )
    python = None
    if request.text is not None:
        models = [spec for _, spec in request.models]
        python = python_lines("segment", models, source[-1], request.text, view, options)
    return Provenance(
        command=figure_command("segment", *source, *options, view),
        request={**asked, "strategies": [str(strategy) for strategy in request.strategies]},
        view=dataclasses.asdict(view),
        models={side.key.lower(): side.facts for side in bench.sides},
        notes={side.key.lower(): side.notes for side in bench.sides},
        files={} if request.text is None else dict([document_file(request.text.document)]),
        read={side.key.lower(): side.read for side in bench.sides if side.read},
        python=python,
    )


def _source(request: CutRequest, compared: StrategyComparison) -> tuple[Any, ...]:
    """The options of what is divided."""
    if request.text is None:
        return (StoreOptions(str(Path(request.store or "").resolve()), request.number),)
    models = [(key, spec, side.facts) for (key, spec), side in zip(request.models, compared.sides, strict=True)]
    return (
        ModelsOptions.of(models),
        TextOptions.of(request.text),
        LoadOptions.of(request.models[0][1], [side.facts for side in compared.sides]),
    )
