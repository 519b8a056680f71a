"""Writes tables and figures as CSV, Parquet, JSON, PNG, SVG, PDF, HTML, and as a bundle that can be reproduced.

A file is written under a temporary name and then moved into place, so no half-written file is ever left.
"""

from __future__ import annotations

import hashlib
import html
import importlib.metadata
import io
import json
import platform
import re
import textwrap
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

import kaleido
import pandas as pd
import plotly.graph_objects as go
import pyarrow as pa
import pyarrow.parquet as pq
from choreographer.browsers.chromium import Chromium
from pandas.api.types import is_numeric_dtype

from analysis.figures.figure import Figure
from analysis.provenance import Provenance
from model.atomic_files import atomic_open, atomic_write, check_writable
from model.errors import ExportError

ImageFormat = Literal["png", "svg", "pdf"]
IMAGES: tuple[ImageFormat, ...] = ("png", "svg", "pdf")
TABLES = ("csv", "parquet", "json")
FIGURE_FORMATS = (*IMAGES, "html", *TABLES, "zip")
PACKAGES = ("torch", "transformers", "tokenizers", "numpy", "pandas", "plotly", "peft", "kaleido", "streamlit")
NO_CHROME = "PNG, SVG and PDF need Chrome or Chromium on this machine; HTML, CSV, Parquet and the bundle do not"
_IMAGE_SECONDS = 90
_WIDTH, _HEIGHT = 900, 420  # pixels, of a figure that does not say its size
_LETTER_SIZE, _LETTER, _LINE_HEIGHT, _TITLE_HEIGHT = 12, 7, 16, 34  # pixels, of the head of an exported figure
_FORMULA = re.compile(
    r"'*\s*[=+\-@](?=.*[A-Za-z])(?=.*[(|])", re.DOTALL
)  # a call of a function: CSV injection, CWE-1236
_LINE_ENDS = "\r\n\v\f\x1c\x1d\x1e\x85\u2028\u2029\0"  # some CSV reader ends a line, or the file, at each of these
_one_at_a_time = threading.Lock()  # every export starts its own browser


class Files(Mapping[str, bytes]):
    """The files of an export, made only when they are read: a page is drawn far more often than it is exported."""

    def __init__(self, make: Mapping[str, Callable[[], bytes]]) -> None:
        self._make = dict(make)

    def __getitem__(self, name: str) -> bytes:
        return self._make[name]()

    def __iter__(self) -> Iterator[str]:
        return iter(self._make)

    def __len__(self) -> int:
        return len(self._make)


def chrome() -> str | None:
    """The path of the Chrome that draws static images, if this machine has one."""
    path = Chromium.find_browser(skip_local=False)
    return str(path) if path else None


def image(figure: go.Figure, kind: ImageFormat) -> bytes:
    """A static image, drawn by a headless Chrome without network access.

    Raises:
        ExportError: there is no Chrome, or it did not answer in time.
    """
    if chrome() is None:
        raise ExportError(NO_CHROME)
    options = {"format": kind, "scale": 2 if kind == "png" else 1}
    options |= {
        side: getattr(figure.layout, side) or default for side, default in (("width", _WIDTH), ("height", _HEIGHT))
    }
    with _one_at_a_time:
        try:
            drawn = kaleido.calc_fig_sync(figure, opts=options, kopts={"mathjax": False, "timeout": _IMAGE_SECONDS})
        except Exception as error:
            raise ExportError(f"the image could not be drawn ({error}); HTML and CSV need no browser") from error
    return bytes(drawn)


