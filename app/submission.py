"""What the reader submitted in the workspace bar: two models and a text, as pages read them and links name them.

Typing changes nothing here: Run, an example, another model, a file or a link does. Each submission is one step of the
browser's Back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import streamlit as st

from analysis.document_file import document_file, read_document
from app import state
from app.cache import first_pair
from app.links import replaced, say, went_back
from data.samples import SampleText, samples
from model.text.document import Document, Message

TYPED = (state.TEXT, state.ANSWER, state.SYSTEM)
WIDGETS = (state.A, state.B, state.CHAT, state.EXAMPLE, *TYPED)  # their values follow a link, an example and Back
IN_LINK = (*WIDGETS, state.SOURCE, state.FILE)
KEPT = 16  # submissions for Back, since a file or a long text does not fit into a link
NO_FILE: dict[str, Any] = {"file": "", "content": None}
_NOW, _EARLIER = "submission", "submissions"


@dataclass(frozen=True)
class Submission:
    """Two models and a text: one of the examples (`example` names it), a typed text, or a file."""

    a: str
    b: str
    chat: bool = False
    example: str | None = None
    text: str = ""
    answer: str = ""
    system: str = ""
    file: str = ""  # the name; its content is missing where only a link told of it
    content: bytes | None = None

    @property
    def source(self) -> Literal["example", "typed", "file"]:
        """Where the text comes from."""
        return "file" if self.file else "typed" if self.example is None else "example"

    def document(self) -> Document | None:
        """The text to read; None if there is none yet.

        Raises:
            TextError: the file cannot be read.
        """
        if self.content is not None:
            return read_document(self.content, self.file)
        if self.example is not None:
            return Document(tuple(Message(*message) for message in _samples()[self.example].messages))
        if not self.text:
            return None
        if not self.answer and not self.system:
            return Document.plain(self.text)
        turns = (("system", self.system), ("user", self.text), ("assistant", self.answer))
        return Document(tuple(Message(role, content) for role, content in turns if content))

    def link(self) -> dict[str, str]:
        """The part of the address that opens it."""
        known = {state.A: self.a, state.B: self.b, state.CHAT: str(self.chat).lower()}
        if self.example is not None:
            return known | {state.EXAMPLE: self.example}
        typed = {key: value for key in TYPED if (value := getattr(self, key))}
        if self.file or not self.text or any(len(value) > state.LONGEST_IN_URL for value in typed.values()):
            return known | {state.SOURCE: self.source} | ({state.FILE: self.file} if self.file else {})
        return known | typed

    def not_in_link(self) -> str:
        """What a reader of the link must know who does not have the text; "" if the link holds all of it."""
        if self.file:
            return f"The link does not hold the text: whoever opens it loads the file {self.file} again, under More."
        if self.text and state.SOURCE in self.link():
            return (
                f"The link does not hold the text, which has more than {state.LONGEST_IN_URL:,} characters. Send the "
                "bundle: its command reads the text from a file in it."
            )
        return ""


def of_example(name: str) -> dict[str, Any]:
    """The fields of a submission that an example sets. A conversation of several rounds fits into no text box."""
    sample = _samples()[name]
    said = dict(sample.messages) if len(dict(sample.messages)) == len(sample.messages) else {}
    typed = said.get("text", said.get("user", "")), said.get("assistant", ""), said.get("system", "")
    return typed_text(*typed) | {state.EXAMPLE: name, state.CHAT: sample.is_chat}


def typed_text(text: str, answer: str = "", system: str = "") -> dict[str, Any]:
    """The fields of a submission that a typed text sets."""
    return {state.TEXT: text, state.ANSWER: answer, state.SYSTEM: system, state.EXAMPLE: None} | NO_FILE


def current() -> Submission:
    """What pages show: what was submitted last, or what the link says on a first visit and after Back."""
    now: Submission | None = st.session_state.get(_NOW)
    if now is None or (went_back() and any(st.query_params.get(key) for key in IN_LINK)):
        link = {key: st.query_params[key] for key in IN_LINK if st.query_params.get(key)}
        earlier: dict[frozenset[tuple[str, str]], Submission] = st.session_state.get(_EARLIER, {})
        now = earlier.get(frozenset(link.items())) or _of_link(link)
        fill(now)
    _keep(now)
    return now


def submit(**changes: Any) -> None:
    """Submit other models or another text, from a callback or a page that goes on to rerun."""
    before = current()
    now = replace(before, **changes)
    if replace(now, a=before.a, b=before.b, chat=before.chat) != before:  # a place in the text before means nothing
        st.session_state[state.PINNED] = st.session_state[state.PINNED_ANSWER] = None
    _keep(now)
    fill(now)


def submit_document(document: Document) -> None:
    """Submit an edited text. What fits into no text box, as several rounds of a conversation, becomes a file."""
    said = {message.role: message.content for message in document.messages}
    fields = typed_text(said.get("text", said.get("user", "")), said.get("assistant", ""), said.get("system", ""))
    typed = replace(current(), **fields).document()
    if typed is None or typed.messages != document.messages:
        name, content = document_file(replace(document, arguments=(), date=None))
        fields = typed_text("") | {"file": f"edited-{name}", "content": content}
    submit(**fields)


def fill(now: Submission) -> None:
    """Let the widgets of the bar show a submission."""
    for key in WIDGETS:
        value = getattr(now, key)
        if key not in st.session_state or st.session_state[key] != value:
            st.session_state[key] = value


def _keep(now: Submission) -> None:
    """Keep it in the session, and its link in the address."""
    link = now.link()
    st.session_state[_NOW] = now
    earlier: dict[frozenset[tuple[str, str]], Submission] = st.session_state.setdefault(_EARLIER, {})
    earlier.pop(key := frozenset(link.items()), None)
    earlier[key] = now
    for oldest in list(earlier)[:-KEPT]:
        del earlier[oldest]
    say(link, IN_LINK)


def _of_link(link: Mapping[str, str]) -> Submission:
    """The submission that a link names; a link of earlier versions names the source, and an example by its title."""
    pair, chat = first_pair(), link.get(state.CHAT, "false")
    if chat not in ("true", "false"):
        replaced(state.CHAT, chat, "false")
    models = Submission(
        link.get(state.A, "").strip() or pair.a, link.get(state.B, "").strip() or pair.b, chat == "true"
    )
    source = link.get(state.SOURCE, "typed" if link.get(state.TEXT) else "example").lower()
    if source == "file":
        return replace(models, file=link.get(state.FILE, "a file"))
    if source == "typed":
        return replace(models, **typed_text(*(link.get(key, "") for key in TYPED)))
    wanted, known = link.get(state.EXAMPLE, ""), _samples()
    named = [name for name, sample in known.items() if wanted in (name, sample.title)]
    name = (named or list(known))[0]
    if not named:
        replaced(state.EXAMPLE, wanted, name)
    return replace(models, **(of_example(name) | {state.CHAT: models.chat}))


def _samples() -> dict[str, SampleText]:
    return {sample.name: sample for sample in samples()}
