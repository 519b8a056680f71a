"""What rules need beyond the scores, computed for rows of a store and kept beside its shards.

    STORE/gathered/NAME/settings.json        what was computed, and for which rows
    STORE/gathered/NAME/part-00000.parquet   one row of the store a row, its values as lists; there whole or not at all
    STORE/gathered/NAME/complete.json        written when all rows are there

These features need a further pass over the text; `every=n` computes them for every n-th row only: the same rows under
every model, where documents were cut into windows of characters. Stopped, it goes on where it was.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data.corpus.store import COMPLETE, IDENTITY, CorpusStore
from data.corpus.store_writer import writing
from model.atomic_files import as_json
from model.errors import ExportError, MicroStepError, TextError
from model.progress import Meter, Tell, silent
from model.reading.declared_sizes import need_readable_at_once
from model.reading.json_text import parse_json
from model.segmentation.features import Feature
from model.segmentation.rule_inputs import TABLES
from model.segmentation.rules import NO_MICRO_STEP
from model.storage.places import folders_in, read, read_several, sizes_in, write

if TYPE_CHECKING:
    from data.corpus.scored_rows import ScoredRow
    from model.hub.loading import LoadedModel

FOLDER, SETTINGS = "gathered", "settings.json"
PART_TOKENS = 8192  # what a kill costs at most


@dataclass(frozen=True)
class FeatureSpec:
    """A feature, and the rows of a store that it is computed for."""

    feature: Feature
    every: int = 1  # rows 0, every, 2 every, ..; of the store
    begin: int = 0
    """Only for tokens with so many before them in their row, of which a limited history is a real limit; others NaN."""

    def __post_init__(self) -> None:
        if self.every < 1 or self.begin < 0:
            raise MicroStepError(f"every must be at least 1, begin at least 0, got {self}")

    @classmethod
    def read(cls, settings: Mapping[str, Any]) -> FeatureSpec:
        """The one that `settings` gave, of this version or of one before."""
        given = dict(settings)
        return cls(every=given.pop("every"), begin=given.pop("begin"), feature=Feature(**given))

    @property
    def settings(self) -> dict[str, Any]:
        """As plain values, for its file."""
        values = dataclasses.asdict(self.feature)
        del values["layers"], values["heads"]  # a store holds the mean over all
        return {**values, "every": self.every, "begin": self.begin}

    @property
    def name(self) -> str:
        return f"{self.feature.name}{f'-from{self.begin}' if self.begin else ''}-every{self.every}"

    @property
    def meaning(self) -> str:
        """One sentence for legends and notes."""
        return f"{self.feature.meaning}; {'all rows' if self.every == 1 else f'1 row in {self.every}'}"


@dataclass(frozen=True)
class GatheredRows:
    """Values of the N tokens of R rows of a store, rows end to end."""

    spec: FeatureSpec
    rows: NDArray[np.int32]  # [R] their numbers in the store, rising
    offsets: NDArray[np.int64]  # [R + 1]
    values: dict[str, NDArray[np.float32]]  # fields of SegmentInputs: [N], or [N, W] of attention_mass

    def __post_init__(self) -> None:
        n = int(self.offsets[-1])
        wrong = {name: each.shape for name, each in self.values.items() if each.shape[:1] != (n,)}
        if wrong or len(self.offsets) != len(self.rows) + 1:
            raise ValueError(
                f"values must be of {n} tokens in {len(self.rows)} rows, got {wrong or self.offsets.shape}"
            )

    @classmethod
    def join(cls, parts: Sequence[GatheredRows]) -> GatheredRows:
        """Rows of one store that follow each other."""
        full = [part for part in parts if part.offsets[-1]] or parts[:1]  # without tokens, W of a table is unknown
        values = {name: np.concatenate([part.values[name] for part in full]) for name in parts[0].values}
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(parts[0].spec, np.concatenate([part.rows for part in parts]), _offsets(lengths), values)

    def part(self, a: int, b: int) -> GatheredRows:
        """The rows with numbers from a up to b."""
        i, j = np.searchsorted(self.rows, [a, b]).tolist()
        first, last = self.offsets[[i, j]].tolist()
        values = {name: each[first:last] for name, each in self.values.items()}
        return GatheredRows(self.spec, self.rows[i:j], self.offsets[i : j + 1] - first, values)


def compute_features(
    load_model: Callable[[], LoadedModel],
    store: CorpusStore,
    what: FeatureSpec,
    tell: Tell = silent,
) -> GatheredRows:
    """Compute what a rule needs for rows of a store, or go on where a run was stopped.

    Raises:
        ExportError: the folder cannot be written, another process writes in it, or the model is not the store's.
        MicroStepError: as the functions that compute it.
    """
    folder = store.path / FOLDER / what.name
    if COMPLETE in sizes_in(folder):
        return read_gathered(store, what)
    with writing(store.path) as check:
        loaded = load_model()
        _check_model(loaded, store, what)
        prefix = store.prefix_under(loaded.tokenizer)
        there = sizes_in(folder)
        write(folder / SETTINGS, as_json(what.settings))
        lengths = np.concatenate([np.diff(shard.offsets) for shard in store.shards()])
        chosen = np.arange(0, len(lengths), what.every)
        part_of = np.cumsum(lengths[chosen]) // PART_TOKENS  # [rows] the part that each is in
        numbers, starts = np.unique(part_of, return_index=True)
        rows = (row for i, row in enumerate(store.rows()) if i % what.every == 0)
        meter, total = Meter(), int(lengths[chosen].sum())
        for number, indices in enumerate(np.split(chosen, starts[1:])):
            name = f"part-{number:05d}.parquet"
            mine = [next(rows) for _ in indices]
            meter.done += sum(len(row.ids) for row in mine)
            if name not in there:
                part = _to_parquet(indices, [_values(loaded, row, prefix, what) for row in mine])
                check()
                write(folder / name, part)
            if meter.due():
                done = f"{what.name}: {meter.done:,} of {total:,} tokens, {meter.seconds:,.0f} s"
                tell(done, meter.done / max(total, 1))
        write(folder / COMPLETE, as_json({"parts": len(numbers), "rows": len(chosen), "tokens": total}))
    return read_gathered(store, what)


def gathers(store: CorpusStore) -> list[FeatureSpec]:
    """What has been gathered beside a store, complete, in the order of the names."""
    specs = []
    for name in folders_in(store.path / FOLDER):
        folder = store.path / FOLDER / name
        file, there = folder / SETTINGS, sizes_in(folder)
        if SETTINGS in there and COMPLETE in there:
            try:
                specs.append(FeatureSpec.read(parse_json(read(file))))
            except (OSError, ValueError, TypeError, KeyError, MicroStepError):
                raise TextError(f"{file} was written by another version; remove its folder") from None
    return specs


def read_gathered(store: CorpusStore, what: FeatureSpec) -> GatheredRows:
    return GatheredRows.join(list(gathered_parts(store, what)))


def gathered_parts(store: CorpusStore, what: FeatureSpec) -> Iterator[GatheredRows]:
    """What was gathered, some rows at a time.

    Raises:
        TextError: it was not gathered to its end, or is damaged.
    """
    folder = store.path / FOLDER / what.name
    sizes = sizes_in(folder)
    if COMPLETE not in sizes:
        raise TextError(f"{store.path} holds no {what.name}; gather it first")
    parts = {name: sizes[name] for name in sorted(sizes) if name.startswith("part-")}
    for name, content in zip(parts, read_several(folder, parts), strict=True):
        try:
            with pq.ParquetFile(pa.BufferReader(content)) as file:
                need_readable_at_once(file, str(folder / name))
                (table,) = file.read().combine_chunks().to_batches()
        except (pa.ArrowException, ValueError):
            raise TextError(f"{folder / name} is damaged; remove {folder} and gather it again") from None
        offsets = _offsets(table.column("tokens").to_numpy())
        values = {name: table.column(name).flatten().to_numpy() for name in table.schema.names[2:]}
        values |= {name: each.reshape(offsets[-1], -1) for name, each in values.items() if name in TABLES and len(each)}
        yield GatheredRows(what, table.column("row").to_numpy(), offsets, values)


def _offsets(lengths: NDArray[np.integer]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def _check_model(loaded: LoadedModel, store: CorpusStore, what: FeatureSpec) -> None:
    if what.feature.need == "micro_step" and not loaded.facts.trained_micro_step:
        raise MicroStepError(NO_MICRO_STEP)
    ours, theirs = loaded.facts.to_dict(), store.facts.to_dict()
    different = [name for name in IDENTITY if ours.get(name) != theirs.get(name)]
    if different:
        raise ExportError(f"{store.path} was scored by another model or precision: {', '.join(different)} differ")


def _values(
    loaded: LoadedModel, row: ScoredRow, prefix: Sequence[int], what: FeatureSpec
) -> dict[str, NDArray[np.float32]]:
    """The values of one row, NaN for tokens with fewer than `begin` before them."""
    ids, names = row.ids.astype(np.int64), what.feature.kind.fields
    if len(ids) <= what.begin:
        return {name: np.full(len(ids), np.nan, dtype=np.float32) for name in names}
    skipped = max(0, what.begin - what.feature.window)  # tokens from `begin` on still have `window` tokens before them
    values, _ = what.feature.compute(loaded, ids[skipped:], prefix)
    computed = {name: values[name] for name in names}
    if not what.begin:
        return computed
    missing = np.full(what.begin, np.nan, dtype=np.float32)
    return {name: np.concatenate([missing, computed[name][what.begin - skipped :]]) for name in names}


def _to_parquet(rows: NDArray[np.int64], values: list[dict[str, NDArray[np.float32]]]) -> bytes:
    lengths = [len(next(iter(each.values()))) for each in values]
    table: dict[str, Any] = {"row": pa.array(rows.astype(np.int32)), "tokens": pa.array(np.array(lengths, np.int32))}
    for name in values[0]:
        flat = [each[name].reshape(-1) for each in values]
        offsets = np.concatenate([[0], np.cumsum([len(each) for each in flat])]).astype(np.int32)
        table[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(flat).astype(np.float32)))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(table), buffer, compression="zstd")
    return bytes(buffer.getvalue().to_pybytes())
