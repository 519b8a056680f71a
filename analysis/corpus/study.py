"""A study of all strategies on several corpora under two models, in one folder.

    OUT/stores/CORPUS-MODEL/   a store for each corpus and model, with its extra features
    OUT/strategies.csv, pairs.csv, lengths.csv, curves.csv, transfer.csv, history.csv
    OUT/study.md               the same in tables for readers

A stopped study is resumed: scores and features that exist are not computed again. Features of an earlier study with
other options stay in the stores, and are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pandas as pd

from analysis.corpus.history import history, history_table
from analysis.corpus.report import report, strategies_for
from analysis.corpus.stored_pieces import MEMORY, StoredPieces
from analysis.corpus.study_markdown import Study, study_text
from analysis.corpus.study_options import StudyOptions
from analysis.corpus.tables import REPORT_TABLES, transfer_table
from analysis.corpus.transfer import transfer
from analysis.export import save_table
from data.corpus.documents import Corpus
from data.corpus.features import compute_features, gathers
from data.corpus.options import CorpusOptions
from data.corpus.scoring import score_corpus
from data.corpus.store import open_store
from data.corpus.text_files import SUFFIXES
from model.atomic_files import atomic_write, make_folder
from model.errors import MicroStepError
from model.hub.loading import LoadedModel
from model.progress import Tell, silent

SHARD_TOKENS = 16_384  # lost at most if it is killed: a minute on one core
TABLES = (*REPORT_TABLES, "transfer", "history")


def corpus_name(corpus: Corpus) -> str:
    """The short name of a corpus: its file name without the suffix, or the last part of its hub id."""
    name = corpus.facts.name
    suffix = next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)].replace("/", "--")


def run_study(
    corpora: Sequence[Corpus],
    models: Sequence[tuple[str, Callable[[], LoadedModel]]],
    out: Path,
    options: StudyOptions,
    tell: Tell = silent,
) -> None:
    """Compute scores and features, judge the strategies, and write the tables.

    Args:
        corpora: with different names.
        models: two, each with a name for folders and tables, and a function that loads it.
        out: folder, created if needed.
        options: how much is computed.
        tell: receives progress messages.

    Raises:
        ExportError: the folder cannot be written, or holds stores of other data.
    """
    names, (a, b) = [corpus_name(corpus) for corpus in corpora], (name for name, _ in models)
    if len(set(names)) < len(names) or a == b:
        raise MicroStepError("a study needs corpora of different names, and two models of different names")
    stores = out / "stores"
    make_folder(stores)
    scoring = CorpusOptions(
        window_characters=options.window_characters, limit_tokens=options.limit_tokens, shard_tokens=SHARD_TOKENS
    )
    for model, load_model in models:
        load_once = cache(load_model)
        for name, corpus in zip(names, corpora, strict=True):
            store = score_corpus(load_once, corpus, stores / f"{name}-{model}", scoring, tell)
            for feature in options.features():
                compute_features(load_once, store, feature, tell)
    study = _judged(names, (a, b), out, options, tell)
    for name, table in study.tables.items():
        save_table(table, out / f"{name}.csv")
    atomic_write(out / "study.md", study_text(study).encode("utf-8"))


def _judged(corpora: Sequence[str], models: tuple[str, str], out: Path, options: StudyOptions, tell: Tell) -> Study:
    """The tables of the stores in `out`."""
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    notes: dict[str, tuple[str, ...]] = {}
    for corpus in corpora:
        tell(f"judging {corpus}", None)
        sources = [_source(out / "stores" / f"{corpus}-{model}", options) for model in models]
        for target in options.targets:
            reports = [report(source, strategies_for(source, target=target), options.max_length) for source in sources]
            for model, judged in zip(models, reports, strict=True):
                notes[f"{corpus}, {model}"] = judged.notes
                for name, tabulate in REPORT_TABLES.items():
                    parts[name].append(_named(tabulate(judged), corpus=corpus, model=model, target_length=target))
            cuts = [[strategy.cut for strategy in judged.strategies] for judged in reports]
            both = transfer(sources[0], cuts[0], sources[1], cuts[1])
            parts["transfer"].append(_named(transfer_table(both), corpus=corpus, target_length=target))
        for model, source in zip(models, sources, strict=True):
            windows = history_table(history(source, options.targets, options.max_length))
            parts["history"].append(_named(windows, corpus=corpus, model=model))
    tables = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    return Study(models, tuple(corpora), tables, notes, options)


def _source(path: Path, options: StudyOptions) -> StoredPieces:
    """A store with the features of these options alone."""
    store, wanted = open_store(path), options.features()
    return StoredPieces(store, [spec for spec in gathers(store) if spec in wanted], MEMORY // 2)  # two at a time


def _named(table: pd.DataFrame, **columns: object) -> pd.DataFrame:
    """The table with these columns first."""
    rest = table.drop(columns=[name for name in columns if name in table])
    return pd.concat([pd.DataFrame(columns, index=rest.index), rest], axis=1)