def standalone(drawn: Figure, origin: Provenance, width: int = _WIDTH) -> go.Figure:
    """The figure under a head that says what it shows: title, caption, models, and the pinned place.

    Lines of the head fit the figure's own width, or where it has none the one that is given, in pixels.
    """
    figure = go.Figure(drawn.figure)
    models = [f"{key.upper() if len(key) == 1 else key}: {info.name}" for key, info in origin.models.items()]
    pinned = origin.view.get("pinned")
    facts = "; ".join([*models, *([] if pinned is None else [f"pinned: character {pinned}"])])
    per_line = (figure.layout.width or width) // _LETTER
    lines = [
        html.escape(line, quote=False) for text in (drawn.caption, facts) for line in textwrap.wrap(text, per_line)
    ]
    head = _TITLE_HEIGHT + _LINE_HEIGHT * len(lines)
    top = figure.layout.margin.t
    figure.update_layout(
        title={
            "text": f"<b>{html.escape(drawn.title, quote=False)}</b><br>" + "<br>".join(lines),
            "font": {"size": _LETTER_SIZE},
            "x": 0.01,
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 20},
            "automargin": False,
        },
        margin_t=head + (figure.layout.template.layout.margin.t or 0 if top is None else top),
        height=head + (figure.layout.height or _HEIGHT),
    )
    return figure


def page(drawn: Figure, origin: Provenance | None = None) -> str:
    """A web page with the figure and all that it needs, which opens without a network; `origin` gives it a head."""
    if drawn.write_page is not None:
        return drawn.write_page()
    figure = drawn.figure if origin is None else standalone(drawn, origin)
    return str(figure.to_html(include_plotlyjs=True, full_html=True, include_mathjax=False))


def table_bytes(table: pd.DataFrame, suffix: str) -> bytes:
    """A table as CSV (UTF-8), Parquet or JSON (one object per row).

    In CSV, a text that a spreadsheet would run as a formula gets an apostrophe in front, which `read_csv` removes; all
    else is exact. A text with any kind of line end is quoted.

    Raises:
        ExportError: no such format.
    """
    if suffix == "csv":
        return _csv(table, head=True)
    if suffix == "parquet":
        buffer = io.BytesIO()
        table.to_parquet(buffer, index=False)
        return buffer.getvalue()
    if suffix == "json":
        return str(table.to_json(orient="records", force_ascii=False, indent=1, double_precision=15)).encode("utf-8")
    raise ExportError(f"unknown table format {suffix!r}; use one of {', '.join(TABLES)}")


def _csv(table: pd.DataFrame, head: bool) -> bytes:
    texts = {name: table[name].map(_inert) for name in table if not is_numeric_dtype(table[name])}
    lines = _Lines()
    inert = table.assign(**texts).rename(columns=_inert)
    inert.to_csv(lines, index=False, header=head, lineterminator=_LINE_ENDS)
    return lines.getvalue().encode("utf-8")


class _Lines(io.StringIO):
    """Receives rows that pandas ends with _LINE_ENDS, which makes it quote every text with one of these characters."""

    def __init__(self) -> None:
        super().__init__(newline="")

    def write(self, row: str) -> int:
        """Write one row, ended by a line feed."""
        return super().write(row.removesuffix(_LINE_ENDS) + "\n")


