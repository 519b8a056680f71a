"""Is a folder a model that can be read? Answered from its file names, headers and JSON, without loading it.

What is wrong is said in one sentence here, before a library fails on it with a page of traceback. Nothing here
imports torch or transformers.
"""

from __future__ import annotations

import json
import re
import struct
from math import prod
from pathlib import Path

from model.git_lfs import pointer

_WIDTH = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_SMALL = (".json", ".jinja", ".model", ".txt")  # files of a model that are no weights
ADAPTER = "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_HEADER_LIMIT = 100_000_000  # the format's own limit


def find_problem(folder: Path) -> str | None:
    """Why the folder cannot be loaded as a model, or None when its files look whole."""
    config = folder / "config.json"
    for path in sorted(path for path in folder.iterdir() if path.suffix in _SMALL):
        if (wrong := pointer(path)) is not None:
            return wrong
    if is_adapter(folder) or not config.is_file():
        return _not_a_model(folder)
    if (folder / ADAPTER).is_file():
        return (
            f"it holds a whole model and an adapter beside it ({ADAPTER}): give a folder with one of them, and the"
            " adapter with --adapter"
        )
    try:
        if not isinstance(json.loads(config.read_text(encoding="utf-8")), dict):
            return "its config.json is not an object"
    except (OSError, ValueError) as error:
        return f"its config.json cannot be read ({error})"
    try:
        files = weight_files(folder)
    except ValueError as error:
        return str(error)
    if not files:
        pickled = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLED)
        if pickled:
            return (
                f"its weights are pickled ({pickled[0]}), which can run code when opened; convert them to safetensors"
                " with save_pretrained on a machine that trusts them"
            )
        return "it has a config.json but no weights (*.safetensors)"
    for path in files:
        if (wrong := safetensors_problem(path)) is not None:
            return wrong
    return None


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds an adapter alone; a config.json beside it, as some trainers put there, is no model."""
    if not (folder / ADAPTER).is_file():
        return False
    try:
        return not weight_files(folder)
    except ValueError:
        return False


def _not_a_model(folder: Path) -> str | None:
    if (folder / ADAPTER).is_file():  # it names its base itself: see adapter.py
        weights = folder / "adapter_model.safetensors"
        return (
            safetensors_problem(weights) if weights.is_file() else "it is an adapter without adapter_model.safetensors"
        )
    return "it has no config.json, so it is no model in Hugging Face format"


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that make up a model: the one, or those that the index names.

    Raises:
        ValueError: the index cannot be read, or names a file that is missing or outside the folder.
    """
    for name in ("model.safetensors", "micro_step.safetensors"):  # the second: beside a base that stands elsewhere
        if (folder / name).is_file():
            return [folder / name]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"its {index.name} cannot be read ({type(error).__name__})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"its {index.name} names a file outside the folder: {name!r}")
        if not (folder / name).is_file():
            raise ValueError(f"{name}, one of {len(names)} weight files, is missing")
    return [folder / name for name in names]


def safetensors_problem(path: Path) -> str | None:
    """Why a safetensors file is broken, judged by its header and length; None when they agree."""
    if (wrong := pointer(path)) is not None:
        return wrong
    try:
        header, start = _header(path)
        ends = [int(entry["data_offsets"][1]) for entry in header.values()]
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error):
        return f"{path.name} is no safetensors file, or its beginning is damaged"
    expected, size = start + max(ends, default=0), path.stat().st_size
    if size != expected:
        how = "truncated" if size < expected else "too long"
        return f"{path.name} is {how}: {size:,} bytes instead of {expected:,}; fetch or copy it again"
    return None


def _header(path: Path) -> tuple[dict[str, dict[str, list[int] | str]], int]:
    """The tensors' descriptions and where the data begins."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _HEADER_LIMIT:
            raise ValueError("header too long")
        header = json.loads(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("header is no object")
    header.pop("__metadata__", None)
    return header, 8 + int(length)


def stored_size(folder: Path) -> tuple[int, int]:
    """How many weights the folder's safetensors hold, and how many bytes they take there."""
    count = size = 0
    for path in weight_files(folder):
        for entry in _header(path)[0].values():
            weights = prod(int(side) for side in entry["shape"])
            count += weights
            size += weights * _WIDTH.get(str(entry["dtype"]), 2)
    return count, size


def licence_of(folder: Path) -> str | None:
    """The licence that the model card names in its front matter; None without one."""
    try:
        card = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    front = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    named = re.search(r"^license:\s*[\"']?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return named[1] if named else None


def share_weights(folder: Path) -> None:
    """Let whoever may read a saved model's configuration read its weights: safetensors writes for the owner alone."""
    mode = next(folder.glob("*config.json")).stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)
