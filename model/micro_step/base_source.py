"""Where the base of a saved micro_step model comes from.

A saved model names its base. Here the name is a folder or a hub id, which transformers reads; `model.hub.fetch`, once
imported, also finds the short names of the catalog.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

BaseFinder = Callable[[str, str | None], Path | str]
"""From a name and a revision (None: the newest) to what `AutoModelForCausalLM.from_pretrained` can read."""

_finders: list[BaseFinder] = []


def find_base(name: str, revision: str | None) -> Path | str:
    """The folder, or else the hub id, of a base.

    Raises:
        ModelNotFound: the finder that was registered knows no such base.
    """
    if _finders:
        return _finders[-1](name, revision)
    if Path(name).is_dir():
        return name
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision))


def find_bases_with(finder: BaseFinder) -> None:
    """Let `finder` find bases from now on."""
    _finders.append(finder)
