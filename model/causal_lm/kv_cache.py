"""Caches of keys and values that grow in place.

Transformers' dynamic cache copies everything it holds at every step. Here a layer reserves room for more tokens, so a
step writes only its own. The room grows with the content, so copying stays a small part of all writing.
"""

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig, PreTrainedModel, cache_utils
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer, LinearAttentionLayer

from model.causal_lm.parts import body

DummyLayer: Any = getattr(cache_utils, "DummyLayer", None)  # transformers 5.19, which vLLM pins, has none
MIN_ROOM = 64  # tokens that a grown buffer has free at least
MAX_IDLE = 0.25  # share of a cache's slots that no row sees


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """A dynamic layer whose keys and values [B, H, N, D] are the beginning of a larger buffer."""

    keys: Tensor
    values: Tensor

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append new keys and values [B, H, n, D], and return all."""
        if torch.is_grad_enabled() and (key_states.requires_grad or value_states.requires_grad):
            result: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)
            return result  # tensors that a gradient needs must not be overwritten
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self.keys = _extended(self.keys, key_states)
        self.values = _extended(self.values, value_states)
        return self.keys, self.values


class RowsCache(DynamicCache):  # type: ignore[misc]
    """A cache that can drop rows whatever its layers hold: keys and values, or recurrent states."""

    read = 0  # positions, counted by the code that fills it; recurrent layers cannot tell

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep only these rows."""
        for layer in self.layers:
            if hasattr(layer, "batch_select_indices") and not isinstance(layer, LinearAttentionLayer):
                layer.batch_select_indices(indices)
            else:
                layer.reorder_cache(indices)


