"""The tables of depth: a row for each layer, and a row for each token."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from analysis.depth.result import Depth
from analysis.depth.scores import LAYER_SCORES
from analysis.depth.statistics import (
    CountedTokens,
    Per,
    change_by_layer,
    change_decided,
    change_of_correlation,
    counted,
    decided_shares,
    mean_by_layer,
    mean_decided,
    rank_correlation,
    repeated_shares,
    worse_than_uniform,
)
from analysis.score_registry import Unit, significant
from analysis.uncertainty.summary import interval, signed

NOTHING = "No token is scored. Without BOS, the first token of a text has no score."


def layer_table(depth: Depth, unit: Unit = "nats", role: str = "all") -> pd.DataFrame:
    """A row for each model and layer: means per token with 95% intervals, the tokens decided there, and B minus A.

    Layer 0 is of the embeddings, and the last layer is the final prediction. `final_rank` and `rank` are means of log10
    of the rank. `decided` is the share of the tokens that is decided at the layer, `decided_so_far` at it or before.
    `repeats` is the share at which the layer's likeliest word is the token just read, and `worse_than_uniform` that at
    which its KL to the final prediction is larger than that of a uniform guess: there the lens says little.
    `_difference` is B minus A of the means, of two tokenizers per byte where it is information.
    """
    return layers_of_tokens(counted(depth, role), unit, depth.same_tokenizer)


def layers_of_tokens(sides: Sequence[CountedTokens], unit: Unit, same_tokenizer: bool) -> pd.DataFrame:
    """As `layer_table`, of what is counted; without B minus A if the numbers of layers differ."""
    tables = []
    for key, side in zip("AB", sides, strict=False):
        layer = np.arange(side.layers.count + 1)
        columns: dict[str, object] = {"model": key, "layer": layer, "depth": layer / side.layers.count}
        for name in LAYER_SCORES:
            means = mean_by_layer(side, name, unit)
            columns |= {name: means.mean, f"{name}_low": means.low, f"{name}_high": means.high}
        shares = {
            "decided": decided_shares(side),
            "repeats": repeated_shares(side),
            "worse_than_uniform": worse_than_uniform(side),
        }
        for name, found in shares.items():
            columns |= {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}
        columns |= {"decided_so_far": np.cumsum(shares["decided"].mean), "tokens": side.count, "unit": unit}
        tables.append(pd.DataFrame(columns))
    both = len(sides) == 2 and sides[0].layers.count == sides[1].layers.count
    for name in LAYER_SCORES if both else ():
        gap = change_by_layer(sides[0], sides[1], name, unit, per(name, same_tokenizer))
        ends = {"": gap.mean, "_low": gap.low, "_high": gap.high}
        tables[1] = tables[1].assign(**{f"{name}_difference{end}": values for end, values in ends.items()})
    return pd.concat(tables, ignore_index=True)


def brief_table(table: pd.DataFrame) -> pd.DataFrame:
    """The means of a `layer_table`, without their intervals, for a terminal."""
    return table[["model", "layer", *LAYER_SCORES, "decided_so_far", "repeats", "unit"]]


def per(score: str, same_tokenizer: bool) -> Per:
    """Per what B minus A is: two tokenizers are compared in information per byte."""
    return "byte" if LAYER_SCORES[score].information and not same_tokenizer else "token"


def token_table(depth: Depth, unit: Unit = "nats") -> pd.DataFrame:
    """A row for each model, token and layer: the scores as they are shown, the layer's likeliest word, and `decided`.

    `start` and `end` are characters of the document, -1 in a chat template. A missing score is NaN.
    """
    tables = []
    for key, side in zip(depth.keys, depth.sides, strict=True):
        rows, n = side.layers.entropy.shape
        encoded = side.scored.encoded
        columns: dict[str, object] = {
            "model": key,
            "position": np.tile(np.arange(n), rows),
            "token_id": np.tile(encoded.ids, rows),
            "token": list(encoded.display) * rows,
            "start": np.tile(encoded.source_start, rows),
            "end": np.tile(encoded.source_end, rows),
            "role": np.tile(encoded.role.astype(object), rows),
            "layer": np.repeat(np.arange(rows), n),
        }
        columns |= {name: side.values(name, unit).astype(np.float64).ravel() for name in LAYER_SCORES}
        columns["likeliest"] = [side.strings.get(each, "") for each in side.layers.top_id.ravel().tolist()]
        columns["decided"] = np.tile(side.decided, rows)
        tables.append(pd.DataFrame(columns).assign(unit=unit))
    return pd.concat(tables, ignore_index=True).sort_values(["model", "position", "layer"], ignore_index=True)


def finding(depth: Depth, role: str = "all") -> str:
    """At which layer a token is decided, and whether early where the model is sure, in two sentences."""
    return " ".join(filter(None, [decision(depth, role), correlation(depth, role)]))


def decision(depth: Depth, role: str = "all") -> str:
    """At which layer a token is decided on average, in one sentence."""
    sides = counted(depth, role)
    if not sides[0].count:
        return NOTHING
    means = [mean_decided(tokens) for tokens in sides]
    after = [f"{significant(mean.mean)} of {side.count} layers" for side, mean in zip(depth.sides, means, strict=True)]
    first = "A" if len(sides) == 2 else depth.sides[0].scored.facts.name
    said = f"On average, {first} decides a token after {after[0]} ({interval(means[0], sign=False)})"
    if len(sides) == 2:
        second = significant(means[1].mean) if depth.same_layers else after[1]
        gap, of = change_decided(*sides), "" if depth.same_layers else " of the depth"
        said += f" and B after {second} ({means[1].ends()}); B − A {signed(gap.mean)}{of} ({gap.ends(signed)})"
    return f"{said}."


def correlation(depth: Depth, role: str = "all") -> str:
    """Whether tokens are decided early where the model is sure, in one sentence; "" if no token is scored."""
    sides = counted(depth, role)
    if not sides[0].count:
        return ""
    tied = [rank_correlation(side, "entropy") for side in sides]
    words = " and ".join(each.spoken(lambda value: signed(value)) for each in tied)
    if len(sides) == 2:
        words += f" (B − A {change_of_correlation(*sides, 'entropy').spoken(signed)})"
    return f"Rank correlation of this layer with the final entropy: {words}."
