"""The tables of a corpus report: a row for each strategy, pair, length or point of a curve.

The 95% interval of a column is in columns of the same name with `_low` and `_high`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from analysis.corpus.counts import Pairs
from analysis.corpus.report import CorpusReport, CutCorpus, StrategyReport
from analysis.corpus.transfer import Transfer
from analysis.intervals import Estimate
from model.segmentation.segment import RULES

_LONG = ("word_precision", "word_recall", "word_window_diff", "word_pk", "precision", "recall", "parameters_")
_MEASURES = ("f1", "precision", "recall", "window_diff", "pk")


def strategy_table(report: CorpusReport) -> pd.DataFrame:
    """A row for each strategy: lengths, agreement with words (the reference), mean F1 with the other strategies."""
    last = len(report.strategies)
    rows = []
    for i, each in enumerate(report.strategies):
        words = {f"word_{name}": value for name, value in _measures(report.words, last, i).items()}
        others = report.pairs.mean_f1.at(i).columns("pair_f1") if last > 1 else {}
        counts = {"documents": each.documents, "tokens": each.tokens, "segments": each.segments}
        lengths = each.mean_length.columns("mean_length") | each.singletons.columns("singletons")
        rows.append(_head(each.cut) | counts | lengths | words | others)
    return pd.DataFrame(rows)


def pair_table(report: CorpusReport) -> pd.DataFrame:
    """A row for each ordered pair of strategies, the first as reference; `chance_f1` is for independent boundaries."""
    rows = []
    for i, one in enumerate(report.strategies):
        for j, other in enumerate(report.strategies):
            if i != j:
                head: dict[str, object] = {
                    "reference": one.cut.label,
                    "hypothesis": other.cut.label,
                    "target_length": _target(one.cut) if _target(one.cut) is not None else _target(other.cut),
                }
                both = one.cut.known & other.cut.known
                tokens = int(np.diff(report.source.offsets)[both].sum())
                chance = {"chance_f1": float(report.pairs.chance[i, j])}
                rows.append(head | {"tokens": tokens} | _measures(report.pairs, i, j) | chance)
    return pd.DataFrame(rows)


def length_table(report: CorpusReport) -> pd.DataFrame:
    """A row for each strategy and length: the number of segments."""
    return pd.DataFrame(
        [
            _head(each.cut) | {"length": length, "segments": number, "share": number / max(each.segments, 1)}
            for each in report.strategies
            for length, number in enumerate(each.histogram.tolist())
            if length
        ]
    )


def curve_table(report: CorpusReport) -> pd.DataFrame:
    """A row for each solved strategy and point of its curve; `solution` is the solved value."""
    return pd.DataFrame([row for strategy in report.strategies for row in _curve_rows(strategy)])


def transfer_table(found: Sequence[Transfer]) -> pd.DataFrame:
    """A row for each strategy under two models: both parameters, and the agreement of boundaries by characters."""
    rows = []
    for each in found:
        sides = {"parameters_a": parameters(each.a), "parameters_b": parameters(each.b)}
        head = {"strategy": each.a.label, "unit": _unit(each.a), "target_length": _target(each.a)}
        measures = _columns({name: getattr(each, name) for name in _MEASURES})
        counts = {"rows": each.rows, "characters": each.characters}
        rows.append(head | sides | counts | measures | {"chance_f1": each.chance, "ceiling_f1": each.ceiling})
    return pd.DataFrame(rows)


def brief(table: pd.DataFrame) -> pd.DataFrame:
    """A shorter table for a terminal: numbers as text, each with half the width of its interval."""
    shown = {}
    for name in map(str, table.columns):
        if name.endswith(("_low", "_high")) or name.startswith(_LONG):
            continue
        shown[name] = table[name]
        if f"{name}_low" in table:
            half = (table[f"{name}_high"] - table[f"{name}_low"]) / 2
            figures = zip(table[name], half, strict=True)
            words = [f"{mean:.3f}" + (f"±{width:.3f}" if width == width else "") for mean, width in figures]
            shown[name] = pd.Series(words, dtype="string")
    return pd.DataFrame(shown)


def parameters(cut: CutCorpus) -> str:
    """`name=value` of all parameters, with enough digits to get the same segments again."""
    return ",".join(f"{name}={value!r}" for name, value in cut.parameters.items())


def _curve_rows(each: StrategyReport) -> list[dict[str, object]]:
    if each.curve is None:
        return []
    curve, solution = each.curve, each.cut.parameters[each.curve.parameter]
    head = {"strategy": each.cut.label, "parameter": curve.parameter}
    head["unit"] = RULES[each.cut.strategy.rule].parameter(curve.parameter).unit
    rows = [
        {**head, "value": value} | curve.mean_length.at(i).columns("mean_length") | {"solution": False}
        for i, value in enumerate(curve.value.tolist())
        if value != solution
    ]
    rows.append({**head, "value": float(solution)} | each.mean_length.columns("mean_length") | {"solution": True})
    return sorted(rows, key=lambda row: float(str(row["value"])))


def _head(cut: CutCorpus) -> dict[str, object]:
    return {"strategy": cut.label, "parameters": parameters(cut), "unit": _unit(cut), "target_length": _target(cut)}


def _unit(cut: CutCorpus) -> str:
    """The unit of the rule's values, and so of its threshold."""
    return RULES[cut.strategy.rule].unit


def _target(cut: CutCorpus) -> float | None:
    return cut.strategy.target_length


def _measures(pairs: Pairs, reference: int, hypothesis: int) -> dict[str, float]:
    return _columns({name: getattr(pairs, name).at(reference, hypothesis) for name in _MEASURES})


def _columns(estimates: Mapping[str, Estimate]) -> dict[str, float]:
    return {column: value for name, each in estimates.items() for column, value in each.columns(name).items()}


REPORT_TABLES = {  # by the names that commands and files give them
    "strategies": strategy_table,
    "pairs": pair_table,
    "lengths": length_table,
    "curves": curve_table,
}
