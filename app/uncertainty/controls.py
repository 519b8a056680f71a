"""The controls of the uncertainty page: which score is drawn, and whose text is scored."""

from __future__ import annotations

import streamlit as st

from analysis.score_registry import SCORES
from app.widgets import sampling_inputs, segmented, whole
from model.scoring.scores import Sampling


def controls() -> tuple[str, int, Sampling]:
    """Draw the controls, and read them: score, number of new tokens (0: the given text is scored), sampling."""
    with st.container(horizontal=True, vertical_alignment="bottom"):
        score = segmented(
            "Score", list(SCORES), "score", "entropy", format_func=lambda name: SCORES[name].title,
            help="  \n".join(f"**{s.title}**: {s.meaning}" for s in SCORES.values()),
        )  # fmt: skip
        mode = segmented(
            "Scored text", ["given", "own"], "mode", "given",
            format_func={"given": "the text", "own": "own continuations"}.__getitem__,
            help="**the text**: both models score the same text. **own continuations**: each model continues the "
            "text, and its own tokens are scored as it writes them.",
        )  # fmt: skip
        if mode != "own":
            return str(score), 0, Sampling()
        new_tokens = whole("New tokens", 1, 2000, 60, "new_tokens")
        return str(score), new_tokens, sampling_inputs()
