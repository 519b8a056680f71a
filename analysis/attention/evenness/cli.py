"""`python -m analysis evenness` and `evenness-figure`: the claim about the micro step, over several models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.options import Chat, FigureOut, LoadOptions, Theme, flatten_options, load_shown, print_notes, progress
from model.errors import ExportError, TextError

if TYPE_CHECKING:
    import pandas as pd

    from analysis.attention.evenness.study import EvennessStudy

commands = typer.Typer()

TABLE, WEIGHTS, TEXT = "evenness.csv", "weights.csv", "evenness.md"


@commands.command("evenness")
@flatten_options
def evenness(
    model: Annotated[
        list[str],
        typer.Option(help="Catalog name, model folder or folder of a training run; may be repeated."),
    ],
    loading: LoadOptions,
    out: Annotated[Path, typer.Option(help="Folder for table, text and figures; made if it is not there.")],
    data: Annotated[
        str,
        typer.Option(help="Texts that were not trained on: .jsonl, .txt, .parquet, prepared data, or samples."),
    ] = "samples",
    column: Annotated[str, typer.Option(help="Of .jsonl and .parquet: holds the text or conversation.")] = "text",
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many documents.")] = None,
    strategy: Annotated[
        str | None, typer.Option(help="As in entropy:threshold=1.2, in nats. Default: as each model was trained.")
    ] = None,
    max_length: Annotated[int | None, typer.Option(min=2, help="The most tokens of a segment; default 4.")] = None,
    untrained: Annotated[
        bool, typer.Option("--untrained/--no-untrained", help="Measure untrained modules around the bases, too.")
    ] = True,
    chat: Chat = False,
    theme: Theme = "light",
) -> None:
    """Are all context states used fairly evenly in the micro step? Entropy of the micro decoder's attention over them.

    Writes evenness.csv (a row a model, level, place and figure), weights.csv, evenness.md and the figures.
    """
    from analysis.attention.evenness.study import EvennessQuery, study
    from analysis.attention.evenness.tables import findings
    from analysis.attention.evenness.texts import read_texts
    from analysis.segmentation.strategy import Strategy

    _check_folder(out)
    chosen = None if strategy is None else Strategy.parse(strategy)
    texts = read_texts(data, column, limit, chat)
    specs = [loading.spec(name, None, None) for name in dict.fromkeys(model)]
    with progress("measuring") as told:
        found = study(specs, EvennessQuery(texts, chosen, max_length, untrained), load_shown, told)
    for row in found.rows:
        print_notes(f"{row.name}: ", row.notes)
    words = ["evenness", *(word for name in dict.fromkeys(model) for word in ("--model", name)), "--data", data]
    words += ["--column", column] if column != "text" else []
    words += ["--limit", str(limit)] if limit is not None else []
    words += ["--strategy", str(chosen)] if chosen is not None else []
    words += ["--max-length", str(max_length)] if max_length is not None else []
    words += [] if untrained else ["--no-untrained"]
    words += ["--chat"] if chat else []
    _write(found, out, words, theme)
    for line in findings(found.shown):
        print(line)
    print(out)


@commands.command("evenness-figure")
@flatten_options
def evenness_figure(
    name: Annotated[str, typer.Argument(help="models or places.")],
    table: Annotated[Path, typer.Argument(help="An evenness.csv that the command evenness wrote.")],
    out: FigureOut,
    theme: Theme = "light",
) -> None:
    """Draw the figures of a study again from its table; no model is run."""
    from analysis.attention.evenness.figures import FIGURES, draw
    from analysis.export import FIGURE_FORMATS, check_out, save_figure
    from analysis.figures.figure import check_figure
    from analysis.provenance import Provenance
    from analysis.query import command_line

    check_figure(name, FIGURES)
    check_out(out, FIGURE_FORMATS)
    read = _read(table)
    origin = Provenance(
        command=lambda figure, to: command_line(["evenness-figure", figure, TABLE, "--theme", theme, "--out", to]),
        request={"table": table.name},
        view={"theme": theme},
        models={},
        files={TABLE: table.read_bytes()},
    )
    save_figure(draw(name, read, theme), out, origin)
    print(out)


def _read(path: Path) -> pd.DataFrame:
    from analysis.attention.evenness.tables import read_study
    from analysis.export import read_csv

    try:
        found = read_csv(path, dtype={"seeds": "str"})
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise TextError(f"{path} is no CSV table: {str(error).splitlines()[0]}") from None
    return read_study(found, path.name)


def _check_folder(out: Path) -> None:
    """Refuse, before heavy work, what no folder can be made of."""
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} cannot be written: it is no folder")
    if not out.absolute().parent.is_dir():
        raise ExportError(f"{out} cannot be written: its folder does not exist")


def _write(found: EvennessStudy, out: Path, words: list[str], theme: Theme) -> None:
    """All files of the study; the figures as pictures where this machine can draw them, else as pages."""
    from analysis.attention.evenness.figures import FIGURES, draw
    from analysis.attention.evenness.tables import study_table, study_text, study_weights
    from analysis.export import chrome, image, page, table_bytes
    from analysis.query import command_line
    from model.atomic_files import atomic_write

    table = study_table(found)
    files = {
        TABLE: table_bytes(table, "csv"),
        WEIGHTS: table_bytes(study_weights(found), "csv"),
        TEXT: study_text(found, command_line([*words, "--out", out.name])).encode("utf-8"),
    }
    for name in FIGURES:
        drawn = draw(name, table, theme)
        if chrome() is not None:
            files[f"{name}.png"] = image(drawn.figure, "png")
        else:
            files[f"{name}.html"] = page(drawn).encode("utf-8")
    out.mkdir(exist_ok=True)
    for file, content in files.items():
        atomic_write(out / file, content)
