"""The controls of the uncertainty page: what the strip shows, and whose text is scored."""

from __future__ import annotations

from dataclasses import dataclass, field

import streamlit as st

from analysis.score_registry import DIFFERENCE, MEASURES, SCORES
from analysis.view import Lens
from app.links import linked
from app.widgets import option_of, sampling_inputs, segmented, selected, whole
from model.scoring.scores import Sampling

LENSES: dict[Lens, str] = {"a": "A", "b": "B", "both": "both", "change": "change"}
MODES = {"given": "the text", "own": "own continuations"}
TITLES = {DIFFERENCE: "B − A", **{name: score.title for name, score in (SCORES | MEASURES).items()}}


@dataclass(frozen=True)
class UncertaintyControls:
    """What the reader chose above the strip."""

    score: str = "entropy"
    lens: Lens = "both"
    measure: str = DIFFERENCE
    with_template: bool = False
    new_tokens: int = 0  # 0: the given text is scored
    sampling: Sampling = field(default_factory=Sampling)


def controls(chat: bool) -> UncertaintyControls:
    """Draw the controls, and read them; `chat`: the text is read with a chat template."""
    own = option_of("mode", list(MODES), "given", MODES.__getitem__) == "own"
    measure, with_template, new_tokens, sampling = DIFFERENCE, False, 0, Sampling()
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key="lens_row"):
        lens = segmented(
            "Lens", [lens for lens in LENSES if not (own and lens == "change")], "lens", "both",
            format_func=LENSES.__getitem__, label_visibility="collapsed",
            help="**A**, **B**, **both**: the tokens of each model, coloured by the score. **change**: each piece of "
            "text, coloured by what changed from A to B.",
        )  # fmt: skip
        score = selected(
            "Score", list(SCORES), "score", "entropy", format_func=TITLES.__getitem__, width=260,
            label_visibility="collapsed",
            help="  \n".join(f"**{s.title}**: {s.meaning}" for s in SCORES.values()),
        )  # fmt: skip
        if lens == "change":
            measure = selected(
                "Measure", [DIFFERENCE, *MEASURES], "measure", DIFFERENCE, format_func=TITLES.__getitem__, width=180,
                label_visibility="collapsed",
                help="**B − A**: the difference in the score.  \n"
                + "  \n".join(f"**{m.title}**: {m.meaning}" for m in MEASURES.values()),
            )  # fmt: skip
        elif chat and not own:
            with_template = st.toggle(
                "Template tokens", **linked("with_template", False), help="Show the tokens of the chat template, too."
            )
        segmented(
            "Scored text", list(MODES), "mode", "given", format_func=MODES.__getitem__, label_visibility="collapsed",
            help="**the text**: both models score the same text. **own continuations**: each model continues the "
            "text, and its own tokens are scored as it writes them.",
        )  # fmt: skip
        if own:
            new_tokens, sampling = whole("New tokens", 1, 2000, 60, "new_tokens"), sampling_inputs()
    return UncertaintyControls(score, lens, measure, with_template, new_tokens, sampling)
