"""`python -m benchmarks train-step`: options, table, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.cli import _write, app
from model.errors import ExportError
from model.terminal import progress_bar


@app.command("train-step")
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
    out: Annotated[Path | None, typer.Option(help="A .json file to write as well.")] = None,
) -> None:
    """Time and memory of forward and backward, beside the base's own training step, on the processor."""
    from benchmarks.train_step import train_step

    if out is not None and (out.suffix.lower() != ".json" or not out.parent.is_dir()):
        raise ExportError(f"{out} cannot be written: give a .json file in a folder that is there")
    with progress_bar() as tell:
        tell(f"{model}: timing {repeats} rounds", None)
        report = train_step(model, rows, tokens, length, precision, repeats, memory, tell)
    _show(report)
    if out is not None:
        _write(report, out)
        print(out)


def _show(report: dict[str, Any]) -> None:
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print(
        f"\n{report['model']}, {report['precision']}: {report['rows_of_batch']} rows of {report['response_tokens']}"
        f" response tokens, segments of {report['mean_length']:.2f} on average; {report['threads']} threads,"
        f" {report['repeats']} rounds",
        markup=False,
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("step", no_wrap=True)
    for title in ("seconds", "min..max", "x base", "min..max", "peak MB", "x base"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("what it does")
    for row in report["rows"]:
        seconds, ratio, peak = row["seconds"], row["ratio"], row["peak_bytes"]
        table.add_row(
            row["step"],
            f"{seconds['median']:.2f}",
            f"{seconds['min']:.2f}..{seconds['max']:.2f}",
            f"{ratio['median']:.3f}",
            f"{ratio['min']:.3f}..{ratio['max']:.3f}",
            f"{peak / 1e6:,.0f}" if peak is not None else "-",
            f"{row['peak_ratio']:.3f}" if row["peak_ratio"] is not None else "-",
            row["computes"],
        )
    console.print(table)
