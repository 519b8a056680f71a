"""Where a figure of a generation comes from: its bundle's manifest, and the command that makes it again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from analysis.document_file import document_file
from analysis.generation.request import GenerationRequest, prompt_of
from analysis.generation.result import Generation
from analysis.generation.sweep import Sweep
from analysis.provenance import Provenance, plain_values
from analysis.query import command_line, load_words, model_words, text_words
from analysis.score_registry import Unit
from analysis.view import Theme

Over = Literal["time", "passes"]


@dataclass(frozen=True)
class GenerationView:
    """How a generation is looked at. Changing it runs no model."""

    unit: Unit = "bits"
    theme: Theme = "light"
    pinned: int | None = None  # a character of the answer; of two that differ, laid end to end
    over: Over = "time"  # what the timeline runs over


def origin(request: GenerationRequest, found: Generation | Sweep, view: GenerationView) -> Provenance:
    """Where a figure of a generation, or of a sweep of its tau, comes from."""
    one = found.generations[0] if isinstance(found, Sweep) else found
    asked = plain_values(request)
    if isinstance(found, Sweep):
        asked["how"]["tau"] = list(found.taus)
    return Provenance(
        command=lambda figure, out: command(figure, request, found, view, out),
        request={name: value for name, value in asked.items() if name != "side"},
        view=dataclasses.asdict(view),
        models={"model": one.facts},
        notes={"model": one.notes},
        files=dict([document_file(prompt_of(request.text.document))]),
        read={"model": one.prompt.text},
    )


def command(figure: str, request: GenerationRequest, found: Generation | Sweep, view: GenerationView, out: str) -> str:
    """The command line that makes the same figure, in a folder that holds the origin's files."""
    one = found.generations[0] if isinstance(found, Sweep) else found
    how, prompt = request.how, dataclasses.replace(request.text, document=prompt_of(request.text.document))
    named = model_words("model", request.model, one.facts)
    words = ["generation-figure", figure, *(word.replace("--model-", "--") for word in named)]
    words += text_words(prompt)
    words += load_words(request.model, (one.facts,))
    words += ["--rule", how.rule, "--confidence", repr(how.tau), "--max-segment-length", str(how.max_segment_length)]
    words += ["--lossless" if one.lossless else "--merged", "--max-new-tokens", str(how.max_new_tokens)]
    if how.sampled:
        words += ["--temperature", repr(how.sampling.temperature), "--top-p", repr(how.sampling.top_p)]
        words += ["--seed", str(how.sampling.seed)]
    words += ["--repetition-penalty", repr(how.repetition_penalty)] if how.repetition_penalty != 1 else []
    words += ["--taus", " ".join(map(repr, found.taus))] if isinstance(found, Sweep) else []
    words += ["--unit", view.unit, "--theme", view.theme, "--over", view.over]
    words += ["--pinned", str(view.pinned)] if view.pinned is not None else []
    return command_line([*words, "--out", out])
