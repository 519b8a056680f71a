"""Prepared data: cleaned examples and their scores under a base, ready to be cut into segments and trained on.

    PREPARED/examples/   cleaned examples and the report on the cleaning
    PREPARED/answers/    the base's own answers, where it was asked to write them
    PREPARED/store/      the scores of every example, in the order of the examples

Reads what `data.prepare` made.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.corpus.inputs import CorpusSource
from data.corpus.store import open_store
from data.examples import TABLE
from model.errors import TextError

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
    hash: str
    """Of examples and scores."""

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.resolve().name


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
        table = pq.read_table(file, columns=["held_out", "ended", "repeat"])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise TextError(f"{file} is damaged ({error}); remove {path} and prepare it again") from None
    store = open_store(path / STORE)
    if store.documents != len(table):
        raise TextError(f"{path} holds scores of {store.documents:,} of {len(table):,} examples; prepare it again")
    digest = hashlib.sha256(file.read_bytes())
    for mark in store.marks:
        digest.update(mark.sha256.encode())
    return Prepared(
        path=path,
        source=CorpusSource.read(store),
        held_out=table.column("held_out").to_numpy().astype(bool),
        ended=table.column("ended").to_numpy().astype(bool),
        repeat=table.column("repeat").to_numpy().astype(np.int64),
        hash=f"sha256:{digest.hexdigest()}",
    )
