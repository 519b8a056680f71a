"""Compressed files whose content is bounded: a few bytes of an archive may stand for more than the memory holds."""

from __future__ import annotations

import gzip
import io
from typing import BinaryIO

LONGEST_LINE = 1 << 28  # bytes
LONGEST_WHOLE = 1 << 30  # bytes of a content that has to be read at once


class TooMuchContent(ValueError):
    """A line, or a content that is read at once, is longer than what is read."""

    def __init__(self, most: int, what: str) -> None:
        super().__init__(f"it holds {what} of more than {most / 1e6:,.0f} MB; unpack it, and split it")


class Unpacked(io.RawIOBase):
    """The content of a gzip file, whose lines, or whose whole content, may have so many bytes at most.

    Args:
        packed: the compressed bytes.
        whole: the content is read at once, and not by lines.
    """

    def __init__(self, packed: BinaryIO, whole: bool = False) -> None:
        self._packed, self._plain = packed, gzip.GzipFile(fileobj=packed)
        self._whole, self._most, self._read = whole, LONGEST_WHOLE if whole else LONGEST_LINE, 0

    def close(self) -> None:
        self._packed.close()
        super().close()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        piece = self._plain.read(len(view))
        view[: len(piece)] = piece
        end = -1 if self._whole else piece.rfind(b"\n")
        self._read = self._read + len(piece) if end < 0 else len(piece) - end - 1
        if self._read > self._most:
            raise TooMuchContent(self._most, "a content" if self._whole else "a line")
        return len(piece)


def unpacked(packed: BinaryIO, whole: bool = False) -> io.BufferedReader:
    """Return the content of a gzip file, which raises TooMuchContent (a ValueError) where it is too long."""
    return io.BufferedReader(Unpacked(packed, whole), 1 << 20)
