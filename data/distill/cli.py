"""`micro-step data distill`: let a base answer the prompts of cleaned examples. Torch waits until it is needed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from data.ray_pool import RayOptions
from model.command_options import Device, Dtype, Revision, SamplingOptions, flatten_options
from model.terminal import one_line, resumable


@flatten_options
def distill_command(
    examples: Annotated[Path, typer.Argument(help="Folder that `micro-step data clean` wrote.")],
    model: Annotated[str, typer.Option(help="The base: catalog name, hub id or folder.")],
    out: Annotated[Path, typer.Option(help="Folder of the answers; one that was begun is gone on with.")],
    sampling: SamplingOptions,
    cluster: RayOptions,
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
    with resumable(out, "the finished shards") as tell:
        made = distill_examples(lambda: load(spec, tell), examples, out, options, tell, limit, cluster)
    summary = f"{made.answers:,} answers, {made.tokens:,} tokens, {made.ended / made.answers:.0%} ended by themselves"
    if made.empty:
        summary += f"; {made.empty:,} empty, left out of the examples"
    if made.refused:
        summary += f" ({made.refused:,} prompts could not be answered; the first: {made.refusal})"
    print(one_line(summary), file=sys.stderr)
    print(out)
