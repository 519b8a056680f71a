"""Where a figure of the attention page comes from: its bundle's manifest, and the command that makes it again."""

from __future__ import annotations

import dataclasses

from analysis.attention.result import AttentionResult
from analysis.document_file import document_file
from analysis.provenance import Provenance, plain_values
from analysis.query import apart_words, command_line, load_words, model_words, text_words


def origin(looked: AttentionResult) -> Provenance:
    """Where a figure of what is looked at comes from."""
    request = looked.request
    return Provenance(
        command=lambda figure, out: command(figure, looked, out),
        request=plain_values(request),
        view=dataclasses.asdict(looked.view),
        models={side.key.lower(): side.reading.facts for side in looked.sides},
        notes={side.key.lower(): side.reading.notes for side in looked.sides},
        files=dict([document_file(request.text.document)]),
        read={side.key.lower(): side.reading.encoded.text for side in looked.sides},
    )


def command(figure: str, looked: AttentionResult, out: str) -> str:
    """The command line that makes the same figure, in a folder that holds the origin's files."""
    request, view = looked.request, looked.view
    words = ["attention-figure", figure]
    for (key, spec), side in zip(request.models, looked.sides, strict=True):
        words += model_words(key.lower(), spec, side.reading.facts)
    words += text_words(request.text)
    words += load_words(request.models[0][1], [side.reading.facts for side in looked.sides])
    words += ["--strategy", str(request.segmenter.strategy), "--max-length", str(request.segmenter.max_length)]
    words += apart_words(request.segmenter.features.prompt_apart)
    words += ["--pool", request.pool, "--shown", view.shown, "--layer", str(view.layer), "--head", str(view.head)]
    words += ["--source", view.source, "--level", view.level]
    for name, part in (("--queries", view.queries), ("--keys", view.keys)):
        words += [name, f"{part[0]}:{part[1]}"] if part is not None else []
    words += ["--theme", view.theme, *(["--pinned", str(view.pinned)] if view.pinned is not None else [])]
    return command_line([*words, "--out", out])
