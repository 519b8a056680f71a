"""One writer at a time in object storage, which has no locks: each writer leaves a claim, and renews it.

A claim is a file `.claim-ID` that names its owner. A writer first writes its own claim, then looks for others. Two
writers that begin at once therefore cannot both miss each other, if a file that was written is in every later list (S3
and Google Cloud Storage promise this); at worst both give up. This needs no conditional write. A claim that was not
renewed for its lifetime is over: its owner was killed, or was cut off. Ages are taken from the times that the storage
itself gives to files, so clocks of machines do not matter.

A writer whose process was stopped for longer than a lifetime in the middle of a write is not kept from ending it. Two
writers of one store then wrote the same rows; where rounding differs, hashes tell (store.py).
"""

from __future__ import annotations

import getpass
import os
import platform
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from model.atomic_files import as_json
from model.errors import ExportError, MicroStepError
from model.storage.places import Address, answered, read_json, remove, sizes_in, write

CLAIM = ".claim-"
LIFETIME = {"hf": 1200.0}  # s; of a claim; on the hub each renewal is a commit
_LIFETIME = 120.0  # s
_SURE = 0.75  # share of the lifetime after which a writer no longer trusts its own claim


@contextmanager
def claimed(folder: Address) -> Iterator[Callable[[], None]]:
    """Be the one writer in a folder of object storage; yields a check that this is still so, to call before writing.

    Raises:
        ExportError: another process writes there, or the claim cannot be written.
    """
    claim = _Claim(folder)
    claim.take()
    ended = threading.Event()
    renewal = threading.Thread(target=claim.renew, args=(ended,), daemon=True)
    renewal.start()
    try:
        yield claim.check
    finally:
        ended.set()
        renewal.join()
        remove(claim.file)


class _Claim:
    def __init__(self, folder: Address) -> None:
        self.folder, self.file = folder, folder / f"{CLAIM}{uuid.uuid4().hex}"
        self.lifetime = LIFETIME.get(folder.scheme, _LIFETIME)
        owner = f"process {os.getpid()} of {_user()} on {platform.node()}"
        self._content = as_json({"owner": owner, "lifetime_seconds": self.lifetime})
        self._sure_until = 0.0
        self._one_at_a_time = threading.Lock()

    def take(self) -> None:
        """Write the claim, and see that there is no other."""
        self._write()
        now = self._modified(self.file)
        for name in sizes_in(self.folder):
            other = self.folder / name
            if not name.startswith(CLAIM) or other == self.file or (last := self._modified(other)) is None:
                continue
            age = 0.0 if now is None else now - last
            if age <= self.lifetime:
                remove(self.file)
                self._sure_until = 0.0
                told = read_json(other) or {}
                raise ExportError(
                    f"another process writes into {self.folder} ({told.get('owner', 'unknown')}); wait for it, or give"
                    f" another --out. If it was killed, its claim ends in {max(1.0, self.lifetime - age):.0f} s"
                )
            remove(other)

    def check(self) -> None:
        """See that this is still the one writer; a claim that was over is taken again.

        Raises:
            ExportError: another process has begun to write.
        """
        with self._one_at_a_time:
            if time.monotonic() > self._sure_until:
                self.take()

    def renew(self, ended: threading.Event) -> None:
        """Write the claim again and again. What fails is tried again; `check` tells if the claim was over meanwhile."""
        while not ended.wait(self.lifetime / 4):
            with self._one_at_a_time:
                if time.monotonic() <= self._sure_until:
                    try:
                        self._write()
                    except MicroStepError:
                        continue

    def _write(self) -> None:
        began = time.monotonic()
        write(self.file, self._content)
        self._sure_until = began + _SURE * self.lifetime

    def _modified(self, file: Address) -> float | None:
        """When the storage says that a file was written, in seconds; None if it is gone."""
        try:
            with answered(file, "read", ExportError):
                return float(file.files.modified(file.url).timestamp())
        except FileNotFoundError:
            return None


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container's user may have no name
        return "an unnamed user"
