"""Keep what a base's pass over scored rows says beyond the scores: its states, and its likeliest next tokens.

The pass is the one that scores the rows. Hooks hand over the states of chosen layers, of which only the kept positions
are copied, in bfloat16: it holds the range of float32, which a state may need (float16 ends at 65,504), in two bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from data.corpus.scored_rows import ScoredRows
from data.learned import kept_positions
from data.states.files import IDS, PROBABILITY, STATES, PartSource, bytes_per_position, write_mark, write_part
from data.states.spec import StatesSpec
from model.atomic_files import make_folder, need_disk
from model.causal_lm.finite import check_states
from model.causal_lm.forward import body, text_config, vocabulary
from model.causal_lm.layer_states import layer_count
from model.causal_lm.probe import parted
from model.errors import ModelError
from model.micro_step.configuration import evenly_spaced
from model.micro_step.outputs import layer_outputs
from model.scoring.scores import TokenScores

MORE_DISK = "free some, keep fewer layers or likeliest tokens, or lower the number of examples"


def chosen_layers(count: int, spec: StatesSpec) -> tuple[int, ...]:
    """Return the layers whose states are kept of a base with so many layers, () for none.

    Raises:
        ModelError: the base does not have them, or the last one is missing.
    """
    if spec.layers is None:
        return ()
    layers = spec.layers or tuple(evenly_spaced(count))
    if list(layers) != sorted(set(layers)) or layers[0] < 1 or layers[-1] != count:
        raise ModelError(f"the layers must rise from at least 1 to the base's last layer {count}, got {layers}")
    return layers


class StateRecorder:
    """Keeps the states of one shard's rows while these are scored.

    Args:
        model: the model that reads the rows.
        spec: what is kept.
        rows: the shard's rows, whose scores may be missing yet.
        lead: number of tokens of the prefix before each row.
    """

    def __init__(self, model: PreTrainedModel, spec: StatesSpec, rows: ScoredRows, lead: int) -> None:
        self.model, self.spec, self.layers, self.lead = model, spec, chosen_layers(layer_count(model), spec), lead
        self._rows = rows
        self._row, self._token = kept_positions(rows)
        config, count = text_config(model), len(self._row)
        size = count * bytes_per_position(spec, self.layers, config)
        need_disk(spec.folder, size + 2**24, "the base's states", MORE_DISK)
        self._folders: dict[Any, dict[str, Tensor]] = {}
        if self.layers:
            shape = count, len(self.layers), int(config.hidden_size)
            self._folders[spec.state_folder(self.layers)] = {STATES: torch.empty(shape, dtype=torch.bfloat16)}
        if spec.top is not None:
            top = min(spec.top, vocabulary(model))
            ids, probability = torch.empty(count, top, dtype=torch.int32), torch.empty(count, top, dtype=torch.float16)
            self._folders[spec.top_folder] = {IDS: ids, PROBABILITY: probability}
        self._read: list[Tensor] = []

    @property
    def top(self) -> int:
        """Number of likeliest tokens that the pass must give; at least 1."""
        return 1 if self.spec.top is None else min(self.spec.top, vocabulary(self.model))

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Take over the states of the model's pass over a batch within the block."""
        if not self.layers:
            yield
            return
        parted(self.model)  # probe first, so that the probing passes are not taken
        inner = body(self.model)

        def keep(_: nn.Module, __: Any, output: Any) -> None:
            self._read = [*inside, output.last_hidden_state]

        handle = inner.register_forward_hook(keep)
        try:
            with layer_outputs(inner, list(self.layers[:-1])) as inside:
                yield
        finally:
            handle.remove()

    def add(self, batch: Sequence[int], scored: Sequence[TokenScores]) -> None:
        """Keep what the last pass gave: of these rows of the shard, in the order of its batch, with their scores."""
        first, end = (np.searchsorted(self._row, batch, side) for side in ("left", "right"))
        place = np.concatenate([np.arange(a, b) for a, b in zip(first, end, strict=True)])
        column = self._token[place] - self._rows.offsets[self._row[place]]
        if self.layers:
            at = torch.from_numpy(np.repeat(np.arange(len(batch)), end - first)), torch.from_numpy(column + self.lead)
            states = torch.stack([layer[at] for layer in self._read], 1)
            self._read = []
            check_states(self.model, states, "states")
            self._folders[self.spec.state_folder(self.layers)][STATES][place] = states.to(torch.bfloat16).cpu()
        if self.spec.top is not None:
            top = self._folders[self.spec.top_folder]
            for name, field in ((IDS, "topk_ids"), (PROBABILITY, "topk_probability")):
                whole = np.concatenate([getattr(each, field) for each in scored])
                start = np.cumsum([0, *map(len, scored)])[:-1]
                chosen = np.repeat(start, end - first) + column + 1  # the scores of a token are of what comes before it
                top[name][place] = torch.from_numpy(whole[chosen]).to(top[name].dtype)

    def write(self, number: int) -> dict[Any, str]:
        """Write the part of this shard, and return the hashes of its files. It counts once it is marked."""
        hashes = {}
        for folder, tensors in self._folders.items():
            make_folder(folder)
            hashes[folder] = write_part(folder, number, tensors)
        return hashes

    def mark(self, number: int, source: PartSource, hashes: dict[Any, str]) -> None:
        """Mark the part that `write` has written as complete."""
        for folder, sha256 in hashes.items():
            write_mark(folder, number, source, len(self._row), sha256)
