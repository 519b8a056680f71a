"""A short repr for results that hold arrays, texts and models: one line instead of thousands of characters."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

LONGEST_TEXT = 40  # characters of a text that are shown
MOST_ITEMS = 3  # of a tuple, list or mapping that are shown


class ShortRepr:
    """Base of a dataclass with `repr=False`: arrays are shown by dtype and shape, parts of a result by their type."""

    def __repr__(self) -> str:
        named = [
            f"{field.name}={_brief(getattr(self, field.name))}"
            for field in dataclasses.fields(self)  # type: ignore[arg-type]
        ]
        return f"{type(self).__name__}({', '.join(named)})"


def _brief(value: object) -> str:
    if isinstance(value, str):
        return repr(value if len(value) <= LONGEST_TEXT else f"{value[: LONGEST_TEXT - 1]}…")
    if value is None or isinstance(value, bool | int | float | Path):
        return repr(value)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{str(dtype).removeprefix('torch.')}{list(shape)}"
    if isinstance(value, Mapping):
        parts = [f"{_brief(key)}: {_brief(each)}" for key, each in list(value.items())[:MOST_ITEMS]]
        return f"{{{', '.join(parts)}}}" if len(value) <= MOST_ITEMS else f"<{len(value):,} items>"
    if isinstance(value, tuple | list):
        parts = [_brief(each) for each in value[:MOST_ITEMS]]
        return f"({', '.join(parts)})" if len(value) <= MOST_ITEMS else f"<{len(value):,} items>"
    return f"{type(value).__name__}(…)"
