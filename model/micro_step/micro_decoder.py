"""The micro decoder: a few layers of the base's own class over [c_1 .. c_K, e(y_1), .., e(y_j)].

c_k are the base's states at one macro step, y the tokens of the next segment. It is an instance of the base's own body
with few layers and no embeddings, so masks, rotary positions, norms and caches are the family's own.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.kv_cache import RowsCache
from model.causal_lm.parts import decoder, family_of, layers_of
from model.causal_lm.past import past_name, takes_positions
from model.causal_lm.probe import FAULTS
from model.errors import ModelError, first_line
from model.micro_step.configuration import MicroStepConfig


class MicroDecoder(nn.Module):
    """A small causal transformer inside a segment."""

    def __init__(self, config: MicroStepConfig) -> None:
        super().__init__()
        self.context = len(config.context_layers) + config.micro_window
        self.layers = _shallow_body(config)
        self._causal_masks: bool | None = None  # unknown until the first step of training

    def forward(
        self,
        context: Tensor | None,
        embeds: Tensor,
        cache: RowsCache | None = None,
        output_attentions: bool = False,
    ) -> tuple[Tensor, tuple[Tensor, ...] | None]:
        """Read tokens of Q segments.

        Args:
            context: [Q, K, d] the base's states at the macro step before; None if `cache` holds them. With
                `micro_window` w, the embeddings of w tokens before the segment stand before them: [Q, w + K, d].
            embeds: [Q, n, d] embeddings of the segment's tokens, without those in `cache`.
            cache: cache of the tokens before; it grows in place.
            output_attentions: also return the attention of each layer; needs eager attention.

        Returns:
            [Q, n, d] states, after the final norm: the j-th predicts token j + 1. And per layer the attention
            [Q, H, K + n, K + n], if requested.

        Raises:
            ModelError: the caller gives no window, so that it cannot run a model that was trained with one.
        """
        if context is not None and context.shape[1] != self.context:
            raise ModelError("a model with micro_window can be trained and scored only: it cannot generate yet")
        fed = embeds if context is None else torch.cat([context.to(embeds.dtype), embeds], dim=1)
        before = 0 if cache is None else int(cache.read)
        position = torch.arange(before, before + fed.shape[1], device=fed.device)[None]
        options: dict[str, Any] = {"output_attentions": True} if output_attentions else {}
        if cache is not None:
            cache.read = before + fed.shape[1]
            options[past_name(self.layers) or "past_key_values"] = cache
        if takes_positions(self.layers):
            options["position_ids"] = position.expand(fed.shape[0], -1)
        # given although it hides nothing: without it, some families guess packed rows from the positions
        mask = torch.ones(fed.shape[0], before + fed.shape[1], dtype=torch.long, device=fed.device)
        if self.training and cache is None and not output_attentions and self._takes_causal_masks(fed):
            mask = _causal(fed)
        out = self.layers(inputs_embeds=fed, attention_mask=mask, use_cache=cache is not None, **options)
        return out.last_hidden_state[:, -embeds.shape[1] :], (out.attentions if output_attentions else None)

    @torch.no_grad()
    def _takes_causal_masks(self, fed: Tensor) -> bool:
        """Return whether the layers take [Q, 1, N, N] masks; tried once, on one row.

        transformers asks a mask of [Q, N] whether it hides anything, for which a GPU's host has to wait at every step.
        """
        if self._causal_masks is None:
            row = fed[:1].detach()
            options: dict[str, Any] = {"use_cache": False}
            if takes_positions(self.layers):
                options["position_ids"] = torch.arange(row.shape[1], device=row.device)[None]
            plain = self.layers(inputs_embeds=row, attention_mask=torch.ones_like(row[..., 0]).long(), **options)
            try:
                masked = self.layers(inputs_embeds=row, attention_mask=_causal(row), **options)
                close = torch.allclose(masked.last_hidden_state, plain.last_hidden_state, rtol=1e-2, atol=1e-2)
                self._causal_masks = close
            except FAULTS:
                self._causal_masks = False
        return self._causal_masks

    def new_cache(self) -> RowsCache:
        """Return an empty cache; it never holds more than K + M - 1 slots."""
        return RowsCache(config=self.layers.config)

    def copy_last_layers(self, base: PreTrainedModel) -> None:
        """Start as the base's last layers and its final norm. Modules before them (positions) start at zero."""
        theirs, mine = decoder(base), self.layers
        source, target = layers_of(theirs), layers_of(mine)
        known, inside = dict(theirs.named_parameters()), {id(parameter) for parameter in target.parameters()}
        tables = {id(m.weight) for m in mine.modules() if isinstance(m, nn.Embedding)}
        try:
            with torch.no_grad():
                for parameter in mine.parameters():
                    parameter.zero_()
                for new, old in zip(target, list(source)[-len(target) :], strict=True):
                    new.load_state_dict(old.state_dict())
                for name, parameter in mine.named_parameters():
                    if id(parameter) not in inside | tables:
                        parameter.copy_(known[name])
        except (RuntimeError, KeyError, AttributeError, ValueError) as error:
            raise ModelError(
                f"{family_of(base)} cannot be the base of a micro_step model: its layers are not copies of each other"
            ) from error


