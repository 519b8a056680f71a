"""What this process may open: everything for one person; on a server for others, what its operator named.

A server calls `limit_access` once, at its start. What lies outside the named folders is never looked at, so that an
answer cannot tell whether it exists.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.errors import ModelError, ModelNotFound

ATTENTION = ("sdpa", "eager")  # that need no code from elsewhere; transformers may fetch kernels for all others
MOST = 100_000  # files of a model, run or store, whose links are looked at


@dataclass(frozen=True)
class Root:
    """A folder that is offered under a name."""

    name: str
    path: Path  # absolute
    real: Path  # the same without links


@dataclass(frozen=True)
class Roots:
    """The folders of one kind that are offered, with all that lies in them."""

    roots: tuple[Root, ...]

    @property
    def names(self) -> str:
        """Their names, for messages."""
        return ", ".join(root.name for root in self.roots) or "none"

    def find(self, typed: str) -> Path | None:
        """The file or folder that NAME/... or a path means, without links; None if it is not there or not offered."""
        for place in self._meant(typed.strip()):
            plain = Path(os.path.normpath(place))
            if any(plain.is_relative_to(root) for each in self.roots for root in (each.path, each.real)):
                try:
                    real = plain.resolve(strict=True)
                except (OSError, ValueError, RuntimeError):
                    continue
                if self._inside(real):
                    return real
        return None

    def _meant(self, typed: str) -> Iterator[Path]:
        for root in self.roots:
            if typed == root.name or typed.startswith(f"{root.name}/"):
                yield root.path / typed[len(root.name) + 1 :]
        if os.path.isabs(typed):  # noqa: PTH117 - a Path would drop what makes a path odd
            yield Path(typed)

    def holds(self, path: Path) -> bool:
        """Whether a path lies in one of the folders, and nothing in it, of at most MOST files, links to the outside."""
        entries = (Path(folder, name) for folder, *names in os.walk(path) for name in (*names[0], *names[1]))
        return self._inside(path) and all(
            number < MOST and (not entry.is_symlink() or self._inside(entry)) for number, entry in enumerate(entries)
        )

    def _inside(self, path: Path) -> bool:
        try:
            real = path.resolve()
        except (OSError, RuntimeError):  # a link to itself
            return False
        return any(real.is_relative_to(root.real) for root in self.roots)


@dataclass(frozen=True)
class ModelAccess:
    """Which models this process may load, and how."""

    folders: Roots | None = None  # None: any folder
    hub_cache: bool = True  # models that were fetched from the hub, by their hub id
    fetch: bool = True
    remote_code: bool = True


_now = ModelAccess()


def model_access() -> ModelAccess:
    """What holds now."""
    return _now


def limit_access(access: ModelAccess) -> None:
    """From now on, load only these models."""
    global _now
    _now = access


def local_path(name: str) -> Path | None:
    """The existing file or folder that a name is the path of, without links; None if there is none to be opened."""
    if _now.folders is not None:
        found = _now.folders.find(name)
        return found if found is not None and _now.folders.holds(found) else None
    try:
        path = Path(name).expanduser()
        return path.resolve() if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # RuntimeError: the home folder of an unknown user
        return None


def offered_path(typed: str) -> str:
    """The path that a visitor typed, of a file that stands beside models.

    Raises:
        ModelNotFound: this server does not offer it.
    """
    if _now.folders is None:
        return typed
    if (found := local_path(typed)) is None:
        raise not_offered(typed)
    return str(found)


def not_offered(name: str) -> ModelNotFound:
    """The error for a model that this server does not offer, which says the same whether or not it exists."""
    assert _now.folders is not None
    return ModelNotFound(
        f"this server does not offer {name!r}; choose a model of the list, or type NAME/FOLDER with one of the names of"
        f" its folders: {_now.folders.names}"
    )


def need_fetching(name: str) -> None:
    """Refuse to fetch a model where that is not allowed."""
    if not _now.fetch:
        raise ModelNotFound(f"{name!r} is not on this server, which fetches no models; ask whoever runs it to fetch it")


def need_code(name: str, remote_code: bool, attention: str | None) -> None:
    """Refuse to run code that comes with a model, or with a kind of attention, where that is not allowed."""
    if _now.remote_code:
        return
    if remote_code:
        raise ModelError(f"this server runs no code that comes with models, so {name} cannot be loaded with its own")
    if attention not in (None, *ATTENTION):
        raise ModelError(f"this server computes attention by {' or '.join(ATTENTION)}, not by {attention!r}")