def _extended(held: Tensor, new: Tensor) -> Tensor:
    """Return [B, H, N + n, D]: `held` followed by `new`, written in place if there is room."""
    if not held.numel():
        held = new[:, :, :0]
    rows, heads, n, d = held.shape
    total = n + new.shape[2]
    room = held.untyped_storage().nbytes() // held.element_size()
    pitch = held.stride(1) // d if heads else 0  # tokens a head has room for
    fits = n > 0 and held.stride() == (heads * pitch * d, pitch * d, d, 1) and held.storage_offset() == 0
    if not fits or total > pitch or rows * heads * pitch * d > room:
        grown = held.new_empty(rows, heads, total + max(MIN_ROOM, total // 4), d)
        grown[:, :, :n] = held
        held = grown[:, :, :n]
    out = held.as_strided((rows, heads, total, d), held.stride())
    out[:, :, n:] = new
    return out


def keeps_all(model: PreTrainedModel) -> bool:
    """True if every layer keeps keys and values of all positions and receives them: no window, no recurrent state."""
    layers = DynamicCache(config=model.config).layers
    takes_position_ids = "position_ids" in inspect.signature(body(model).forward).parameters
    return takes_position_ids and all(type(layer) is DynamicLayer for layer in layers)


def padded_anywhere(model: PreTrainedModel) -> bool:
    """True if padding may stand within a row: all slots are visible, and gaps in positions mean nothing else."""
    return keeps_all(model) and "flash" not in str(model.config._attn_implementation)


def growing_cache(config: PretrainedConfig | None = None) -> DynamicCache:
    """Return an empty cache.

    With a configuration, its sliding layers slide; without one, every layer keeps everything.
    """
    cache = RowsCache(config=config)
    cache.layers = [PreallocatedLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if config is None:
        cache.layer_class_to_replicate = PreallocatedLayer
    return cache


def keep_slots(cache: DynamicCache, seen: Tensor, kept: Tensor, anywhere: bool, idle: float) -> Tensor:
    """Of the slots that were added last, let each row keep only its own.

    Slots at the end that no row keeps are removed. If padding may stand anywhere, the others stay, hidden, until so
    many are idle that moving the keys and values of all rows together is worth it.

    Args:
        cache: keeps everything, N + n slots.
        seen: [R, N + n] 1 for the slots that each row sees, 0 for the others.
        kept: [R, n] bool, which of the last n slots each row keeps.
        anywhere: whether padding may stand within a row.
        idle: the share of slots that may be idle.

    Returns:
        [R, remaining slots], in the form of `seen`.
    """
    n = kept.shape[1]
    last = int((kept.any(0) * torch.arange(1, n + 1, device=kept.device)).max())
    if last < n:
        cache.crop(last - n)
        seen, kept = seen[:, : last - n], kept[:, :last]
    if bool(kept.all()):
        return seen
    seen = torch.cat([seen[:, :-last], seen[:, -last:] * kept], 1)
    removable = seen.shape[1] - int(seen.sum(1).max())  # slots that could be removed
    if anywhere and removable <= idle * seen.shape[1]:
        return seen
    order = seen.argsort(dim=1, stable=True)[:, removable:]  # rows aligned at their ends
    for layer in cache.layers:
        if layer.keys is not None:  # only some of a body's layers may have a cache
            layer.keys, layer.values = (_gathered(states, order) for states in (layer.keys, layer.values))
    return seen.gather(1, order)


def rows_may_join(cache: DynamicCache) -> bool:
    """True if every layer holds keys and values only, so that rows of different lengths fit into one cache."""
    known = (PreallocatedLayer, DynamicLayer, DynamicSlidingWindowLayer, DummyLayer)
    return all(type(layer) in known for layer in cache.layers)


def join_rows(cache: DynamicCache, other: DynamicCache) -> None:
    """Append the rows of another cache of the same model; the shorter cache is padded on its left."""
    for mine, theirs in zip(cache.layers, other.layers, strict=True):
        if getattr(mine, "keys", None) is None:  # only some of a body's layers may have a cache
            continue
        slots = max(mine.get_seq_length(), theirs.get_seq_length())
        held = slots
        if isinstance(mine, DynamicSlidingWindowLayer):
            mine.cumulative_length, held = slots, min(slots, mine.sliding_window - 1)
        mine.keys, mine.values = _joined(mine.keys, theirs.keys, held), _joined(mine.values, theirs.values, held)


def _joined(a: Tensor, b: Tensor, slots: int) -> Tensor:
    """Return [A + B, H, slots, D], the rows of both aligned at their ends, with room for more."""
    rows = len(a) + len(b)
    out = a.new_zeros(rows, a.shape[1], slots + max(MIN_ROOM, slots // 4), a.shape[3])
    for held, rows_of in ((a, slice(len(a))), (b, slice(len(a), rows))):
        out[rows_of, :, slots - held.shape[2] : slots] = held
    return out[:, :, :slots]


def joined_masks(a: Tensor, b: Tensor) -> Tensor:
    """Return [A + B, N], two masks aligned at their ends."""
    width = max(a.shape[1], b.shape[1])
    return torch.cat([torch.nn.functional.pad(mask, (width - mask.shape[1], 0)) for mask in (a, b)])


def without_idle_start(cache: DynamicCache, seen: Tensor, idle: float) -> Tensor:
    """Remove the first slots, which no row sees, if more than this share of all are such; return the rest of `seen`."""
    first = int(seen.any(0).int().argmax())
    if first <= idle * seen.shape[1]:
        return seen
    for layer in cache.layers:
        if getattr(layer, "keys", None) is None:
            continue
        if isinstance(layer, DynamicSlidingWindowLayer):
            layer.cumulative_length -= first
        cut = max(0, layer.keys.shape[2] - (seen.shape[1] - first))
        layer.keys, layer.values = layer.keys[:, :, cut:], layer.values[:, :, cut:]
    return seen[:, first:]


def _gathered(held: Tensor, order: Tensor) -> Tensor:
    """Return [R, H, N, D], the slots of keys or values in each row's order [R, N]."""
    return held.gather(2, order[:, None, :, None].expand(-1, held.shape[1], -1, held.shape[-1]))