def _causal(fed: Tensor) -> Tensor:
    """Return [Q, 1, N, N] bool, True where a slot of Q rows sees another one."""
    seen = torch.ones(fed.shape[1], fed.shape[1], dtype=torch.bool, device=fed.device).tril()
    return seen.expand(fed.shape[0], 1, -1, -1)


_PER_LAYER = (
    "layer_types",
    "layers_block_type",
    "block_types",
    "mlp_layer_types",
    "intermediate_size",
    "no_rope_layers",
)


def _shallow_body(config: MicroStepConfig) -> PreTrainedModel:
    """Return the base's body with n layers, no embeddings, and positions for K + M - 1 slots."""
    from transformers import AutoModel  # not above: see micro_step/auto_classes.py

    small: Any = copy.deepcopy(config.base_config.get_text_config())
    slots = len(config.context_layers) + config.micro_window + config.max_segment_length - 1
    try:
        _keep_last_layers(small, config.micro_layers)
        small.vocab_size, small.pad_token_id = 1, None
        if not hasattr(small, "rope_parameters"):  # learned positions: only as many as there are slots
            small.max_position_embeddings = slots
        if getattr(small, "sliding_window", None):
            small.sliding_window = max(small.sliding_window, slots + 1)
        small.use_cache = True
        small._attn_implementation = config.base_config._attn_implementation
        layers: PreTrainedModel = AutoModel.from_config(small)
        layers.set_input_embeddings(None)  # it reads embeddings, so its own would be unused
        if not config.micro_norm:
            layers.get_submodule("norm")  # fails where a family has its last norm elsewhere
            layers.norm = nn.Identity()
    except FAULTS as error:
        raise ModelError(
            f"{small.model_type} cannot be the base of a micro_step model: no shallow copy of it can be built"
            f" ({first_line(error)})"
        ) from error
    return layers


def _keep_last_layers(config: Any, n: int) -> None:
    """Reduce a configuration to its last n layers: keep the last n entries of each list with one entry per layer."""
    whole = int(config.num_hidden_layers)
    lists = {name: list(value) for name in _PER_LAYER if isinstance(value := getattr(config, name, None), list | tuple)}
    kinds = lists.get("layer_types") or lists.get("layers_block_type") or []
    config.num_hidden_layers = n
    for name, value in lists.items():
        if len(value) == whole:
            try:
                setattr(config, name, (value * n)[-n:])
            except AttributeError:  # derived from the two below, or the same in all layers
                continue
    last = ["linear" not in kind for kind in (kinds * n)[-n:]]  # True for layers with attention
    if getattr(config, "attn_layer_indices", None) is not None:
        config.attn_layer_indices = [i for i, attends in enumerate(last) if attends]
    if getattr(config, "block_types", None) is not None:
        config.block_types = ["attention" if attends else "recurrent" for attends in last]
