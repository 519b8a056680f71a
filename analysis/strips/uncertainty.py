"""From a comparison to the interlinear strip: which tokens, which colours, what the inspector says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.score_registry import MEASURES, SCORES, Score
from analysis.token_strip.rows import BarRow, Detail, Legend, Scale, Strip, TokenRow, TopK
from analysis.uncertainty.next_tokens import least_moved, token_names
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.uncertainty.strip_figure import CHANGES, StripText, largest, shown_sides, strip_text
from analysis.uncertainty.tables import cell_table
from analysis.view import ScoreView, View
from model.text.document import SEPARATOR, Document

CHANGE = "B\u2212A"  # key of the row of pieces of text


@dataclass(frozen=True)
class ShownStrip:
    """A strip, and where its places lie in the document's text."""

    strip: Strip
    source: (
        NDArray[np.int64] | None
    )  # [places] characters of the document's text, -1 in a template; None: they are equal

    def place(self, pinned: int | None) -> int | None:
        """The place in the strip of a character of the text."""
        if pinned is None or self.source is None:
            return pinned
        found = np.flatnonzero(self.source == pinned)
        return int(found[0]) if len(found) else None

    def character(self, place: int | None) -> int | None:
        """The character of the text at a place in the strip."""
        if place is None or self.source is None or place >= len(self.source):
            return place if self.source is None else None
        return None if self.source[place] < 0 else int(self.source[place])


def comparison_strip(comparison: Comparison, view: View) -> ShownStrip:
    """What the lens shows: a model, both and their difference, or what changed. The inspector knows all of it."""
    base = strip_text(comparison, view)
    if comparison.cells is not None and base.source:
        return ShownStrip(_on_the_text(comparison, view), None)
    sides = shown_sides(comparison, view)
    names = dict(zip("AB", token_names(comparison), strict=True))
    rows = tuple(_row(key, side, view, base, names[key]) for key, side in sides)
    note = "the chat template is faint" if comparison.cells is not None else "the prompt is faint"
    strip = Strip(base.text or "", rows, _legend(view.shown, view, note), aligned=base.text is not None)
    return ShownStrip(strip, None if comparison.cells is None else _sources(sides, base.text is not None))


def score_strip(scored: ScoredText, document: Document, view: ScoreView) -> Strip:
    """One model's tokens on the document's text."""
    row = _row("A", scored, view, StripText(document.text, source=True), scored.strings)
    return Strip(document.text, (row,), _legend(view.shown, view), turns=turns_of(document))


def _on_the_text(comparison: Comparison, view: View) -> Strip:
    """Both models and their difference on the document's text."""
    text, lens = comparison.document.text, view.lens
    names = token_names(comparison)
    base = StripText(text, source=True)
    cells = cell_table(comparison, view.unit)
    if comparison.divergences is None:
        cells["tv_at_least"] = least_moved(comparison)
    drawn = view.change if lens == "change" else view.shown.difference()
    pieces = text_pieces(cells, len(text))
    value = pieces[drawn.name].to_numpy(dtype=np.float64)
    change = TokenRow(
        key=CHANGE,
        title=drawn.title,
        start=pieces["start"].to_numpy(dtype=np.int32),
        end=pieces["end"].to_numpy(dtype=np.int32),
        value=drawn.shade(value, view.unit),
        scale=_scale(drawn),
        details=_change_details(pieces, view),
        hidden=lens != "change",
    )
    bars = BarRow(
        key=CHANGE,
        title="difference",
        start=cells["start"].to_numpy(dtype=np.int32),
        end=cells["end"].to_numpy(dtype=np.int32),
        value=view.shown.difference().shade(cells[f"{view.score}_difference"].to_numpy(), view.unit),
        up=view.shown.drop if view.shown.falls else view.shown.rise,
        down=view.shown.rise if view.shown.falls else view.shown.drop,
        hidden=lens != "both",
    )
    rows = (
        _row("A", comparison.a, view, base, names[0], hidden=lens not in ("a", "both")),
        _row("B", comparison.b, view, base, names[1], hidden=lens not in ("b", "both")),
        change,
        bars,
    )
    compares = lens in ("both", "change")
    jumps = np.sort(pieces["start"].to_numpy()[largest(value)]).tolist() if compares else []
    return Strip(
        text,
        rows,
        _legend(drawn if lens == "change" else view.shown, view, beside="bars: B \u2212 A" if lens == "both" else ""),
        turns=turns_of(comparison.document),
        jumps=tuple(jumps),
        jump_to=f"the {CHANGES} largest changes",
        overview=CHANGE if compares else "",
    )


