"""The parts of a micro_step model, and the base that runs over macro steps: shared by all other files.

`MicroStepForCausalLM` in modeling.py adds the forward pass, losses, saving and generation.
"""

from importlib import import_module
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.forward import body
from model.causal_lm.partial_adapter import make_partial
from model.causal_lm.past import past_name, takes_positions
from model.errors import ModelError
from model.micro_step.configuration import MicroStepConfig
from model.micro_step.mergers import build_merger
from model.micro_step.micro_decoder import MicroDecoder
from model.micro_step.outputs import Macro, layer_outputs

Group = Literal["new", "base", "adapter"]


def move_weights(module: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Move a module to a device and cast its weights, but not its buffers: rotary frequencies need float32."""
    module.to(device=device)
    for weight in module.parameters():
        weight.data = weight.data.to(dtype)


class MicroStepPreTrainedModel(PreTrainedModel):  # type: ignore[misc]
    """A base, the merger before it, and the micro step decoder and stop head after it."""

    config_class = MicroStepConfig
    base_model_prefix = "micro_step"  # there is no attribute of that name, since there is no body apart from the head
    main_input_name = "input_ids"
    _supports_sdpa = True
    supports_gradient_checkpointing = True

    def __init__(self, config: MicroStepConfig, base: PreTrainedModel | None = None) -> None:
        from transformers import AutoModelForCausalLM  # not above: see micro_step/auto_classes.py

        super().__init__(config)
        self.base = AutoModelForCausalLM.from_config(config.base_config) if base is None else base
        config.base_config._attn_implementation = self.base.config._attn_implementation
        if "flash" in str(self.base.config._attn_implementation):
            raise ModelError(
                "flash attention guesses packed rows from the positions, which are not consecutive between segments;"
                " load the base with attn_implementation='sdpa'"
            )
        self.merger = build_merger(config)
        self.micro = MicroDecoder(config)
        self.stop = _stop_head(config.hidden_size, config.stop_layers) if config.stop_head else None
        self.post_init()

    @property
    def reads_ends(self) -> bool:
        """True if the micro decoder reads a segment's last token to say that the segment ends there."""
        return self.stop is not None and self.config.stop_state == "after"

    def add_adapter_to_base(self, **lora: Any) -> None:
        """Put a fresh LoRA adapter (fields of peft's LoraConfig) on the base."""
        peft = import_module("peft")  # not named by an import, which transformers would ask for in a model's own code
        self.base.add_adapter(peft.LoraConfig(**lora))
        if not self.config.prompt_adapter:
            make_partial(self.base)
        self.config.adapter = lora

    def merge_adapter(self) -> None:
        """Fold the adapter into the base's weights.

        Raises:
            ModelError: the model reads its prompts without it (`prompt_adapter`).
        """
        if not self.config.prompt_adapter:
            raise ModelError(
                "this model reads its prompts without its adapter (prompt_adapter is false), so the adapter cannot be"
                " folded into the base's weights"
            )
        tuners = import_module("peft.tuners.tuners_utils")
        for name, module in list(self.base.named_modules()):
            if isinstance(module, tuners.BaseTunerLayer):
                module.merge()
                parent, _, last = name.rpartition(".")
                setattr(self.base.get_submodule(parent), last, module.get_base_layer())
        self.base._hf_peft_config_loaded = False
        self.config.adapter = None

    def stop_logits(self, states: Tensor) -> Tensor:
        """Return [...] logits, in float32, that a segment ends, from states [..., d]; the model has a stop head."""
        assert self.stop is not None
        logits: Tensor = self.stop(states.to(next(self.stop.parameters()).dtype))
        return logits[..., 0].float()

    def stop_probability(self, after: Tensor, before: Tensor) -> Tensor | None:
        """Return [R] the probability that a segment ends with its last token; None without a stop head.

        Args:
            after: [R, d] states of the micro decoder that has read the token.
            before: [R, d] states that predicted the token.
        """
        if self.stop is None:
            return None
        return self.stop_logits(after if self.config.stop_state == "after" else before).sigmoid()

    def _init_weights(self, module: nn.Module) -> None:
        """Do nothing: every module initialises itself when it is built."""

    def get_input_embeddings(self) -> nn.Module:
        return cast(nn.Module, self.base.get_input_embeddings())

    def get_output_embeddings(self) -> nn.Module:
        return cast(nn.Module, self.base.get_output_embeddings())

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.base.set_input_embeddings(value)

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.base.set_output_embeddings(value)

    def trainable(self, *groups: Group) -> list[nn.Parameter]:
        """Let gradients reach exactly these groups, and return their parameters.

        `new`: merger, micro decoder, stop head. `adapter`: the LoRA weights on the base. `base`: all others.
        """
        chosen = []
        for name, parameter in self.named_parameters():
            group = "adapter" if "lora_" in name else "base" if name.startswith("base.") else "new"
            parameter.requires_grad_(group in groups)
            if parameter.requires_grad:
                chosen.append(parameter)
        return chosen

    def macro(
        self,
        inputs_embeds: Tensor,
        attention_mask: Tensor,
        position_ids: Tensor,
        cache: Any = None,
        output_attentions: bool = False,
    ) -> Macro:
        """Run the whole base over macro embeddings [B, S, d], at the tokens' positions [B, S]."""
        inner = body(self.base)
        options: dict[str, Any] = {"output_attentions": True} if output_attentions else {}
        attention_mask = attention_mask.long()
        if cache is not None:
            name = past_name(self.base) or "past_key_values"
            options[name] = cache
            if name != "past_key_values":  # memory of recurrent layers, which read no token again
                attention_mask = attention_mask[:, -inputs_embeds.shape[1] :]
        if takes_positions(inner):
            options["position_ids"] = position_ids
        with layer_outputs(inner, self.config.context_layers[:-1]) as states:
            out = inner(
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                use_cache=cache is not None,
                **options,
            )
        last = out.last_hidden_state
        context = torch.stack([*states, last], dim=2)
        return Macro(last, context, out.attentions if output_attentions else None)


def _stop_head(d: int, layers: int) -> nn.Module:
    if layers == 1:
        return nn.Linear(d, 1)
    inner = [module for _ in range(layers - 1) for module in (nn.Linear(d, d), nn.SiLU())]
    return nn.Sequential(*inner, nn.Linear(d, 1))
