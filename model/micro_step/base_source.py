"""Find the base of a saved micro_step model.

A saved model names its base. By default the name is a folder or a hub id, which transformers reads. Once imported,
`model.hub.fetch` also finds the short names of the catalog.
"""

from collections.abc import Callable
from pathlib import Path

BaseFinder = Callable[[str, str | None], Path | str]
"""Maps a name and a revision (None: the newest) to a path or id for `AutoModelForCausalLM.from_pretrained`."""

PARENT = ".."
"""The name of a base in the folder that holds the modules' own folder, wherever both are moved to."""

_finders: list[BaseFinder] = []


def name_of_base(named: str, folder: Path) -> str:
    """Return the name of the base of the modules in a folder, whose reference names it like this."""
    return str(folder.resolve().parent) if named == PARENT else named


def find_base(name: str, revision: str | None) -> Path | str:
    """Return the folder, or else the hub id, of a base."""
    if _finders:
        return _finders[-1](name, revision)
    if Path(name).is_dir():
        return name
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=revision))


def find_bases_with(finder: BaseFinder) -> None:
    """Use `finder` to find bases from now on."""
    _finders.append(finder)
