"""`micro-step corpus study`: the strategies on several corpora under two models, from data files to tables."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from analysis.corpus.study_options import StudyOptions
from analysis.options import Column
from data.corpus.documents import CorpusSpec, open_corpus
from model.command_options import LoadOptions, PairOptions, flatten_options
from model.hub.loading import load
from model.segmentation.segment import check_max_length
from model.terminal import progress_bar


@flatten_options
def study_command(
    data: Annotated[list[str], typer.Option(help="A corpus: file or hub id; repeat it for more.")],
    pair: PairOptions,
    out: Annotated[Path, typer.Option(help="Folder of stores and tables. An existing one is resumed.")],
    loading: LoadOptions,
    options: StudyOptions,
    column: Column = "text",
) -> None:
    """Score, gather and judge corpora under two models: tables of strategies, pairs, transfer and limited history."""
    check_max_length(options.max_length)
    specs = pair.pair(loading)
    corpora = [open_corpus(CorpusSpec(name, column)) for name in data]
    from analysis.corpus.study import run_study  # torch

    with progress_bar() as tell:
        models = [(Path(spec.name).name, partial(load, spec, tell)) for spec in specs]
        run_study(corpora, models, out, options, tell)
    print(out / "study.md")
