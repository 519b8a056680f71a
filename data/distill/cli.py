"""`python -m data distill`: let a base answer the prompts of cleaned examples. Torch waits until it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from model.terminal import one_line, progress_bar

commands = typer.Typer()


@commands.command("distill")
def distill_command(
    examples: Annotated[Path, typer.Argument(help="Folder that `python -m data clean` wrote.")],
    model: Annotated[str, typer.Option(help="The base: catalog name, hub id or folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the answers; one that was begun is gone on with.")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an answer; longer ones are cut off.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 is greedy.")] = 0.0,
    top_p: Annotated[float, typer.Option(help="Sample from the likeliest words of this probability together.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many examples.")] = None,
    batch_rows: Annotated[int | None, typer.Option(min=1, help="Answers at once; by default what fits.")] = None,
    dtype: Annotated[
        Literal["auto", "float32", "bfloat16", "float16"], typer.Option(help="Precision of the weights.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
) -> None:
    """Let a base answer the prompts of cleaned examples (resumable), and write them with its answers."""
    from data.distill.examples import distill_examples
    from data.distill.run import DistillOptions
    from model.hub.loading import ModelSpec, load

    options = DistillOptions(max_new_tokens, temperature, top_p, seed, batch_rows)
    spec = ModelSpec(model, revision=revision, dtype=dtype, device=device)
    interval = 0.2 if sys.stderr.isatty() else 10.0  # a bar, or lines of a log
    try:
        with progress_bar() as tell:
            found = distill_examples(lambda: load(spec, tell), examples, out, options, tell, limit, interval)
    except KeyboardInterrupt:
        print(one_line(f"{out} holds the finished shards; start the same command again to go on"), file=sys.stderr)
        raise
    told = f"{found.answers:,} answers, {found.tokens:,} tokens, {found.ended / found.answers:.0%} ended by themselves"
    if found.empty:
        told += f"; {found.empty:,} empty, left out of the examples"
    if found.refused:
        told += f" ({found.refused:,} prompts could not be answered; the first: {found.refusal})"
    print(one_line(told), file=sys.stderr)
    print(out)
