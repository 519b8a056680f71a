"""Continuous batching: one thread writes the answers of all requests, one macro step of each at a time.

A request joins between two steps, after its prompt was read apart from the others, and leaves when it is over. No
answer depends on what else is being written.
"""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from model.causal_lm.fast_linear import with_fast_linear
from model.crash_log import fault
from model.decoding.merged import equal_rows, new_batch, rows_share_a_batch
from model.decoding.output import Clock
from model.decoding.row import LiveRow
from model.decoding.session import DecodingBatch
from model.errors import MicroStepError
from model.micro_step.modeling import MicroStepForCausalLM

READ_AT_ONCE = 2048  # tokens of prompts, padding included, that are read between two steps; a longer one is read alone


class EngineBusy(MicroStepError):
    """Too many requests are waiting."""


@dataclass(frozen=True)
class AskedRows:
    """The rows of one request, which join together."""

    rows: tuple[LiveRow, ...]
    lossless: bool


class Engine:
    """Writes rows in a thread of its own.

    Args:
        model: the generating model, which nothing else may change meanwhile.
        max_rows: rows that are written together.
        max_waiting: rows that wait beside these; with more, `submit` refuses.
    """

    def __init__(self, model: MicroStepForCausalLM, max_rows: int, max_waiting: int) -> None:
        self.model, self.max_rows, self.max_waiting = with_fast_linear(model), max_rows, max_waiting
        self._waiting: deque[AskedRows] = deque()
        self._dropped: set[LiveRow] = set()
        self._batches: list[DecodingBatch] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop after the current step. Rows that are not over end with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """Number of rows that are being written."""
        return sum(len(batch.rows) for batch in tuple(self._batches))

    @property
    def waiting(self) -> int:
        """Number of rows that wait."""
        with self._changed:
            return sum(len(asked.rows) for asked in self._waiting)

    def submit(self, rows: Sequence[LiveRow], lossless: bool) -> None:
        """Let rows be written; their `on_segment` is called in the engine's thread.

        Raises:
            EngineBusy: too many rows wait.
            MicroStepError: there are more rows than are ever written together, or the engine has stopped.
        """
        if len(rows) > self.max_rows:
            raise MicroStepError(f"at most {self.max_rows} answers are written at once, got a request for {len(rows)}")
        with self._changed:
            if self._closed or not self.alive:
                raise MicroStepError("the server is stopping")
            taken = self.running + sum(len(asked.rows) for asked in self._waiting)
            if taken + len(rows) > self.max_rows + self.max_waiting:
                raise EngineBusy("too many requests are waiting; try again later")
            self._waiting.append(AskedRows(tuple(rows), lossless))
            self._changed.notify()

    def drop(self, rows: Sequence[LiveRow]) -> None:
        """Take rows out that nobody waits for any more."""
        with self._changed:
            self._dropped.update(row for row in rows if not row.over)
            self._changed.notify()

    def _run(self) -> None:
        try:
            with torch.inference_mode():
                while self._wait():
                    self._remove_dropped()
                    for asked in self._admitted():
                        self._join(asked)
                    for batch in self._batches:
                        with _errors_end(tuple(batch.rows), batch):
                            batch.step()
                    self._batches = [batch for batch in self._batches if batch.rows]
        finally:
            with self._changed:
                self._closed = True
                left = [row for asked in self._waiting for row in asked.rows]
                self._waiting.clear()
            _fail([*left, *(row for batch in self._batches for row in batch.rows)], "the server has stopped")

    def _wait(self) -> bool:
        """Wait until there is something to write; False once the engine is closed."""
        with self._changed:
            while not (self._closed or self._waiting or self._batches):
                self._changed.wait()
            return not self._closed

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
        for batch in self._batches:
            batch.keep([at for at, row in enumerate(batch.rows) if row not in dropped])
        self._batches = [batch for batch in self._batches if batch.rows]

    def _admitted(self) -> list[AskedRows]:
        """Take waiting requests, in their order, while there is room; rows that are decoded alike join together."""
        room, taken = self.max_rows - self.running, list[AskedRows]()
        with self._changed:
            while self._waiting and len(self._waiting[0].rows) <= room:
                asked = self._waiting[0]
                rows = [row for each in (*taken, asked) for row in each.rows]
                if taken and len(rows) * max(len(row.out.prompt) for row in rows) > READ_AT_ONCE:
                    break
                taken.append(self._waiting.popleft())
                room -= len(asked.rows)
        both = (
            AskedRows(tuple(row for each in taken if each.lossless == lossless for row in each.rows), lossless)
            for lossless in (False, True)
        )
        return [asked for asked in both if asked.rows]

    def _join(self, asked: AskedRows) -> None:
        for rows in [asked.rows] if rows_share_a_batch(self.model, asked.rows) else equal_rows(asked.rows):
            new = new_batch(self.model, asked.lossless, Clock())
            with _errors_end(rows):
                new.read(rows)
            if not new.rows:
                continue
            same = (batch for batch in self._batches if isinstance(batch, type(new)) and batch.rows_may_join)
            batch = next(same, None) if new.rows_may_join else None
            if batch is None:
                self._batches.append(new)
                continue
            with _errors_end([*batch.rows, *rows], batch):
                batch.add(new)


@contextmanager
def _errors_end(rows: Sequence[LiveRow], batch: DecodingBatch | None = None) -> Iterator[None]:
    """Let an error, such as too little memory, end the rows that it strikes, and their batch, but not the engine."""
    try:
        yield
    except (MicroStepError, RuntimeError) as error:
        why = str(error) if isinstance(error, MicroStepError) else fault(error, "serving")
        print(why, file=sys.stderr, flush=True)
        if batch is not None:
            batch.rows = []
        _fail([row for row in rows if not row.over], "the server could not write this answer; its log says why")


def _fail(rows: Sequence[LiveRow], why: str) -> None:
    """End rows with an error."""
    for row in rows:
        row.over, row.error = True, MicroStepError(why)
        row.tell()
