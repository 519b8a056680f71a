"""`python -m analysis`: what the app shows, without it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from model.document import Document, Message
from model.errors import TextError
from model.loading import LoadedModel, ModelSpec, load
from model.terminal import one_line, progress_bar, run

if TYPE_CHECKING:  # they bring torch and pandas, seconds that help and mistakes need not wait for
    import pandas as pd

    from model.forward import Progress

app: typer.Typer = typer.Typer(
    help="Score texts, compare models, make figures.", no_args_is_help=True, pretty_exceptions_enable=False
)

Text = Annotated[str | None, typer.Option("--text", help="The text itself.")]
TextFile = Annotated[
    str | None,
    typer.Option("--text-file", "--file", help="A UTF-8 file, a .json conversation, or - for standard input."),
]
System = Annotated[str | None, typer.Option(help="A system message before the text.")]
Answer = Annotated[str | None, typer.Option(help="An assistant's answer after the text.")]
Chat = Annotated[bool, typer.Option("--chat", help="Apply each model's own chat template.")]
ForceBos = Annotated[bool, typer.Option("--force-bos", help="Put BOS first even if the tokenizer does not.")]
Unit = Annotated[Literal["bits", "nats"], typer.Option(help="Unit of entropy and surprisal.")]
Out = Annotated[Path | None, typer.Option(help="File to write; its suffix chooses the format.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")]
Adapter = Annotated[str | None, typer.Option(help="A LoRA adapter: hub id or folder.")]
Dtype = Annotated[Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Precision of the weights.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Attention = Annotated[str | None, typer.Option("--attn-implementation", help="sdpa, eager, flash_attention_2, ...")]
Quantization = Annotated[Literal["none", "8bit", "4bit"], typer.Option(help="Needs bitsandbytes.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code that comes with the model.")]
ModelA = Annotated[str, typer.Option("--a", "--model-a", help="Model A: catalog name, hub id or folder.")]
ModelB = Annotated[str, typer.Option("--b", "--model-b", help="Model B: catalog name, hub id or folder.")]
NewTokens = Annotated[int, typer.Option("--continue", min=0, help="Let each model continue by up to so many tokens.")]
Temperature = Annotated[float, typer.Option(min=0, help="Of sampling; 0 is greedy.")]
TopP = Annotated[float, typer.Option(help="Sample from the likeliest tokens of this total probability.")]
Seed = Annotated[int, typer.Option(help="Of sampling.")]


def main() -> None:
    """Run the command line."""
    run(app)


@app.command()
def score(
    model: Annotated[str, typer.Option(help="Catalog name, hub id or folder.")],
    text: Text = None,
    text_file: TextFile = None,
    system: System = None,
    answer: Answer = None,
    chat: Chat = False,
    force_bos: ForceBos = False,
    unit: Unit = "nats",
    history: Annotated[int, typer.Option(min=0, help="Limit the history to so many tokens; 0 is all.")] = 0,
    history_method: Annotated[Literal["exact", "strided", "banded"], typer.Option(help="How it is limited.")] = "exact",
    history_stride: Annotated[int, typer.Option(min=1, help="For strided: a window every so many tokens.")] = 16,
    revision: Revision = None,
    adapter: Adapter = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn_implementation: Attention = None,
    quantization: Quantization = "none",
    trust_remote_code: Trust = False,
    out: Out = None,
) -> None:
    """Score every token of a text: entropy, confidence, margin, surprisal, rank."""
    from analysis.scoring import score_document, token_table

    _check_table(out)
    document = _document(text, text_file, system, answer)
    spec = ModelSpec(model, revision, adapter, dtype, device, attn_implementation, quantization, trust_remote_code)
    loaded = _load(spec)
    with _progress("scoring") as progress:
        if history:
            from analysis.scoring import score_limited

            scored = score_limited(
                loaded, document, history, history_method, history_stride, chat, force_bos, progress=progress
            )
        else:
            scored = score_document(loaded, document, chat, force_bos, progress=progress)
    _remark(f"{scored.facts.name}: ", scored.notes)
    _give(token_table(scored, unit), out, f"scores of {scored.facts.name}, entropy and surprisal in {unit}")


@app.command()
def compare(
    a: ModelA,
    b: ModelB,
    text: Text = None,
    text_file: TextFile = None,
    system: System = None,
    answer: Answer = None,
    chat: Chat = False,
    force_bos: ForceBos = False,
    new_tokens: NewTokens = 0,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    unit: Unit = "bits",
    a_revision: Revision = None,
    b_revision: Revision = None,
    a_adapter: Adapter = None,
    b_adapter: Adapter = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn_implementation: Attention = None,
    quantization: Quantization = "none",
    trust_remote_code: Trust = False,
    cells: Annotated[Path | None, typer.Option(help="Also write a row for each common piece of text.")] = None,
    out: Out = None,
) -> None:
    """Compare two models on one text: means, differences with their 95% intervals, by role."""
    from analysis.compare import cell_table
    from analysis.export import save_table
    from analysis.request import Request
    from analysis.summary import summarise, summary_table
    from model.continuation import Sampling

    _check_table(out)
    _check_table(cells)
    options: tuple[Any, ...] = (dtype, device, attn_implementation, quantization, trust_remote_code)
    request = Request(
        ModelSpec(a, a_revision, a_adapter, *options),
        ModelSpec(b, b_revision, b_adapter, *options),
        _document(text, text_file, system, answer),
        chat,
        force_bos,
        new_tokens,
        Sampling(temperature, top_p, seed),
    )
    with _progress("comparing") as progress:
        comparison = request.run(_load, progress)
    for side, scored in (("A", comparison.a), ("B", comparison.b)):
        _remark(f"{side} {scored.facts.name}: ", scored.notes)
    if cells is not None:
        save_table(cell_table(comparison, unit), cells)
    summary = summarise(comparison, unit)
    _give(summary_table(comparison, unit), out, summary.finding, turned=True)


@app.command()
def figure(
    name: Annotated[str, typer.Argument(help="strip, line, scatter, distribution or changes.")],
    a: ModelA,
    b: ModelB,
    out: Annotated[Path, typer.Option(help="png, svg, pdf, html, csv, parquet, json or zip.")],
    text: Text = None,
    text_file: TextFile = None,
    system: System = None,
    answer: Answer = None,
    chat: Chat = False,
    force_bos: ForceBos = False,
    new_tokens: NewTokens = 0,
    temperature: Temperature = 0.0,
    top_p: TopP = 1.0,
    seed: Seed = 0,
    score: Annotated[str, typer.Option(help="entropy, confidence, margin or surprisal.")] = "entropy",
    unit: Unit = "bits",
    theme: Annotated[Literal["light", "dark"], typer.Option(help="Colours of the figure.")] = "light",
    pinned: Annotated[int | None, typer.Option(min=0, help="Character of the text to mark.")] = None,
    role: Annotated[
        Literal["all", "text", "system", "user", "assistant"],
        typer.Option(help="Only tokens of this role; all for every one."),
    ] = "all",
    a_revision: Revision = None,
    b_revision: Revision = None,
    a_adapter: Adapter = None,
    b_adapter: Adapter = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn_implementation: Attention = None,
    quantization: Quantization = "none",
    trust_remote_code: Trust = False,
) -> None:
    """Make a figure of two models on one text, or the data behind it: the command that export bundles name."""
    from analysis.export import FIGURE_FORMATS, bundle, check_out, save_figure
    from analysis.figures.base import View
    from analysis.figures.comparison import check_name, draw
    from analysis.request import Request
    from model.continuation import Sampling

    check_name(name, paired=not new_tokens)
    check_out(out, FIGURE_FORMATS)
    view = View(score, unit, theme, pinned, role)
    options: tuple[Any, ...] = (dtype, device, attn_implementation, quantization, trust_remote_code)
    request = Request(
        ModelSpec(a, a_revision, a_adapter, *options),
        ModelSpec(b, b_revision, b_adapter, *options),
        _document(text, text_file, system, answer),
        chat,
        force_bos,
        new_tokens,
        Sampling(temperature, top_p, seed),
    )
    with _progress("comparing") as progress:
        comparison = request.run(_load, progress)
    drawn = draw(name, comparison, view)
    bundled = bundle(drawn, request, comparison, view) if out.suffix.lower() == ".zip" else None
    save_figure(drawn, out, bundled)
    print(out)


def _document(text: str | None, file: str | None, system: str | None, answer: str | None) -> Document:
    """The document that the options describe."""
    from analysis.request import read_document

    if (text is None) == (file is None):
        raise TextError("give the text with --text or with --text-file, one of them")
    if file == "-":
        document = read_document(sys.stdin.buffer.read(), "standard input")
    elif file is not None:
        try:
            document = read_document(Path(file).read_bytes(), file)
        except OSError as error:
            raise TextError(f"{file} cannot be read: {error.strerror}") from None
    else:
        document = Document.plain(text or "")
    if system is None and answer is None:
        return document
    if len(document.messages) > 1:
        raise TextError("the file is a conversation already; --system and --answer go with a plain text")
    turns = [Message("user", document.text)]
    turns = [Message("system", system), *turns] if system is not None else turns
    return Document((*turns, *([Message("assistant", answer)] if answer is not None else [])))


def _check_table(out: Path | None) -> None:
    from analysis.export import TABLES, check_out

    if out is not None:
        check_out(out, TABLES)


def _load(spec: ModelSpec) -> LoadedModel:
    with progress_bar() as tell:
        return load(spec, tell)


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    with progress_bar() as tell:
        yield lambda share: tell(what, share)


def _remark(head: str, notes: tuple[str, ...]) -> None:
    for note in notes:
        print(one_line(f"{head}{note}"), file=sys.stderr)


def _give(table: pd.DataFrame, out: Path | None, caption: str, turned: bool = False) -> None:
    """Write a table to a file, or show it: by rows, or turned round where it has few rows and many columns."""
    from analysis.export import save_table
    from analysis.terminal import show_table

    if out is not None:
        save_table(table, out)
        print(out)
    else:
        show_table(table, one_line(caption), turned)


import analysis.corpus_cli  # noqa: E402 - adds its command
import analysis.segment_cli  # noqa: E402, F401 - adds its commands
