"""The rows of a store in pieces of whole rows, for reports in bounded memory.

A store is read once, one shard at a time. What the rules look at, 20 bytes per token, stays in memory up to a budget;
the rest goes to a temporary file and is read from there each time. So memory does not grow with the store, except for
some 30 bytes per row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from data.corpus.features import FeatureSpec, GatheredRows, gathered_parts, gathers
from data.corpus.rule_inputs import CorpusPiece, inputs_of, missing_scores, refuse_missing_scores
from data.corpus.scored_rows import ScoredRows
from data.corpus.store import CorpusStore
from model.errors import TextError
from model.segmentation.rule_inputs import SCORES, SegmentInputs

PIECE_TOKENS = 1 << 20
MEMORY = 1 << 30  # bytes of tokens in memory
_FLAGS = ("word_start", "row_start", "prompt")
Arrays = dict[str, NDArray[Any]]


class StoredPieces:
    """A store, and what was gathered beside it, piece by piece."""

    def __init__(
        self,
        store: CorpusStore,
        specs: Sequence[FeatureSpec] | None = None,
        memory: int = MEMORY,
        piece_tokens: int = PIECE_TOKENS,
    ) -> None:
        """Read a store.

        Args:
            store: is complete, or taken as far as it goes.
            specs: of the gathered values that are read; None: all.
            memory: bytes of tokens that stay in memory.
            piece_tokens: the most tokens of a piece, unless a row alone has more.

        Raises:
            TextError: a shard is gone or damaged.
            NumericalError: it holds scores that are not finite.
        """
        self.store, self.specs = store, tuple(gathers(store) if specs is None else specs)
        self._held: list[tuple[int, Arrays | int]] = []  # first row, and the arrays or where they are in the file
        self._names: list[list[str]] = []  # of the arrays of each piece
        self._file: IO[bytes] | None = None
        gathered = [_GatheredReader(store, spec) for spec in self.specs]
        chat, first, room = bool(store.manifest["parameters"]["chat"]), 0, memory
        documents, lengths, missing, broken = [], [], 0, set[int]()
        for rows in row_pieces(store, piece_tokens):
            bad, of = missing_scores(rows)
            missing, broken = missing + bad, broken | of
            arrays = _arrays(rows, inputs_of(rows, chat))
            for number, reader in enumerate(gathered):
                arrays |= _packed(number, reader.until(first + len(rows)))
            room -= sum(each.nbytes for each in arrays.values())
            self._held.append((first, arrays if room >= 0 else self._saved(arrays)))
            self._names.append(list(arrays))
            documents.append(rows.document)
            lengths.append(np.diff(rows.offsets))
            first += len(rows)
        refuse_missing_scores(store, missing, broken)
        self.document: NDArray[np.int32] = np.concatenate(documents)  # [R]
        self.offsets: NDArray[np.int64] = np.concatenate([[0], np.cumsum(np.concatenate(lengths))]).astype(np.int64)

    def pieces(self) -> Iterator[CorpusPiece]:
        """The pieces, in order."""
        for (first, held), names in zip(self._held, self._names, strict=True):
            arrays = self._loaded(held, names) if isinstance(held, int) else held
            given: dict[str, Any] = {name: arrays[name] for name in (*SCORES, *_FLAGS) if name in arrays}
            inputs = SegmentInputs(**given)
            inputs.__dict__["forced"] = arrays["forced"]  # a cached property, which is used in every iteration
            gathered = tuple(_unpacked(number, spec, arrays) for number, spec in enumerate(self.specs))
            yield CorpusPiece(first, arrays["offsets"], inputs, gathered)

    def texts(self) -> Iterator[ScoredRows]:
        """The rows of each piece, with their texts; the store is read again."""
        reader, ends = RowReader(self.store), [*(first for first, _ in self._held[1:]), len(self.document)]
        for (first, _), end in zip(self._held, ends, strict=True):
            if (rows := reader.take(end - first)) is None:
                raise TextError(f"{self.store.path} was changed while it was read")
            yield rows

    def _saved(self, arrays: Arrays) -> int:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="micro_step-")  # noqa: SIM115 - it lives as long as this object
        at = self._file.seek(0, 2)
        for array in arrays.values():
            np.save(self._file, array, allow_pickle=False)
        return at

    def _loaded(self, at: int, names: list[str]) -> Arrays:
        assert self._file is not None
        self._file.seek(at)
        return {name: np.load(self._file, allow_pickle=False) for name in names}


def row_pieces(store: CorpusStore, piece_tokens: int = PIECE_TOKENS) -> Iterator[ScoredRows]:
    """The rows of a store in pieces of at most so many tokens, unless a row alone has more."""
    held: list[ScoredRows] = []
    for shard in store.shards():
        begin = 0
        while begin < len(shard):
            room = piece_tokens - sum(int(each.offsets[-1]) for each in held)
            end = int(np.searchsorted(shard.offsets, shard.offsets[begin] + room, side="right")) - 1
            if end <= begin and held:
                yield ScoredRows.join(held)
                held = []
                continue
            end = min(max(end, begin + 1), len(shard))
            held.append(shard.part(begin, end))
            begin = end
    if held:
        yield ScoredRows.join(held)


class RowReader:
    """The rows of a store in order, as many at a time as are asked for."""

    def __init__(self, store: CorpusStore) -> None:
        self._shards, self._held = store.shards(), list[ScoredRows]()

    def take(self, rows: int) -> ScoredRows | None:
        """The next rows; None if there are fewer."""
        while sum(map(len, self._held)) < rows:
            if (shard := next(self._shards, None)) is None:
                return None
            self._held.append(shard)
        held = ScoredRows.join(self._held)
        self._held = [held.part(rows, len(held))]
        return held.part(0, rows)

    def ended(self) -> bool:
        """Whether there are no more rows."""
        return not any(map(len, self._held)) and not any(map(len, self._shards))


class _GatheredReader:
    def __init__(self, store: CorpusStore, spec: FeatureSpec) -> None:
        self._parts, self._held = gathered_parts(store, spec), list[GatheredRows]()

    def until(self, row: int) -> GatheredRows:
        """What was gathered for the next rows, up to this one of the store."""
        while not self._held or not len(self._held[-1].rows) or self._held[-1].rows[-1] < row:
            if (part := next(self._parts, None)) is None:
                break
            self._held.append(part)
        held = GatheredRows.join(self._held)
        self._held = [held.part(row, 1 << 31)]
        return held.part(0, row)


def _arrays(rows: ScoredRows, inputs: SegmentInputs) -> Arrays:
    arrays: Arrays = {"forced": inputs.forced, "offsets": rows.offsets}
    for name in (*SCORES, *_FLAGS):
        if (array := getattr(inputs, name)) is not None:
            arrays[name] = array
    return arrays


def _packed(number: int, found: GatheredRows) -> Arrays:
    arrays: Arrays = {f"{number}.rows": found.rows, f"{number}.offsets": found.offsets}
    for name, values in found.values.items():
        arrays[f"{number}.values.{name}"] = values
    return arrays


def _unpacked(number: int, spec: FeatureSpec, arrays: Arrays) -> GatheredRows:
    start = f"{number}.values."
    values = {name.removeprefix(start): each for name, each in arrays.items() if name.startswith(start)}
    return GatheredRows(spec, arrays[f"{number}.rows"], arrays[f"{number}.offsets"], values)
