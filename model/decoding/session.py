"""What merged and lossless decoding share: a batch that rows may join and leave, and the reading of prompts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import torch
from torch import Tensor

from model.causal_lm.padding import left_padded
from model.causal_lm.partial_adapter import adapter_acting
from model.decoding.output import Clock
from model.decoding.row import LiveRow
from model.decoding.shared_prefix import RowCache, shared_first
from model.micro_step.outputs import Macro

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

Read = Callable[[Tensor, Tensor, Tensor], Macro]
Result = TypeVar("Result")


class DecodingBatch(ABC):
    """Rows that are written together, one macro step of each at a time. They may join and leave between steps.

    Args:
        model: the generating model.
        clock: measures the parts of a step.
    """

    def __init__(self, model: MicroStepPreTrainedModel, clock: Clock) -> None:
        self.model, self.clock = model, clock
        self.rows: list[LiveRow] = []

    def read(self, rows: Sequence[LiveRow]) -> None:
        """Read the prompts of rows, which become those of this batch. It must be new."""
        finish(self.reading(rows, None))

    @abstractmethod
    def reading(self, rows: Sequence[LiveRow], at_once: int | None) -> Generator[None]:
        """Read the prompts of rows, as `read`, and pause after each `at_once` tokens; None: without a pause.

        Caches that cannot be continued by several tokens are filled without a pause.
        """

    @abstractmethod
    def add(self, other: Self) -> None:
        """Take over the rows of another batch of the same model. Both must allow it (`rows_may_join`)."""

    @abstractmethod
    def step(self) -> None:
        """Write one segment of each row, and let the base read it. Rows that are over leave."""

    def keep(self, chosen: list[int]) -> None:
        """Keep only these rows."""
        if not chosen:
            self.rows = []
        elif len(chosen) < len(self.rows):
            self._select(chosen)

    @abstractmethod
    def _select(self, chosen: list[int]) -> None:
        """Keep only these rows, at least one."""

    @property
    @abstractmethod
    def rows_may_join(self) -> bool:
        """True if these rows and others may be written in one batch, whatever their lengths."""

    @property
    @abstractmethod
    def slots(self) -> int:
        """Slots of the longest row in the base's cache, mean over its layers."""

    def _leave(self, over: list[bool], slots: Callable[[], list[int]]) -> list[int]:
        """Pass on each closed segment; return the indices of the rows that go on. If none does, all leave."""
        going = [at for at, done in enumerate(over) if not done]
        if len(going) < len(over):
            for row, done, held in zip(self.rows, over, slots(), strict=True):
                if done:
                    row.over, row.out.cache_slots = True, held
        for row in self.rows:
            if len(row.out.why) == len(row.out.starts):  # its segment is closed
                row.tell()
        if not going:
            self.rows = []
        return going


def prompts_of(rows: Sequence[LiveRow], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the prompts [R, P] of rows, padded on the left, and their mask."""
    ids, mask = left_padded([row.out.prompt for row in rows])
    return ids.to(device), mask.to(device)


def finish(steps: Generator[None, None, Result]) -> Result:
    """Go through all pauses of a generator, and return its result."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result


def read_prompts(
    model: MicroStepPreTrainedModel, input_ids: Tensor, mask: Tensor, cache: RowCache, read: Read, at_once: int | None
) -> Generator[None, None, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Read prompts [B, P], padded on the left, into an empty cache, every token as a macro step of its own.

    It pauses after each `at_once` tokens, padding included.

    Args:
        model: the model whose base reads.
        input_ids: [B, P].
        mask: [B, P], 0 at padding.
        cache: the cache that `read` fills.
        read: reads embeddings [B, N, d] at positions [B, N], with the mask of all that the cache then holds.
        at_once: the most tokens between two pauses, padding included, but at least one of each row; None: no pause.

    Returns:
        The base's states [B, d] and [B, K, d] at the last tokens; the mask [B, P] of the cache; and the last tokens'
        positions [B].
    """
    embed = model.get_input_embeddings()
    prompts = shared_first(input_ids, mask, model.base)
    ids, mask, position, (rows, width) = prompts.ids, prompts.mask, prompts.position, input_ids.shape
    if prompts.shared:
        for part in _parts(0, prompts.shared, at_once):
            with adapter_acting(model.config.prompt_adapter):
                read(embed(ids[:1, part]), mask[:1, : part.stop], position[:1, part])
            yield
        cache.batch_repeat_interleave(rows)
    for part in _parts(prompts.shared, width, at_once and max(1, at_once // rows)):
        with adapter_acting(model.config.prompt_adapter):
            macro = read(embed(ids[:, part]), mask[:, : part.stop], position[:, part])
        if part.stop < width:
            yield
    return macro.last[:, -1], macro.context[:, -1], mask, position[:, -1]


def _parts(start: int, end: int, most: int | None) -> list[slice]:
    """Return consecutive slices from start to end, each of at most so many items."""
    step = most or end - start
    return [slice(a, min(end, a + step)) for a in range(start, end, step)]


def count_pass(rows: Sequence[LiveRow]) -> None:
    """Count a pass of the base for each of its rows; a prompt that is read in parts counts once."""
    for row in rows:
        row.out.macro_steps += 1


def select_rows(chosen: list[int], live: list[Any], *tensors: Tensor) -> tuple[Any, ...]:
    """Return the chosen items of a list and rows of tensors; unchanged if all are chosen."""
    if len(chosen) == len(live):
        return live, *tensors
    at = torch.tensor(chosen, dtype=torch.long, device=tensors[0].device)
    return [live[i] for i in chosen], *(tensor[at] for tensor in tensors)


def drop_finished_rows(cache: RowCache, chosen: list[int], live: list[Any], *tensors: Tensor) -> tuple[Any, ...]:
    """Keep only the chosen rows of a cache, a list and tensors (see `select_rows`)."""
    if len(chosen) < len(live):
        cache.batch_select_indices(torch.tensor(chosen, dtype=torch.long, device=tensors[0].device))
    return select_rows(chosen, live, *tensors)
