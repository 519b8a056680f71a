"""The sidebar, shared by all pages: models, text, units. Widgets in, plain values out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Literal, cast

import streamlit as st

from analysis.document_file import read_document
from analysis.score_registry import Unit
from app import state
from app.cache import first_pair
from app.escape import escape_markdown
from data.samples import samples
from model.errors import MicroStepError, TextError
from model.hub.catalog import catalog, find
from model.hub.fetch import is_cached
from model.hub.loading import Dtype, ModelSpec, Quantization
from model.text.document import Document, Message, TextInput, read_template_args

Source = Literal["example", "typed", "file"]
SOURCES: dict[str, str] = {"example": "Example", "typed": "Typed", "file": "File"}


@dataclass(frozen=True)
class SidebarInputs:
    """What the sidebar says. The text is None while it is missing or unreadable; `problem` then says why."""

    a: ModelSpec | None
    b: ModelSpec | None
    text: TextInput | None
    unit: Unit
    problem: str = ""


def sidebar() -> SidebarInputs:
    """Draw the sidebar and read it."""
    with st.sidebar:
        pair = first_pair()
        names = [entry.name for entry in catalog()]
        a = _model_name("Model A", state.A, names, pair.a, "Differences start from it: often the base.")
        b = _model_name("Model B", state.B, names, pair.b, "It is compared with A: often the fine-tuned one.")
        if (a, b) == (pair.a, pair.b):
            st.caption(escape_markdown(pair.why))
        chat = st.toggle(
            "Chat template",
            key=state.CHAT,
            bind="query-params",
            help="Each model reads the text in its own chat format; only the text itself is compared. "
            "A model without a template reads the raw text.",
        )
        template = _template() if chat else ""
        force_bos = st.toggle(
            "Force BOS",
            key=state.FORCE_BOS,
            bind="query-params",
            help="Put a beginning-of-text token before the text even for models whose tokenizer does not: "
            "then their first token has scores too, but the model may never have seen a text begin so.",
        )
        unit = st.segmented_control(
            "Unit", ["bits", "nats"], default="bits", key=state.UNIT, bind="query-params", required=True,
            help="Of entropy and surprisal. 1 nat is 1.443 bits.",
        )  # fmt: skip
        st.divider()
        problem, document = "", None
        try:
            document = _text()
            if document is not None and chat:
                document = _told(document, template)
        except MicroStepError as error:
            problem = str(error)
        specs: tuple[ModelSpec | None, ModelSpec | None] = None, None
        try:
            specs = _options(a, b)
        except MicroStepError as error:
            problem = problem or str(error)
    text = None if document is None else TextInput(document, chat, force_bos)
    return SidebarInputs(specs[0], specs[1], text, cast(Unit, unit), problem)


def _model_name(label: str, key: str, names: list[str], default: str, help_text: str) -> str:
    if key not in st.session_state and key not in st.query_params:
        st.session_state[key] = default  # not the widget's own default: links must name the models that they show
    typed = st.session_state.get(key) or st.query_params.get(key)
    if typed and typed not in names:
        names = [*names, typed]
    chosen = st.selectbox(
        label,
        names,
        index=None,
        key=key,
        accept_new_options=True,
        bind="query-params",
        help=f"{help_text} Choose one, or type a Hugging Face id (owner/name) or the path of a model folder.",
    )
    name = str(chosen or default).strip()
    entry = find(name)
    if entry is not None:
        here = "" if is_cached(name) else ", not fetched yet"
        st.caption(f"{escape_markdown(entry.kind)}, {escape_markdown(entry.licence)}{here}")
    return name


def _template() -> str:
    """The arguments of the chat templates, as they are typed on the command line."""
    state.recall(state.TEMPLATE)
    typed = st.text_input(
        "Template arguments",
        key=state.TEMPLATE,
        placeholder="enable_thinking=false",
        persist_state="session",
        help="What the chat templates are told, NAME=JSON with spaces between: enable_thinking=false. "
        "template_date=2026-01-31 is what a template writes as the day's date.",
    )
    state.remember(state.TEMPLATE, typed)
    return typed


def _told(document: Document, typed: str) -> Document:
    """A document with what the chat templates are told.

    Raises:
        TextError: that cannot be read.
    """
    try:
        words = shlex.split(typed)
    except ValueError as error:
        raise TextError(f"the template arguments cannot be read ({error}); close the quotation mark") from None
    arguments = read_template_args(words)
    date = arguments.pop("template_date", None)
    return document.told(arguments, None if date is None else str(date))


def _text() -> Document | None:
    """The text: an example, typed, or a file."""
    source = st.segmented_control(
        "Text", list(SOURCES), default="example", format_func=SOURCES.__getitem__, key=state.SOURCE,
        bind="query-params", required=True,
    )  # fmt: skip
    if source == "example":
        known = {sample.title: sample for sample in samples()}
        title = st.selectbox(
            "Example",
            list(known),  # titles, with no format_func: the URL holds what is shown
            key=state.EXAMPLE,
            bind="query-params",
            label_visibility="collapsed",
        )
        return Document(tuple(Message(role, content) for role, content in known[title].messages))
    if source == "file":
        upload = st.file_uploader(
            "UTF-8 text, or a conversation as JSON", type=["txt", "md", "py", "json", "csv", "log", "tex", "html"],
            key=state.UPLOAD,
            help='A conversation is {"messages": [{"role": "user", "content": "..."}, ...]}.',
        )  # fmt: skip
        return read_document(upload.getvalue(), upload.name) if upload is not None else None
    return _typed()


def _typed() -> Document | None:
    state.recall(state.TEXT)
    text = st.text_area(
        "Text", key=state.TEXT, height=180, label_visibility="collapsed", placeholder="Type or paste a text",
        persist_state="session",
    )  # fmt: skip
    with st.expander("As a conversation"):
        state.recall(state.ANSWER)
        answer = st.text_area("Assistant's answer", key=state.ANSWER, height=100, persist_state="session")
        state.recall(state.SYSTEM)
        system = st.text_area("System message", key=state.SYSTEM, height=70, persist_state="session")
    for key, value in ((state.TEXT, text), (state.ANSWER, answer), (state.SYSTEM, system)):
        state.remember(key, value)
    if not text:
        return None
    if not answer and not system:
        return Document.plain(text)
    turns = [Message("system", system)] if system else []
    turns += [Message("user", text)]
    turns += [Message("assistant", answer)] if answer else []
    return Document(tuple(turns))


def _options(a: str, b: str) -> tuple[ModelSpec, ModelSpec]:
    """What is rarely changed. Not in the URL: a link must not make anyone's machine run a model's own code."""
    with st.expander("Model options"):
        revisions = [st.text_input(f"Revision of {x}", key=f"revision_{x}", persist_state="session") for x in "AB"]
        adapters = [
            st.text_input(f"LoRA adapter on {x}", key=f"adapter_{x}", help="Hub id or folder.", persist_state="session")
            for x in "AB"
        ]
        dtype = st.selectbox(
            "Precision", ["auto", "float32", "bfloat16", "float16"], key="dtype", persist_state="session",
            help="auto: float32 on the CPU, the checkpoint's own on a GPU.",
        )  # fmt: skip
        device = st.text_input(
            "Device", "auto", key="device", help="auto, cpu, cuda, cuda:1, mps", persist_state="session"
        )
        attention = st.text_input(
            "Attention", key="attention", help="sdpa, eager, flash_attention_2; empty: the library's choice.",
            persist_state="session",
        )  # fmt: skip
        quantization = st.selectbox(
            "Quantisation", ["none", "8bit", "4bit"], key="quantization", help="Needs bitsandbytes.",
            persist_state="session",
        )  # fmt: skip
        trust = st.checkbox(
            "Run code that comes with the models", key="trust",
            help="Some models bring Python code of their own. Tick only if you trust whoever published it.",
        )  # fmt: skip
        tokenizer = st.text_input(
            "Tokenizer", key="tokenizer", persist_state="session",
            help="Of models that come without one: a model's name, hub id or folder.",
        )  # fmt: skip
    specs = [
        ModelSpec(
            name,
            revision.strip() or None,
            adapter.strip() or None,
            cast(Dtype, dtype),
            device.strip() or "auto",
            attention.strip() or None,
            cast(Quantization, quantization),
            trust,
            tokenizer.strip() or None,
        )
        for name, revision, adapter in zip((a, b), revisions, adapters, strict=True)
    ]
    return specs[0], specs[1]
