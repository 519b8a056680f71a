"""Stores of scores that no model made: random scores of random documents, for speed and for columns of a corpus."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from data.corpus.document_columns import columns_to_parquet
from data.corpus.scored_rows import ROLE_NAMES, ScoredRows
from data.corpus.store import Mark, columns_name, shard_name
from data.corpus.store_writer import begin, finish, write_shard

SHIPPED = Path(__file__).parents[3] / "data" / "demo" / "scored"
TOKEN = 4  # characters


def save_store(path: Path, documents: int, tokens: int = 50, seed: int = 0, shard: int = 500, **model: Any) -> Path:
    """A complete store, its documents the same for every seed."""
    path.mkdir(parents=True)
    manifest = json.loads((SHIPPED / "tiny-base" / "manifest.json").read_text("utf-8"))
    manifest["model"] |= {"name": f"model-{seed}", **model}
    begin(path, manifest)
    texts = np.random.default_rng(7)
    scores = np.random.default_rng(seed)
    marks = []
    for first in range(0, documents, shard):
        count = min(shard, documents - first)
        letters = texts.integers(97, 123, (count, tokens * TOKEN), dtype=np.uint8)
        n = count * tokens
        place = np.tile(np.arange(tokens, dtype=np.int32) * TOKEN, count)
        level = np.repeat(scores.uniform(0.5, 3, count), tokens)
        entropy = (level * scores.uniform(0.5, 1.5, n)).astype(np.float32)
        surprisal = (level * scores.uniform(0, 2, n)).astype(np.float32)
        unscored = place == 0
        share = scores.uniform(0, 1, n).astype(np.float32)
        entropy[unscored] = surprisal[unscored] = share[unscored] = np.nan
        rows = ScoredRows(
            ids=np.zeros(n, np.int32), entropy=entropy, confidence=share, margin=share, surprisal=surprisal,
            rank=np.ones(n, np.int32), start=place, end=place + TOKEN,
            role=np.full(n, ROLE_NAMES.index("text"), np.uint8),
            document=np.arange(first, first + count, dtype=np.int32), piece=np.zeros(count, np.int32),
            document_tokens=np.full(count, tokens, np.int32), text_start=np.zeros(count, np.int32),
            text=tuple(bytes(row).decode() for row in letters), offsets=np.arange(count + 1) * tokens,
        )  # fmt: skip
        mark = Mark(count, n, (first + count, 0), first + count == documents, count, 0, 0, None, 0, 0, 0)
        marks.append(write_shard(path, len(marks), rows, mark))
    finish(path, marks)
    return path


def add_column(path: Path, name: str, values: list[Any]) -> None:
    """Add a column of the corpus to a store of one shard."""
    add_columns(path, [{name: value} for value in values])


def add_columns(path: Path, documents: list[dict[str, Any]]) -> None:
    """Add the columns of each document."""
    content = columns_to_parquet(documents) or b""
    (path / columns_name(0)).write_bytes(content)
    file = (path / shard_name(0)).with_suffix(".json")
    mark = json.loads(file.read_text("utf-8")) | {"columns_sha256": hashlib.sha256(content).hexdigest()}
    file.write_text(json.dumps(mark), "utf-8")
