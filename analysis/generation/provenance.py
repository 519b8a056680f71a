"""Where a figure of a generation comes from: its bundle's manifest, and the command that reproduces it."""

from __future__ import annotations

import dataclasses

from analysis.generation.options import AnswerOptions, StoppingOptions
from analysis.generation.request import GenerationRequest, prompt_of
from analysis.generation.result import Generation
from analysis.generation.sweep import Sweep
from analysis.generation.view import GenerationView
from analysis.options import Reader, text_provenance
from analysis.provenance import Provenance, plain_values
from model.command_options import LoadOptions, ModelOptions, SamplingOptions, command_line, to_args


def origin(request: GenerationRequest, found: Generation | Sweep, view: GenerationView) -> Provenance:
    """Where a figure of a generation, or of a sweep of its tau and eps, comes from."""
    one = found.generations[0] if isinstance(found, Sweep) else found
    prompt = dataclasses.replace(request.text, document=prompt_of(request.text.document))
    asked = plain_values(request)
    if isinstance(found, Sweep):
        asked["how"] |= {"tau": list(found.taus), "eps": list(found.epsilons)}
    reader = Reader("model", request.model, one.facts, one.prompt.text, one.notes)
    options = (
        StoppingOptions.of(request.how, one.verified, found.taus if isinstance(found, Sweep) else None),
        AnswerOptions(
            request.how.max_segment_length,
            request.how.repetition_penalty,
            found.epsilons if isinstance(found, Sweep) else (request.how.eps,),
        ),
        SamplingOptions.of(request.how.sampling),
        view,
    )
    asked = {name: value for name, value in asked.items() if name != "side"}
    return text_provenance("generate", asked, prompt, view, [reader], *options)


def serve_command(request: GenerationRequest, found: Generation) -> str:
    """The command that serves the model of a generation, with segments that end as they do there."""
    how, named = request.how, ModelOptions.of(request.model, found.facts)
    given = {"--revision": named.revision, "--adapter": named.adapter}
    words = [word for option, value in given.items() if value is not None for word in (option, value)]
    if not found.untrained:
        words += to_args(StoppingOptions(how.rule, (how.tau,), found.verified))
        words += ["--max-segment-length", str(how.max_segment_length)]
        words += ["--eps", str(how.eps)] if how.eps < 1 else []
    return command_line("serve", named.model, *words, *to_args(LoadOptions.of(request.model, [found.facts])))
