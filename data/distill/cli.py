"""`micro-step data distill`: let a base answer the prompts of cleaned examples. Torch waits until it is needed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from model.command_options import Device, Dtype, Revision, SamplingOptions, flatten_options
from model.terminal import one_line, progress_bar


@flatten_options
def distill_command(
    examples: Annotated[Path, typer.Argument(help="Folder that `micro-step data clean` wrote.")],
    model: Annotated[str, typer.Option(help="The base: catalog name, hub id or folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the answers; one that was begun is gone on with.")],
    sampling: SamplingOptions,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an answer; longer ones are cut off.")] = 256,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many examples.")] = None,
    batch_rows: Annotated[int | None, typer.Option(min=1, help="Answers at once; by default what fits.")] = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    revision: Revision = None,
) -> None:
    """Let a base answer the prompts of cleaned examples (resumable), and write them with its answers."""
    from data.distill.examples import distill_examples
    from data.distill.run import DistillOptions
    from model.hub.loading import ModelSpec, load

    options = DistillOptions(max_new_tokens, sampling.temperature, sampling.top_p, sampling.seed, batch_rows)
    spec = ModelSpec(model, revision=revision, dtype=dtype, device=device)
    interval = 0.2 if sys.stderr.isatty() else 10.0  # a bar, or lines of a log
    try:
        with progress_bar() as tell:
            found = distill_examples(lambda: load(spec, tell), examples, out, options, tell, limit, interval)
    except KeyboardInterrupt:
        print(one_line(f"{out} holds the finished shards; run the same command again to resume"), file=sys.stderr)
        raise
    told = f"{found.answers:,} answers, {found.tokens:,} tokens, {found.ended / found.answers:.0%} ended by themselves"
    if found.empty:
        told += f"; {found.empty:,} empty, left out of the examples"
    if found.refused:
        told += f" ({found.refused:,} prompts could not be answered; the first: {found.refusal})"
    print(one_line(told), file=sys.stderr)
    print(out)