def _inert(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def read_csv(file: Path | io.BytesIO, dtype: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a table that `table_bytes` wrote, with each text unchanged: an empty cell is missing, "NA" is not.

    Raises:
        OSError, ValueError: the file cannot be read, or is no CSV.
    """
    table = pd.read_csv(file, dtype=dict(dtype or {}), keep_default_na=False, na_values=[""], encoding="utf-8")
    texts = {name: table[name].map(_as_it_was) for name in table if not is_numeric_dtype(table[name])}
    return table.assign(**texts).rename(columns=_as_it_was)


def _as_it_was(cell: object) -> object:
    return cell[1:] if isinstance(cell, str) and cell.startswith("'") and _FORMULA.match(cell) else cell


def save_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table; the suffix chooses the format.

    Raises:
        ExportError: unknown suffix, or the file cannot be written.
    """
    atomic_write(path, table_bytes(table, path.suffix.lstrip(".").lower()))


@contextmanager
def table_file(path: Path) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Write a table in pieces, each some rows with the same columns; the whole file is as `save_table` writes it.

    Raises:
        ExportError: unknown suffix, or the file cannot be written. Nothing is left of it then.
    """
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in TABLES:
        raise ExportError(f"unknown table format {suffix!r}; use one of {', '.join(TABLES)}")
    with atomic_open(path) as file, ExitStack() as closing:
        parquet: list[pq.ParquetWriter] = []

        def write(table: pd.DataFrame) -> None:
            begun = file.tell() > 0
            if suffix == "csv":
                file.write(_csv(table, head=not begun))
            elif suffix == "json":
                file.write(b",\n" if begun else b"[\n")
                file.write(table_bytes(table, suffix).removeprefix(b"[\n").removesuffix(b"\n]"))
            else:
                schema = parquet[0].schema if parquet else None
                rows = pa.Table.from_pandas(table, schema, preserve_index=False)
                if not parquet:
                    parquet.append(closing.enter_context(pq.ParquetWriter(file, rows.schema)))
                parquet[0].write_table(rows)

        yield write
        if suffix == "json":
            file.write(b"\n]")


def check_out(path: Path, formats: tuple[str, ...]) -> None:
    """Raise ExportError, before heavy work, if nothing can be written under this name."""
    suffix = path.suffix.lstrip(".").lower()
    if suffix not in formats:
        raise ExportError(f"unknown format {path.name!r}; end the name with one of {', '.join(formats)}")
    if suffix in IMAGES and chrome() is None:
        raise ExportError(NO_CHROME)
    if path.is_dir():
        raise ExportError(f"{path} cannot be written: it is a folder")
    check_writable(path)


def save_figure(drawn: Figure, path: Path, origin: Provenance) -> None:
    """Write a figure, or the data behind it; the suffix chooses: one of FIGURE_FORMATS.

    Raises:
        ExportError: unknown suffix, no Chrome, or the file cannot be written.
    """
    check_out(path, FIGURE_FORMATS)
    suffix = path.suffix.lstrip(".").lower()
    if suffix in IMAGES:
        atomic_write(path, image(standalone(drawn, origin), suffix))
    elif suffix == "html":
        atomic_write(path, page(drawn, origin).encode("utf-8"))
    elif suffix == "zip":
        atomic_write(path, bundle(drawn, origin))
    else:
        save_table(drawn.data, path)


def manifest(drawn: Figure, origin: Provenance) -> dict[str, Any]:
    """All that is needed to judge a figure and to reproduce it."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "figure": drawn.name,
        "title": drawn.title,
        "how": drawn.caption,
        "command": origin.command(drawn.name, "figure.csv"),
        "models": {key: facts.to_dict() for key, facts in origin.models.items()},
        "notes": {key: list(notes) for key, notes in origin.notes.items()},
        "read": {
            key: {"characters": len(text), "sha256": hashlib.sha256(text.encode("utf-8")).hexdigest()}
            for key, text in origin.read.items()
        },
        "request": dict(origin.request),
        "view": dict(origin.view),
        "rows": len(drawn.data),
        "python": platform.python_version(),
        "packages": packages,
    }


def bundle(drawn: Figure, origin: Provenance) -> bytes:
    """A zip of the figure, its data, its inputs, and a manifest with the command that reproduces it."""
    contents = manifest(drawn, origin)
    files = {
        "README.txt": _README.format(title=drawn.title, how=drawn.caption, command=contents["command"]).encode("utf-8"),
        "manifest.json": json.dumps(contents, indent=2, ensure_ascii=False).encode("utf-8"),
        **origin.files,
        "figure.html": page(drawn, origin).encode("utf-8"),
        "figure.plotly.json": str(drawn.figure.to_json()).encode("utf-8"),
        "figure.csv": table_bytes(drawn.data, "csv"),
        "figure.parquet": table_bytes(drawn.data, "parquet"),
    }
    if chrome() is not None:
        files["figure.svg"] = image(standalone(drawn, origin), "svg")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in files.items():
            # a fixed date: the same figure gives the same bundle
            archive.writestr(zipfile.ZipInfo(path, (2020, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


_README = """{title}

{how}

manifest.json names the models, their revisions, the tokenizer, the dtype, the parameters and the package versions.
In figure.csv, a text with a line end is quoted, and a text that a spreadsheet would run as a formula has an apostrophe
in front. figure.parquet holds every text unchanged.

To reproduce the figure's data, unpack this folder and run in it, with micro_step installed (`micro-step` is
also `python -m micro_step`):

    {command}
"""
