"""Prepared data: cleaned examples and their scores under a base, ready to be cut into segments and trained on.

    PREPARED/examples/   cleaned examples and the report on the cleaning
    PREPARED/answers/    the base's own answers, where it was asked to write them
    PREPARED/store/      the scores of every example, in the order of the examples

Reads what `data.prepare` made.
"""

from __future__ import annotations

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
from model.errors import MicroStepError, TextError

EXAMPLES, ANSWERS, STORE = "examples", "answers", "store"


@dataclass(frozen=True)
class Prepared:
    """E examples and their scores."""

    path: Path
    source: CorpusSource
    """The scores; `rows.document` is the number of an example."""
    held_out: NDArray[np.bool_]
    """[E] never trained on."""
    ended: NDArray[np.bool_]
    """[E] the response is whole, so that its end may be learnt."""
    repeat: NDArray[np.int64]
    """[E] how often an example comes in an epoch."""
    sources: tuple[str, ...]
    """Names of the sources that the examples are of."""
    origin: NDArray[np.int64]
    """[E] the example's place in `sources`."""
    hash: str
    """Of examples and scores."""

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name

    def of(self, names: Sequence[str]) -> NDArray[np.bool_]:
        """[E] whether an example is of one of these sources.

        Raises:
            MicroStepError: a source has no example here.
        """
        if odd := [name for name in names if name not in self.sources]:
            raise MicroStepError(f"{self.path} holds nothing of {odd[0]!r}; it does of {', '.join(self.sources)}")
        return np.isin(self.origin, [self.sources.index(name) for name in names])

    def hash_without(self, names: Sequence[str]) -> str:
        """`hash` of what is left to train on without some sources."""
        if not names:
            return self.hash
        said = "\n".join([self.hash, *sorted(set(names))])
        return f"sha256:{hashlib.sha256(said.encode()).hexdigest()}"


def examples_file(path: Path) -> Path:
    """The examples that were scored: with the base's answers, where it wrote any."""
    answers = path / ANSWERS / TABLE
    return answers if answers.is_file() else path / EXAMPLES / TABLE


def read_prepared(path: Path) -> Prepared:
    """Read prepared data.

    Raises:
        TextError: the folder holds none, or it is incomplete or damaged.
    """
    file = examples_file(path)
    if not file.is_file():
        raise TextError(f"{path} holds no prepared data; make it with `python -m data prepare`")
    try:
        table = pq.read_table(file, columns=["source", "held_out", "ended", "repeat"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise TextError(f"{file} is damaged ({error}); remove {path} and prepare it again") from None
    store = open_store(path / STORE)
    if store.documents != len(table):
        raise TextError(f"{path} holds scores of {store.documents:,} of {len(table):,} examples; prepare it again")
    digest = hashlib.sha256(file.read_bytes())
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
