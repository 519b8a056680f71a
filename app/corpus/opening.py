"""Opens a document of a store on the page Uncertainty, under the models and with the settings that scored it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from analysis.ranking.pairing import Pairing
from analysis.ranking.stored_document import reading_settings, stored_document
from app import state
from app.sidebar import ADAPTER, DEVICE, DTYPE, QUANTIZATION, REVISION
from app.submission import submit, submit_document
from model.hub.catalog import find
from model.hub.model_info import ModelInfo
from model.hub.spec import resolve_device

UNCERTAINTY = Path(__file__).resolve().parents[2] / "pages" / "uncertainty.py"
_GO = "corpus_opens"


def open_document(pair: Pairing, place: int) -> None:
    """Submit the models, the settings and the text of a document, from a callback; the page then calls `follow`."""
    document = stored_document(pair.a.store, int(pair.a.number[pair.at_a[place]]))
    sides = {"A": pair.a.store.facts} | ({} if pair.b is None else {"B": pair.b.store.facts})
    named = {key.lower(): _name(facts) for key, facts in sides.items()}
    for key, facts in sides.items():
        st.session_state[REVISION[key]] = facts.revision if _of_hub(facts) else ""
        st.session_state[ADAPTER[key]] = facts.adapter or ""
    read = reading_settings(pair.a.store)
    st.session_state[state.FORCE_BOS] = read.force_bos
    st.session_state[state.TEMPLATE] = read.template
    st.session_state[QUANTIZATION] = read.quantization
    usual = read.dtype == "float32" and resolve_device(st.session_state.get(DEVICE) or "auto").type == "cpu"
    st.session_state[DTYPE] = "auto" if usual else read.dtype
    submit(**named, chat=read.chat)
    submit_document(document)
    st.session_state[_GO] = True


def follow() -> None:
    """Turn to the page Uncertainty if a document was opened."""
    if st.session_state.pop(_GO, False):
        st.switch_page(UNCERTAINTY)


def _name(facts: ModelInfo) -> str:
    """What opens the model again."""
    kind, _, where = facts.source.partition(" ")
    return where if kind in ("folder", "file") or _of_hub(facts) else facts.name


def _of_hub(facts: ModelInfo) -> bool:
    """Whether it is a model of the hub that has no short name."""
    return facts.source.startswith("hub ") and find(facts.name) is None
