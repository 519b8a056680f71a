"""Writes rows with vLLM, in one thread of this process, so that every step of vLLM's is seen: a step is a segment."""

from __future__ import annotations

import sys
import threading
from collections import deque
from collections.abc import Sequence
from typing import Any

from model.crash_log import fault
from model.decoding.row import LiveRow
from model.errors import MicroStepError
from serving.engine import EngineBusy
from serving.vllm_plugin.proposer import NOTES
from serving.vllm_plugin.rows import EngineRow
from serving.vllm_plugin.settings import PREFIX, ROW


class VllmEngine:
    """Hands rows to vLLM.

    Args:
        llm: vLLM's LLMEngine.
        max_rows: rows that are written together.
        max_waiting: rows that wait beside these; with more, `submit` refuses.
    """

    def __init__(self, llm: Any, max_rows: int, max_waiting: int) -> None:
        self.max_rows, self.max_waiting = max_rows, max_waiting
        self._llm, self._next = llm, 0
        self._waiting: deque[EngineRow] = deque()
        self._running: dict[str, EngineRow] = {}
        self._dropped: set[LiveRow] = set()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def close(self) -> None:
        """Stop after the current step. Rows that are not over end with an error."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        """True while it works."""
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        """Number of rows that are being written."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Number of rows that wait."""
        return len(self._waiting)

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
            if self.running + self.waiting + len(rows) > self.max_rows + self.max_waiting:
                raise EngineBusy("too many requests are waiting; try again later")
            self._waiting.extend(row for row in rows if isinstance(row, EngineRow))
            self._changed.notify()

    def drop(self, rows: Sequence[LiveRow]) -> None:
        """Take rows out that nobody waits for any more."""
        with self._changed:
            self._dropped.update(row for row in rows if not row.over)
            self._changed.notify()

    def _run(self) -> None:
        try:
            while self._wait():
                self._remove_dropped()
                self._admit()
                if self._running:
                    self._step()
        except Exception as error:  # noqa: BLE001 - vLLM may fail in any way; all rows are told, and the log says how
            print(fault(error, "serving"), file=sys.stderr, flush=True)
        finally:
            with self._changed:
                self._closed = True
                left = [*self._waiting, *self._running.values()]
                self._waiting.clear()
                self._running.clear()
            for row in left:
                row.over, row.error = True, MicroStepError("the server has stopped")
                row.tell()

    def _wait(self) -> bool:
        """Wait until there is something to write; False once the engine is closed."""
        with self._changed:
            while not (self._closed or self._waiting or self._running):
                self._changed.wait()
            return not self._closed

    def _remove_dropped(self) -> None:
        with self._changed:
            dropped, self._dropped = self._dropped, set()
            self._waiting = deque(row for row in self._waiting if row not in dropped)
        self._forget([name for name, row in self._running.items() if row in dropped])

    def _forget(self, names: list[str]) -> None:
        """Free rows that vLLM may still be writing."""
        if names:
            self._llm.abort_request(names)
        for name in names:
            del self._running[name]
            NOTES.pop(name, None)

    def _admit(self) -> None:
        """Hand waiting rows to vLLM, in their order, while there is room."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMValidationError
        from vllm.sampling_params import RequestOutputKind

        while len(self._running) < self.max_rows:
            with self._changed:
                if not self._waiting:
                    return
                row, name = self._waiting.popleft(), str(self._next)
                self._running[name], self._next = row, self._next + 1
            extra = {**row.sampling.get("extra_args", {}), PREFIX + ROW: name}
            options = {**row.sampling, "extra_args": extra}
            params = SamplingParams(detokenize=False, output_kind=RequestOutputKind.DELTA, **options)
            try:
                self._llm.add_request(name, {"prompt_token_ids": list(row.out.prompt)}, params)
            except (ValueError, VLLMValidationError) as error:  # what vLLM refuses
                del self._running[name]
                row.over, row.error = True, MicroStepError(str(error))
                row.tell()

    def _step(self) -> None:
        over = []
        for output in self._llm.step():
            row, (written,) = self._running.get(output.request_id), output.outputs
            if row is None:
                continue
            note = NOTES.pop(output.request_id, None)
            if written.token_ids:
                row.take(written.token_ids, written.logprobs, written.finish_reason, note)
            elif written.finish_reason is not None and not row.over:
                row.over, row.error = True, MicroStepError("vLLM ended this answer")
                row.tell()
            if row.over or row.error is not None:
                over.append(output.request_id)
        self._forget(over)
