"""`micro-step evenness`: the claim about the micro step, over several models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.options import (
    MAX_LENGTH_OPTION,
    Column,
    check_output,
    figure_option,
    load_shown,
    print_notes,
    progress,
    save_drawn,
)
from analysis.segmentation.options import STRATEGY
from analysis.view import Theme
from model.command_options import (
    Chat,
    Limit,
    LoadOptions,
    command_line,
    figure_command,
    flatten_options,
    to_args,
)
from model.errors import ExportError, MicroStepError, TextError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.attention.evenness.study import EvennessStudy

FIGURE_NAMES = ("models", "places")
TABLE, WEIGHTS, TEXT = "evenness.csv", "weights.csv", "evenness.md"


@dataclass(frozen=True)
class EvennessOptions:
    """Which models on which texts."""

    model: Annotated[
        list[str] | None,
        typer.Option(help="Catalog name, model folder or folder of a training run; may be repeated."),
    ] = None
    data: Annotated[
        str,
        typer.Option(help="Texts that were not trained on: .jsonl, .txt, .parquet, prepared data, or samples."),
    ] = "samples"
    column: Column = "text"
    limit: Limit = None
    strategy: Annotated[str | None, STRATEGY] = None
    max_length: Annotated[int | None, MAX_LENGTH_OPTION] = None
    untrained: Annotated[
        bool, typer.Option("--untrained/--no-untrained", help="Measure untrained modules around the bases, too.")
    ] = True
    chat: Chat = False


@dataclass(frozen=True)
class TableOptions:
    """A study that is there, to be drawn."""

    table: Annotated[str | None, typer.Option(help="With --figure: an evenness.csv that this command wrote.")] = None
    theme: Annotated[Theme, typer.Option(help="Colours of the figures.")] = "light"


@flatten_options
def evenness(
    studied: EvennessOptions,
    loading: LoadOptions,
    drawn: TableOptions,
    out: Annotated[Path, typer.Option(help="Folder for table, text and figures; with --figure, a file.")],
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
) -> None:
    """Are all context states used fairly evenly in the micro step? Entropy of the micro decoder's attention over them.

    Writes evenness.csv (one row per model, level, place and figure), weights.csv, evenness.md and the figures. With
    --figure and --table, it redraws a figure from its table without running a model.
    """
    if figure is not None:
        check_output(out, figure, FIGURE_NAMES)
        if drawn.table is None:
            raise MicroStepError("--figure draws an existing table: give it with --table")
        _draw(figure, Path(drawn.table), drawn.theme, out)
        return
    from analysis.attention.evenness.study import EvennessQuery, study
    from analysis.attention.evenness.tables import findings
    from analysis.attention.evenness.texts import read_texts
    from analysis.segmentation.strategy import Strategy

    if not studied.model:
        raise MicroStepError("give the models with --model")
    _check_folder(out)
    chosen = None if studied.strategy is None else Strategy.parse(studied.strategy)
    texts = read_texts(studied.data, studied.column, studied.limit, studied.chat)
    names = list(dict.fromkeys(studied.model))
    specs = [loading.spec(name) for name in names]
    with progress("measuring") as told:
        found = study(specs, EvennessQuery(texts, chosen, studied.max_length, studied.untrained), load_shown, told)
    for row in found.rows:
        print_notes(f"{row.name}: ", row.notes)
    again = replace(studied, model=names, strategy=None if chosen is None else str(chosen))
    _write(found, out, command_line("evenness", *to_args(again), "--out", out.name), drawn.theme)
    for line in findings(found.shown):
        print(line)
    print(out)


def _draw(figure: str, table: Path, theme: Theme, out: Path) -> None:
    from analysis.attention.evenness.figures import draw
    from analysis.provenance import Provenance

    read = _read(table)
    origin = Provenance(
        command=figure_command("evenness", TableOptions(TABLE, theme)),
        request={"table": table.name},
        view={"theme": theme},
        models={},
        files={TABLE: table.read_bytes()},
    )
    save_drawn(draw(figure, read, theme), out, origin)


def _read(path: Path) -> pd.DataFrame:
    from analysis.attention.evenness.tables import read_study
    from analysis.export import read_csv

    try:
        found = read_csv(path, dtype={"seeds": "str"})
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise TextError(f"{path} is not a CSV table: {str(error).splitlines()[0]}") from None
    return read_study(found, path.name)


def _check_folder(out: Path) -> None:
    """Refuse, before heavy work, what no folder can be made of."""
    from model.atomic_files import check_writable

    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} cannot be written: it is not a folder")
    check_writable(out)


def _write(found: EvennessStudy, out: Path, command: str, theme: Theme) -> None:
    """All files of the study; the figures as pictures where this machine can draw them, else as pages."""
    from analysis.attention.evenness.figures import FIGURES, draw
    from analysis.attention.evenness.tables import study_table, study_text, study_weights
    from analysis.export import chrome, image, page, table_bytes
    from model.atomic_files import atomic_write

    table = study_table(found)
    files = {
        TABLE: table_bytes(table, "csv"),
        WEIGHTS: table_bytes(study_weights(found), "csv"),
        TEXT: study_text(found, command).encode("utf-8"),
    }
    for name in FIGURES:
        drawn = draw(name, table, theme)
        if chrome() is not None:
            files[f"{name}.png"] = image(drawn.figure, "png")
        else:
            files[f"{name}.html"] = page(drawn).encode("utf-8")
    for file, content in files.items():
        atomic_write(out / file, content)
