"""`python -m benchmarks train-step`: options, table, JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import typer

from benchmarks.output import Out, check_out, columns, megabytes, show, spread_cells, write
from model.terminal import progress_bar

commands = typer.Typer()


@commands.command("train-step")
def train_step_command(
    model: Annotated[str, typer.Option(help="Catalog name, hub id or folder of the base.")] = "smollm2-135m-instruct",
    rows: Annotated[int, typer.Option(min=1, help="Rows of the batch.")] = 8,
    tokens: Annotated[int, typer.Option(min=2, help="Response tokens of each row.")] = 512,
    length: Annotated[float, typer.Option(min=1, max=4, help="Mean length of a segment.")] = 2.0,
    precision: Annotated[
        Literal["float32", "bfloat16"], typer.Option(help="bfloat16: autocast, with weights in float32.")
    ] = "float32",
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; each takes every step once.")] = 3,
    memory: Annotated[bool, typer.Option(help="Measure the peak memory as well.")] = True,
    out: Out = None,
) -> None:
    """Time and memory of forward and backward, beside the base's own training step, on the processor."""
    from benchmarks.train_step import train_step

    check_out(out)
    with progress_bar() as tell:
        tell(f"{model}: timing {repeats} rounds", None)
        report = train_step(model, rows, tokens, length, precision, repeats, memory, tell)
    _show(report)
    write(report, out)


def _show(report: dict[str, Any]) -> None:
    table = columns("step", "seconds", "min..max", "x base", "min..max", "peak MB", "x base")
    table.add_column("what it does")
    for row in report["rows"]:
        table.add_row(
            row["step"],
            *spread_cells(row["seconds"], 2),
            *spread_cells(row["ratio"], 3),
            megabytes(row["peak_bytes"]),
            f"{row['peak_ratio']:.3f}" if row["peak_ratio"] is not None else "-",
            row["computes"],
        )
    show(
        f"\n{report['model']}, {report['precision']}: {report['rows_of_batch']} rows of {report['response_tokens']}"
        f" response tokens, segments of {report['mean_length']:.2f} on average; {report['threads']} threads,"
        f" {report['repeats']} rounds",
        table,
    )


@commands.command("train")
def train_command(
    model: Annotated[str, typer.Option(help="Catalog name, hub id or folder of the base.")] = "smollm2-135m-instruct",
    rows: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 8,
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of each row that are not learnt.")] = 64,
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of each row that are.")] = 192,
    length: Annotated[float, typer.Option(min=1, max=4, help="Mean length of a segment.")] = 2.0,
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="bfloat16: autocast.")] = "bfloat16",
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each round.")] = 3,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds.")] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    out: Out = None,
) -> None:
    """Tokens per second of training, beside transformers' Trainer on the same batches."""
    from benchmarks.train import train

    check_out(out)
    report = train(model, rows, prompt, tokens, length, precision, steps, repeats, device)
    table = columns("way", "tokens/s", "min..max", "x Trainer", "min..max")
    table.add_column("what is trained")
    for row in report["rows"]:
        cells = (*spread_cells(row["tokens_per_second"], 0), *spread_cells(row["ratio"], 2))
        table.add_row(row["way"], *cells, row["computes"])
    show(
        f"{report['model']}, {report['precision']}: {report['rows_of_step']} rows of {report['prompt_tokens']} +"
        f" {report['response_tokens']} tokens, segments of {report['mean_length']:.2f} on average;"
        f" {report['device']}, {report['threads']} threads, {report['repeats']} rounds of {report['steps']} steps",
        table,
    )
    write(report, out)
