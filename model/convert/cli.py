"""`micro-step model convert`: the folder goes to standard output, all else to standard error."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from model.cli import AcceptLicence
from model.command_options import Adapter, Dtype, Revision, Tokenizer, flatten_options
from model.hub.spec import ModelSpec
from model.terminal import progress_bar

_TO = typer.Option(
    "--to",
    help="whole: one folder, for transformers and micro_step. hub: the same with its code, for transformers alone."
    " modules: without the base. vllm: the base, which any engine loads, and the modules beside it."
    " gguf: the base alone, for llama.cpp."
    " hamburger: the layout of HAMburger's checkpoints.",
)


@flatten_options
def convert_command(
    name: Annotated[str, typer.Argument(help="Catalog name, hub id, model folder or .gguf file.")],
    to: Annotated[Literal["modules", "whole", "hub", "vllm", "gguf", "hamburger"], _TO],
    out: Annotated[Path, typer.Option(help="Folder to write; it must be new or empty.")],
    dtype: Dtype = "auto",
    keep_adapter: Annotated[
        bool, typer.Option("--keep-adapter", help="Leave the LoRA adapter apart; vllm then has it in adapter/.")
    ] = False,
    revision: Revision = None,
    adapter: Adapter = None,
    tokenizer: Tokenizer = None,
    accept_licence: AcceptLicence = False,
    source: Annotated[
        tuple[str, Path] | None,
        typer.Option("--from", metavar="hamburger FILE", help="Convert this checkpoint, whose base the model is."),
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Open the checkpoint of --from; no code in it is run.")
    ] = False,
) -> None:
    """Convert a model for another tool, compare the copy with it in a fresh process, and print the folder."""
    from model.convert.convert import convert

    if source is not None and source[0] != "hamburger":
        raise typer.BadParameter(f"--from takes hamburger and a file, got {source[0]!r}")
    if source is not None and not allow_pickle:
        raise typer.BadParameter("a checkpoint of HAMburger is a pickle: give --allow-pickle, too, if you trust it")
    spec = ModelSpec(name, revision, adapter, tokenizer=tokenizer)
    with progress_bar() as tell:
        done = convert(spec, to, out, dtype, keep_adapter, tell, accept_licence, source[1] if source else None)
    print(done.folder, flush=True)
    print(f"{done.checked}\nUse it: {done.command}", file=sys.stderr)
