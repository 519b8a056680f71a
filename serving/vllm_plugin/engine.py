"""Writes rows with vLLM, in one thread of this process, so that every step of vLLM's is seen: a step is a segment."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from typing import Any

from model.crash_log import fault
from model.decoding.row import LiveRow
from serving.row_engine import RowEngine, fail
from serving.vllm_plugin.proposer import NOTES
from serving.vllm_plugin.rows import EngineRow
from serving.vllm_plugin.settings import PREFIX, ROW


class VllmEngine(RowEngine):
    """Hands rows to vLLM.

    Args:
        llm: vLLM's LLMEngine.
        max_rows: rows that are written together.
        max_waiting: rows that wait beside these; with more, `submit` refuses.
    """

    def __init__(self, llm: Any, max_rows: int, max_waiting: int) -> None:
        super().__init__(max_rows, max_waiting)
        self._llm, self._next = llm, 0
        self._waiting: deque[EngineRow] = deque()
        self._running: dict[str, EngineRow] = {}

    @property
    def running(self) -> int:
        return len(self._running)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def _queue(self, rows: Sequence[LiveRow], lossless: bool) -> None:
        self._waiting.extend(row for row in rows if isinstance(row, EngineRow))

    def _write(self) -> None:
        try:
            while self._wait():
                self._remove_dropped()
                self._admit()
                if self._running:
                    self._step()
        except Exception as error:  # noqa: BLE001 - vLLM may fail in any way; all rows are told, and the log says how
            print(fault(error, "serving"), file=sys.stderr, flush=True)

    def _left(self) -> list[LiveRow]:
        left: list[LiveRow] = [*self._waiting, *self._running.values()]
        self._waiting.clear()
        self._running.clear()
        return left

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
                fail([row], str(error))

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
                fail([row], "vLLM ended this answer")
            if row.over or row.error is not None:
                over.append(output.request_id)
        self._forget(over)
