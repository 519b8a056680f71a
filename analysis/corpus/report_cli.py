"""`micro-step corpus report` and `corpus gather`: judge strategies on a store; compute what some need first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.options import (
    HistoryMethod,
    HistoryStride,
    MaxLength,
    Out,
    Settings,
    TargetLengths,
    check_table,
    print_notes,
    print_or_save,
    set_parameters,
    split_strategies,
)
from model.command_options import LoadOptions, ModelOptions, flatten_options
from model.errors import MicroStepError
from model.hub.loading import load
from model.segmentation.features import FEATURES
from model.segmentation.segment import MAX_LENGTH, RULES, check_max_length, check_target_length, find_rule
from model.storage.places import place_of
from model.terminal import progress_bar

if TYPE_CHECKING:  # they bring pandas and pyarrow
    import pandas as pd

    from analysis.corpus.report import Candidate, StoredRows
    from analysis.corpus.stored_pieces import StoredPieces
    from data.corpus.store import CorpusStore

TARGETS = (2.0, 3.0)
_FURTHER = [name for name, rule in RULES.items() if rule.needs & FEATURES.keys()]
Table = Literal["strategies", "pairs", "lengths", "curves", "transfer", "history"]


@dataclass(frozen=True)
class ReportStrategyOptions:
    """Which strategies are judged, and at what lengths."""

    strategy: Annotated[
        list[str] | None,
        typer.Option(
            help="As in entropy, solved for --target-length, or entropy:threshold=1.2; may be repeated. Default: all"
            " that the store can serve."
        ),
    ] = None
    settings: Settings = None
    target_length: TargetLengths = None
    max_length: MaxLength = MAX_LENGTH

    @property
    def targets(self) -> tuple[float, ...]:
        """What is asked for, else 2 and 3, as far as the cap allows."""
        return tuple(self.target_length or [target for target in TARGETS if target <= self.max_length] or [1.0])

    def check(self) -> dict[str, float]:
        """The parameters that are set for all; refuses, before heavy work, what cannot be.

        Raises:
            MicroStepError: an unknown strategy, a setting that is no number, or a target that the cap forbids.
        """
        from analysis.segmentation.strategy import Strategy

        check_max_length(self.max_length)
        for word in self.words:
            Strategy.parse(word)
        for target in self.targets:
            check_target_length(target, self.max_length)
        return set_parameters(self.settings)

    @property
    def words(self) -> list[str]:
        """The strategies that are asked for, as they were written; none for all."""
        return split_strategies(self.strategy) if self.strategy else []

    @property
    def rules(self) -> list[str]:
        return [word.partition(":")[0] for word in self.words]

    def candidates(
        self, source: StoredRows, rules: Sequence[str], settings: Mapping[str, float], target: float
    ) -> list[Candidate]:
        """What is judged at a target: a parameter that is written with its strategy is of that one alone."""
        from analysis.corpus.report import strategies_for

        candidates = strategies_for(source, rules, settings, target)
        for i, word in enumerate(self.words):
            rule, _, own = word.partition(":")
            if own:
                parameters = {**candidates[i].parameters, **set_parameters(own.split(","))}
                aim = None if RULES[rule].solves in parameters else candidates[i].target_length
                candidates[i] = replace(candidates[i], parameters=parameters, target_length=aim)
        return candidates


@flatten_options
def report_command(
    store: Annotated[str, typer.Argument(help="Folder or address of a store of scores.")],
    judging: ReportStrategyOptions,
    against: Annotated[str | None, typer.Option(help="The store of the same corpus under another model.")] = None,
    table: Annotated[
        Table | None,
        typer.Option(help="Which table; by default strategies, or transfer with --against."),
    ] = None,
    allow_incomplete: Annotated[
        bool, typer.Option("--allow-incomplete", help="Take the complete shards of a store that is not finished.")
    ] = False,
    out: Out = None,
) -> None:
    """Report on a scored corpus: lengths, agreement with words and with each other, under two models the transfer."""
    settings, chosen = judging.check(), table or ("strategies" if against is None else "transfer")
    check_table(out)
    if (chosen == "transfer") != (against is not None):
        raise MicroStepError("the table transfer goes with --against STORE2, and the other tables without it")
    from analysis.corpus.stored_pieces import MEMORY, StoredPieces
    from analysis.corpus.tables import brief
    from data.corpus.store import open_store

    share = MEMORY if against is None else MEMORY // 2
    source = StoredPieces(open_store(place_of(store), allow_incomplete), memory=share)
    other = None if against is None else StoredPieces(open_store(place_of(against), allow_incomplete), memory=share)
    found = _table(source, other, chosen, judging, settings)
    print_notes(f"{source.store.facts.name}: ", source.store.notes)
    if other is not None:
        print_notes(f"{other.store.facts.name}: ", other.store.notes)
    print_or_save(found if out is not None else brief(found), out, _caption(source, other, chosen))


@flatten_options
def gather_command(
    store: Annotated[str, typer.Argument(help="Folder or address of a store of scores of the same model.")],
    model: ModelOptions,
    strategy: Annotated[
        list[str],
        typer.Option(help=f"{', '.join(_FURTHER)}; may be repeated."),
    ],
    loading: LoadOptions,
    every: Annotated[int, typer.Option(min=1, help="Only every n-th row of the store.")] = 1,
    window: Annotated[int, typer.Option(min=1, help="For limited_history: tokens of history.")] = 32,
    history_method: HistoryMethod = "exact",
    history_stride: HistoryStride = 16,
    begin: Annotated[
        int, typer.Option(min=0, help="For limited_history: only tokens with at least this many before them.")
    ] = 0,
    layer: Annotated[int, typer.Option(min=0, help="For router: after how many layers.")] = 2,
    max_length: MaxLength = MAX_LENGTH,
) -> None:
    """Compute what strategies need beyond the scores, and keep it in the store. Stopped, it goes on."""
    from data.corpus.features import FeatureSpec, compute_features
    from data.corpus.store import open_store
    from model.segmentation.features import Feature

    opened = open_store(place_of(store))
    spec = model.spec(loading)
    for need in sorted({_need(name) for name in split_strategies(strategy)}):
        feature = Feature(need, window, history_method, history_stride, layer, max_length)
        what = FeatureSpec(feature, every, begin if need == "window" else 0)
        with progress_bar() as tell:
            found = compute_features(partial(load, spec, tell), opened, what, tell)
        print_notes(f"{opened.facts.name}: ", (f"{what.meaning}, {int(found.offsets[-1]):,} tokens",))
    print(store)


def show_strategies(store: CorpusStore, judging: ReportStrategyOptions, settings: Mapping[str, float]) -> None:
    """Print the table of strategies of a store."""
    from analysis.corpus.stored_pieces import StoredPieces
    from analysis.corpus.tables import brief

    source = StoredPieces(store)
    table = _table(source, None, "strategies", judging, settings)
    print_or_save(brief(table), None, _caption(source, None, "strategies"))
    more = f"micro-step corpus report {store.path} --table curves"
    print_notes("", (f"the curves, lengths and pairs: {more}, lengths or pairs",))


def _table(
    source: StoredPieces,
    other: StoredPieces | None,
    table: Table,
    judging: ReportStrategyOptions,
    settings: Mapping[str, float],
) -> pd.DataFrame:
    """A table over all target lengths; a strategy that does not depend on them comes once."""
    import pandas as pd

    from analysis.corpus.history import history, history_table
    from analysis.corpus.report import cut_corpus, report
    from analysis.corpus.tables import REPORT_TABLES, transfer_table
    from analysis.corpus.transfer import transfer
    from data.corpus.rule_inputs import rules_for

    if table == "history":
        return history_table(history(source, judging.targets, judging.max_length))
    parts, rules = [], judging.rules
    if other is not None:
        rules = rules or [name for name in rules_for(source.specs) if name in rules_for(other.specs)]
    for target in judging.targets:
        chosen = judging.candidates(source, rules, settings, target)
        if other is None:
            judged = report(source, chosen, judging.max_length, curves=table == "curves")
            parts.append(REPORT_TABLES[table](judged))
        else:
            a, b = ([cut_corpus(side, strategy, judging.max_length) for strategy in chosen] for side in (source, other))
            parts.append(transfer_table(transfer(source, a, other, b)))
    joined = pd.concat(parts, ignore_index=True)
    return joined if table in ("strategies", "pairs") else joined.drop_duplicates(ignore_index=True)


def _caption(source: StoredPieces, other: StoredPieces | None, table: Table) -> str:
    from analysis.intervals import Units

    units = Units.of(source.document)
    name = source.store.facts.name if other is None else f"{source.store.facts.name} and {other.store.facts.name}"
    notes = "; ".join(spec.meaning for spec in source.specs if not spec.begin)
    corpus = source.store.manifest["data"]["name"]
    return (
        f"{table} of {name} on {corpus}, {source.store.tokens:,} tokens;"
        f" {units.meaning}; ± is half an interval{'; ' if notes else ''}{notes}"
    )


def _need(name: str) -> str:
    for need in find_rule(name).needs & FEATURES.keys():
        return need
    raise MicroStepError(f"{name} needs nothing beyond the scores; the store holds all that it needs")
