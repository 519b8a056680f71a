"""Styles that Streamlit's theme does not offer: a background for cards, and a small Export menu."""

from __future__ import annotations

import streamlit as st

from analysis.figures.theme import CARD, LINE, SOFT
from analysis.view import Theme


def theme() -> Theme:
    """The reader's theme."""
    return "dark" if st.context.theme.type == "dark" else "light"


def inject_css() -> None:
    """Add the style sheet in the colours of the reader's theme. It holds constants only, never text from a user."""
    now = theme()
    st.html(_STYLE.replace("CARD", CARD[now]).replace("LINE", LINE[now]).replace("SOFT", SOFT[now]))


_STYLE = """<style>
.stMainBlockContainer { padding: 1rem 2rem 4rem; max-width: 1180px; }
@media (max-width: 768px) { .stMainBlockContainer { padding-top: 4.25rem; } } /* below the bar of the closed sidebar */
.stMainBlockContainer h1 { font-size: 1.25rem; padding: 0; }
.st-key-page_header { column-gap: 0.8rem; row-gap: 0; }
.st-key-compute_anew button { height: 1.5rem; min-height: 0; padding: 0; text-decoration: underline dotted; }
.st-key-compute_anew button p { font-size: 0.875rem; }
.st-key-bar_models { flex-wrap: nowrap; }
[data-testid="stLayoutWrapper"]:has(> .st-key-bar_A, > .st-key-bar_B) { flex: 1 1 0; min-width: 0; }
.st-key-bar_A, .st-key-bar_B { flex-wrap: nowrap; }
@media (max-width: 1250px) { .st-key-run_text kbd { display: none; } }
@media (max-width: 768px) {
  .st-key-bar_models { flex-wrap: wrap; row-gap: 0.4rem; }
  [data-testid="stLayoutWrapper"]:has(> .st-key-bar_A, > .st-key-bar_B) { flex: 1 1 100%; }
}
.st-key-workspace_bar .st-key-text textarea { min-height: 3rem; max-height: 4.6rem; } /* the bar stays slim ... */
.st-key-workspace_bar .st-key-text:focus-within textarea { max-height: 40vh; } /* ... but for a text being edited */
.st-key-workspace_bar .st-key-example button { padding: 0 0.55rem; height: 1.7rem; min-height: 0; }
.st-key-workspace_bar .st-key-example button p { font-size: 0.8rem; }
.st-key-finding p { font-size: 0.9rem; line-height: 1.35; }
.st-key-lens_row { margin: -0.5rem 0; }
.st-key-finding { flex-wrap: nowrap; }
.st-key-card_strip { padding: 0.5rem 1rem; }
.stMainBlockContainer h3 { font-size: 1.25rem; padding: 0.8rem 0 0; }
[class*="st-key-card_"], [class*="st-key-open_"] details { background: CARD; }
[class*="st-key-menu_"] button { min-height: 0; padding: 0 0.4rem; border: 1px solid LINE; color: SOFT; }
[class*="st-key-export_"] button { min-height: 0; padding: 0.1rem 0.5rem; }
[class*="st-key-export_"] button p, [class*="st-key-menu_"] button p { font-size: 0.8rem; }
[data-testid="stMetricValue"] { font-size: 1.35rem; font-variant-numeric: tabular-nums; }
[data-testid="stMetric"] + * { margin-top: -0.6rem; }
.live {
  height: 11rem; overflow-y: auto; font: 0.85rem/1.7 "DejaVu Sans Mono", ui-monospace, monospace;
  overflow-wrap: anywhere; display: flex; flex-direction: column-reverse; /* its end stays in view */
}
.live > div { margin-bottom: auto; }
.live span { padding: 0.1rem 0; border-radius: 2px; }
.live .begins { margin-left: 3px; }
</style>"""
