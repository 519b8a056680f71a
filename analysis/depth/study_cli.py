"""`micro-step depth-study`: depth over many documents under two models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer

from analysis.options import Column, load_shown, print_notes, progress
from analysis.view import UNIT, Theme, UnitOption
from data.corpus.documents import CorpusSpec, open_corpus
from data.samples import samples
from model.command_options import Chat, Limit, LoadOptions, PairOptions, command_line, flatten_options, to_args
from model.errors import ExportError, TextError
from model.text.document import Document, Message

SAMPLES = "samples"


@dataclass(frozen=True)
class DepthStudyOptions:
    """Which documents, and how much of each."""

    data: Annotated[
        str, typer.Option(help="Documents: .jsonl, .txt, .parquet, a hub id, or samples: those of the project.")
    ] = "samples"
    column: Column = "text"
    limit: Limit = None
    characters: Annotated[int, typer.Option(min=1, help="The first characters of a document that are read.")] = 1000
    chat: Chat = False
    unit: UnitOption = UNIT
    theme: Annotated[Theme, typer.Option(help="Colours of the figure.")] = "light"


@flatten_options
def depth_study(
    pair: PairOptions,
    loading: LoadOptions,
    options: DepthStudyOptions,
    out: Annotated[Path, typer.Option(help="Folder for the tables, the text and the figure.")],
) -> None:
    """Does a model decide early where it is sure? Every layer's prediction over many documents, under two models.

    Writes depth-layers.csv, depth-summary.csv, depth-entropy.csv (tenths of the tokens by final entropy), depth.md and
    the figure. Intervals are over documents.
    """
    from analysis.depth.study import by_layer, findings, in_bins, study_depth, study_text, summary
    from analysis.depth.study_figure import study_figure
    from analysis.export import chrome, image, page, table_bytes
    from model.atomic_files import atomic_write, check_writable

    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} cannot be written: it is not a folder")
    check_writable(out)
    documents = read_documents(options)
    specs = pair.pair(loading)
    with progress("reading layers") as tell:
        study = study_depth((("A", specs[0]), ("B", specs[1])), documents, options.chat, load_shown, tell)
    print_notes("", study.notes)
    command = command_line("depth-study", *to_args(pair, loading, options), "--out", out.name)
    drawn = study_figure(study, options.unit, options.theme)
    files = {
        "depth-layers.csv": table_bytes(by_layer(study, options.unit), "csv"),
        "depth-summary.csv": table_bytes(summary(study), "csv"),
        "depth-entropy.csv": table_bytes(in_bins(study, "entropy", options.unit), "csv"),
        "depth.md": study_text(study, command, options.unit).encode(),
    }
    name, content = ("depth.png", image(drawn.figure, "png")) if chrome() else ("depth.html", page(drawn).encode())
    for file, written in (files | {name: content}).items():
        atomic_write(out / file, written)
    for line in findings(study):
        print(line)
    print(out)


def read_documents(options: DepthStudyOptions) -> list[Document]:
    """The documents that the options name, each cut after its first characters.

    Raises:
        TextError: they cannot be read, or there are none.
    """
    if options.data == SAMPLES and not Path(options.data).exists():
        found: Iterable[Document | None] = (
            Document(tuple(Message(role, text) for role, text in each.messages)) for each in samples()
        )
    else:
        found = (entry.document for entry in open_corpus(CorpusSpec(options.data, options.column)).entries(others=()))
    texts = (document for document in found if document is not None and document.text.strip())
    documents = [first_characters(document, options.characters) for document in islice(texts, options.limit)]
    if not documents:
        raise TextError(f"{options.data} holds no text")
    return documents


def first_characters(document: Document, most: int) -> Document:
    """The beginning of a document; of a conversation, the messages that it reaches into."""
    kept, left = [], most
    for message in document.messages:
        if left <= 0:
            break
        kept.append(replace(message, content=message.content[:left]))
        left -= len(message.content)
    return replace(document, messages=tuple(kept))
