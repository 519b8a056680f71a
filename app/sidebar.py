"""The sidebar of all pages: it draws the widgets for models, text and units, and returns plain values."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import cast

import streamlit as st

from analysis.document_file import read_document
from analysis.score_registry import Unit
from app import state
from app.cache import first_pair
from app.escape import escape_markdown
from app.widgets import default, linked
from data.samples import samples
from model.errors import MicroStepError, TextError
from model.hub.catalog import catalog, find
from model.hub.fetch import is_cached
from model.hub.loading import Dtype, ModelSpec, Quantization
from model.text.document import Document, Message, TextInput, read_template_args

SOURCES: dict[str, str] = {"example": "Example", "typed": "Typed", "file": "File"}
NO_TEXT = "There is no text yet. Choose an example, type one, or load a file in the sidebar."


@dataclass(frozen=True)
class SidebarInputs:
    """What the reader chose in the sidebar. `text` is None while it is missing or unreadable."""

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


def sidebar() -> SidebarInputs:
    """Draw the sidebar, and read it."""
    with st.sidebar:
        pair = first_pair()
        names = [entry.name for entry in catalog()]
        a = _model_name("Model A", state.A, names, pair.a, "Differences are B minus A, so A is often the base model.")
        b = _model_name("Model B", state.B, names, pair.b, "The model compared with A, often the fine-tuned one.")
        if (a, b) == (pair.a, pair.b):
            st.caption(escape_markdown(pair.why))
        chat = st.toggle(
            "Chat template",
            **linked(state.CHAT),
            help="Each model reads the text in its own chat format; only the text itself is compared. "
            "A model without a template reads the raw text.",
        )
        template_args = _template_args() if chat else ""
        force_bos = st.toggle(
            "Force BOS",
            **linked(state.FORCE_BOS),
            help="Put a beginning-of-text token (BOS) before the text even if the model's tokenizer does not. "
            "The first token then has scores too, but the model may never have seen a text start like that.",
        )
        unit = st.segmented_control(
            "Unit", ["bits", "nats"], default="bits", required=True, **linked(state.UNIT),
            help="The unit of entropy and surprisal. 1 nat is 1.443 bits.",
        )  # fmt: skip
        st.divider()
        problem, document = "", None
        try:
            document = _text()
            if document is not None and chat:
                document = _with_template_args(document, template_args)
        except MicroStepError as error:
            problem = str(error)
        specs: tuple[ModelSpec | None, ModelSpec | None] = None, None
        try:
            specs = _options(a, b)
        except MicroStepError as error:
            problem = problem or str(error)
    text = None if document is None else TextInput(document, chat, force_bos)
    return SidebarInputs(specs[0], specs[1], text, cast(Unit, unit), problem)


def _model_name(label: str, key: str, names: list[str], first: str, help_text: str) -> str:
    default(key, first)
    typed = st.session_state.get(key) or st.query_params.get(key)
    if typed and typed not in names:
        names = [*names, typed]
    chosen = st.selectbox(
        label,
        names,
        index=None,
        accept_new_options=True,
        **linked(key),
        help=f"{help_text} Choose one, or type a Hugging Face id (owner/name) or the path of a model folder.",
    )
    name = str(chosen or first).strip()
    entry = find(name)
    if entry is not None:
        fetched = "" if is_cached(name) else ", not fetched yet"
        st.caption(f"{escape_markdown(entry.kind)}, {escape_markdown(entry.licence)}{fetched}")
    return name


def _template_args() -> str:
    """Arguments of the chat templates, typed as on the command line."""
    state.recall(state.TEMPLATE)
    typed = st.text_input(
        "Template arguments",
        key=state.TEMPLATE,
        placeholder="enable_thinking=false",
        persist_state="session",
        help="Arguments for the chat templates as NAME=JSON, separated by spaces: enable_thinking=false. "
        "template_date=2026-01-31 sets the date that a template writes.",
    )
    state.remember(state.TEMPLATE, typed)
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


def _text() -> Document | None:
    """The text: an example, typed text, or a file."""
    source = st.segmented_control(
        "Text", list(SOURCES), default="example", format_func=SOURCES.__getitem__, required=True,
        **linked(state.SOURCE),
    )  # fmt: skip
    if source == "example":
        examples = {sample.title: sample for sample in samples()}
        title = st.selectbox(
            "Example",
            list(examples),  # titles, with no format_func: the URL holds what is shown
            **linked(state.EXAMPLE),
            label_visibility="collapsed",
        )
        return Document(tuple(Message(role, content) for role, content in examples[title].messages))
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
    """Options that rarely change. They stay out of the URL: a link must not make a machine run a model's own code."""
    with st.expander("Model options"):
        revisions = [st.text_input(f"Revision of {x}", key=f"revision_{x}", persist_state="session") for x in "AB"]
        adapters = [
            st.text_input(f"LoRA adapter on {x}", key=f"adapter_{x}", help="Hub id or folder.", persist_state="session")
            for x in "AB"
        ]
        dtype = st.selectbox(
            "Precision", ["auto", "float32", "bfloat16", "float16"], key="dtype", persist_state="session",
            help="auto: float32 on a CPU, the checkpoint's own precision on a GPU.",
        )  # fmt: skip
        device = st.text_input(
            "Device", "auto", key="device", help="auto, cpu, cuda, cuda:1, mps", persist_state="session"
        )
        attention = st.text_input(
            "Attention", key="attention", help="sdpa, eager or flash_attention_2. If empty, transformers chooses.",
            persist_state="session",
        )  # fmt: skip
        quantization = st.selectbox(
            "Quantisation", ["none", "8bit", "4bit"], key="quantization", help="Needs bitsandbytes.",
            persist_state="session",
        )  # fmt: skip
        trust = st.checkbox(
            "Run code that comes with the models", key="trust",
            help="Some models bring their own Python code. Tick this only if you trust whoever published it.",
        )  # fmt: skip
        tokenizer = st.text_input(
            "Tokenizer", key="tokenizer", persist_state="session",
            help="For models without a tokenizer of their own: a model's name, hub id or folder.",
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
