"""The models that the project knows by a short name, their sources and their licences.

This is data: it opens no file and contacts no server. `fetch.py` turns a source into a folder.
"""

import difflib
from dataclasses import dataclass
from typing import Literal

from model.hub.sources import (
    GEMMA_3_270M_WHEELS,
    SMOLLM2_135M_INSTRUCT_WHEEL,
    BundledSource,
    HubSource,
    WheelSource,
)

Kind = Literal["pretrained", "sft"]


@dataclass(frozen=True)
class CatalogEntry:
    name: str
    title: str
    kind: Kind
    family: str
    licence: str
    licence_url: str
    terms_needed: bool  # True if a source that needs no login may be used only after the user accepted the terms
    parameters: int  # number of weights; tied weights are counted once
    sources: tuple[HubSource | WheelSource | BundledSource, ...]  # in the order in which they are tried


SHARE_ALIKE = ("cc-by-sa-3.0", "https://creativecommons.org/licenses/by-sa/3.0/")
# ARC's licence, which accepts 3.0's works.
SHARE_ALIKE_4 = ("cc-by-sa-4.0", "https://creativecommons.org/licenses/by-sa/4.0/")
APACHE = ("apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")
LLAMA = ("llama3.2", "https://www.llama.com/llama3_2/license/")
GEMMA = ("gemma", "https://ai.google.dev/gemma/terms")
TINY_PARAMETERS = 1_296_000
TINY_BYTE_PARAMETERS = 886_400
MICRO_STEP_TINY_PARAMETERS = 1_698_689
# Models trained on SmolLM2 135M Instruct; the counts include its weights and merged adapters.
MERGED_PARAMETERS, DRAFT_PARAMETERS, CONTROL_PARAMETERS = 142_759_873, 141_595_776, 134_515_008


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
    """Return a pretrained model on the hub and its "-Instruct" version."""
    base = HubSource(repo, gated)
    sft = HubSource(f"{repo}-Instruct", gated)
    shared = family, *licence, gated, parameters
    return (
        CatalogEntry(name, title, "pretrained", *shared, (base,)),
        CatalogEntry(f"{name}-instruct", f"{title} Instruct", "sft", *shared, (sft, *sft_elsewhere)),
    )


def _bundled(
    name: str, title: str, family: str, licence: tuple[str, str], parameters: int, kind: Kind = "sft"
) -> CatalogEntry:
    """Return a model that comes with the project."""
    return CatalogEntry(name, title, kind, family, *licence, False, parameters, (BundledSource(f"data/demo/{name}"),))


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
    *_pair("llama-3.2-1b", "Llama 3.2 1B", "meta-llama/Llama-3.2-1B", "llama", LLAMA, 1_235_814_400, gated=True),
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
    _bundled("tiny-base", "Tiny base of this project", "llama", APACHE, TINY_PARAMETERS, kind="pretrained"),
    _bundled("tiny-sft", "Tiny SFT of this project", "llama", SHARE_ALIKE, TINY_PARAMETERS),
    _bundled(
        "tiny-byte", "Tiny byte model of this project", "mistral", APACHE, TINY_BYTE_PARAMETERS, kind="pretrained"
    ),
    _bundled(
        "micro-step-tiny",
        "Tiny micro_step model of this project",
        "micro_step",
        SHARE_ALIKE,
        MICRO_STEP_TINY_PARAMETERS,
    ),
    _bundled(
        "micro-step-smollm2-135m",
        "SmolLM2 135M Instruct, writing in segments",
        "micro_step",
        SHARE_ALIKE_4,
        MERGED_PARAMETERS,
    ),
    _bundled(
        "micro-step-smollm2-135m-draft",
        "SmolLM2 135M Instruct with a drafting micro decoder",
        "micro_step",
        SHARE_ALIKE_4,
        DRAFT_PARAMETERS,
    ),
    _bundled(
        "control-smollm2-135m",
        "SmolLM2 135M Instruct, trained on its own answers",
        "llama",
        SHARE_ALIKE,
        CONTROL_PARAMETERS,
    ),
)


def catalog() -> tuple[CatalogEntry, ...]:
    """Return every named model, in the order in which a list shows them."""
    return _CATALOG


def find(name: str) -> CatalogEntry | None:
    """Return the entry of that name (case does not matter), or None."""
    wanted = name.strip().lower()
    return next((entry for entry in _CATALOG if entry.name == wanted), None)


def nearest(name: str) -> str | None:
    """Return the catalog name most similar to `name`, for error messages; None if none is similar."""
    close = difflib.get_close_matches(name.lower().rsplit("/", 1)[-1], [entry.name for entry in _CATALOG], n=1)
    return close[0] if close else None