def _row(
    key: str, side: ScoredText, view: ScoreView, base: StripText, names: dict[int, str], hidden: bool = False
) -> TokenRow:
    encoded, scores = side.encoded, side.scores
    start, end = base.spans(side)
    kept = start >= 0
    shown = view.shown.values(getattr(scores, view.score), view.unit)
    details = tuple(
        Detail(_label(score, view), score.values(getattr(scores, score.name), view.unit)[kept])
        for score in SCORES.values()
    )
    rank = np.where(scores.missing, np.nan, scores.rank).astype(np.float32)
    display = encoded.display
    muted = None if base.source else ~side.own if side.generated else encoded.source_start < 0
    return TokenRow(
        key=key,
        title=side.facts.name,
        start=start[kept],
        end=end[kept],
        value=view.shown.shade(shown, view.unit)[kept],
        scale=_scale(view.shown),
        details=(*details, Detail("rank", rank[kept], digits=0)),
        topk=_topk(side, kept, names),
        display=tuple(display[i] for i in np.flatnonzero(kept)),
        muted=muted,
        text=encoded.text if base.text is None else None,
        hidden=hidden,
    )


def _topk(side: ScoredText, kept: NDArray[np.bool_], names: dict[int, str]) -> TopK:
    ids = np.array(sorted(side.strings), dtype=np.int64)
    places = np.searchsorted(ids, np.maximum(side.scores.topk_ids[kept], ids[0] if len(ids) else 0))
    strings = tuple(names[i] for i in ids.tolist()) or ("",)
    return TopK(places.astype(np.int32), side.scores.topk_probability[kept], strings)


def text_pieces(cells: pd.DataFrame, length: int) -> pd.DataFrame:
    """The cells, and between them the text that not both models scored: it has no values."""
    edges = np.concatenate([[0], np.stack([cells["start"], cells["end"]], axis=1).ravel(), [length]]).reshape(-1, 2)
    gaps = pd.DataFrame(edges[edges[:, 1] > edges[:, 0]], columns=["start", "end"])
    return pd.concat([cells, gaps]).sort_values("start", ignore_index=True)


def _change_details(pieces: pd.DataFrame, view: View) -> tuple[Detail, ...]:
    """The differences stand beside the scores of A and B; the measures of change stand below."""
    details = [
        Detail(_label(score, view), pieces[f"{name}_difference"].to_numpy(dtype=np.float32))
        for name, score in SCORES.items()
    ]
    details += [
        Detail(_label(measure, view), pieces[name].to_numpy(dtype=np.float32))
        for name, measure in MEASURES.items()
        if name in pieces
    ]
    if "tv_at_least" in pieces:
        details.append(Detail("probability moved, at least", pieces["tv_at_least"].to_numpy(dtype=np.float32)))
    return tuple(details)


def _label(score: Score, view: ScoreView) -> str:
    return f"{score.title}, {score.unit(view.unit)}" if score.information else score.title


def _scale(score: Score) -> Scale:
    return "diverging" if score.signed else "sequential"


def _legend(score: Score, view: ScoreView, note: str = "", beside: str = "") -> Legend:
    return Legend(*score.ends(view.unit), f"{score.title}; {note}" if note else score.title, _scale(score), beside)


def turns_of(document: Document) -> tuple[tuple[int, str], ...]:
    """Where each turn of a conversation starts in the text, and whose it is."""
    if len(document.messages) == 1 and document.messages[0].role == "text":
        return ()
    lengths = [len(message.content) + len(SEPARATOR) for message in document.messages]
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return tuple((at, each.role) for at, each in zip(starts, document.messages, strict=True) if each.content)


def _sources(sides: list[tuple[str, ScoredText]], one_text: bool) -> NDArray[np.int64]:
    """The character of the document's text at each place of a strip that shows the chat template."""
    found = []
    for _, side in sides[:1] if one_text else sides:
        encoded = side.encoded
        source = np.full(len(encoded.text), -1, dtype=np.int64)
        for a, b, at in zip(encoded.start, encoded.end, encoded.source_start, strict=True):
            if at >= 0:
                source[a:b] = np.arange(at, at + b - a)
        found.append(source)
    return np.concatenate(found)
