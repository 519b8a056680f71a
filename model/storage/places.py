"""A place of files: a path of this machine, or an address of object storage, which fsspec opens.

Files are there whole or not at all in both: a path gets a file by renaming it, an address by one upload. Credentials,
endpoints and regions are the drivers' own matter (environment, profiles); no option and no address holds any.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from model.atomic_files import atomic_write, need_disk
from model.errors import ExportError, MicroStepError, TextError, first_line
from model.reading.json_text import parse_json
from model.reading.regular_files import open_regular, read_bytes

DRIVERS = {"s3": "s3fs", "gs": "gcsfs", "hf": "huggingface_hub"}
"""The schemes of addresses, each with the package that opens it."""
TOGETHER = 16 * 2**20  # bytes of small files that are fetched at once
_BLOCK = 2**20  # bytes
_SCHEME = re.compile(r"([a-z0-9]+):/+")


@dataclass(frozen=True)
class Address:
    """A file or folder in object storage, such as s3://bucket/folder. It may be sent to other processes."""

    url: str

    def __post_init__(self) -> None:
        scheme, _, rest = self.url.partition("://")
        if scheme not in DRIVERS:
            known = ", ".join(f"{name}://" for name in DRIVERS)
            raise MicroStepError(f"{self.url} is at no known object storage; give a path, or an address with {known}")
        if not rest.strip("/") or (scheme != "hf" and "@" in rest.partition("/")[0]):
            raise MicroStepError(
                f"{scheme}:// needs a bucket and a folder, and no credentials: {scheme}://bucket/folder"
            )

    def __truediv__(self, name: str) -> Address:
        return Address(f"{self.url.rstrip('/')}/{name}")

    def __str__(self) -> str:
        return self.url

    @property
    def name(self) -> str:
        return self.url.rstrip("/").rpartition("/")[2]

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0]

    @property
    def files(self) -> Any:
        """The file system of fsspec that holds it.

        Raises:
            MicroStepError: its driver is not installed.
        """
        import fsspec

        try:
            return fsspec.filesystem(self.scheme, use_listings_cache=False)
        except ImportError:
            driver = DRIVERS[self.scheme]
            raise MicroStepError(
                f"{self.scheme}:// needs the package {driver}: pip install {driver}=={fsspec.__version__}"
            ) from None


Place = Path | Address


def place_of(given: str | Place) -> Place:
    """The place that a user names."""
    if isinstance(given, Address):
        return given
    if isinstance(given, str) and "://" in given:
        return Address(given)
    path = Path(given)
    if (scheme := _SCHEME.match(path.as_posix())) and scheme[1] in DRIVERS:  # Path joins slashes
        raise MicroStepError(f"{path} was an address; give it as a text, not as a path")
    return path


def absolute(place: Place) -> Place:
    """The same place, for a process in another folder."""
    return place if isinstance(place, Address) else place.resolve()


def read(place: Place) -> bytes:
    """The content of a file.

    Raises:
        FileNotFoundError: there is no such file.
        OSError: a file of this machine cannot be read.
        TextError: the object storage does not answer, or refuses.
    """
    if isinstance(place, Address):
        with answered(place, "read", TextError):
            return cast(bytes, place.files.cat_file(place.url))
    return read_bytes(place)


def read_several(folder: Place, sizes: Mapping[str, int]) -> Iterator[bytes]:
    """The contents of files of a folder, in order. From object storage, small ones are fetched together.

    Args:
        folder: holds them.
        sizes: of each file in bytes, by its name.
    """
    if not isinstance(folder, Address):
        yield from (read(folder / name) for name in sizes)
        return
    batch: list[str] = []
    total = 0
    for name, size in sizes.items():
        if batch and total + size > TOGETHER:
            yield from _fetched(folder, batch)
            batch, total = [], 0
        batch.append(name)
        total += size
    yield from _fetched(folder, batch)


def read_json(place: Place) -> Any:
    """What a file of JSON holds; None where there is none, or it is damaged."""
    try:
        return parse_json(read(place))
    except (OSError, ValueError):
        return None


