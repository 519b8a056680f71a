"""The cards of the corpus page: the finding, the ranking with its documents, and means of groups."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import streamlit as st

from analysis.figures.figure import visible
from analysis.ranking.answer import finding, origin
from analysis.ranking.figures import draw
from analysis.ranking.ranking import Ranking
from analysis.ranking.stored_document import opening_notes
from analysis.ranking.tables import column_title, ranking_table
from analysis.score_registry import significant
from analysis.uncertainty.summary import signed
from app.cards import card
from app.corpus.opening import follow, open_document
from app.error_net import safely
from app.escape import escape_markdown
from app.state import LONGEST_IN_URL
from app.widgets import row_table, stepper

PAGE, TABLE, CHOSEN = "rank_page", "ranking_table", "document_on_page"
ROW = 35  # height of a table row in pixels


def summary(ranking: Ranking) -> None:
    """The finding, and the numbers behind it."""
    overall, view, pair = ranking.overall, ranking.view, ranking.pairing
    unit = f" {view.unit}" if view.shown.information else ""
    with st.container(key="finding"):
        st.markdown(escape_markdown(finding(ranking), longest=400))
    with st.container(border=True, key="card_summary"):
        columns = st.columns(4)
        with columns[0]:
            st.metric("documents", f"{overall.documents:,}")
            st.caption(f"{overall.tokens:,} tokens of A")
        sides = [("A", pair.a, overall.a)]
        sides += [] if pair.b is None or overall.b is None else [("B", pair.b, overall.b)]
        for column, (key, side, mean) in zip(columns[1:], sides, strict=False):
            with column:
                st.metric(f"{key}: mean {view.shown.title}", f"{significant(mean.mean)}{unit}")
                st.caption(escape_markdown(f"{side.store.facts.name}; {mean.ends(lead='95% interval ')}"))
        if overall.difference is not None:
            with columns[3]:
                st.metric("B − A", f"{signed(overall.difference.mean)}{unit}")
                st.caption(escape_markdown(overall.difference.ends(partial(signed, sign=False), "95% interval ")))


def ranking_card(ranking: Ranking) -> None:
    """The documents, a page at a time. A row, or the button, opens a document on the page Uncertainty."""
    view, pair, total = ranking.view, ranking.pairing, len(ranking.order)

    def body() -> None:
        if not total:
            st.info("No document is left. Choose other roles, groups or changes.")
            return
        pages, most = (-(-count // view.top) for count in (total, len(pair.at_a)))
        above = st.container()  # the table, which the choice of a page stands below
        page = stepper("Page", range(1, pages + 1), most, PAGE, f"{view.top} documents a page.") if most > 1 else 1
        first = (page - 1) * view.top
        table = ranking_table(ranking, first, view.top)
        column = [] if view.column is None else [column_title(view.column)]
        score = ["difference"] if pair.paired else []
        numbered = ["document", *(["document_b"] if _renumbered(ranking) else [])]
        places = ranking.order[first : first + view.top].tolist()
        number = st.column_config.NumberColumn
        unit = view.shown.unit(view.unit)
        with above:
            row_table(
                table[["rank", *score, "text", *column, "tokens", "a", *(["b"] if pair.paired else []), *numbered]],
                TABLE,
                lambda row: open_document(pair, places[row]),
                height=38 + ROW * len(table),
                column_config={
                    "rank": number("rank", width=55),
                    "document": number("document", help="Its number in the corpus, from 0.", width=80),
                    **{name: st.column_config.TextColumn(view.column) for name in column},
                    "text": st.column_config.TextColumn("text", help="How it begins.", width="large"),
                    "tokens": number("tokens", help="Over which A's mean is taken.", width=70),
                    "a": number("A", help=unit, format="%.3f", width=80),
                    "b": number("B", help=unit, format="%.3f", width=80),
                    "difference": number("B − A", help=unit, format="%+.3f", width=80),
                },
            )
        titles = [
            f"{rank}: {visible(text, 60).replace('·', ' ')}"
            for rank, text in zip(table["rank"], table["text"], strict=True)
        ]
        with st.container(horizontal=True, vertical_alignment="bottom"):
            chosen = st.selectbox(
                "Document", range(len(places)), format_func=titles.__getitem__, key="document_on_page"
            )
            st.button(
                "Open in Uncertainty",
                icon=":material/open_in_new:",
                type="primary",
                key="open_document",
                on_click=safely(open_document),
                args=(pair, places[min(chosen or 0, len(places) - 1)]),
            )
        st.caption(
            "Choose a row, or a document and the button, to see its tokens under these models. A copied link to it "
            f"holds texts of up to {LONGEST_IN_URL:,} characters; longer texts, and conversations of several rounds, "
            "open in this session only."
        )
        if notes := opening_notes(pair):
            st.caption(escape_markdown(sentences(notes), longest=1000))
        follow()

    card(draw("ranking", ranking), origin(ranking), body=body)


def group_cards(ranking: Ranking) -> None:
    """Means by group and by role, and how the change is distributed. What is folded is not computed."""
    provenance = origin(ranking)
    names = [*(["column_means"] if ranking.column is not None else []), "role_means", "document_changes"]
    for name in names:
        card(draw(name, ranking), provenance, folded=True)


def sentences(notes: Sequence[str]) -> str:
    """Notes as sentences, one after the other."""
    return " ".join(f"{note[0].upper()}{note[1:]}." for note in notes)


def _renumbered(ranking: Ranking) -> bool:
    """Whether some document has another number in B."""
    pair = ranking.pairing
    return pair.b is not None and bool((pair.a.number[pair.at_a] != pair.b.number[pair.at_b]).any())
