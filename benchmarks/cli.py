"""The command line of the benchmarks: reads options, shows tables, writes JSON. It measures nothing itself."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from model.errors import ExportError, TextError
from model.terminal import progress_bar, run

app = typer.Typer(
    help="Measure speed and memory beside the alternatives.", no_args_is_help=True, pretty_exceptions_enable=False
)


def main() -> None:
    """Run the command line."""
    run(app)


@app.callback()
def _benchmarks() -> None:
    """Keep `score` a command of its own while it is the only one."""


@app.command()
def score(
    model: Annotated[
        list[str] | None, typer.Option(help="Catalog name, hub id or folder; may be given several times.")
    ] = None,
    tokens: Annotated[int, typer.Option(min=2, help="Length of the text.")] = 4096,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; each runs every method once.")] = 5,
    method: Annotated[list[str] | None, typer.Option(help="Only these methods, beside the bare forward pass.")] = None,
    text_file: Annotated[Path | None, typer.Option(help="A UTF-8 text; without it the bundled examples.")] = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the weights.")] = "float32",
    out: Annotated[Path | None, typer.Option(help="A .json file to write as well.")] = None,
) -> None:
    """Time and memory of scoring every token of a text, against the bare forward pass, on the processor."""
    from benchmarks.score import DEFAULT_MODELS, benchmark, check_methods

    if out is not None and (out.suffix.lower() != ".json" or not out.parent.is_dir()):
        raise ExportError(f"{out} cannot be written: give a .json file in a folder that is there")
    methods = check_methods(method)
    text = None if text_file is None else _read(text_file)
    reports = []
    with progress_bar() as tell:
        for name in model or DEFAULT_MODELS:
            reports.append(benchmark(name, tokens, repeats, methods, text, dtype, tell))
    for report in reports:
        _show(report)
    if out is not None:
        _write(reports, out)
        print(out)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TextError(f"{path} cannot be read as UTF-8 text: {error}") from None


def _write(reports: Any, path: Path) -> None:
    part = path.with_name(path.name + ".part")
    try:
        part.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from None


def _show(report: dict[str, Any]) -> None:
    console = Console() if os.isatty(1) else Console(width=160)
    console.print(
        f"\n{report['model']}, {report['dtype']}: {report['tokens']:,} tokens, {report['vocabulary']:,} words, logits"
        f" [N, V] in float32 {report['logits_bytes'] / 1e6:,.0f} MB; {report['threads']} threads,"
        f" {report['repeats']} rounds",
        markup=False,
        highlight=False,
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for title in ("seconds", "min..max", "x bare", "min..max", "peak MB", "of [N, V]"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("what it does")
    for row in report["rows"]:
        seconds, ratio, peak = row["seconds"], row["ratio"], row["peak_bytes"]
        table.add_row(
            row["method"],
            f"{seconds['median']:.2f}" if seconds else "-",
            f"{seconds['min']:.2f}..{seconds['max']:.2f}" if seconds else "-",
            f"{ratio['median']:.3f}" if ratio else "-",
            f"{ratio['min']:.3f}..{ratio['max']:.3f}" if ratio else "-",
            f"{peak / 1e6:,.0f}" if peak is not None else "-",
            f"{peak / report['logits_bytes']:.2f}" if peak is not None else "-",
            row["note"] or row["computes"],
        )
    console.print(table)


import benchmarks.decode_cli  # noqa: E402
import benchmarks.segment  # noqa: E402
import benchmarks.train_cli  # noqa: E402, F401 - they add their commands
