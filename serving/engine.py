"""Continuous batching: one thread writes the answers of all requests, one macro step of each at a time.

Between two steps it reads a part of the prompts that wait. A request joins when its prompt is read, and leaves when it
is over. No answer depends on what else is being written, and after an error the rows that it struck begin again, each
apart from the others, so that it ends only those that fail alone.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch

from model.causal_lm.fast_linear import with_fast_linear
from model.crash_log import fault
from model.decoding.draft_length import DraftCosts
from model.decoding.lossless import LosslessBatch
from model.decoding.merged import equal_rows, new_batch, rows_share_a_batch
from model.decoding.output import Clock
from model.decoding.row import LiveRow
from model.decoding.session import DecodingBatch
from model.decoding.shared_prefix import MIN_SHARED
from model.errors import MicroStepError
from model.micro_step.modeling import MicroStepForCausalLM
from serving.row_engine import RowEngine, fail

_WHOLE = object()  # instead of a pause: a prompt is read


@dataclass(frozen=True)
class AskedRows:
    """The rows of one request."""

    rows: tuple[LiveRow, ...]
    lossless: bool


@dataclass(frozen=True, eq=False)
class Reading:
    """Prompts that are being read."""

    rows: list[LiveRow]
    batch: DecodingBatch  # which will have the rows
    pauses: Generator[None]
    apart: bool = False  # the rows will join no others


class Engine(RowEngine):
    """Writes rows with the model itself.

    Args:
        model: the generating model, which nothing else may change meanwhile.
        max_rows: rows that are written together.
        max_waiting: rows that wait beside these; with more, `submit` refuses.
        read_at_once: tokens of prompts, padding included, that are read between two steps.
        costs: times of passes that limit drafts; None: the rules alone do.
    """

    def __init__(
        self,
        model: MicroStepForCausalLM,
        max_rows: int,
        max_waiting: int,
        read_at_once: int,
        costs: DraftCosts | None = None,
    ) -> None:
        super().__init__(max_rows, max_waiting)
        self.model, self.read_at_once, self._costs = with_fast_linear(model), read_at_once, costs
        self._waiting: deque[AskedRows] = deque()
        self._reading: list[Reading] = []  # they take turns
        self._batches: list[DecodingBatch] = []
        self._apart: list[DecodingBatch] = []  # of one row each

    @property
    def running(self) -> int:
        return len(self._taken())

    @property
    def waiting(self) -> int:
        with self._changed:
            return sum(len(asked.rows) for asked in self._waiting)

    def _queue(self, rows: Sequence[LiveRow], lossless: bool) -> None:
        self._waiting.append(AskedRows(tuple(rows), lossless))

    def _write(self) -> None:
        with torch.inference_mode():
            while self._wait():
                self._remove_dropped()
                self._reading += self._new_readings(self._admitted())
                self._read_on()
                for batch in (*self._batches, *self._apart):
                    self._step(batch)
                self._forget_empty()

    def _left(self) -> list[LiveRow]:
        left = [row for asked in self._waiting for row in asked.rows]
        self._waiting.clear()
        return [*left, *self._taken()]

    def _taken(self) -> list[LiveRow]:
        """The rows that are read or written."""
        read = [row for reading in tuple(self._reading) for row in reading.rows]
        return read + [row for batch in (*self._batches, *self._apart) for row in tuple(batch.rows)]

    def _remove_dropped(self) -> None:
        with self._changed:
            dropped, self._dropped = self._dropped, set()
            if not dropped:
                return
            kept = (
                AskedRows(tuple(row for row in asked.rows if row not in dropped), asked.lossless)
                for asked in self._waiting
            )
            self._waiting = deque(asked for asked in kept if asked.rows)
        for row in dropped:
            row.over = True
        self._reading = [reading for reading in self._reading if not all(row.over for row in reading.rows)]
        for batch in (*self._batches, *self._apart):
            _keep_going(batch)
        self._forget_empty()

    def _forget_empty(self) -> None:
        self._batches, self._apart = ([batch for batch in some if batch.rows] for some in (self._batches, self._apart))

    def _admitted(self) -> list[AskedRows]:
        """Take waiting requests, in their order, while there is room."""
        room, taken = self.max_rows - self.running, list[AskedRows]()
        with self._changed:
            while self._waiting and len(self._waiting[0].rows) <= room:
                taken.append(self._waiting.popleft())
                room -= len(taken[-1].rows)
        return taken

    def _new_readings(self, taken: Sequence[AskedRows]) -> Iterator[Reading]:
        """Begin to read the prompts of requests; those that are alike are read together, the short ones first."""
        for lossless in (False, True):
            rows = [row for asked in taken if asked.lossless == lossless for row in asked.rows]
            rows.sort(key=lambda row: (len(row.out.prompt), row.out.prompt))
            if not rows_share_a_batch(self.model, rows):
                groups = equal_rows(rows)
            else:
                groups = read_together(rows, self.read_at_once)
            for group in groups:
                yield self._new_reading(group, lossless)

    def _new_reading(self, rows: list[LiveRow], lossless: bool, apart: bool = False) -> Reading:
        batch = new_batch(self.model, lossless, Clock(), self._costs)
        return Reading(rows, batch, batch.reading(rows, self.read_at_once), apart)

    def _read_on(self) -> None:
        """Read one more part of some prompts; when they are whole, their rows join the others."""
        if not self._reading:
            return
        reading, new = self._reading[0], self._reading[0].batch
        try:
            if next(reading.pauses, _WHOLE) is not _WHOLE:
                self._reading.append(self._reading.pop(0))
                return
            _keep_going(new)
        except Exception as error:  # noqa: BLE001 - as below
            self._struck(reading.rows, new, error)
        self._reading.remove(reading)
        if new.rows:
            self._join(new, reading.apart)

    def _join(self, new: DecodingBatch, apart: bool) -> None:
        same = (batch for batch in self._batches if isinstance(batch, type(new)) and batch.rows_may_join)
        batch = next(same, None) if new.rows_may_join and not apart else None
        if batch is None:
            (self._apart if apart else self._batches).append(new)
            return
        rows = [*batch.rows, *new.rows]
        try:
            batch.add(new)
        except Exception as error:  # noqa: BLE001 - as below
            self._struck(rows, batch, error)

    def _step(self, batch: DecodingBatch) -> None:
        rows = tuple(batch.rows)
        try:
            batch.step()
        except Exception as error:  # noqa: BLE001 - such as too little memory: logged, and told to those that it ends
            self._struck(rows, batch, error)

    def _struck(self, rows: Sequence[LiveRow], batch: DecodingBatch, error: Exception) -> None:
        """After an error of rows together, let each begin again, apart; after one of a row alone, end it."""
        why = str(error) if isinstance(error, MicroStepError) else fault(error, "serving")
        print(why, file=sys.stderr, flush=True)
        batch.rows = []
        left = [row for row in rows if not row.over or row.told < len(row.out.starts)]
        if len(rows) == 1:
            fail(left, "the server could not write this answer; its log says why")
            return
        for row in left:
            row.begin_again()
            self._reading.append(self._new_reading([row], isinstance(batch, LosslessBatch), apart=True))


def read_together(rows: Sequence[LiveRow], at_once: int) -> list[list[LiveRow]]:
    """Return rows, sorted by the lengths of their prompts, in groups whose prompts are read together.

    These have no more tokens than are read at once, padding included, or begin alike, which is then read once.
    """
    groups: list[list[LiveRow]] = []
    alike, cost = 0, 0  # tokens with which the prompts of the last group begin, and tokens that it reads
    for row in rows:
        prompt = row.out.prompt
        if groups:
            begin = zip(groups[-1][0].out.prompt[:alike], prompt[:-1], strict=False)
            still = sum(1 for _ in takewhile(lambda both: both[0] == both[1], begin))
            once = still if still >= MIN_SHARED else 0
            together = once + (len(groups[-1]) + 1) * (len(prompt) - once)
            if together <= at_once or together < cost + len(prompt):
                groups[-1].append(row)
                alike, cost = still, together
                continue
        groups.append([row])
        alike, cost = len(prompt) - 1, len(prompt)
    return groups


def _keep_going(batch: DecodingBatch) -> None:
    """Remove the rows that nobody waits for any more."""
    batch.keep([at for at, row in enumerate(batch.rows) if not row.over])
