"""The tables of a scored text and of a comparison: a row for each token, each cell, or each role."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.score_registry import PER_NAT, SCORES, Unit
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.summary import Contrast, rank_change, summarise
from model.errors import TextError


def token_table(scored: ScoredText, unit: Unit = "nats") -> pd.DataFrame:
    """A row for each token: position, token_id, token, start, end, role, the scores, and the unit.

    `start` and `end` are characters of the text that the model read (`scored.encoded.text`). Entropy and surprisal are
    in `unit`. A missing score is NaN, a missing rank NA.
    """
    encoded, scores = scored.encoded, scored.scores
    rank = pd.array(scores.rank, dtype="Int64")
    rank[scores.missing] = pd.NA
    return pd.DataFrame(
        {
            "position": np.arange(len(encoded)),
            "token_id": encoded.ids,
            "token": encoded.display,
            "start": encoded.start,
            "end": encoded.end,
            "role": encoded.role.astype(object),
            **{
                name: getattr(scores, name).astype(np.float64) * (PER_NAT[unit] if score.information else 1)
                for name, score in SCORES.items()
            },
            "rank": rank,
            "unit": unit,
        }
    )


def cell_table(comparison: Comparison, unit: Unit = "nats") -> pd.DataFrame:
    """A row for each cell: characters, text, role, and each model's tokens and scores in it.

    Entropy and the surprisals are sums over the cell's tokens, in `unit`; confidence and margin are means; differences
    are B - A. With one tokenizer a cell is a token (except for characters split over tokens), and has divergences too:
    KL and JS as sums, total variation as a mean.

    Raises:
        TextError: two continuations have no cells.
    """
    cells = comparison.cells
    if cells is None:
        raise TextError("two continuations are different texts, so they cannot be aligned")
    text = comparison.document.text
    table: dict[str, object] = {
        "start": cells.start,
        "end": cells.end,
        "text": pd.Series(
            [text[a:b] for a, b in zip(cells.start.tolist(), cells.end.tolist(), strict=True)], dtype="str"
        ),
        "role": cells.role.astype(object),
        "bytes": cells.bytes,
        "tokens_a": cells.tokens_a,
        "tokens_b": cells.tokens_b,
    }
    sides = (("a", comparison.a.scores, cells.sum_a), ("b", comparison.b.scores, cells.sum_b))
    for name, score in SCORES.items():
        shown: dict[str, NDArray[np.float64]] = {}
        for side, scores, total in sides:
            summed = total(getattr(scores, name))
            shown[side] = summed * PER_NAT[unit] if score.information else summed / np.asarray(table[f"tokens_{side}"])
            table[f"{name}_{side}"] = shown[side]
        table[f"{name}_difference"] = shown["b"] - shown["a"]
    table["rank_change"] = rank_change(comparison)
    if comparison.divergences is not None:
        for name in ("kl_ab", "kl_ba", "js"):
            table[name] = cells.sum_a(getattr(comparison.divergences, name)) * PER_NAT[unit]
        table["tv"] = cells.sum_a(comparison.divergences.tv) / cells.tokens_a
    return pd.DataFrame(table).assign(unit=unit)


def summary_table(comparison: Comparison, unit: Unit = "nats") -> pd.DataFrame:
    """A row for all roles and one for each: means, differences B - A, and their 95% intervals."""
    roles = ["all"]
    if comparison.cells is not None:
        present = sorted(set(comparison.cells.role.tolist()))
        roles += present if len(present) > 1 else []
    rows = []
    for role in roles:
        summary = summarise(comparison, unit, role)
        row: dict[str, object] = {"role": role, "unit": unit}
        row |= {name: getattr(summary, name) for name in ("tokens_a", "tokens_b", "bytes_a", "bytes_b")}
        found: dict[str, Contrast] = {"bits_per_byte": summary.bits_per_byte}
        for name, score in SCORES.items():
            found[name] = summary.mean(name)
            if score.information:
                found[f"{name}_per_byte"] = summary.mean(name, "byte")
        for name, contrast in found.items():
            row |= {
                f"{name}_a": contrast.a,
                f"{name}_b": contrast.b,
                f"{name}_difference": contrast.gap.mean,
                f"{name}_low": contrast.gap.low,
                f"{name}_high": contrast.gap.high,
            }
        rows.append(row)
    return pd.DataFrame(rows)
