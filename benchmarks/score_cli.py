"""`python -m benchmarks score`: options, table, JSON. It measures nothing itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from benchmarks.output import Out, check_out, columns, megabytes, show, spread_cells, write
from model.errors import TextError
from model.terminal import progress_bar

commands = typer.Typer()


@commands.command()
def score(
    model: Annotated[
        list[str] | None, typer.Option(help="Catalog name, hub id or folder; may be given several times.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Length of the text.")] = 4096,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; each runs every method once.")] = 5,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods, beside the bare forward pass.")] = None,
    text_file: Annotated[Path | None, typer.Option(help="A UTF-8 text; without it the bundled examples.")] = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the weights.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    out: Out = None,
) -> None:
    """Time and memory of scoring every token of a text, against the bare forward pass."""
    from benchmarks.score import DEFAULT_MODELS, benchmark, check_methods

    check_out(out)
    methods = check_methods(method)
    text = None if text_file is None else _read(text_file)
    reports = []
    with progress_bar() as tell:
        for name in model or DEFAULT_MODELS:
            reports.append(benchmark(name, tokens, repeats, methods, text, dtype, device, tell))
    for report in reports:
        _show(report)
    write(reports, out)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path} cannot be read as UTF-8 text: {error}") from None


def _show(report: dict[str, Any]) -> None:
    table = columns("method", "seconds", "min..max", "x bare", "min..max", "peak MB", "of [N, V]")
    table.add_column("what it does")
    for row in report["rows"]:
        peak = row["peak_bytes"]
        table.add_row(
            row["method"],
            *spread_cells(row["seconds"], 2),
            *spread_cells(row["ratio"], 3),
            megabytes(peak),
            f"{peak / report['logits_bytes']:.2f}" if peak is not None else "-",
            row["note"] or row["computes"],
        )
    show(
        f"\n{report['model']}, {report['dtype']}: {report['tokens']:,} tokens, {report['vocabulary']:,} words, logits"
        f" [N, V] in float32 {report['logits_bytes'] / 1e6:,.0f} MB; {report['device']}, {report['threads']} threads,"
        f" {report['repeats']} rounds",
        table,
    )