@contextmanager
def opened(place: Place) -> Iterator[io.BufferedReader]:
    """Open a file to read it in pieces.

    Raises:
        OSError: as `read`.
        TextError: as `read`.
    """
    if isinstance(place, Address):
        with answered(place, "read", TextError):
            file = place.files.open(place.url, "rb")
        with file:
            yield io.BufferedReader(_Answering(file, place), _BLOCK)
        return
    with open_regular(place) as local:
        yield local


def write(place: Place, content: bytes, hint: str = "") -> None:
    """Put a whole file in its place; `hint` ends the message of a failure."""
    if isinstance(place, Address):
        with answered(place, "written", ExportError, hint, absent=ExportError):
            place.files.pipe_file(place.url, content)
        return
    atomic_write(place, content, hint)


def remove(place: Place) -> None:
    """Remove a file; one that is not there is no error."""
    if isinstance(place, Address):
        with answered(place, "removed", ExportError):
            try:
                place.files.rm_file(place.url)
            except FileNotFoundError:
                return
        return
    place.unlink(missing_ok=True)


def size_of(place: Place) -> int:
    """The bytes of a file."""
    if isinstance(place, Address):
        with answered(place, "read", TextError):
            return int(place.files.size(place.url))
    return place.stat().st_size


def sizes_in(folder: Place) -> dict[str, int]:
    """The bytes of each file that stands in a folder, by its name; none if there is no such folder."""
    return {name: size for name, size in _entries(folder) if size is not None}


def folders_in(folder: Place) -> list[str]:
    """The names of the folders in a folder, sorted."""
    return sorted(name for name, size in _entries(folder) if size is None)


def need_room(place: Place, size: float, what: str, remedy: str) -> None:
    """As `need_disk`; object storage has no end that could be asked for."""
    if not isinstance(place, Address):
        need_disk(place, size, what, remedy)


def _entries(folder: Place) -> list[tuple[str, int | None]]:
    """Names with sizes; None as the size of a folder."""
    if not isinstance(folder, Address):
        there = list(folder.iterdir()) if folder.is_dir() else []
        return [(each.name, None if each.is_dir() else each.stat().st_size) for each in there]
    files = folder.files
    own = files._strip_protocol(folder.url).rstrip("/")
    try:
        with answered(folder, "read", TextError):
            found = files.ls(folder.url, detail=True, refresh=True)
    except FileNotFoundError:
        return []
    inside = [each for each in found if each["name"].rstrip("/").rpartition("/")[0] == own]
    return [
        (each["name"].rstrip("/").rpartition("/")[2], None if each["type"] == "directory" else int(each["size"]))
        for each in inside
    ]


def _fetched(folder: Address, names: list[str]) -> list[bytes]:
    if not names:
        return []
    with answered(folder, "read", TextError):
        files = folder.files
        urls = [(folder / name).url for name in names]
        found = files.cat(urls) if len(urls) > 1 else {urls[0]: files.cat_file(urls[0])}
        by_name = {key.rpartition("/")[2]: content for key, content in found.items()}
        return [by_name[name] for name in names]


class _Answering(io.RawIOBase):
    """A file of object storage whose failures are told as those of `read`."""

    def __init__(self, file: Any, place: Address) -> None:
        self._file, self._place = file, place

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        with answered(self._place, "read", TextError):
            content = self._file.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)


@contextmanager
def answered(
    place: Address, done: str, kind: type[MicroStepError], hint: str = "", absent: type[MicroStepError] | None = None
) -> Iterator[None]:
    """Tell whatever the driver raises as an error of ours; a file that is not there as such, unless `absent`."""
    try:
        yield
    except MicroStepError:
        raise
    except Exception as error:  # drivers raise errors of many packages
        if isinstance(error, FileNotFoundError) and absent is None:
            raise
        why = f"{first_line(error)}; {DRIVERS[place.scheme]} takes credentials and endpoint from the environment"
        raise kind(f"{place} cannot be {done}: {why}{'; ' if hint else ''}{hint}") from error
