"""Finds the stores of scores below a folder."""

from __future__ import annotations

from pathlib import Path

from analysis.discovery import Found, search
from data.corpus.store import COMPLETE, MANIFEST, read_manifest
from model.errors import TextError


def find_stores(folder: Path) -> Found:
    """The stores below a folder, or the folder itself if it is one.

    Raises:
        TextError: the folder does not exist, or cannot be read.
    """
    return search(folder, "stores of scores", is_store, lambda path: (path / MANIFEST).stat().st_mtime)


def is_store(folder: Path) -> bool:
    """Whether a folder is a complete store."""
    try:
        return (folder / COMPLETE).is_file() and read_manifest(folder) is not None
    except (OSError, ValueError, TextError):
        return False
