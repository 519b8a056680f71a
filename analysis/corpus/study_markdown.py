"""A study's tables as Markdown. Each number has half the width of its 95% interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from analysis.corpus.study_options import StudyOptions

_FIGURES = {"mean_length": "length", "singletons": "single", "word_f1": "words", "pair_f1": "pairs"}


@dataclass(frozen=True)
class Study:
    """The tables of a study; each row also names its corpus, and its model if it has one."""

    models: tuple[str, str]
    corpora: tuple[str, ...]
    tables: dict[str, pd.DataFrame]  # by the names of their files
    notes: dict[str, tuple[str, ...]]  # by "corpus, model"
    options: StudyOptions


def study_text(study: Study) -> str:
    """All tables of a study except curves and lengths, which are for figures."""
    parts = [f"# {' and '.join(study.models)} on {', '.join(study.corpora)}\n"]
    for target in study.options.targets:
        parts.append(f"## Strategies at {target:g} tokens per segment\n")
        for corpus in study.corpora:
            parts += [f"### {corpus}\n", strategies(study, corpus, target)]
    for target in study.options.targets:
        head = f"## Transfer between the models at {target:g} tokens per segment: F1 on characters (by chance)\n"
        parts += [head, transfer(study, target)]
    parts.append("## Limited history beside the full one\n")
    for corpus in study.corpora:
        parts += [f"### {corpus}\n", history(study, corpus)]
    for target in study.options.targets:
        head = f"## F1 of each pair at {target:g}, in hundredths, mean over corpora; below {study.models[0]}, above"
        parts += [f"{head} {study.models[1]}\n", matrix(study, target)]
    parts.append("## Notes\n")
    parts += [f"- {where}: {'; '.join(notes)}" for where, notes in study.notes.items()]
    return "\n".join(parts) + "\n"


def strategies(study: Study, corpus: str, target: float) -> str:
    """A row for each strategy: mean length, singletons, F1 with words, mean F1 with others, for both models."""
    table = study.tables["strategies"]
    here = table[(table.corpus == corpus) & (table.target_length == target)]
    sides = [here[here.model == model].set_index("strategy") for model in study.models]
    head = ["strategy", "tokens", *(f"{name} {side}" for side in "AB" for name in _FIGURES.values())]
    rows = []
    for name in sides[0].index:
        cells = [_figure(side.loc[name], each) for side in sides for each in _FIGURES]
        rows.append([name, f"{sides[0].loc[name].tokens:,}", *cells])
    return _table(head, rows)


def transfer(study: Study, target: float) -> str:
    """A row for each strategy, a column for each corpus."""
    table = study.tables["transfer"]
    here = table[table.target_length == target]
    rows = []
    for name in dict.fromkeys(here.strategy):
        mine = here[here.strategy == name].set_index("corpus")
        cells = [
            f"{_figure(mine.loc[corpus], 'f1')} ({_short(mine.loc[corpus].chance_f1)})" for corpus in study.corpora
        ]
        rows.append([name, *cells])
    return _table(["strategy", *study.corpora], rows)


def history(study: Study, corpus: str) -> str:
    """A row for each window: mean excess in nats, correlation and boundary F1, for both models."""
    table = study.tables["history"]
    sides = [table[(table.corpus == corpus) & (table.model == model)] for model in study.models]
    figures = {"excess": "D", "distance": "abs D", "correlation": "r"}
    figures |= {f"f1_at_{target:g}": f"F1 at {target:g}" for target in study.options.targets}
    head = ["w", "tokens seen", *(f"{name} {side}" for side in "AB" for name in figures.values())]
    rows = []
    for (_, one), (_, other) in zip(sides[0].iterrows(), sides[1].iterrows(), strict=True):
        seen = str(one.how).split("limited history of ")[-1].split(" tokens")[0]
        whole = int(one.window) >= study.options.window_characters
        rows.append(
            [
                "all" if whole else str(one.window),
                "all" if whole else seen,
                *(_figure(each, name) for each in (one, other) for name in figures),
            ]
        )
    return _table(head, rows)


def matrix(study: Study, target: float) -> str:
    """F1 of all pairs of strategies, averaged over corpora: model A below the diagonal, model B above."""
    table = study.tables["pairs"]
    here = table[table.target_length == target]
    mean = here.groupby(["model", "reference", "hypothesis"]).f1.mean()
    names = list(dict.fromkeys(here.reference))
    short = [str(i + 1) for i in range(len(names))]
    rows = []
    for i, name in enumerate(names):
        cells = []
        for j, other in enumerate(names):
            model = study.models[0 if j < i else 1]
            cells.append("·" if i == j else f"{100 * mean[model, name, other]:.0f}")
        rows.append([f"{i + 1} {name}", *cells])
    return _table(["", *short], rows)


def _figure(row: pd.Series, name: str) -> str:
    mean, low, high = (float(row[each]) for each in (name, f"{name}_low", f"{name}_high"))
    return _short(mean) + (f" ±{_short((high - low) / 2)}" if high == high else "")


def _short(value: float) -> str:
    """A number with two decimals: intervals are too wide for more."""
    return f"{value:z.2f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *rows)]
    return "\n".join([lines[0], f"|{'---|' * len(head)}", *lines[1:]]) + "\n"
