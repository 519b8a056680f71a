"""Prepared data: cleaned examples and their scores under a base, ready to be segmented and trained on.

    PREPARED/examples/   cleaned examples and the report on the cleaning
    PREPARED/answers/    the base's own answers, if requested
    PREPARED/store/      the scores of every example, in the order of the examples
    PREPARED/states/     more of the pass that scored them, for a draft or a teacher: see data/states

`data.prepare` writes these files.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.corpus.rule_inputs import CorpusSource
from data.corpus.store import open_store
from data.examples import TABLE
from model.atomic_files import read_json
from model.errors import MicroStepError, TextError
from model.reading.declared_sizes import rows_at_once
from model.reading.regular_files import read_bytes

IDENTITY = "prepared.json"
_COLUMNS = ("source", "held_out", "ended", "repeat")
EXAMPLES, ANSWERS, STORE, STATES = "examples", "answers", "store", "states"


@dataclass(frozen=True)
class Prepared:
    """E examples and their scores."""

    path: Path
    source: CorpusSource  # the scores; `rows.document` is the index of an example
    held_out: NDArray[np.bool_]  # [E] bool, True for examples that are held out
    ended: NDArray[np.bool_]  # [E] bool, True if the response is complete, so its end may be learned
    repeat: NDArray[np.int64]  # [E] number of times that an example occurs in an epoch
    sources: tuple[str, ...]  # names of the examples' sources
    origin: NDArray[np.int64]  # [E] the example's index into `sources`
    hash: str  # hash of examples and scores

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def from_sources(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """Return [E] bool: whether an example comes from one of these sources."""
        if unknown := [name for name in names if name not in self.sources]:
            raise MicroStepError(f"{self.path} holds no example of {unknown[0]!r}, only of {', '.join(self.sources)}")
        return np.isin(self.origin, [self.sources.index(name) for name in names])

    def hash_without(self, names: Sequence[str]) -> str:
        """Return `hash` for the training data without some sources."""
        if not names:
            return self.hash
        text = "\n".join([self.hash, *sorted(set(names))])
        return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def examples_file(path: Path) -> Path:
    """Return the file of the scored examples: with the base's answers, if it generated any."""
    answers = path / ANSWERS / TABLE
    return answers if answers.is_file() else path / EXAMPLES / TABLE


def folder_name(mix: str, base: str) -> str:
    """Return the name of the folder of a mix under a base."""
    return f"{Path(mix).stem}-{Path(base).name}"


def beside(path: Path, base: str) -> Path:
    """Return the folder of the same mix under another base: `prepared.json` of `path` names its own."""
    recorded = read_json(path / IDENTITY)
    if not isinstance(recorded, dict) or "base" not in recorded:
        raise TextError(f"{path / IDENTITY} cannot be read; remove {path} and prepare again")
    own = Path(str(recorded["base"])).name
    return path.parent / f"{path.name.removesuffix(own)}{Path(base).name}"


def read_prepared(path: Path) -> Prepared:
    file = examples_file(path)
    if not file.is_file():
        raise TextError(f"{path} holds no prepared data; make it with `micro-step data prepare`")
    try:
        with pq.ParquetFile(file, read_dictionary=["source"]) as opened:
            rows_at_once(opened, str(file), 1, _COLUMNS)
            table = opened.read(list(_COLUMNS))
    except (pa.ArrowException, OSError, KeyError) as error:
        raise TextError(f"{file} is damaged ({error}); remove {path} and prepare it again") from None
    store = open_store(path / STORE)
    if store.documents != len(table):
        raise TextError(f"{path} holds scores of {store.documents:,} of {len(table):,} examples; prepare it again")
    digest = hashlib.sha256(read_bytes(file))
    for mark in store.marks:
        digest.update(mark.sha256.encode())
    names, origin = np.unique(table.column("source").to_pylist(), return_inverse=True)
    return Prepared(
        path=path,
        source=CorpusSource.read(store),
        held_out=table.column("held_out").to_numpy().astype(bool),
        ended=table.column("ended").to_numpy().astype(bool),
        repeat=table.column("repeat").to_numpy().astype(np.int64),
        sources=tuple(map(str, names)),
        origin=origin.astype(np.int64),
        hash=f"sha256:{digest.hexdigest()}",
    )
