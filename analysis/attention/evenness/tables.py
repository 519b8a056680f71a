"""The tables and the text of a study of evenness. Figures are drawn from the table alone, which may be a saved one."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analysis.attention.evenness.statistics import BAR, verdict
from analysis.attention.evenness.study import EvennessRow, EvennessStudy
from analysis.attention.micro.result import context_names
from analysis.attention.micro.tables import figure_table, weights_of
from analysis.score_registry import significant
from model.errors import TextError

OF_MEAN = "effective_of_mean"
LARGEST_AT = "largest_at"  # followed by ": layer N"
RULE = (
    f"Rule, set before anything was measured: the K context states are used fairly evenly where the effective number of"
    f" them, exp H of one head's weights for one query and averaged over all, is at least {BAR:g} K with its whole 95%"
    " interval; where the whole interval is below, they are not; else it is undecided."
)
COLUMNS = ("model", "variant", "seeds", "merger", "stages", "untrained", "decoding", "documents", "segments", "states")


def study_table(study: EvennessStudy) -> pd.DataFrame:
    """A row for each model or variant, level, place and statistic: mean, and low and high of the 95% interval."""
    return pd.concat([_row_table(row) for row in (*study.rows, *study.together)], ignore_index=True)


def study_weights(study: EvennessStudy) -> pd.DataFrame:
    """A row for each model, layer, head, micro position and slot: the mean weight with its interval."""
    parts = []
    for row in (*study.rows, *study.together):
        own = [f"token {i}" for i in range(1, row.sums.positions + 1)]
        table = weights_of(row.sums.mean_weights, [*context_names(row.micro.context_layers), *own])
        parts.append(table.assign(model=row.name)[["model", *table.columns]])
    return pd.concat(parts, ignore_index=True)


def _row_table(row: EvennessRow) -> pd.DataFrame:
    sums, at = row.sums, row.sums.largest_at
    further = {OF_MEAN: sums.effective_of_mean}
    for k, layer in enumerate(row.micro.context_layers):
        further[f"{LARGEST_AT}: layer {layer}"] = at.at(k)
    more = pd.DataFrame(
        [{"level": "pooled", "figure": n, "mean": e.mean, "low": e.low, "high": e.high} for n, e in further.items()]
    )
    table = pd.concat([figure_table(sums), more], ignore_index=True)
    told = {
        "model": row.name,
        "variant": row.variant,
        "seeds": " ".join(map(str, row.seeds)),
        "merger": "mean" if row.micro.untrained else row.micro.merger,
        "stages": row.stages,
        "untrained": row.micro.untrained,
        "decoding": row.micro.decoding,
        "documents": row.documents,
        "segments": sums.segments,
        "states": sums.states,
    }
    return table.assign(**told)[[*COLUMNS, *table.columns]]


def read_study(content: pd.DataFrame, name: str) -> pd.DataFrame:
    """Check a table that `study_table` made and a file held."""
    missing = [column for column in (*COLUMNS, "level", "figure", "mean", "low", "high") if column not in content]
    if missing or content.empty:
        raise TextError(f"{name} is not a table of `micro-step evenness`: it lacks {', '.join(missing) or 'rows'}")
    return content.assign(seeds=content["seeds"].astype("str").fillna(""))


def shown(table: pd.DataFrame) -> pd.DataFrame:
    """The rows of one model for each variant, with several seeds combined."""
    kept = []
    for variant in table["variant"].drop_duplicates():
        names = table.loc[table["variant"] == variant, "model"].drop_duplicates().tolist()
        kept.append(variant if variant in names else names[0])
    return table[table["model"].isin(kept)]


def study_text(study: EvennessStudy, command: str) -> str:
    """The study as Markdown: rule, verdicts, texts, and the command."""
    rows = study.shown
    head = (
        "| model | seeds | merger | stages | effective context states | of K | claim | evenness |"
        " share on the context | largest share | most often largest | effective of the mean weights |"
    )
    lines = [head, f"|{'---|' * 12}", *(_line(row) for row in rows)]
    trained = [row for row in rows if not row.micro.untrained]
    verdicts = {word: sum(verdict(row.sums.effective, row.sums.states) == word for row in trained) for word in _SAID}
    told = ", ".join(f"{word} for {count}" for word, count in verdicts.items() if count)
    cuts = dict.fromkeys(row.cut for row in rows)
    notes = dict.fromkeys(note for row in rows for note in row.notes)
    units = dict.fromkeys(row.sums.units.meaning for row in rows)
    return "\n".join(
        [
            f"{RULE}",
            "",
            f"Of {len(trained)} trained models the claim is {told}." if trained else "There is no trained model here.",
            "",
            *lines,
            "",
            f"Texts: {study.texts}. Segments: {'; '.join(cuts)}. {'; '.join(units)}."
            + (f" {'; '.join(notes)}." if notes else ""),
            "",
            "```",
            command,
            "```",
            "",
        ]
    )


_SAID = ("confirmed", "refuted", "undecided", "undefined")


def _line(row: EvennessRow) -> str:
    sums, k = row.sums, row.sums.states
    n, top = sums.effective, sums.largest_at
    most = max(range(k), key=lambda i: float(top.mean[i]))
    cells = (
        _cell(row.name),
        " ".join(map(str, row.seeds)) or "-",
        "mean" if row.micro.untrained else row.micro.merger,
        _cell(row.stages),
        n.spoken(),
        str(k),
        verdict(n, k),
        sums.figure("evenness").at().spoken(),
        sums.figure("context_share").at().spoken(),
        sums.figure("largest").at().spoken(),
        f"layer {row.micro.context_layers[most]} ({significant(float(top.mean[most]), 2)})",
        sums.effective_of_mean.spoken(),
    )
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    """A name, made safe for a Markdown table."""
    return "".join(c if c.isprintable() and c not in "|`<>[]" else " " for c in text)


def findings(rows: Sequence[EvennessRow]) -> list[str]:
    """A sentence for each model, for the terminal."""
    return [
        f"{row.name}: {significant(row.sums.effective.mean)} effective context states of {row.sums.states}"
        f" ({row.sums.effective.ends()}),"
        f" {verdict(row.sums.effective, row.sums.states)}"
        for row in rows
    ]
