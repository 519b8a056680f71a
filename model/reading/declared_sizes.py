"""Parquet and npz files whose content is bounded: a few hundred bytes may stand for more than the memory holds.

What a file declares is compared with what it takes on the disk, before a library makes room for it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from model.errors import TextError
from model.reading import unpacked

if TYPE_CHECKING:
    import pyarrow.parquet as pq

_PLAUSIBLE_RATIO = 50  # of content to file: zstd makes text some 3 to 10 times smaller
_VALUE_BYTES = 8
_AT_ONCE = 1 << 28  # bytes of one column in a batch


def rows_at_once(file: pq.ParquetFile, name: str, most: int, columns: Collection[str] | None = None) -> int:
    """Return how many rows of a Parquet file may be read as one batch; at most `most`.

    A text that a dictionary holds once may stand in every row, so the batch is as small as its column is large.

    Raises:
        TextError: a group of its rows stands for too much.
    """
    for group in range(file.num_row_groups):
        for chunk in _chunks(file, group, columns):
            _need_plausible(chunk.total_uncompressed_size, chunk.total_compressed_size, name)
            if chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page:
                most = min(most, max(1, _AT_ONCE // max(1, chunk.total_uncompressed_size)))
    return most


def need_readable_at_once(file: pq.ParquetFile, name: str, columns: Collection[str] | None = None) -> None:
    """Check a Parquet file that is read whole, with its numbers and texts written out.

    Raises:
        TextError: it stands for too much.
    """
    declared, size = 0, 0
    for group in range(file.num_row_groups):
        for chunk in _chunks(file, group, columns):
            repeated = chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page
            each = chunk.total_uncompressed_size if repeated else _VALUE_BYTES
            declared += max(chunk.total_uncompressed_size, chunk.num_values * each)
            size += chunk.total_compressed_size
    _need_plausible(declared, size, name)


def read_npz(file: BinaryIO) -> dict[str, NDArray[Any]]:
    """Return the arrays of an npz file, by name; of pickled objects none is read.

    Raises:
        ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile: it is no such file, or stands for too much.
    """
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        size = sum(member.compress_size for member in members)
        if _implausible(sum(member.file_size for member in members), size):
            raise unpacked.TooMuchContent(unpacked.LONGEST_WHOLE, "arrays")
        for member in members:
            with archive.open(member) as content:
                read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
                shape, _, dtype = read[npy.read_magic(content)](content)
            if int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename} declares more than it holds")
    file.seek(0)
    with np.load(file, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _chunks(file: pq.ParquetFile, group: int, columns: Collection[str] | None) -> list[Any]:
    found = file.metadata.row_group(group)
    chunks = [found.column(number) for number in range(found.num_columns)]
    return [each for each in chunks if columns is None or each.path_in_schema.partition(".")[0] in columns]


def _implausible(declared: int, size: int) -> bool:
    return declared > unpacked.LONGEST_WHOLE and declared > _PLAUSIBLE_RATIO * size


def _need_plausible(declared: int, size: int, name: str) -> None:
    if _implausible(declared, size):
        raise TextError(
            f"{name} stands for {declared / 1e6:,.0f} MB in {size / 1e6:,.3f} MB of file, more than is read at once;"
            " if it is what you want, write it again in smaller row groups"
        )
