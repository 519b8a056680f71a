"""The batches of a comparison as they are measured, a JSON line each, so that one that was stopped can be resumed."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.speed.decoders import BatchAnswers
from data.corpus.store_writer import refuse_other
from model.atomic_files import append
from model.errors import ExportError

FORMAT = "micro_step decode 1"
Place = tuple[int, int, int, int]  # batch size, round, batch, decoder


@dataclass(frozen=True)
class Measured:
    """What one decoder wrote to one batch, and how long it took."""

    seconds: float
    answers: BatchAnswers


class BatchLog:
    """Measured batches by their place; in a file, if there is a path."""

    def __init__(self, path: Path | None, settings: Mapping[str, Any]) -> None:
        """Begin a file, or resume one.

        Args:
            path: of the file; None: nothing is kept beyond this process.
            settings: what decides the batches; those of a begun file must be equal.
        """
        self._path, self._measured = path, dict[Place, Measured]()
        self.sittings = 1
        if path is None:
            return
        whole = _whole_lines(path)
        if not whole:
            self._write({"format": FORMAT, **settings}, 0)
            return
        try:
            head, *lines = map(json.loads, whole.decode().splitlines())
            if head.pop("format") != FORMAT:
                raise ValueError("another format")
            for line in lines:
                if "sitting" in line:
                    self.sittings = line["sitting"]
                else:
                    size, turn, batch, decoder = line["place"]
                    answers = BatchAnswers(**line["answers"])
                    self._measured[size, turn, batch, decoder] = Measured(line["seconds"], answers)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ExportError(f"{path} holds no comparison that could be resumed ({error}); name another") from None
        now = json.loads(json.dumps(settings))
        refuse_other(path, ((name, head.get(name), now[name]) for name in now), "name another file")
        self.sittings += 1
        self._write({"sitting": self.sittings}, len(whole))

    def __contains__(self, place: Place) -> bool:
        return place in self._measured

    def __getitem__(self, place: Place) -> Measured:
        return self._measured[place]

    def put(self, place: Place, measured: Measured) -> None:
        """Keep a batch."""
        self._measured[place] = measured
        self._write({"place": place, **asdict(measured)})

    def _write(self, record: dict[str, Any], size: int | None = None) -> None:
        """Add a record to the file, behind its first `size` bytes."""
        if self._path is not None:
            append(self._path, (json.dumps(record) + "\n").encode(), size, "what was measured before stays")


def _whole_lines(path: Path) -> bytes:
    """What of a file is whole lines; nothing where there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror}") from None
    return content[: content.rfind(b"\n") + 1]
