"""Where a figure of a generation comes from: its bundle's manifest, and the command that makes it again."""

from __future__ import annotations

import dataclasses

from analysis.document_file import document_file
from analysis.generation.options import AnswerOptions, StoppingOptions
from analysis.generation.request import GenerationRequest, prompt_of
from analysis.generation.result import Generation
from analysis.generation.sweep import Sweep
from analysis.generation.view import GenerationView
from analysis.options import TextOptions
from analysis.provenance import Provenance, plain_values
from model.command_options import LoadOptions, ModelOptions, SamplingOptions, figure_command


def origin(request: GenerationRequest, found: Generation | Sweep, view: GenerationView) -> Provenance:
    """Where a figure of a generation, or of a sweep of its tau, comes from."""
    one = found.generations[0] if isinstance(found, Sweep) else found
    prompt = dataclasses.replace(request.text, document=prompt_of(request.text.document))
    asked = plain_values(request)
    if isinstance(found, Sweep):
        asked["how"]["tau"] = list(found.taus)
    return Provenance(
        command=figure_command(
            "generate",
            ModelOptions.of(request.model, one.facts),
            TextOptions.of(prompt),
            LoadOptions.of(request.model, (one.facts,)),
            StoppingOptions.of(request.how, one.lossless, found.taus if isinstance(found, Sweep) else None),
            AnswerOptions(request.how.max_segment_length, request.how.repetition_penalty),
            SamplingOptions.of(request.how.sampling),
            view,
        ),
        request={name: value for name, value in asked.items() if name != "side"},
        view=dataclasses.asdict(view),
        models={"model": one.facts},
        notes={"model": one.notes},
        files=dict([document_file(prompt.document)]),
        read={"model": one.prompt.text},
    )
