"""How the micro attention of a text is looked at, and where a figure of it comes from."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.result import MicroAttention
from analysis.document_file import document_file
from analysis.provenance import Provenance, plain_values
from analysis.query import apart_words, command_line, load_words, model_words, text_words
from analysis.view import Theme


@dataclass(frozen=True)
class MicroView:
    """How it is looked at. Changing it runs no model."""

    theme: Theme = "light"
    layer: int = 0  # of the micro decoder, from 0
    segment: int | None = None  # of those with two tokens and more, from 0; None: the mean over the text


def origin(request: MicroRequest, found: MicroAttention, view: MicroView) -> Provenance:
    """Where a figure comes from."""
    asked = plain_values(request)
    asked["strategy"] = None if request.strategy is None else str(request.strategy)
    return Provenance(
        command=lambda figure, out: command(figure, request, found, view, out),
        request={name: value for name, value in asked.items() if name != "side"},
        view=dataclasses.asdict(view),
        models={"model": found.facts},
        notes={"model": (found.cut, *found.notes)},
        files=dict([document_file(request.text.document)]),
        read={"model": found.encoded.text},
    )


def command(figure: str, request: MicroRequest, found: MicroAttention, view: MicroView, out: str) -> str:
    """The command line that makes the same figure, in a folder that holds the origin's files."""
    named = model_words("model", request.model, found.facts)
    words = ["micro-attention-figure", figure, *(word.replace("--model-", "--") for word in named)]
    words += text_words(request.text)
    words += load_words(request.model, (found.facts,))
    words += ["--strategy", str(request.strategy)] if request.strategy is not None else []
    if request.written is not None:
        how = request.written
        words += ["--written", "--rule", how.rule, "--confidence", repr(how.tau)]
        words += ["--max-new-tokens", str(how.max_new_tokens)]
        words += [] if how.lossless is None else ["--lossless" if how.lossless else "--merged"]
    words += ["--max-length", str(found.positions + 1)]
    words += apart_words(request.how.prompt_apart)
    words += ["--layer", str(view.layer + 1)]
    words += ["--segment", str(view.segment + 1)] if view.segment is not None else []
    return command_line([*words, "--theme", view.theme, "--out", out])
