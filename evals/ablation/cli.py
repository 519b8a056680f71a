"""`micro-step eval ablate GRID`: variants of one recipe, several seeds each, one table. Torch waits until needed."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from evals.options import AllowCodeExecution
from model.command_options import Device, Local
from model.terminal import resumable


def ablate_command(
    grid: Annotated[str, typer.Argument(help="A YAML file, or the name of a grid of the project.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs; those that are there are not made again.")] = Path(
        "runs/ablations"
    ),
    local: Local = None,
    device: Device = "auto",
    table: Annotated[
        list[Path] | None, typer.Option(help="Write the table as well: .md or .csv; may be given twice.")
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw the bits per byte of documents; for grids with `documents`. The suffix chooses."),
    ] = None,
    trained_only: Annotated[
        bool, typer.Option("--trained-only", help="Train nothing; report on the variants whose runs are all trained.")
    ] = False,
    allow_code_execution: AllowCodeExecution = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many runs there are, what is there, and what is left.")
    ] = False,
) -> None:
    """Train, measure and evaluate the runs of a grid; stopped, the same command goes on.

    Prints means over seeds with 95% intervals, and differences from the first variant.
    """
    from analysis.export import FIGURE_FORMATS, check_out
    from evals.ablation.dry_run import plan
    from evals.ablation.grid import read_grid, runs_of
    from evals.ablation.run import ablate, trained_part
    from evals.ablation.table import as_markdown, check_table, write_table
    from evals.requirements import require_harness
    from model.errors import MicroStepError

    chosen = read_grid(grid)
    for path in table or []:
        check_table(path)
    if figure is not None:
        if not chosen.documents:
            raise MicroStepError(f"the grid {chosen.name} measures no documents, so there is nothing to draw")
        check_out(figure, FIGURE_FORMATS)
    if trained_only:
        chosen = trained_part(chosen, out)
    planned = plan(chosen, out, local, device).text
    if dry_run:
        print(planned)
        return
    if any(each.evaluate is not None for each in runs_of(chosen)):
        require_harness()
    print(planned, file=sys.stderr)
    with resumable(out, "the runs so far") as tell:
        rows = ablate(chosen, out, local, device, "full" if allow_code_execution else None, tell)
    print(as_markdown(chosen.name, rows))
    if chosen.documents:
        from evals.ablation.documents import measured_grid

        documents = measured_grid(chosen, out, local, device)
        print(documents.write(out))
        if figure is not None:
            from evals.ablation.document_figure import save

            save(documents, figure)
    for path in table or []:
        write_table(chosen.name, chosen.seeds, rows, path)
