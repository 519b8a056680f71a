"""The sidebar of all pages: options that models and figures share. Models and text are in the bar above the page."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import streamlit as st

from analysis.score_registry import Unit
from app import state
from app.access.settings import settings
from app.escape import escape_markdown
from app.links import linked
from app.submission import Submission
from app.widgets import segmented, selected
from model.access import ATTENTION, need_code
from model.errors import MicroStepError, TextError
from model.hub.fetch import offered
from model.hub.loading import Dtype, ModelSpec, Quantization
from model.text.document import Document, TextInput, read_template_args

DTYPE, DEVICE, QUANTIZATION = "dtype", "device", "quantization"
REVISION, ADAPTER = ({side: f"{what}_{side.lower()}" for side in "AB"} for what in ("revision", "adapter"))
NO_TEXT = "There is no text yet. Type one at the top of the page and press Run, or choose an example."


@dataclass(frozen=True)
class SidebarInputs:
    """What was submitted in the bar and chosen in the sidebar. `text` is None while it is missing or unreadable."""

    a: ModelSpec | None
    b: ModelSpec | None
    text: TextInput | None
    unit: Unit
    problem: str = ""  # why the text or a model cannot be used

    def ready(self) -> tuple[ModelSpec, ModelSpec, TextInput] | None:
        """Models A and B and the text; where one is missing, show the reader why and return None."""
        if self.problem:
            st.error(escape_markdown(self.problem))
        elif self.a is None or self.b is None or self.text is None:
            st.info(NO_TEXT)
        else:
            return self.a, self.b, self.text
        return None


def sidebar(submitted: Submission) -> SidebarInputs:
    """Draw the sidebar, and return all that pages read: the options in it, and what was submitted in the bar."""
    units: list[Unit] = ["bits", "nats"]
    with st.sidebar:
        unit = segmented(
            "Unit", units, state.UNIT, "bits",
            help="The unit of entropy and surprisal. 1 nat is 1.443 bits.",
        )  # fmt: skip
        force_bos = st.toggle(
            "Force BOS",
            **linked(state.FORCE_BOS, False),
            help="Put a beginning-of-text token (BOS) before the text even if the model's tokenizer does not. "
            "The first token then has scores too, but the model may never have seen a text start like that.",
        )
        template_args = _template_args() if submitted.chat else ""
        problem, document = "", None
        try:
            document = submitted.document()
            if document is not None and submitted.chat:
                document = _with_template_args(document, template_args)
        except MicroStepError as error:
            problem = str(error)
        specs: tuple[ModelSpec | None, ModelSpec | None] = None, None
        try:
            specs = _options(submitted.a, submitted.b)
        except MicroStepError as error:
            problem = problem or str(error)
    text = None if document is None else TextInput(document, submitted.chat, force_bos)
    return SidebarInputs(specs[0], specs[1], text, unit, problem)


def _template_args() -> str:
    """Arguments of the chat templates, typed as on the command line."""
    typed: str = st.text_input(
        "Template arguments",
        placeholder="enable_thinking=false",
        max_chars=state.LONGEST_IN_URL,
        help="Arguments for the chat templates as NAME=JSON, separated by spaces: enable_thinking=false. "
        "template_date=2026-01-31 sets the date that a template writes.",
        **linked(state.TEMPLATE, ""),
    )
    return typed


def _with_template_args(document: Document, typed: str) -> Document:
    """The document with these arguments for the chat templates.

    Raises:
        TextError: the arguments cannot be read.
    """
    try:
        words = shlex.split(typed)
    except ValueError as error:
        raise TextError(f"the template arguments cannot be read ({error}); close the quotation mark") from None
    arguments = read_template_args(words)
    date = arguments.pop("template_date", None)
    return document.with_template_settings(arguments, None if date is None else str(date))


def _known_attention(words: Sequence[str]) -> str:
    """How attention is computed, as a link may say it: other names make transformers fetch code."""
    if words[-1] not in ("", *ATTENTION, "flash_attention_2"):
        raise ValueError("not known")
    return words[-1]


def _options(a: str, b: str) -> tuple[ModelSpec, ModelSpec]:
    """Options that rarely change. `trust` stays out of the link, which must not make a machine run foreign code."""
    with st.expander("Model options"):
        revisions = [st.text_input(f"Revision of {x}", **linked(REVISION[x], "")) for x in "AB"]
        adapters = [
            st.text_input(f"LoRA adapter on {x}", help="Hub id or folder.", **linked(ADAPTER[x], "")) for x in "AB"
        ]
        dtype = selected(
            "Precision", get_args(Dtype), DTYPE, "auto",
            help="auto: float32 on a CPU, the checkpoint's own precision on a GPU.",
        )  # fmt: skip
        device = st.text_input("Device", help="auto, cpu, cuda, cuda:1, mps", **linked(DEVICE, "auto"))
        attention = st.text_input(
            "Attention", help="sdpa, eager or flash_attention_2. If empty, transformers chooses.",
            **linked("attention", "", _known_attention),
        )  # fmt: skip
        quantization = selected(
            "Quantisation", get_args(Quantization), QUANTIZATION, "none", help="Needs bitsandbytes."
        )
        trust = settings().models.remote_code and st.checkbox(
            "Run code that comes with the models", key=state.TRUST,
            help="Some models bring their own Python code. Tick this only if you trust whoever published it. A link "
            "does not hold this choice.",
        )  # fmt: skip
        tokenizer = st.text_input(
            "Tokenizer", help="For models without a tokenizer of their own: a model's name, hub id or folder.",
            **linked("tokenizer", ""),
        )  # fmt: skip
    specs = [
        ModelSpec(
            offered(name),
            revision.strip() or None,
            offered(adapter.strip()) if adapter.strip() else None,
            dtype,
            device.strip() or "auto",
            attention.strip() or None,
            quantization,
            trust,
            offered(tokenizer.strip()) if tokenizer.strip() else None,
        )
        for name, revision, adapter in zip((a, b), revisions, adapters, strict=True)
    ]
    need_code(a, trust, specs[0].attn_implementation)
    return specs[0], specs[1]
