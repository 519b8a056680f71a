"""The figures of a ranking: its first rows, how the change is distributed, and means of groups with intervals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis.figures.figure import Figure, FigureSet, safe
from analysis.figures.table_figure import table_figure
from analysis.figures.theme import BLUE, ORANGE, SOFT, styled
from analysis.intervals import FEWEST_DOCUMENTS
from analysis.ranking.ranking import GroupMean, Ranking
from analysis.ranking.tables import group_table, ranking_table, score_columns
from analysis.score_registry import significant

BINS = 40  # of the histogram
_INTERVALS = f"95% intervals by Student's t over the documents of a group; none for fewer than {FEWEST_DOCUMENTS}."
MOST_DRAWN = 40  # that are drawn; the table has all


def ranked(ranking: Ranking, first: int = 0) -> Figure:
    """The documents in their order."""
    view, pairing = ranking.view, ranking.pairing
    order = {
        "change": "by the size of B − A",
        "a": "by A, the least sure first",
        "b": "by B, the least sure first",
        "document": "by number",
    }[ranking.sort]
    shown = {"all": "", "rises": " Only documents in which it rises.", "falls": " Only documents in which it falls."}
    return Figure(
        "ranking",
        "Documents",
        f"The {view.said} of each document over the tokens of {_roles(ranking)}, {order}"
        f"{', turned round' if view.reverse else ''}.{shown[view.show] if pairing.paired else ''}"
        f" {len(ranking.order):,} documents.",
        lambda: table_figure(ranking_table(ranking, first, view.top), view.theme),
        lambda: ranking_table(ranking),
    )


def changes(ranking: Ranking) -> Figure:
    """How many documents changed by how much; with one store, how many have which score."""
    paired = ranking.pairing.paired
    return Figure(
        "document_changes",
        "How many documents changed by how much" if paired else "How the documents are distributed",
        f"Number of documents by {'B − A in the ' if paired else 'their '}{ranking.view.said}. The line is the mean"
        " over all tokens.",
        lambda: _histogram(ranking),
        lambda: _bins(ranking),
    )


def by_role(ranking: Ranking) -> Figure:
    """The means of each role."""
    return Figure(
        "role_means",
        "Means by role",
        f"The {ranking.view.said} over the tokens of each role. {_INTERVALS}",
        lambda: _means(ranking.by_role(), ranking),
        lambda: group_table(ranking.by_role(), ranking, "role"),
    )


def by_column(ranking: Ranking) -> Figure:
    """The means of each value of a column."""
    name, count = ranking.view.column or "column", ranking.group_count
    more = f" The {MOST_DRAWN} largest of {count:,} groups are drawn." if count > MOST_DRAWN else ""
    return Figure(
        "column_means",
        f"Means by {name}" if ranking.column is not None else "Means by a column",
        f"The {ranking.view.said} over the tokens of {_roles(ranking)}. {_INTERVALS}{more}",
        lambda: _means(ranking.by_column(MOST_DRAWN), ranking),
        lambda: group_table(ranking.by_column(), ranking, name),
    )


def _roles(ranking: Ranking) -> str:
    return ", ".join(ranking.view.roles) or "all roles but the template"


def _bins(ranking: Ranking) -> pd.DataFrame:
    values = (ranking.change if ranking.pairing.paired else ranking.a)[ranking.chosen]
    low, high = float(values.min()), float(values.max())
    width = (high - low) / min(BINS, max(8, round(2 * len(values) ** 0.5)))
    if width > 1e-9 * max(abs(low), abs(high)):  # an edge of the bins is 0, which parts rises from falls
        counts, edges = np.histogram(values, np.arange(np.floor(low / width), np.floor(high / width) + 2) * width)
    else:
        counts, edges = np.histogram(values, 1)
    return pd.DataFrame({"from": edges[:-1], "to": edges[1:], "documents": counts, **score_columns(ranking)})


def _histogram(ranking: Ranking) -> go.Figure:
    bins, view, paired = _bins(ranking), ranking.view, ranking.pairing.paired
    middle = (bins["from"] + bins["to"]) / 2
    colour = np.where(middle > 0, ORANGE[view.theme], BLUE[view.theme]) if paired else SOFT[view.theme]
    figure = go.Figure(
        go.Bar(
            x=middle,
            y=bins["documents"],
            width=bins["to"] - bins["from"],
            marker={"color": colour, "line": {"width": 0}},
            customdata=[[significant(a), significant(b)] for a, b in zip(bins["from"], bins["to"], strict=True)],
            hovertemplate="%{y} documents<br>from %{customdata[0]} to %{customdata[1]}<extra></extra>",
        )
    )
    overall = ranking.overall
    figure = styled(figure, view.theme, 300)
    mean = overall.difference.mean if overall.difference is not None else overall.a.mean
    figure.add_vline(x=mean, line={"color": SOFT[view.theme], "width": 2, "dash": "dot"})
    figure.update_xaxes(title=f"B − A, {view.axis}" if paired else view.axis)
    figure.update_yaxes(title="documents")
    return figure


def _means(groups: Sequence[GroupMean], ranking: Ranking) -> go.Figure:
    """Points with intervals, a line for each group: A and B at the left, what changed at the right."""
    from plotly.subplots import make_subplots

    view, paired = ranking.view, ranking.pairing.paired
    names = [safe(group.group, 24).replace("·", " ") or "(empty)" for group in groups]
    titles = ("A and B", "B − A") if paired else ("A",)
    figure = make_subplots(1, len(titles), shared_yaxes=True, horizontal_spacing=0.1, subplot_titles=titles)
    sides = [("A", [group.a for group in groups], ORANGE, 1)]
    if paired:
        sides += [
            ("B", [group.b for group in groups if group.b is not None], BLUE, 1),
            ("B − A", [group.difference for group in groups if group.difference is not None], SOFT, 2),
        ]
    for name, found, colour, at in sides:
        shift = {"A": -0.12, "B": 0.12}.get(name, 0.0) if paired else 0.0
        figure.add_trace(
            go.Scatter(
                x=[each.mean for each in found],
                y=[place + shift for place in range(len(found))],
                mode="markers",
                name=name,
                marker={"color": colour[view.theme], "size": 9},
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [each.high - each.mean for each in found],
                    "arrayminus": [each.mean - each.low for each in found],
                    "thickness": 1.5,
                },
                customdata=[
                    [label, each.spoken(), f"{group.documents:,}", f"{group.tokens:,}"]
                    for label, each, group in zip(names, found, groups, strict=True)
                ],
                hovertemplate="%{customdata[0]}: %{customdata[1]}"
                "<br>%{customdata[2]} documents, %{customdata[3]} tokens"
                f"<extra>{name}</extra>",
                showlegend=paired and name != "B − A",
            ),
            row=1,
            col=at,
        )
    figure = styled(figure, view.theme, 110 + 34 * max(1, len(groups)))
    figure.update_yaxes(tickvals=list(range(len(names))), ticktext=names, range=[len(names) - 0.5, -0.5])
    figure.update_xaxes(title=view.shown.unit(view.unit))  # the caption names the score: two titles leave little room
    figure.update_annotations(font={"size": 13})
    if paired:
        figure.add_vline(x=0, line={"color": SOFT[view.theme], "width": 1, "dash": "dot"}, row=1, col=2)
        figure.update_layout(legend={"y": 1.08})
    return figure


FIGURES = FigureSet({"ranking": ranked, "document_changes": changes, "role_means": by_role, "column_means": by_column})
draw = FIGURES.draw
