"""The models that the project knows by a short name, where each can be had, and under which licence.

It is data: it opens no file and asks no server, except in `default_pair`, which looks into the cache. How a source
is turned into a folder is `fetch.py`'s business.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

from model.sources import (
    GEMMA_3_270M_WHEELS,
    SMOLLM2_135M_INSTRUCT_WHEEL,
    BundledSource,
    HubSource,
    WheelSource,
)

Kind = Literal["pretrained", "sft"]


@dataclass(frozen=True)
class CatalogEntry:
    """One named model."""

    name: str
    title: str
    kind: Kind
    family: str
    licence: str
    licence_url: str
    terms_needed: bool
    """Whether a source without a log-in may be used only after the user accepted the terms."""
    parameters: int
    """Weights, tied ones counted once."""
    sources: tuple[HubSource | WheelSource | BundledSource, ...]
    """In the order in which they are tried."""


SHARE_ALIKE = ("cc-by-sa-3.0", "https://creativecommons.org/licenses/by-sa/3.0/")
APACHE = ("apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
LLAMA = ("llama3.2", "https://www.llama.com/llama3_2/license/")
GEMMA = ("gemma", "https://ai.google.dev/gemma/terms")
TINY_PARAMETERS = 1_296_000
MICRO_STEP_TINY_PARAMETERS = 1_698_689


def _pair(
    name: str,
    title: str,
    repo: str,
    family: str,
    licence: tuple[str, str],
    parameters: int,
    gated: bool = False,
    sft_elsewhere: tuple[WheelSource, ...] = (),
) -> tuple[CatalogEntry, CatalogEntry]:
    """A pretrained model on the hub and its "-Instruct" version."""
    base = HubSource(repo, gated)
    sft = HubSource(f"{repo}-Instruct", gated)
    return (
        CatalogEntry(name, title, "pretrained", family, *licence, gated, parameters, (base,)),
        CatalogEntry(
            f"{name}-instruct",
            f"{title} Instruct",
            "sft",
            family,
            *licence,
            gated,
            parameters,
            (sft, *sft_elsewhere),
        ),
    )


_CATALOG: tuple[CatalogEntry, ...] = (
    *_pair(
        "smollm2-135m",
        "SmolLM2 135M",
        "HuggingFaceTB/SmolLM2-135M",
        "llama",
        APACHE,
        134_515_008,
        sft_elsewhere=(SMOLLM2_135M_INSTRUCT_WHEEL,),
    ),
    *_pair("smollm2-360m", "SmolLM2 360M", "HuggingFaceTB/SmolLM2-360M", "llama", APACHE, 361_821_120),
    *_pair("qwen2.5-0.5b", "Qwen2.5 0.5B", "Qwen/Qwen2.5-0.5B", "qwen2", APACHE, 494_032_768),
    *_pair(
        "llama-3.2-1b",
        "Llama 3.2 1B",
        "meta-llama/Llama-3.2-1B",
        "llama",
        LLAMA,
        1_235_814_400,
        gated=True,
    ),
    CatalogEntry(
        "gemma-3-270m",
        "Gemma 3 270M",
        "pretrained",
        "gemma3_text",
        *GEMMA,
        True,
        268_098_176,
        (HubSource("google/gemma-3-270m", gated=True), GEMMA_3_270M_WHEELS),
    ),
    CatalogEntry(
        "tiny-base",
        "Tiny base of this project",
        "pretrained",
        "llama",
        *APACHE,
        False,
        TINY_PARAMETERS,
        (BundledSource("data/demo/tiny-base"),),
    ),
    CatalogEntry(
        "tiny-sft",
        "Tiny SFT of this project",
        "sft",
        "llama",
        *SHARE_ALIKE,
        False,
        TINY_PARAMETERS,
        (BundledSource("data/demo/tiny-sft"),),
    ),
    CatalogEntry(
        "micro-step-tiny",
        "Tiny micro_step model of this project",
        "sft",
        "micro_step",
        *SHARE_ALIKE,
        False,
        MICRO_STEP_TINY_PARAMETERS,
        (BundledSource("data/demo/micro-step-tiny"),),
    ),
)


@dataclass(frozen=True)
class DefaultPair:
    """The two models that the first screen compares, and why these."""

    a: str
    b: str
    why: str
    """One sentence for the reader."""


def catalog() -> tuple[CatalogEntry, ...]:
    """Every named model, in the order in which a list shows them."""
    return _CATALOG


def find(name: str) -> CatalogEntry | None:
    """The entry of that name (case does not matter), or None."""
    wanted = name.strip().lower()
    return next((entry for entry in _CATALOG if entry.name == wanted), None)


def nearest(name: str) -> str | None:
    """The catalog name that looks most like `name`, for error messages; None when none is near."""
    close = difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], [entry.name for entry in _CATALOG], n=1)
    return close[0] if close else None


_PAIRS = (
    DefaultPair(
        "smollm2-135m",
        "smollm2-135m-instruct",
        "SmolLM2 135M before and after its instruction tuning: the same tokenizer and architecture, so every "
        "difference at a token comes from the fine-tuning.",
    ),
    DefaultPair(
        "gemma-3-270m",
        "smollm2-135m-instruct",
        "A pretrained model (Gemma 3 270M) against a fine-tuned one of another family (SmolLM2 135M Instruct), "
        "aligned by character because their tokenizers differ: the Hugging Face hub, which has the pretrained "
        "SmolLM2, was not reached.",
    ),
    DefaultPair(
        "tiny-base",
        "tiny-sft",
        "A tiny model trained in this project, before and after supervised fine-tuning: it comes with the project "
        "and needs no download; fetch larger models to study real ones.",
    ),
)


def default_pair(offline_ok: bool = True, licence_accepted: bool = False) -> DefaultPair:
    """The pair for the first screen.

    Args:
        offline_ok: take only models that are already on this machine; asks no server and never waits. False is for
            `fetch --default`: the SmolLM2 pair wherever the hub answers, which takes one probe of about 3 seconds.
        licence_accepted: with `offline_ok=False` and no hub, Gemma may be fetched from the package index.
    """
    from model.fetch import is_cached  # the catalog is imported by fetch
    from model.hub import reachable

    smollm2, gemma, tiny = _PAIRS
    if all(is_cached(name) for name in (smollm2.a, smollm2.b)):
        return smollm2
    if not offline_ok and reachable():
        return smollm2
    if all(is_cached(name) for name in (gemma.a, gemma.b)) or (not offline_ok and licence_accepted):
        return gemma
    return tiny
