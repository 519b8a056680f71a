"""Where a figure of the segmentation page comes from: its bundle's manifest, and the command that makes it again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from analysis.document_file import document_file
from analysis.provenance import Provenance, plain_values
from analysis.query import apart_words, command_line, load_words, model_words, text_words
from analysis.segmentation.comparison import CutView, StrategyComparison
from analysis.segmentation.request import CutRequest


def origin(bench: StrategyComparison, view: CutView) -> Provenance:
    """Where a figure of the bench comes from."""
    request = bench.request
    asked = plain_values(request)
    return Provenance(
        command=lambda figure, out: command(figure, bench, view, out),
        request={**asked, "strategies": [str(strategy) for strategy in request.strategies]},
        view=dataclasses.asdict(view),
        models={side.key.lower(): side.facts for side in bench.sides},
        notes={side.key.lower(): side.notes for side in bench.sides},
        files={} if request.text is None else dict([document_file(request.text.document)]),
        read={side.key.lower(): side.read for side in bench.sides if side.read},
    )


def command(figure: str, bench: StrategyComparison, view: CutView, out: str) -> str:
    """The command line that makes the same figure, in a folder that holds the origin's files."""
    request = bench.request
    words = ["segmentation-figure", figure, *_source_words(request, bench)]
    for strategy in request.strategies:
        words += ["--strategy", str(strategy)]
    words += ["--max-length", str(request.max_length)]
    for name, numbers in (("--layer", request.how.layers), ("--head", request.how.heads)):
        for number in numbers or ():
            words += [name, str(number)]
    words += ["--history-method", request.how.history, "--history-stride", str(request.how.stride)]
    words += apart_words(request.how.prompt_apart)
    words += ["--window", str(request.history.window)] if request.history is not None else []
    words += ["--other-precision"] if bench.others else []
    words += ["--chosen", str(view.chosen + 1), "--metric", view.metric, "--change", repr(view.change)]
    words += ["--unit", view.unit, "--theme", view.theme]
    words += ["--pinned", str(view.pinned)] if view.pinned is not None else []
    return command_line([*words, "--out", out])


def _source_words(request: CutRequest, bench: StrategyComparison) -> list[str]:
    if request.text is None:
        return ["--store", str(Path(request.store or "").resolve()), "--number", str(request.number)]
    words: list[str] = []
    for (key, spec), side in zip(request.models, bench.sides, strict=True):
        words += model_words(key.lower(), spec, side.facts)
    words += text_words(request.text)
    return words + load_words(request.models[0][1], [side.facts for side in bench.sides])
