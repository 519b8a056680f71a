"""`micro-step train RECIPE`: from named data to a checkpoint that every page opens. Torch waits until it is needed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from model.command_options import Device, Local
from model.terminal import one_line, progress_bar
from trainer.recipe import read_recipe


def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe of the project.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; by default runs/NAME. A begun one goes on.")
    ] = None,
    local: Local = None,
    prepared: Annotated[
        Path | None,
        typer.Option(help="A folder that `micro-step data prepare` made; by default runs/prepared/MIX-BASE is."),
    ] = None,
    states: Annotated[
        Path | None, typer.Option(help="Of a draft or a teacher: where the base's states are kept.")
    ] = None,
    device: Device = "auto",
    minutes: Annotated[
        float | None,
        typer.Option(min=0.01, help="Of training: as many steps as fit, not the recipe's; a begun run keeps its own."),
    ] = None,
    shard: Annotated[
        bool,
        typer.Option("--shard", help="Under torchrun: each process holds a part of every weight (FSDP2)."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what it takes: parameters, memory, tokens, time.")
    ] = False,
) -> None:
    """Train from a recipe; stopped or killed, the same command goes on where it was."""
    chosen = read_recipe(recipe)
    if minutes is not None:
        chosen = chosen.model_copy(update={"minutes": minutes, "flops": None})
    folder = out if out is not None else Path("runs") / chosen.name
    from trainer.dry_run import plan  # torch
    from trainer.loop import RunInterrupted
    from trainer.run import RunPaths, run_recipe

    places = RunPaths(folder, local, prepared, states)
    try:
        with progress_bar() as tell:
            if dry_run:
                print(plan(chosen, places, device, tell).text)
                return
            done = run_recipe(chosen, places, device, tell, shard)
    except RunInterrupted:
        print(one_line(f"{folder} holds a checkpoint; run the same command again to resume"), file=sys.stderr)
        raise
    if done is not None:
        print(done.model)
