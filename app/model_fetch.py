"""Models that are not on this machine: offers to fetch them, and says why that failed and what helps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from analysis.query import Query
from app.access.settings import settings
from app.error_net import safely
from app.escape import escape_markdown
from app.submission import submit
from model.access import local_path
from model.errors import LicenceNeeded, MicroStepError, TooLarge
from model.hub.adapter import adapter_folder, local_adapter
from model.hub.catalog import catalog, find, nearest
from model.hub.fetch import fetch, is_cached
from model.hub.huggingface import is_repo_id, reachable
from model.hub.loading import ModelSpec

FAILED = "failed_fetches"  # in the session: the errors, by model


def all_here(questions: Sequence[Query[Any]]) -> bool:
    """Whether all models are on this machine; if not, offer to fetch one: a link alone never starts a download."""
    for side, spec in {name: spec for each in questions for name, spec in each.specs.items()}.items():
        if (lacking := _lacking(spec)) is None:
            continue
        entry = find(spec.name)
        failed: dict[ModelSpec, MicroStepError] = st.session_state.setdefault(FAILED, {})
        if not settings().models.fetch:
            st.info(
                f"Model {side}, {escape_markdown(lacking)}, is not on this server, which fetches no models. Choose "
                f"another one, or ask whoever runs the server to fetch it."
            )
            return False
        st.info(f"Model {side}, {escape_markdown(lacking)}, is not on this machine yet.")
        if spec in failed:
            st.error(escape_markdown(f"It could not be fetched: {failed[spec]}", longest=600))
            st.caption(escape_markdown(_what_helps(failed[spec]), longest=600))
        accepted = False
        if entry is not None and entry.terms_needed:
            terms = f"I accept its licence, {escape_markdown(entry.licence)}: {entry.licence_url}"
            accepted = st.checkbox(terms, key=f"terms_{side}")
        needs = entry is not None and entry.terms_needed and not accepted
        with st.container(horizontal=True):
            label = "Try again" if spec in failed else f"Fetch model {side}"
            wanted = st.button(label, type="primary", disabled=needs, key=f"fetch_{side}")
            near = nearest(spec.name) if entry is None else None
            if near is not None:
                st.button(f"Use {near}", on_click=safely(_use), args=(side, near), key=f"use_{side}")
        if wanted:
            failed.pop(spec, None)
            try:
                _fetch(spec, accepted)
            except MicroStepError as error:
                failed[spec] = error
            st.rerun()
        return False
    return True


def _lacking(spec: ModelSpec) -> str | None:
    """What is to be fetched for a model; None if all is here, or if loading it will say why it cannot be fetched."""
    if not is_cached(spec.name, spec.revision) and (find(spec.name) is not None or _on_hub(spec.name)):
        return spec.name if spec.revision is None else f"{spec.name} at revision {spec.revision}"
    if spec.adapter is not None and local_adapter(spec.adapter) is None and is_repo_id(spec.adapter):
        return f"{spec.name} with the adapter {spec.adapter}"
    if spec.tokenizer is not None and not is_cached(spec.tokenizer) and _on_hub(spec.tokenizer):
        return f"{spec.name} with the tokenizer of {spec.tokenizer}"
    return None


def _on_hub(name: str) -> bool:
    """Whether the hub may have it: it reads like a hub id, and nothing on this machine has that name."""
    return is_repo_id(name) and local_path(name) is None


def _use(side: str, name: str) -> None:
    submit(**{side.lower(): name})


def _fetch(spec: ModelSpec, accepted: bool) -> None:
    reachable.cache_clear()  # the network may be back
    with st.status(f"Fetching {escape_markdown(spec.name)}", expanded=True):
        bar = st.progress(0.0)
        st.caption("Leaving or reloading the page stops it; nothing is left half-written.")

        def show(what: str, share: float | None) -> None:
            bar.progress(min(1.0, max(0.0, share or 0.0)), text=escape_markdown(what))

        fetch(spec.name, spec.revision, show, accepted)
        if spec.adapter is not None:
            adapter_folder(spec.adapter, show)
        if spec.tokenizer is not None:
            fetch(spec.tokenizer, None, show)


def _what_helps(error: MicroStepError) -> str:
    """What the reader can do after a fetch failed."""
    if isinstance(error, LicenceNeeded):
        return "Accept the terms as described, then try again."
    if isinstance(error, TooLarge):
        return "Free some space, or choose a smaller model."
    here = ", ".join(entry.name for entry in catalog() if is_cached(entry.name))
    if not reachable():
        return f"Connect this machine to the internet and try again. These models are on it already: {here}."
    return f"Check the name on huggingface.co, or choose a model that is on this machine: {here}."
