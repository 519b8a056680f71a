"""Estimate how much memory a run will need, before it starts.

The estimate is on the safe side of one forward pass without gradients and without a KV cache, layer after layer,
followed by the LM head in chunks of positions, as `scoring/token_scores.py` runs them. It is computed from shapes, not
measured; tests hold it between 1 and 2.5 times what tiny models really allocate. It leaves out what the process takes
before: Python, torch and the work space of its kernels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from model.causal_lm.device_memory import available_memory
from model.errors import TooLarge

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from model.hub.loading import LoadedModel

_WIDTHS = {"float32": 4, "bfloat16": 2, "float16": 2, "float64": 8}
_SPARE = 0.9  # share of the free memory that a run may use


@dataclass(frozen=True)
class MemoryEstimate:
    """The bytes that a run needs, all at the same time in the worst case."""

    weights: int  # resident as long as the model is loaded
    activations: int  # peak of one forward pass through the layers
    logits_chunk: int  # the logits of one chunk of positions, with work space
    attention: int  # attention masks, and attention maps that are kept or computed whole

    @property
    def run(self) -> int:
        """Bytes on top of the weights: the layers and the LM head do not run at the same time."""
        return max(self.activations + self.attention, self.logits_chunk)

    @property
    def total(self) -> int:
        return self.weights + self.run


@dataclass(frozen=True)
class _Shape:
    """The sizes of a model that decide how much memory it needs."""

    vocab: int
    hidden: int
    inner: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    windowed: bool  # True if some layers see only a window, so masks are built in full
    eager: bool  # True if attention weights are computed as whole [N, N] arrays
    tied: bool
    parameters: int

    @classmethod
    def of(cls, config: Any) -> _Shape:
        """Read the sizes from a transformers config or the dict in a config.json; options have several names."""
        from model.causal_lm.parts import option

        def get(*names: str, default: Any = None) -> Any:
            for name in names:
                value = config.get(name) if isinstance(config, Mapping) else option(config, name)
                if value is not None:
                    return (
                        max(value) if isinstance(value, list | tuple) else value
                    )  # one value per layer in some families
            return default

        nested = get("text_config")
        if nested is not None:
            return cls.of(nested)
        hidden, layers = int(get("hidden_size", "n_embd", "d_model")), int(get("num_hidden_layers", "n_layer"))
        heads = int(get("num_attention_heads", "n_head", default=1))
        kv_heads = int(get("num_key_value_heads", default=heads))
        head_dim = int(get("head_dim", default=hidden // heads))
        inner = int(get("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden))
        vocab, tied = int(get("vocab_size")), bool(get("tie_word_embeddings", default=False))
        block = hidden * head_dim * (2 * heads + 2 * kv_heads) + 3 * hidden * inner
        return cls(
            vocab,
            hidden,
            inner,
            layers,
            heads,
            kv_heads,
            head_dim,
            windowed=bool(get("sliding_window")) and get("use_sliding_window", default=True),
            eager=get("_attn_implementation") == "eager",
            tied=tied,
            parameters=layers * block + vocab * hidden * (1 if tied else 2),
        )


def estimate_memory(
    model: LoadedModel | Any,
    n_tokens: int,
    batch: int = 1,
    chunk: int = 256,
    attention_maps: int = 0,
    dtype: str | torch.dtype = "float32",
    parameters: int | None = None,
) -> MemoryEstimate:
    """Estimate the memory that scoring `batch` texts of `n_tokens` tokens needs.

    With N tokens, batch B, hidden size d, MLP size I, h heads of size D, vocabulary V and e bytes per number:
    activations B N (6 d + 4 I + 6 h D) e + 8 B N d (norms run in float32); logits 3 chunk V float32 (the logits, one
    copy, one temporary); masks N^2 (e + 3) for families with sliding windows; whole attention 3 B h N^2 float32 under
    the eager implementation; and B N^2 float32 for each attention map that is kept.

    Args:
        model: a LoadedModel, a transformers config, or the dict in a config.json.
        n_tokens: tokens in the longest text.
        batch: number of texts in one pass.
        chunk: positions per call of the LM head.
        attention_maps: number of maps ([N, N] of one layer and head) that are kept; if any, every layer computes them.
        dtype: dtype of the weights and activations; a LoadedModel has its own.
        parameters: number of weights; a LoadedModel has its own, for a config a formula counts them.
    """
    from model.causal_lm.forward import text_config
    from model.hub.loading import LoadedModel

    weights = None
    config = model
    if isinstance(model, LoadedModel):
        config, dtype = text_config(model.model), model.facts.dtype
        weights = int(model.model.get_memory_footprint(return_buffers=True))
    width = _WIDTHS.get(str(dtype).removeprefix("torch."), 4)
    shape = _Shape.of(config)
    positions = batch * n_tokens
    attention_width = shape.heads * shape.head_dim
    whole = 3 * batch * shape.heads * n_tokens**2 * 4 if shape.eager or attention_maps else 0
    masks = n_tokens**2 * (width + 3) if shape.windowed or shape.eager else 0
    return MemoryEstimate(
        weights=weights if weights is not None else (parameters or shape.parameters) * width,
        activations=positions * ((6 * shape.hidden + 4 * shape.inner + 6 * attention_width) * width + 8 * shape.hidden),
        logits_chunk=3 * min(chunk, max(positions, 1)) * shape.vocab * 4 + positions * shape.hidden * width,
        attention=whole + masks + attention_maps * batch * n_tokens**2 * 4,
    )


def slot_bytes(model: PreTrainedModel) -> int:
    """Return the bytes of keys and values that one position takes in a model's cache."""
    from model.causal_lm.forward import text_config

    shape = _Shape.of(text_config(model))
    return int(2 * shape.layers * shape.kv_heads * shape.head_dim * model.dtype.itemsize)


def require_memory(cost: MemoryEstimate, device: torch.device | str, loaded: bool = True) -> None:
    needed = cost.run if loaded else cost.total
    available = available_memory(device)
    if needed > available * _SPARE:
        largest = max(
            ("layers", cost.activations), ("logits", cost.logits_chunk), ("attention", cost.attention),
            key=lambda part: part[1],
        )  # fmt: skip
        raise TooLarge(
            f"this needs about {_gigabytes(needed)} of memory, most of it for the {largest[0]}"
            f" ({_gigabytes(largest[1])}), but only {_gigabytes(available)} are free on {device}; "
            "shorten the text, keep fewer attention maps, or choose a smaller dtype or model"
        )


def tokens_that_fit(
    model: LoadedModel | Any,
    device: torch.device | str,
    batch: int = 1,
    chunk: int = 256,
    attention_maps: int = 0,
    dtype: str | torch.dtype = "float32",
    loaded: bool = True,
) -> int:
    """Return the most tokens for which `require_memory` passes (0 if none). Ignores the context length."""
    available = available_memory(device) * _SPARE

    def fits(n: int) -> bool:
        cost = estimate_memory(model, n, batch, chunk, attention_maps, dtype)
        return (cost.run if loaded else cost.total) <= available

    low, high = 0, 1
    while fits(high) and high < 1 << 40:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 5e6 else f"{size / 1e6:.2f} MB"
