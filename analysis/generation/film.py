"""A generation as a film: what each macro step drafted, kept and refused, and what a run at another tau would do.

Greedy lossless decoding writes the same text at every tau, so the drafts after each of its tokens give every other run
in full. In merged decoding the text depends on tau: what is known of another run ends at the first token whose
fate changes. A sampled run draws other random numbers at another tau, so nothing is known of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.figures.figure import visible
from analysis.generation.result import BASE, Generation
from analysis.score_registry import significant
from model.text.document import TEMPLATE

TAUS = tuple(round(0.05 * i, 2) for i in range(22))  # 0 to 1.05; above 1 the base alone writes
LONGEST = 24  # characters that are shown of a drafted token
UNDER_TAU, REFUSED, KEPT = "under tau", "refused by the base", "kept"


@dataclass(frozen=True)
class Playback:
    """The macro steps of a run at one tau, as far as they are known."""

    tau: float
    starts: NDArray[np.int64]  # [S] index of each macro step's first token
    drafted: NDArray[np.int64]  # [S] number of tokens that the micro decoder drafted and the rule kept
    kept: NDArray[
        np.int64
    ]  # [S] number of these that became part of the text; in the last step of a part, at least so many
    known: int  # number of tokens of the recorded text that this run writes as well
    whole: bool  # whether that is the whole run


@dataclass(frozen=True)
class Film:
    """A generation, seen macro step by macro step."""

    found: Generation

    @property
    def replayable(self) -> bool:
        """Whether anything is known of runs at another tau."""
        found = self.found
        if found.how.sampled or not len(found.micro):
            return False
        return found.drafts is not None if found.verified else found.how.tau <= 1 and found.how.rule != "stop_head"

    @property
    def taus(self) -> tuple[float, ...]:
        """The values of tau that can be played, the recording's own among them."""
        own = self.found.how.tau
        return tuple(sorted({*TAUS, own})) if self.replayable else (own,)

    def at(self, tau: float) -> Playback:
        """The macro steps at a tau, one of `taus`."""
        if tau == self.found.how.tau:
            return self._recorded()
        return self._checked(tau) if self.found.verified else self._merged(tau)

    def _recorded(self) -> Playback:
        found, segments = self.found, self.found.segments
        starts, kept = segments.starts.astype(np.int64), segments.lengths - 1
        refused = np.array([why == "disagreed" for why in segments.why], dtype=np.int64)
        drafted = kept + refused if found.drafts is None else self._drafted(found.how.tau)[starts]
        return Playback(found.how.tau, starts, drafted, kept, len(found.micro), True)

    def _drafted(self, tau: float) -> NDArray[np.int64]:
        """[T] the number of tokens that are drafted after each token; nothing follows the last."""
        assert self.found.drafts is not None
        long = _leading(self.found.drafts.value >= np.float32(tau))
        long[-1:] = 0
        return long if tau <= 1 else np.zeros_like(long)

    def _checked(self, tau: float) -> Playback:
        assert self.found.drafts is not None
        ids, drafts = self.found.micro.ids, self.found.drafts.ids
        next_ids = np.append(ids, np.full(drafts.shape[1], -2))[1:]  # -2: no token
        follows = np.lib.stride_tricks.sliding_window_view(next_ids, drafts.shape[1]) if drafts.shape[1] else drafts
        drafted = self._drafted(tau)
        kept = np.minimum(drafted, _leading(drafts == follows))
        starts, at = [], 0
        while at < len(ids):
            starts.append(at)
            at += 1 + int(kept[at])
        where = np.array(starts)
        return Playback(tau, where, drafted[where], kept[where], len(ids), True)

    def _merged(self, tau: float) -> Playback:
        found, segments = self.found, self.found.segments
        kept = segments.lengths - 1
        for i, (start, length) in enumerate(zip(segments.starts.tolist(), segments.lengths.tolist(), strict=True)):
            inside = found.micro.probability[start : start + length].astype(np.float32)
            last = np.append(inside, segments.refused_probability[i])
            value = np.cumprod(last) if found.how.rule == "product" else last
            keeps = int(_leading(value[None, 1:] >= np.float32(tau))[0]) if tau <= 1 else 0
            if keeps != kept[i]:  # from the next token on this run writes something else
                starts = segments.starts[: i + 1].astype(np.int64)
                kept = np.append(kept[:i], keeps)
                return Playback(tau, starts, kept, kept, start + 1 + min(keeps, length - 1), False)
        return Playback(tau, segments.starts.astype(np.int64), kept, kept, len(found.micro), True)

    @cached_property
    def offers(self) -> list[list[tuple[str, float]]]:
        """For each token, what the micro decoder drafted after it, as far as it is known: text and probability."""
        found = self.found
        offers: list[list[tuple[str, float]]] = [[] for _ in range(len(found.micro))]
        if found.drafts is not None:
            for t, (ids, chances) in enumerate(zip(found.drafts.ids, found.drafts.probability, strict=True)):
                offers[t] = [
                    (self._text(id_), p) for id_, p in zip(ids.tolist(), chances.tolist(), strict=True) if id_ >= 0
                ]
            return offers
        segments, shown = found.segments, found.micro.display
        for i, (start, length) in enumerate(zip(segments.starts.tolist(), segments.lengths.tolist(), strict=True)):
            own = range(start + 1, start + length)
            offers[start] = [(visible(shown[t], LONGEST), float(found.micro.probability[t])) for t in own]
            if segments.refused_ids[i] >= 0:
                refused = self._text(int(segments.refused_ids[i]))
                offers[start].append((refused, float(segments.refused_probability[i])))
        return offers

    def _text(self, token: int) -> str:
        return visible(self.found.strings.get(token, ""), LONGEST)

    def table(self) -> pd.DataFrame:
        """A row for each token that was written, refused or under tau, by macro step; `place` 0 is the base's own."""
        found, play = self.found, self._recorded()
        rows: list[tuple[int, int, int, str, str, float]] = []
        for step, (start, drafted, kept) in enumerate(
            zip(play.starts.tolist(), play.drafted.tolist(), play.kept.tolist(), strict=True)
        ):
            own = visible(found.micro.display[start], LONGEST), BASE, float(found.micro.probability[start])
            rows.append((step + 1, start, 0, *own))
            for j, (text, p) in enumerate(self.offers[start][: drafted + 1]):
                fate = KEPT if j < kept else REFUSED if j < drafted else UNDER_TAU
                rows.append((step + 1, start + 1 + j, j + 1, text, fate, p))
        return pd.DataFrame(rows, columns=["macro_step", "position", "place", "token", "fate", "probability"])

    def reel(self) -> dict[str, Any]:
        """All that film.js draws, as plain values."""
        found, facts = self.found, self.found.facts.micro_step
        assert facts is not None
        plays = [self.at(tau) for tau in self.taus]
        return {
            "model": found.facts.name,
            "base": facts.base or found.facts.name,
            "checked": found.verified,
            "prompt": _spoken(found),
            "tokens": _flow(found),
            "offers": [[(text, significant(p)) for text, p in each] for each in self.offers],
            "plays": [
                {
                    "tau": f"{play.tau:g}",
                    "starts": play.starts.tolist(),
                    "drafted": play.drafted.tolist(),
                    "kept": play.kept.tolist(),
                    "known": play.known,
                    "whole": play.whole,
                }
                for play in plays
            ],
            "own": self.taus.index(found.how.tau),
            "movable": self.movable,
            "folding": self.folding,
        }

    @property
    def movable(self) -> str:
        """What moving tau shows, in a sentence."""
        found = self.found
        if found.how.sampled:
            return "This run was sampled. Another tau would draw other random numbers, so only this run can be shown."
        if found.verified and not found.lossless:
            return "The check was relaxed. With another tau the text may differ, so only this run can be shown."
        if not self.replayable:
            return "Too little was stored of this run to say what it would do at another tau."
        if found.verified:
            return (
                "The base decides on every token, so the text is the same at every tau. Move tau: the macro steps are"
                " those of a run at that tau."
            )
        return (
            "The text of merged decoding depends on tau. Move tau: you see the run up to the first token that would"
            " change."
        )

    @property
    def folding(self) -> str:
        """How many slots of the base's cache a macro step takes, in a sentence."""
        facts = self.found.facts.micro_step
        assert facts is not None
        if self.found.verified:
            return "The base checks the whole draft in one pass. Every token that it keeps has a slot of its own."
        if not facts.merge_layer:
            return "Each macro step is folded into one slot, and the base reads only the slots."
        return f"The base's first {facts.merge_layer} layers read every token, the others one slot for each macro step."


def _leading(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[T] the number of True values that each row of [T, n] starts with."""
    found: NDArray[np.int64] = np.argmin(np.pad(flags, ((0, 0), (0, 1))), axis=1).astype(np.int64)
    return found


def _flow(found: Generation) -> list[str]:
    """[T] the answer's text in pieces, one for each token; a split character stands on its first token alone."""
    pieces, at, answer = list[str](), 0, found.micro
    for start, end in zip(answer.start.tolist(), answer.end.tolist(), strict=True):
        pieces.append(answer.text[max(at, start) : end])
        at = max(at, end)
    return pieces


def _spoken(found: Generation) -> list[tuple[str, str]]:
    """The prompt's turns, role and text, without the template around them."""
    prompt, turns = found.prompt, list[tuple[str, str]]()
    at = -1
    for role, start, end in zip(prompt.role.tolist(), prompt.start.tolist(), prompt.end.tolist(), strict=True):
        if role == TEMPLATE:
            at = -1
        elif at < 0 or turns[-1][0] != role:
            turns.append((role, prompt.text[start:end]))
            at = end
        else:
            turns[-1] = role, turns[-1][1] + prompt.text[max(at, start) : end]
            at = max(at, end)
    return turns
