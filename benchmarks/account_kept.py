"""The batches of an account as they are measured, a JSON line each, so that one that is stopped can be gone on with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data.corpus.store_writer import append, refuse_other
from model.errors import ExportError

FORMAT = "micro_step account 1"


@dataclass(frozen=True)
class Measured:
    """What one way wrote to one batch."""

    seconds: float
    rows: list[list[int]]  # the new ids of each prompt
    passes: list[int]  # of the base, for each prompt


class Kept:
    """Measured batches by prompts at a time, way and number; in a file, if there is a path."""

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        """Begin a file, or go on with one.

        Args:
            path: of the file; None: nothing is kept beyond this process.
            settings: what decides the batches; those of a begun file must be equal.

        Raises:
            ExportError: it was begun with other settings, is no such file, or cannot be written.
        """
        self._path, self._there = path, dict[tuple[int, int, int], Measured]()
        self.sittings = 1
        if path is None:
            return
        whole = _whole_lines(path)
        if not whole:
            _write(path, [{"format": FORMAT, **settings}], 0)
            return
        try:
            head, *lines = map(json.loads, whole.decode().splitlines())
            if head.pop("format") != FORMAT:
                raise ValueError("another format")
            for line in lines:
                if "sitting" in line:
                    self.sittings = line["sitting"]
                else:
                    place = line.pop("size"), line.pop("way"), line.pop("batch")
                    self._there[place] = Measured(**line)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(f"{path} holds no account that could be gone on with ({error}); name another") from None
        now = json.loads(json.dumps(settings))
        refuse_other(path, ((name, head.get(name), now[name]) for name in now), "name another file")
        self.sittings += 1
        _write(path, [{"sitting": self.sittings}], len(whole))

    def get(self, size: int, way: int, batch: int) -> Measured | None:
        """A batch that was measured, if it was."""
        return self._there.get((size, way, batch))

    def put(self, size: int, way: int, batch: int, measured: Measured) -> None:
        """Keep a batch.

        Raises:
            ExportError: it cannot be written.
        """
        self._there[size, way, batch] = measured
        if self._path is not None:
            _write(self._path, [{"size": size, "way": way, "batch": batch, **asdict(measured)}], None)


def _whole_lines(path: Path) -> bytes:
    """What of a file is whole lines; nothing where there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from None
    return content[: content.rfind(b"\n") + 1]


def _write(path: Path, records: list[dict[str, Any]], size: int | None) -> None:
    content = "".join(json.dumps(record) + "\n" for record in records).encode()
    append(path, content, size, "what was measured before stays")
