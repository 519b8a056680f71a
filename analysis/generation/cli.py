"""`micro-step generate`: a micro_step model answers a prompt, beside its base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from analysis.generation.options import TAU, AnswerOptions, StoppingOptions
from analysis.generation.view import GenerationView
from analysis.options import (
    Out,
    TextOptions,
    check_output,
    figure_option,
    load_shown,
    print_notes,
    print_or_save,
    progress,
    save_drawn,
)
from model.command_options import LoadOptions, ModelOptions, SamplingOptions, flatten_options
from model.errors import MicroStepError

if TYPE_CHECKING:
    from analysis.generation.result import Generation

SWEEPS = ("sweep", "sweep_quality", "sweep_segments")  # figures of several values of tau or eps
FIGURE_NAMES = ("answer", "film", "timeline", "endings", *SWEEPS)


@flatten_options
def generate(
    model: ModelOptions,
    text: TextOptions,
    stopping: StoppingOptions,
    answer: AnswerOptions,
    sampling: SamplingOptions,
    loading: LoadOptions,
    view: GenerationView,
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """Answer a prompt in segments, and by the base alone: one row per token of both.

    With several values of --confidence or --eps, one row for each; with --figure, a figure. Columns of seconds, and of
    tokens per second, are of this run on this machine.
    """
    from analysis.generation import figures, sweep_figures
    from analysis.generation.provenance import origin
    from analysis.generation.request import GenerationRequest
    from analysis.generation.summary import finding
    from analysis.generation.sweep import sweep_of
    from analysis.generation.tables import answer_table, sweep_table

    check_output(out, figure, FIGURE_NAMES)
    taus = stopping.confidence or ()
    swept = figure in SWEEPS or (figure is None and max(len(taus), len(answer.eps)) > 1)
    if len(answer.eps) > 1 and not swept:
        raise MicroStepError("give one value with --eps")
    decoding = answer.decoding(stopping, sampling, TAU if swept else stopping.tau)
    request = GenerationRequest(model.spec(loading), text.input(), decoding)
    if swept:
        asked = sweep_of(request, taus or ((TAU,) if figure is None else ()), answer.eps)
        with progress("writing") as told:
            sweep = asked.run(load_shown, told)
        _say(sweep.generations[0])
        if figure is not None:
            save_drawn(sweep_figures.draw(figure, sweep, view), out, origin(request, sweep, view))
        else:
            print_or_save(sweep_table(sweep, view.unit), out, f"one row per eps and tau; nll in {view.unit}")
        return
    with progress("writing") as told:
        found = request.run(load_shown, told)
    _say(found)
    if figure is not None:
        save_drawn(figures.draw(figure, found, view), out, origin(request, found, view))
        return
    if out is not None:
        print_notes("", (finding(found),))
    print_or_save(answer_table(found, view.unit), out, finding(found))


def _say(found: Generation) -> None:
    print_notes(f"{found.facts.name}: ", found.notes)
