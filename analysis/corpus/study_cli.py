"""`micro-step corpus study`: the strategies on several corpora under two models, from data files to tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from analysis.options import Column, MaxLength, TargetLengths
from data.corpus.documents import CorpusSpec, open_corpus
from model.command_options import ListOf, LoadOptions, PairOptions, flatten_options
from model.hub.loading import LoadedModel, ModelSpec, load
from model.progress import Tell
from model.segmentation.segment import MAX_LENGTH, check_max_length
from model.terminal import progress_bar


@flatten_options
def study_command(
    data: Annotated[list[str], typer.Option(help="A corpus: file or hub id; repeat it for more.")],
    pair: PairOptions,
    out: Annotated[Path, typer.Option(help="Folder of stores and tables. An existing one is resumed.")],
    loading: LoadOptions,
    column: Column = "text",
    limit_tokens: Annotated[int, typer.Option(min=1, help="Of each corpus.")] = 100_000,
    window_characters: Annotated[int, typer.Option(min=1, help="Of the windows that documents are cut into.")] = 2500,
    every: Annotated[int, typer.Option(min=1, help="Window in which further runs are made.")] = 10,
    history_window: Annotated[
        tuple[int, ...] | None,
        typer.Option(help="w, tokens of the limited histories. Default: 4 to 256."),
        ListOf(int, least=1),
    ] = None,
    history_every: Annotated[int, typer.Option(min=1, help="Window in which limited histories are studied.")] = 20,
    target_length: TargetLengths = None,
    max_length: MaxLength = MAX_LENGTH,
) -> None:
    """Score, gather and judge corpora under two models: tables of strategies, pairs, transfer and limited history."""
    check_max_length(max_length)
    specs = pair.pair(loading)
    corpora = [open_corpus(CorpusSpec(each, column)) for each in data]
    from analysis.corpus.study import run_study  # torch
    from analysis.corpus.study_result import StudyOptions

    options = StudyOptions(limit_tokens, window_characters, every, history_every=history_every, max_length=max_length)
    if history_window:
        options = replace(options, history_windows=tuple(sorted(set(history_window))))
    if target_length:
        options = replace(options, targets=tuple(target_length))
    with progress_bar() as tell:
        models = [(Path(each.name).name, _loader(each, tell)) for each in specs]
        run_study(corpora, models, out, options, tell)
    print(out / "study.md")


def _loader(spec: ModelSpec, tell: Tell) -> Callable[[], LoadedModel]:
    return lambda: load(spec, tell)
