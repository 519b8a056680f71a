"""`python -m benchmarks drafts`: options, table, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.output import Out, check_out, columns, interval_cell, show, write
from model.errors import MicroStepError
from model.terminal import progress_bar

commands = typer.Typer()


@commands.command("drafts")
def drafts_command(
    model: Annotated[list[str], typer.Option(help="A model for the lossless mode; may be given several times.")],
    prepared: Annotated[
        Path, typer.Option(help="Prepared data with the base's own greedy answers, of which the held-out ones count.")
    ],
    read: Annotated[int, typer.Option(min=1, help="Answers that are read.")] = 60,
    confidence: Annotated[str, typer.Option(help="Values of tau, with commas between.")] = "0.2,0.5,0.8,0.95",
    dtype: Annotated[str, typer.Option(help="Of the weights.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    out: Out = None,
) -> None:
    """What drafts have right and how many passes they save on held-out answers, without writing any."""
    check_out(out)
    try:
        taus = [float(part) for part in confidence.split(",")]
    except ValueError:
        raise MicroStepError(f"--confidence takes numbers with commas between, got {confidence!r}") from None
    import numpy as np

    from benchmarks.drafts import drafts
    from data.prepared import read_prepared
    from model.hub.loading import ModelSpec, load
    from trainer.batches.dataset import training_rows

    with progress_bar() as tell:
        rows = training_rows(read_prepared(prepared), None).held_out
        rows = rows.take(np.arange(len(rows))[:read])
        opened = [load(ModelSpec(name, dtype=dtype, device=device), tell) for name in model]  # type: ignore[arg-type]
        reports = [drafts(each, rows, taus, tell) for each in opened]
    places, walks = columns("model", "place", "tokens", "accuracy"), columns("model", "tau", "tokens a pass", "kept")
    for report in reports:
        for row in report["places"]:
            places.add_row(report["model"], str(row["place"]), f"{row['tokens']:,}", interval_cell(row["accuracy"], 3))
        for row in report["walks"]:
            cells = (interval_cell(row[key], 3) for key in ("tokens_per_pass", "kept_of_drafted"))
            walks.add_row(report["model"], f"{row['tau']:g}", *cells)
    show(f"\n{reports[0]['answers']} held-out answers, {dtype}; 95% over answers", places, walks)
    write(reports, out)
