"""Caches of keys and values that grow in place.

Transformers' dynamic cache copies all that it holds at every step. Here a layer keeps room for more tokens, so that a
step writes only its own; the room grows with what it holds, so that copying stays a small part of all writing.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel
from transformers.cache_utils import DynamicLayer, LinearAttentionLayer

from model.causal_lm.parts import body

ROOM = 64  # more tokens at the least
IDLE = 0.25  # of a cache's slots, that no row sees


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A dynamic layer whose keys and values [B, H, N, D] are the beginning of something larger."""

    keys: Tensor
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Put new keys and values [B, H, n, D] behind those that there are, and return all."""
        if torch.is_grad_enabled() and (key_states.requires_grad or value_states.requires_grad):
            found: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return found  # what a gradient needs must not be written over
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _extended(self.keys, key_states)
        self.values = _extended(self.values, value_states)
        return self.keys, self.values


class RowsCache(DynamicCache):  # type: ignore[misc]
    """A cache that lets rows go whatever its layers keep: keys and values, or states."""

    read = 0  # positions, as counted by those who fill it; layers of states cannot tell

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows."""
        for layer in self.layers:
            if hasattr(layer, "batch_select_indices") and not isinstance(layer, LinearAttentionLayer):
                layer.batch_select_indices(indices)
            else:
                layer.reorder_cache(indices)


def _extended(held: Tensor, new: Tensor) -> Tensor:
    """[B, H, N + n, D] `held` and `new`: written behind `held` where there is room."""
    if not held.numel():
        held = new[:, :, :0]
    rows, heads, n, d = held.shape
    total = n + new.shape[2]
    room = held.untyped_storage().nbytes() // held.element_size()
    pitch = held.stride(1) // d if heads else 0  # tokens a head has room for
    fits = n > 0 and held.stride() == (heads * pitch * d, pitch * d, d, 1) and held.storage_offset() == 0
    if not fits or total > pitch or rows * heads * pitch * d > room:
        grown = held.new_empty(rows, heads, total + max(ROOM, total // 4), d)
        grown[:, :, :n] = held
        held = grown[:, :, :n]
    out = held.as_strided((rows, heads, total, d), held.stride())
    out[:, :, n:] = new
    return out


def keeps_all(model: PreTrainedModel) -> bool:
    """Whether every layer of a model keeps keys and values of all positions, and is told these: no window, no state."""
    layers = DynamicCache(config=model.config).layers
    told = "position_ids" in inspect.signature(body(model).forward).parameters
    return told and all(type(layer) is DynamicLayer for layer in layers)


def padded_anywhere(model: PreTrainedModel) -> bool:
    """Whether padding may stand within a row: all slots are seen, and jumps of positions mean nothing else."""
    return keeps_all(model) and "flash" not in str(model.config._attn_implementation)


def growing_cache(config: PretrainedConfig | None = None) -> DynamicCache:
    """An empty cache; with a configuration layers that slide do, else every layer keeps everything."""
    cache = RowsCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if config is None:
        cache.layer_class_to_replicate = PreallocatedLayer
    return cache


def keep_slots(cache: DynamicCache, seen: Tensor, kept: Tensor, anywhere: bool, idle: float) -> Tensor:
    """Of the slots that were added last, let each row keep only its own.

    Those that no row keeps go, if they are the last ones. Where padding may stand anywhere the others stay, unseen,
    until so many are idle that moving every row's keys and values together is worth it.

    Args:
        cache: keeps everything, N + n slots.
        seen: [R, N + n] which slots each row sees, 0 for the others.
        kept: [R, n] which of the last n it keeps.
        anywhere: whether padding may stand within a row.
        idle: the share of slots that may be idle.

    Returns:
        [R, slots left] as `seen`.
    """
    n = kept.shape[1]
    most = int((kept.any(0) * torch.arange(1, n + 1, device=kept.device)).max())
    if most < n:
        cache.crop(most - n)
        seen, kept = seen[:, : most - n], kept[:, :most]
    if bool(kept.all()):
        return seen
    seen = torch.cat([seen[:, :-most], seen[:, -most:] * kept], 1)
    gone = seen.shape[1] - int(seen.sum(1).max())  # slots that would go
    if anywhere and gone <= idle * seen.shape[1]:
        return seen
    order = seen.argsort(dim=1, stable=True)[:, gone:]  # rows aligned at their ends
    for layer in cache.layers:
        if layer.keys is not None:  # a part of a body's layers has a cache of its own
            layer.keys, layer.values = (_gathered(each, order) for each in (layer.keys, layer.values))
    return seen.gather(1, order)


def _gathered(held: Tensor, order: Tensor) -> Tensor:
    """[R, H, N, D] the slots of keys or values in each row's order [R, N]."""
    return held.gather(2, order[:, None, :, None].expand(-1, held.shape[1], -1, held.shape[-1]))
