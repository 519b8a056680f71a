"""The micro decoder: a few layers of the base's own class over [c_1 .. c_K, e(y_1), .., e(y_j)].

c_k are the base's states at one macro step, y the tokens of the next segment. It is an instance of the base's own body
with few layers and no embeddings, so that masks, rotary positions, norms and caches are the family's own.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, DynamicCache, PreTrainedModel

from model.configuration import MicroStepConfig
from model.errors import ModelError
from model.forward import body


def layers_of(inner: nn.Module) -> nn.ModuleList:
    """The transformer layers of a body.

    Raises:
        ModelError: it has none that can be told.
    """
    found = [module for module in inner.children() if isinstance(module, nn.ModuleList)]  # mostly they stand here
    if not found:
        found = [module for module in inner.modules() if isinstance(module, nn.ModuleList)]
    if not found:
        raise ModelError("this family's layers cannot be found; it cannot be the base of a micro_step model")
    return max(found, key=len)


class MicroDecoder(nn.Module):
    """A small causal transformer inside a segment."""

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__()
        self.context = len(config.context_layers)
        self.layers = _few_layers(config)

    def forward(
        self,
        context: Tensor | None,
        e: Tensor,
        cache: DynamicCache | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Read tokens of Q segments.

        Args:
            context: [Q, K, d] the base's states at the macro step before; None if `cache` holds them.
            e: [Q, n, d] embeddings of the segment's tokens, those in `cache` left out.
            cache: of the tokens before, grown in place by what is read.
            output_attentions: also return the attention of each layer; needs eager attention.

        Returns:
            [Q, n, d] states, after the final norm: the j-th predicts token j + 1. And per layer the attention
            [Q, H, K + n, K + n], if asked for.
        """
        fed = e if context is None else torch.cat([context.to(e.dtype), e], dim=1)
        before = 0 if cache is None else int(cache.get_seq_length())
        position = torch.arange(before, before + fed.shape[1], device=fed.device)[None]
        options: dict[str, Any] = {"output_attentions": True} if output_attentions else {}
        out = self.layers(
            inputs_embeds=fed,
            # given, although it hides nothing: without it, some families guess packed rows from the positions
            attention_mask=torch.ones(fed.shape[0], before + fed.shape[1], dtype=torch.long, device=fed.device),
            position_ids=position.expand(fed.shape[0], -1),
            past_key_values=cache,
            use_cache=cache is not None,
            **options,
        )
        return out.last_hidden_state[:, -e.shape[1] :], (out.attentions if output_attentions else None)

    def new_cache(self) -> DynamicCache:
        """An empty cache; it never holds more than K + M - 1 slots."""
        return DynamicCache(config=self.layers.config)

    def copy_last_layers(self, base: PreTrainedModel) -> None:
        """Start as the base's last layers and its final norm; what stands before them (positions) starts at zero."""
        theirs, mine = body(base), self.layers
        source, target = layers_of(theirs), layers_of(mine)
        with torch.no_grad():
            for parameter in mine.parameters():
                parameter.zero_()
            for new, old in zip(target, list(source)[-len(target) :], strict=True):
                new.load_state_dict(old.state_dict())
            for name, module in mine.named_children():
                if module is not target and not isinstance(module, nn.Embedding) and list(module.parameters()):
                    module.load_state_dict(getattr(theirs, name).state_dict())


def _few_layers(config: MicroStepConfig) -> PreTrainedModel:
    """The base's body with n layers, no embeddings, and positions for K + M - 1 slots."""
    few: Any = copy.deepcopy(config.base_config.get_text_config())
    slots = len(config.context_layers) + config.max_segment_length - 1
    n = config.micro_layers
    if getattr(few, "layer_types", None):
        types = list(few.layer_types)
        few.layer_types = (types * n)[-n:] if len(types) < n else types[-n:]
    few.num_hidden_layers = n
    few.vocab_size, few.pad_token_id = 1, None
    if not hasattr(few, "rope_parameters"):  # learned positions: no more of them than slots
        few.max_position_embeddings = slots
    if getattr(few, "sliding_window", None):
        few.sliding_window = max(few.sliding_window, slots + 1)
    few.use_cache = True
    few._attn_implementation = config.base_config._attn_implementation
    layers: PreTrainedModel = AutoModel.from_config(few)
    layers.set_input_embeddings(None)  # it reads embeddings, and would hold an unused one
    return layers
