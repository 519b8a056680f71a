"""Check whether a folder holds a readable model, from file names, headers and JSON, without loading it.

The check explains a problem in one sentence, before a library fails on it with a long traceback. Nothing here imports
torch or transformers.
"""

import re
from math import prod
from pathlib import Path

from model.git_lfs import pointer
from model.reading.json_text import parse_json
from model.reading.regular_files import need_regular, open_regular, read_text

_WIDTH = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
    "U16": 2, "U32": 4, "U64": 8, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
_SMALL = (".json", ".jinja", ".model", ".txt")  # files of a model that hold no weights
ADAPTER = "adapter_config.json"
_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_HEADER_LIMIT = 100_000_000  # the format's own limit


def find_problem(folder: Path) -> str | None:
    """Return why the folder cannot be loaded as a model, or None if its files look complete."""
    config = folder / "config.json"
    try:
        need_regular(folder)
    except OSError as error:
        return f"{Path(error.filename).name} cannot be read: {error.strerror}"
    for path in sorted(path for path in folder.iterdir() if path.suffix in _SMALL):
        if (problem := pointer(path)) is not None:
            return problem
    if is_adapter(folder) or not config.is_file():
        return _not_a_model(folder)
    if (folder / ADAPTER).is_file():
        return (
            f"it holds a whole model and an adapter beside it ({ADAPTER}): give a folder with one of them, and the"
            " adapter with --adapter"
        )
    try:
        if not isinstance(parse_json(read_text(config)), dict):
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
        if (problem := safetensors_problem(path)) is not None:
            return problem
    return None


def is_adapter(folder: Path) -> bool:
    """True if the folder holds only an adapter. Some trainers put a config.json beside it; that makes it no model."""
    if not (folder / ADAPTER).is_file():
        return False
    try:
        return not weight_files(folder)
    except ValueError:
        return False


def _not_a_model(folder: Path) -> str | None:
    if (folder / ADAPTER).is_file():  # it names its base itself: see model/hub/adapter.py
        weights = folder / "adapter_model.safetensors"
        return (
            safetensors_problem(weights) if weights.is_file() else "it is an adapter without adapter_model.safetensors"
        )
    return "it has no config.json, so it is no model in Hugging Face format"


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that make up a model: the single file, or those that the index names."""
    for name in ("model.safetensors", "micro_step.safetensors"):  # the second: its base is elsewhere
        if (folder / name).is_file():
            return [folder / name]
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return []
    try:
        names = sorted(set(parse_json(read_text(index))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"its {index.name} cannot be read ({type(error).__name__})") from error
    for name in names:
        if not isinstance(name, str) or Path(name).name != name:
            raise ValueError(f"its {index.name} names a file outside the folder: {name!r}")
        if not (folder / name).is_file():
            raise ValueError(f"{name}, one of {len(names)} weight files, is missing")
    return [folder / name for name in names]


def safetensors_problem(path: Path) -> str | None:
    """Return why a safetensors file is broken, judged by its header and length; None if they agree."""
    if (problem := pointer(path)) is not None:
        return problem
    try:
        header, start = _header(path)
        ends = [int(entry["data_offsets"][1]) for entry in header.values()]
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return f"{path.name} is not a safetensors file, or its beginning is damaged"
    expected, size = start + max(ends, default=0), path.stat().st_size
    if size != expected:
        fault = "truncated" if size < expected else "too long"
        return f"{path.name} is {fault}: {size:,} bytes instead of {expected:,}; fetch or copy it again"
    return None


def _header(path: Path) -> tuple[dict[str, dict[str, list[int] | str]], int]:
    """Return the tensors' descriptions and the offset at which the data begins."""
    with open_regular(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _HEADER_LIMIT:
            raise ValueError("header too long")
        header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("header is no object")
    header.pop("__metadata__", None)
    return header, 8 + length


def stored_size(folder: Path) -> tuple[int, int]:
    """Return how many weights the folder's safetensors files hold, and how many bytes they take there."""
    count = size = 0
    for path in weight_files(folder):
        for entry in _header(path)[0].values():
            weights = prod(int(side) for side in entry["shape"])
            count += weights
            size += weights * _WIDTH.get(str(entry["dtype"]), 2)
    return count, size


def stored_dtypes(folder: Path) -> set[str]:
    """Return the dtypes of the weights in the folder's safetensors files, as these name them: F32, BF16, ..."""
    return {str(entry["dtype"]) for path in weight_files(folder) for entry in _header(path)[0].values()}


def licence_of(folder: Path) -> str | None:
    """Return the licence that the model card names in its front matter, or None."""
    try:
        card = read_text(folder / "README.md", errors="replace")
    except OSError:
        return None
    front = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    named = re.search(r"^license:\s*[\"']?([\w.+-]+)", front[1], re.MULTILINE) if front else None
    return named[1] if named else None


def share_weights(folder: Path) -> None:
    """Give a saved model's weights the permissions of its config: safetensors writes them for the owner only."""
    mode = next(folder.glob("*config.json")).stat().st_mode
    for path in folder.glob("*.safetensors"):
        path.chmod(mode)
