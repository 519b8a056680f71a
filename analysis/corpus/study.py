"""A study of all strategies on several corpora under two models, in one folder.

    OUT/stores/CORPUS-MODEL/   a store for each corpus and model, with its extra features
    OUT/strategies.csv, pairs.csv, lengths.csv, curves.csv, transfer.csv, history.csv
    OUT/study.md               the same in tables for readers

A stopped study is resumed: scores and features that exist are not computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from analysis.corpus import tables as tables
from analysis.corpus.history import history, history_table
from analysis.corpus.report import report, strategies_for
from analysis.corpus.study_markdown import study_text
from analysis.corpus.study_result import TABLES, Study, StudyOptions
from analysis.corpus.transfer import transfer
from analysis.export import save_table
from data.corpus.documents import Corpus
from data.corpus.features import compute_features
from data.corpus.options import CorpusOptions
from data.corpus.rule_inputs import CorpusSource
from data.corpus.scoring import score_corpus
from data.corpus.text_files import SUFFIXES
from model.atomic_files import atomic_write, make_folder
from model.errors import MicroStepError
from model.hub.loading import LoadedModel
from model.progress import Tell, silent

SHARD_TOKENS = 16_384  # lost at most if it is killed: a minute on one core


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
) -> Study:
    """Compute scores and features, and judge the strategies; tables are written at the end.

    Args:
        corpora: with different names.
        models: two, each with a name for folders and tables, and a function that loads it.
        out: folder, created if needed.
        options: how much is computed.
        tell: receives progress messages.

    Raises:
        ExportError: the folder cannot be written, or holds stores of other data.
        MicroStepError: names are not different, or scoring or judging fails.
    """
    names = [corpus_name(corpus) for corpus in corpora]
    if len(set(names)) < len(names) or len({name for name, _ in models}) != 2 or len(models) != 2:
        raise MicroStepError("a study needs corpora of different names, and two models of different names")
    stores = out / "stores"
    make_folder(stores)
    scoring = CorpusOptions(
        window_characters=options.window_characters, limit_tokens=options.limit_tokens, shard_tokens=SHARD_TOKENS
    )
    for model, load_model in models:
        held = _Once(load_model)
        for name, corpus in zip(names, corpora, strict=True):
            store = score_corpus(held, corpus, stores / f"{name}-{model}", scoring, tell)
            for what in options.gathers():
                compute_features(held, store, what, tell)
    return judge_study(names, [name for name, _ in models], out, options, tell)


def judge_study(
    corpora: Sequence[str],
    models: Sequence[str],
    out: Path,
    options: StudyOptions,
    tell: Tell = silent,
) -> Study:
    """Judge the stores that `run_study` wrote in `out`, and write the tables."""
    from data.corpus.store import open_store

    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    notes: dict[str, tuple[str, ...]] = {}
    for corpus in corpora:
        sources = [CorpusSource.read(open_store(out / "stores" / f"{corpus}-{model}")) for model in models]
        tell(f"judging {corpus}", None)
        for target in options.targets:
            reports = [
                report(source, strategies_for(source, target=target), options.max_length, curves=True)
                for source in sources
            ]
            for model, found in zip(models, reports, strict=True):
                notes[f"{corpus}, {model}"] = found.notes
                for name in ("strategies", "pairs", "lengths", "curves"):
                    table = getattr(tables, _MAKERS[name])(found)
                    parts[name].append(_named(table, corpus=corpus, model=model, target_length=target))
            cuts = [[each.cut for each in found.strategies] for found in reports]
            met = tables.transfer_table(transfer(sources[0], cuts[0], sources[1], cuts[1]))
            parts["transfer"].append(_named(met, corpus=corpus, target_length=target))
        for model, source in zip(models, sources, strict=True):
            windows = history_table(history(source, options.targets, options.max_length))
            parts["history"].append(_named(windows, corpus=corpus, model=model))
    joined = {name: pd.concat(found, ignore_index=True) for name, found in parts.items()}
    study = Study((models[0], models[1]), tuple(corpora), joined, notes, options)
    for name, table in joined.items():
        save_table(table, out / f"{name}.csv")
    atomic_write(out / "study.md", study_text(study).encode("utf-8"))
    return study


_MAKERS = {"strategies": "strategy_table", "pairs": "pair_table", "lengths": "length_table", "curves": "curve_table"}


class _Once:
    """A model that is loaded on first use, and kept."""

    def __init__(self, load_model: Callable[[], LoadedModel]) -> None:
        self._load = load_model
        self._held: LoadedModel | None = None

    def __call__(self) -> LoadedModel:
        self._held = self._held or self._load()
        return self._held


def _named(table: pd.DataFrame, **columns: object) -> pd.DataFrame:
    """The table with these columns first."""
    rest = table.drop(columns=[name for name in columns if name in table])
    return pd.concat([pd.DataFrame(columns, index=rest.index), rest], axis=1)
