"""`python -m analysis generate` and `generation-figure`: a micro_step model answers a prompt, beside its base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.options import (
    UNIT,
    FigureOut,
    LoadOptions,
    ModelOptions,
    Out,
    Pinned,
    TextOptions,
    Theme,
    Unit,
    check_table,
    flatten_options,
    load_shown,
    print_notes,
    print_or_save,
    progress,
)
from model.errors import TextError
from model.text.document import Document, TextInput

if TYPE_CHECKING:
    from analysis.generation.request import GenerationRequest
    from analysis.generation.result import Generation

commands = typer.Typer()

FIGURE_NAMES = ("answer", "timeline", "endings", "sweep", "sweep_segments")
Taus = Annotated[str | None, typer.Option(help='Values of tau, as in "0.3 0.5 0.9"; above 1 the base alone writes.')]


@dataclass(frozen=True)
class DecodingOptions:
    """How the answer is written."""

    prompt: Annotated[str | None, typer.Option(help="The prompt; the same as --text.")] = None
    rule: Annotated[str, typer.Option(help="When a segment ends: confidence, product or stop_head.")] = "confidence"
    confidence: Annotated[float, typer.Option(min=0, help="tau of the rule; above 1 the base alone writes.")] = 0.8
    max_segment_length: Annotated[int, typer.Option(min=1, help="M, the most tokens of a segment.")] = 4
    lossless: Annotated[
        bool | None,
        typer.Option("--lossless/--merged", help="Default: what the model was trained for."),
    ] = None
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of the answer.")] = 64
    temperature: Annotated[float, typer.Option(min=0, help="Of sampling; 0 is greedy.")] = 0.0
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest tokens of this total probability.")] = 1.0
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 0
    repetition_penalty: Annotated[float, typer.Option(help="As transformers has it; 1 is none.")] = 1.0

    def request(self, model: ModelOptions, text: TextOptions, loading: LoadOptions) -> GenerationRequest:
        """What is asked."""
        from analysis.generation.request import GenerationRequest
        from analysis.generation.result import Decoding
        from model.scoring.continuation import Sampling

        if self.prompt is not None and text.given:
            raise TextError("give the prompt with --prompt, --text or --text-file, one of them")
        how = Decoding(
            self.rule,
            self.confidence,
            self.max_segment_length,
            self.lossless,
            self.max_new_tokens,
            Sampling(self.temperature, self.top_p, self.seed),
            self.repetition_penalty,
        )
        document = text.document() if self.prompt is None else Document.plain(self.prompt)
        return GenerationRequest(model.spec(loading), TextInput(document, text.chat, text.force_bos), how)


@commands.command()
@flatten_options
def generate(
    model: ModelOptions,
    text: TextOptions,
    decoding: DecodingOptions,
    loading: LoadOptions,
    taus: Taus = None,
    unit: Unit = UNIT,
    out: Out = None,
) -> None:
    """Answer a prompt in segments, and by the base alone: a row a token of both. With --taus, a row a tau.

    Columns of seconds, and of tokens per second, are of this run on this machine.
    """
    from analysis.generation.sweep import of_taus, parse_taus
    from analysis.generation.tables import answer_table, sweep_table

    check_table(out)
    request = decoding.request(model, text, loading)
    if taus is not None:
        asked = of_taus(request, parse_taus(taus))
        with progress("writing") as told:
            sweep = asked.run(load_shown, told)
        _say(sweep.generations[0])
        print_or_save(sweep_table(sweep, unit), out, f"a row a tau; nll in {unit}")
        return
    with progress("writing") as told:
        found = request.run(load_shown, told)
    _say(found)
    if out is not None:
        print_notes("", (finding(found),))
    print_or_save(answer_table(found, unit), out, finding(found))


@commands.command("generation-figure")
@flatten_options
def generation_figure(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(FIGURE_NAMES)}.")],
    model: ModelOptions,
    text: TextOptions,
    decoding: DecodingOptions,
    loading: LoadOptions,
    out: FigureOut,
    taus: Taus = None,
    over: Annotated[Literal["time", "passes"], typer.Option(help="What the timeline runs over.")] = "time",
    unit: Unit = UNIT,
    theme: Theme = "light",
    pinned: Pinned = None,
) -> None:
    """Answer a prompt and draw it, or give the data behind the figure: the command that export bundles name."""
    from analysis.export import FIGURE_FORMATS, check_out, save_figure
    from analysis.figures.figure import check_figure
    from analysis.generation import figures, sweep_figures
    from analysis.generation.provenance import GenerationView, origin
    from analysis.generation.sweep import of_taus, parse_taus

    check_figure(name, FIGURE_NAMES)
    check_out(out, FIGURE_FORMATS)
    request = decoding.request(model, text, loading)
    view = GenerationView(unit, theme, pinned, over)
    if name in sweep_figures.FIGURES:
        asked = of_taus(request, parse_taus(taus) if taus is not None else None)
        with progress("writing") as told:
            sweep = asked.run(load_shown, told)
        _say(sweep.generations[0])
        save_figure(sweep_figures.draw(name, sweep, view), out, origin(request, sweep, view))
    else:
        with progress("writing") as told:
            found = request.run(load_shown, told)
        _say(found)
        save_figure(figures.draw(name, found, view), out, origin(request, found, view))
    print(out)


def finding(found: Generation) -> str:
    """One sentence on what came out."""
    from analysis.generation.summary import finding as said

    return said(found)


def _say(found: Generation) -> None:
    print_notes(f"{found.facts.name}: ", found.notes)
