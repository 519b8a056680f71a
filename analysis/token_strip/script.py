"""The JavaScript and the style sheet of the token strip, each as one string."""

from __future__ import annotations

from pathlib import Path

MODULES = (
    "dom", "unpack", "text", "colour", "layout", "places", "draw", "slopes", "inspector", "legend", "map", "strip"
)  # fmt: skip


def script() -> str:
    """The modules as one, whose default export mounts a strip."""
    lines = (line for name in MODULES for line in _read(f"{name}.js").splitlines() if not line.startswith("import "))
    return "\n".join(line if line.startswith("export default") else line.removeprefix("export ") for line in lines)


def style() -> str:
    """The style sheet, for a shadow root."""
    return _read("strip.css")


def _read(name: str) -> str:
    return (Path(__file__).parent / name).read_text("utf-8")
