"""Documents in the order of their change or of their score, and means over groups of them with 95% intervals.

The unit of every interval is the document: tokens of one document depend on each other. See analysis/intervals.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.intervals import Estimate, Units, quotient
from analysis.ranking.columns import column_names, column_values
from analysis.ranking.document_scores import CONTENT, SUMMED, ScoredDocuments
from analysis.ranking.pairing import Pairing
from analysis.ranking.view import BITS_PER_BYTE, RankView
from analysis.score_registry import PER_NAT
from data.corpus.scored_rows import ROLE_NAMES
from model.errors import MicroStepError
from model.text.document import TEMPLATE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
ALL = "all"  # the group of all documents


@dataclass(frozen=True)
class GroupMean:
    """The mean score of a group: of the tokens of a role, or of the documents with a value in a column."""

    group: str
    documents: int  # that have such tokens
    tokens: int  # of A
    a: Estimate
    b: Estimate | None  # None without a second store
    difference: Estimate | None  # B − A


@dataclass(frozen=True, eq=False)
class Ranking:
    """The P documents of a pairing by one score. Values are in the unit of the view."""

    pairing: Pairing
    view: RankView
    column: tuple[str, ...] | None  # [P] the value of each document in the view's column

    @cached_property
    def a(self) -> Floats:
        """[P] the mean of A; NaN for documents without such tokens."""
        return quotient(*self._parts(self.pairing.a, self.pairing.at_a, self._roles))

    @cached_property
    def b(self) -> Floats:
        """[P] the mean of B; NaN without a second store."""
        if self.pairing.b is None:
            return np.full(len(self.pairing.at_a), np.nan)
        return quotient(*self._parts(self.pairing.b, self.pairing.at_b, self._roles))

    @cached_property
    def tokens(self) -> Ints:
        """[P] A's tokens that the mean is taken over."""
        of = [ROLE_NAMES.index(role) for role in self._roles]
        counted: Ints = self.pairing.a.tokens[:, of].sum(1)[self.pairing.at_a].astype(np.int64)
        return counted

    @property
    def change(self) -> Floats:
        """[P] B − A."""
        return self.b - self.a

    @cached_property
    def chosen(self) -> NDArray[np.bool_]:
        """[P] documents that have such tokens in each store, and one of the chosen values."""
        return np.isfinite(self.change if self.pairing.paired else self.a) & self._of_values

    @cached_property
    def order(self) -> Ints:
        """The places of the documents that are shown, in their order; equals stay in the order of the corpus."""
        change, sort = self.change, self.sort
        shown = self.chosen.copy()
        if self.pairing.paired and self.view.show != "all":
            shown &= change > 0 if self.view.show == "rises" else change < 0
        unsure = -1.0 if self.view.shown.falls else 1.0
        number = self.pairing.a.number[self.pairing.at_a].astype(np.float64)
        keys = {"change": -np.abs(change), "a": -unsure * self.a, "b": -unsure * self.b, "document": number}
        key = -keys[sort] if self.view.reverse else keys[sort]
        places = np.flatnonzero(shown)
        found: Ints = places[np.argsort(key[places], kind="stable")]
        return found

    @property
    def sort(self) -> str:
        """What the documents are sorted by; without a second store, A's score in place of the change."""
        return "a" if not self.pairing.paired and self.view.sort in ("change", "b") else self.view.sort

    @cached_property
    def overall(self) -> GroupMean:
        """The mean over all chosen documents."""
        return self._mean(ALL, self._roles, np.flatnonzero(self.chosen), self._of_both(self._roles))

    def by_role(self) -> list[GroupMean]:
        """The means of the tokens of each role, the template's among them, over documents with the chosen values."""
        sides = [side for side in (self.pairing.a, self.pairing.b) if side is not None]
        bare = self.view.score == BITS_PER_BYTE.name
        roles = [role for role in ROLE_NAMES if all(role in side.roles for side in sides)]
        among = np.flatnonzero(self._of_values)
        return [
            self._mean(role, (role,), among, self._of_both((role,)))
            for role in roles
            if not (bare and role == TEMPLATE)
        ]

    @property
    def group_count(self) -> int:
        """How many groups `by_column` finds."""
        return len(self._groups)

    def by_column(self, most: int | None = None) -> list[GroupMean]:
        """The means of the documents with each value of the column; those with most documents first.

        Args:
            most: how many groups; None: all.
        """
        parts = self._of_both(self._roles)
        return [self._mean(name, self._roles, places, parts) for name, places in self._groups[:most]]

    @cached_property
    def _groups(self) -> list[tuple[str, Ints]]:
        """The values of the column, and the places of their documents that have such tokens in each store."""
        if self.column is None:
            return []
        _, weight_a, _, weight_b = self._of_both(self._roles).T
        some = np.flatnonzero((weight_a > 0) & (weight_b > 0))
        codes, names = pd.factorize(np.array(self.column, dtype=object)[some])
        order = np.argsort(codes, kind="stable")
        parts = np.split(some[order], np.cumsum(np.bincount(codes, minlength=len(names)))[:-1])
        return sorted(zip(names.tolist(), parts, strict=False), key=lambda group: -len(group[1]))

    @property
    def _roles(self) -> Sequence[str]:
        return self.view.roles or CONTENT

    @property
    def _of_values(self) -> NDArray[np.bool_]:
        if not self.view.values or self.column is None:
            return np.ones(len(self.pairing.at_a), dtype=bool)
        return np.isin(np.array(self.column, dtype=object), self.view.values)

    def _parts(self, side: ScoredDocuments, at: Ints, roles: Sequence[str]) -> tuple[Floats, Floats]:
        """[P] sums of the score over the tokens of some roles, and the weights that they are divided by."""
        of = [ROLE_NAMES.index(role) for role in roles]
        per_byte = self.view.score == BITS_PER_BYTE.name
        summed = side.sums[:, :, SUMMED.index("surprisal" if per_byte else self.view.score)][:, of].sum(1)[at]
        factor = PER_NAT["bits"] if per_byte else PER_NAT[self.view.unit] if self.view.shown.information else 1.0
        weight = (side.bytes if per_byte else side.tokens)[:, of].sum(1)[at]
        return summed * factor, weight

    def _of_both(self, roles: Sequence[str]) -> Floats:
        """[P, 4] sum and weight of A, and of B; without a second store, of A again."""
        pairing = self.pairing
        a = self._parts(pairing.a, pairing.at_a, roles)
        b = a if pairing.b is None else self._parts(pairing.b, pairing.at_b, roles)
        return np.stack([*a, *b], axis=1)

    def _mean(self, group: str, roles: Sequence[str], among: Ints, of_both: Floats) -> GroupMean:
        """The mean over the documents at some places; of_both: as `_of_both` gives it for these roles."""
        pairing, parts = self.pairing, of_both[among]
        some = (parts[:, 1] > 0) & (parts[:, 3] > 0)
        there, parts = among[some], parts[some]
        number = pairing.a.number[pairing.at_a[there]]
        units = Units.of(number)
        own = units.sums(parts)
        sums = units.left_out(own)
        a, b = quotient(sums[:, 0], sums[:, 1]), quotient(sums[:, 2], sums[:, 3])
        told = units.estimates(np.column_stack([a, b, b - a]), own[:, 1] + own[:, 3])
        of = [ROLE_NAMES.index(role) for role in roles]
        tokens = int(pairing.a.tokens[pairing.at_a[there]][:, of].sum())
        ends = (told.at(1), told.at(2)) if pairing.paired else (None, None)
        return GroupMean(group, len(there), tokens, told.at(0), *ends)


def ranking(pairing: Pairing, view: RankView) -> Ranking:
    """Rank the documents of one or two stores.

    Raises:
        MicroStepError: the store has no such column, or no document is left.
    """
    column = None
    if view.column is not None:
        store = pairing.a.store
        if not column_names(store):
            raise MicroStepError(
                f"{store.path} has no columns of its corpus; put {store.manifest['data']['name']}, the file that was"
                " scored, beside it or into it"
            )
        values = column_values(pairing.a, view.column)
        column = tuple(values[at] for at in pairing.at_a.tolist())
    found = Ranking(pairing, view, column)
    if not found.chosen.any():
        raise MicroStepError("no document has tokens of these roles, and one of these values; choose others")
    return found
