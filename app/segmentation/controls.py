"""The controls of the segmentation page: the text, the models, and extra model passes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import streamlit as st

from analysis.segmentation.corpus_view import StoreSides
from analysis.segmentation.request import CutRequest
from app.access.settings import settings
from app.cache import store_sides
from app.escape import escape_markdown
from app.links import linked
from app.segmentation.strategy_select import cap_input
from app.sidebar import NO_TEXT, SidebarInputs
from app.widgets import segmented, selected, whole
from model.errors import MicroStepError
from model.scoring.scores import Method
from model.segmentation.features import Feature, FeatureOptions


@dataclass(frozen=True)
class SegmentationControls:
    """What the controls say: a request without strategies, or why there is none."""

    request: CutRequest | None
    store: StoreSides | None = None
    other_precision: bool = False
    problem: str = ""
    hint: str = ""
    said: str = ""  # about the store


def controls(inputs: SidebarInputs) -> SegmentationControls:
    """Draw the models and the options, and read them."""
    which = "A"
    with st.popover("Options", help="M, a corpus store, and extra model passes.", width="content"):
        source = segmented(
            "Segmented text", ["text", "store"], "what", "text",
            format_func={"text": "the text", "store": "a corpus store"}.__getitem__,
            help="**the text** above, or the documents of a **corpus store**: a folder that `micro-step corpus score` "
            "made.",
        )  # fmt: skip
        folder = number = None
        if source == "store":
            folder = st.text_input("Folder of the store", **linked("store", ""))
            number = whole(
                "Document shown", 0, None, 0, "document",
                help="The document that is shown token by token. Statistics are over all documents.",
            )  # fmt: skip
        cap = cap_input("most", help="No segment has more tokens, whatever the strategy.")
        how, window, other = _further(source == "text")
    if source == "text":
        which = segmented("Models", ["A", "B", "both"], "models", "both", label_visibility="collapsed", width="content")
    request = CutRequest((), None, (), int(cap), how)
    if source == "store":
        return _of_store(request, str(folder or "").strip(), int(number or 0))
    if inputs.problem:
        return SegmentationControls(None, problem=inputs.problem)
    if inputs.text is None or inputs.a is None or inputs.b is None:
        return SegmentationControls(None, hint=NO_TEXT)
    models = tuple((key, spec) for key, spec in (("A", inputs.a), ("B", inputs.b)) if which in (key, "both"))
    history = Feature("window", window=window, method=how.history, stride=how.stride) if window else None
    request = replace(request, models=models, text=inputs.text, history=history)
    return SegmentationControls(request, other_precision=other)


def _of_store(request: CutRequest, folder: str, number: int) -> SegmentationControls:
    if not folder:
        return SegmentationControls(
            None, hint="Type the folder of a store. `micro-step corpus score` makes one from a data set."
        )
    try:
        path = settings().folder("stores", folder, whole=True)
        found = store_sides(path)
        number = min(number, found.rows - 1)
        said = f"{found.rows:,} documents, {len(found.whole):,} tokens. Shown: {found.title(number)}"
        return SegmentationControls(replace(request, store=str(path), number=number), found, said=said)
    except MicroStepError as error:
        return SegmentationControls(None, problem=str(error))


def _further(text: bool) -> tuple[FeatureOptions, int | None, bool]:
    """Choices for what needs a run of its own: history, attention, precision; and how a prompt is treated."""
    apart = segmented(
        "Prompt", ["auto", "apart", "cut"], "prompt", "auto", disabled=not text,
        help="**apart**: each token that the assistant did not write is a segment of its own, since the prompt is "
        "never merged. **cut**: the prompt is segmented like all other text. **auto**: apart in a chat that has "
        "an answer.",
    )  # fmt: skip
    method = selected(
        "Limited-history method", ["exact", "strided", "banded"], "history_method", "exact",
        help="**exact**: one pass per window. **strided**: one window for every `stride` tokens. **banded**: one "
        "pass with a banded mask, which reaches layers × (window − 1) + 1 tokens back.",
    )  # fmt: skip
    stride = whole("Stride, tokens", 1, 512, 16, "stride")
    beside = st.toggle(
        "Compare limited and full history", **linked("history", False), disabled=not text,
        help="Adds a card with the entropy H given the last tokens only, and its excess D over the full entropy.",
    )  # fmt: skip
    window = whole("Window, tokens", 1, 4096, 32, "window")
    layers = st.text_input("Layers of the attention", placeholder="all; or 0-3, 7", **linked("layers", ""))
    heads = st.text_input("Heads of the attention", placeholder="all; or 0-3, 7", **linked("heads", ""))
    other = st.toggle(
        "Stability in another precision", **linked("precision", False), disabled=not text,
        help="Runs each model again in bfloat16 (or float32), and shows which boundaries change.",
    )  # fmt: skip
    try:
        numbers = _numbers(layers, "layers"), _numbers(heads, "heads")
    except MicroStepError as error:
        st.error(escape_markdown(str(error)))
        numbers = None, None
    kept_apart = {"auto": None, "apart": True, "cut": False}[str(apart)]
    how = FeatureOptions(*numbers, cast(Method, method), int(stride), kept_apart)
    return how, int(window) if text and beside else None, bool(text and other)


def _numbers(text: str, what: str) -> tuple[int, ...] | None:
    """0-3, 7 as numbers; None for all."""
    found: set[int] = set()
    for part in text.replace(" ", "").split(",") if text.strip() else ():
        first, _, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (not last or (last.isascii() and last.isdigit()))):
            raise MicroStepError(f"{what} are written as 0-3, 7; {text!r} is not")
        if int(last or first) > 10_000:
            raise MicroStepError(f"{what} must be at most 10,000")
        found |= set(range(int(first), int(last or first) + 1))
    return tuple(sorted(found)) or None
