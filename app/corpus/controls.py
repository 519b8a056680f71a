"""The controls of the corpus page: which stores, how documents are ranked, and which of them are shown."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from analysis.discovery import Found, Place
from analysis.ranking.columns import MOST_GROUPS, column_values, grouping_columns
from analysis.ranking.document_scores import CONTENT
from analysis.ranking.pairing import Pairing
from analysis.ranking.view import RANKED, RankView, Show, Sort
from analysis.score_registry import Unit
from app.links import linked, settle
from app.styles import theme
from app.widgets import folder_input, segmented, selected
from data.corpus.store import read_manifest
from model.errors import TextError

FOLDER, STORE_A, STORE_B, SCORE, SORT, REVERSE, SHOW, ROLES, COLUMN, VALUES = (
    "stores", "store_a", "store_b", "rank_by", "sort_by", "reversed", "changed", "roles", "column", "values",
)  # fmt: skip
DEFAULT_FOLDER = "stores"
ALONE, NO_COLUMN = "no second store", "none"
LOOKED_AT = 20  # newest stores among which a first visit looks for a pair
SHOWN: dict[Show, str] = {"all": "all", "rises": "rises", "falls": "falls"}


def folder() -> Path:
    """The folder that holds stores."""
    meaning = "A folder that holds stores of scores, up to three folders deep, or the folder of one."
    return folder_input("Folder of stores", FOLDER, "stores", DEFAULT_FOLDER, meaning)


def choose(found: Found) -> list[Place]:
    """Draw the choice of one or two stores, and read it."""
    names = [place.name for place in found.places]
    first = _first_pair(found)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        a = selected("Store A", names, STORE_A, first[0], help="Scores under model A, such as the base.")
        others = [ALONE, *(name for name in names if name != a)]
        wanted = next((name for name in (*first[1:], *first[:1]) if name != a), ALONE)
        b = selected(
            "Store B", others, STORE_B, wanted if len(first) > 1 else ALONE,
            help="Scores of the same corpus under model B. Documents are matched by their text.",
        )  # fmt: skip
    return found.named([a, *([] if b == ALONE else [b])])


def _first_pair(found: Found) -> list[str]:
    """The newest store with another one of the same corpus, the base's first; else the newest store alone."""
    seen: dict[object, list[tuple[bool, str]]] = {}
    for place in found.places[:LOOKED_AT]:
        try:
            manifest = read_manifest(place.path) or {}
            corpus, kind = manifest["data"]["revision"], manifest["model"]["kind"]
        except (TextError, KeyError, TypeError):
            continue
        seen.setdefault(corpus, []).append((kind != "base", place.name))
    pair = next((sorted(stores[:2]) for stores in seen.values() if len(stores) > 1), None)
    return [found.places[0].name] if pair is None else [name for _, name in pair]


def view(pair: Pairing, unit: Unit) -> RankView:
    """Draw the controls of the ranking, and read them."""
    scores = list(RANKED)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        score = selected(
            "Score", scores, SCORE, scores[0] if pair.same_tokens else scores[-1],
            format_func=lambda name: RANKED[name].title,
            help="A document's score is the mean over its tokens.  \n"
            + "  \n".join(f"**{each.title}**: {each.meaning}" for each in RANKED.values())
            + "  \nKL and JS compare two models' predictions, and a store holds the scores of one model alone: open a "
            "document in Uncertainty to see them.", width=180,
        )  # fmt: skip
        titles: dict[Sort, str] = {"change": "change", "a": "A", "b": "B", "document": "document"}
        sorts: list[Sort] = ["change", "a", "b", "document"] if pair.paired else ["a", "document"]
        sort = segmented(
            "Sort by", sorts, SORT, sorts[0], format_func=titles.__getitem__,
            help="**change**: the size of B − A.  \n**A**, **B**: the least sure first.  \n**document**: by number.",
        )  # fmt: skip
        show: Show = "all"
        if pair.paired:
            show = segmented(
                "Show", list(SHOWN), SHOW, "all", format_func=SHOWN.__getitem__,
                help="Documents in which the score rises, or falls, from A to B. Means by role and group keep all.",
            )  # fmt: skip
        reverse = st.toggle("Reverse", **linked(REVERSE, False), help="Turns the order round.")
    with st.container(horizontal=True, vertical_alignment="bottom"):
        held = [role for role in CONTENT if role in pair.a.roles]
        _settle_to(ROLES, held)
        roles = st.pills(
            "Roles", held, selection_mode="multi", key=ROLES,
            help="Tokens of these roles only. None chosen: all but the chat template.",
        )  # fmt: skip
        column, values = _group(pair)
    return RankView(score, sort, bool(reverse), show, tuple(roles), column, values or None, unit=unit, theme=theme())


def _group(pair: Pairing) -> tuple[str | None, list[str]]:
    """The column that groups documents, and the values that are shown."""
    names = grouping_columns(pair.a)
    if not names:
        return None, []
    name = selected(
        "Group by", [NO_COLUMN, *names], COLUMN, names[0],
        help=f"A column of the corpus with at most {MOST_GROUPS} values, such as a domain: of the store, or of the "
        "file that was scored, if it lies beside the store or in it.",
    )  # fmt: skip
    if name == NO_COLUMN:
        return None, []
    known = sorted(set(column_values(pair.a, name)))
    _settle_to(VALUES, known)
    return name, st.multiselect("Only", known, key=VALUES, help="Documents with these values. None chosen: all.")


def _settle_to(key: str, known: Sequence[str]) -> None:
    """Before a choice of several is drawn, leave out what a link names and the store does not hold."""
    wanted = _first_words(key)
    kept = [word for word in wanted if word in known]
    if kept != wanted:
        settle(key, kept)


def _first_words(key: str) -> list[str]:
    """The words that a choice of several begins with."""
    linked(key, [])
    value: list[str] = st.session_state[key] or []
    return value
