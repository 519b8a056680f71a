"""Find the end of an answer by stop strings, in the text of the answer alone, never in the prompt's last words.

transformers' own criterion reads prompt and answer as one text. A prompt that ends with a line break and an answer that
begins with "def" would then match the stop string of a line break and "def". The harness means the answer alone.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria


class StopStrings:
    """Searches for stop strings at the end of an answer that grows token by token."""

    def __init__(self, tokenizer: Any, strings: Sequence[str]) -> None:
        self._tokenizer, self._strings = tokenizer, [string for string in strings if string]
        # a token spells at least one byte; one more on either side may be split inside a character
        self._reach = 3 + max((len(string.encode()) for string in self._strings), default=0)

    def met(self, answer: Sequence[int]) -> bool:
        """True if the answer's last tokens hold a stop string, special tokens included."""
        if not self._strings:
            return False
        text = self._tokenizer.decode(list(answer[-self._reach :]), skip_special_tokens=False)
        return any(string in text for string in self._strings)

    def truncate(self, answer: Sequence[int], ends: set[int]) -> tuple[list[int], bool]:
        """Return the tokens up to the one that ends the answer, and whether one does."""
        for n, token in enumerate(answer, 1):
            if token in ends or self.met(answer[:n]):
                return list(answer[:n]), True
        return list(answer), False


class AnswerCriterion(StoppingCriteria):  # type: ignore[misc]
    """Stops one row at a time at a stop string of its answer.

    It receives a row's tokens without padding, and knows the prompts of the batch, none of which begins another.
    """

    def __init__(self, stops: StopStrings, prompts: Sequence[Sequence[int]]) -> None:
        self._stops = stops
        self._lengths = sorted({len(prompt) for prompt in prompts})
        self._prompts = {tuple(prompt) for prompt in prompts}

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        """Return for each row [B, N] whether it is over."""
        over = [self._stops.met(row[self._prompt_length(row) :]) for row in input_ids.tolist()]
        return torch.tensor(over, device=input_ids.device)

    def _prompt_length(self, row: list[int]) -> int:
        return next(n for n in self._lengths if tuple(row[:n]) in self._prompts)


def prefix_free_groups(prompts: Sequence[Sequence[int]]) -> list[list[int]]:
    """Group the indices of prompts so that none begins another in its group, except equal ones; mostly one group."""
    groups: list[list[int]] = []
    for i, prompt in enumerate(prompts):
        fits = next((group for group in groups if not any(_begins(prompt, prompts[j]) for j in group)), None)
        if fits is None:
            groups.append([i])
        else:
            fits.append(i)
    return groups


def _begins(a: Sequence[int], b: Sequence[int]) -> bool:
    n = min(len(a), len(b))
    return len(a) != len(b) and list(a[:n]) == list(b[:n])
