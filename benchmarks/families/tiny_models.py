"""Tiny random models of the families that transformers knows, built from nothing but their configuration classes.

Every size is cut by the name of its field, every list that has an entry a layer keeps each kind of layer that it names.
A few families need more than that: `MORE` says what.
"""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

VOCABULARY = 400
FAMILIES: tuple[str, ...] = tuple(sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
_KINDS = 4  # of layers, at most, that a list of one entry a layer names
DECODER = "is_decoder"  # the option that makes an encoder's class read from left to right
SPREAD = 8.0  # times the usual weights, so that predictions differ from token to token

_BY_SIZE: dict[int, str] = {
    VOCABULARY: "vocab_size vocab_size_per_layer_input unpadded_vocab_size",
    256: "max_position_embeddings n_positions max_seq_len model_max_length n_ctx max_target_positions",
    64: "intermediate_size ffn_dim n_inner d_ff encoder_ffn_dim decoder_ffn_dim ffn_hidden_size dff dim_ff d_inner "
    "index_topk dense_intermediate_size intermediate_size_mlp shared_intermediate_size feed_forward_size "
    "expert_ffn_hidden_size",
    32: "hidden_size n_embd d_model dim embedding_size emb_dim attention_hidden_size lru_width embedding_dim "
    "mamba_d_ssm input_embedding_size output_embedding_size max_source_positions attention_chunk_size",
    16: "moe_intermediate_size shared_expert_intermediate_size shared_experts_intermediate_size word_embed_proj_dim "
    "moe_shared_expert_intermediate_size router_hidden_size",
    8: "head_dim v_head_dim qk_nope_head_dim mamba_d_head mamba_d_state mamba_headdim state_size linear_key_head_dim "
    "linear_value_head_dim q_lora_rank kv_lora_rank dim_head index_head_dim mamba_n_heads n_mamba_heads swa_head_dim "
    "sliding_window hidden_size_per_layer_input kv_channels attention_window_size ssm_state_size mamba_head_dim "
    "attention_head_size d_head attention_head_dim o_lora_rank window_size mamba_num_heads local_attention d_rel "
    "sliding_window_size mamba_chunk_size adapter_rank linear_head_dim v_head_dim_swa time_step_rank mamba_dt_rank",
    4: "num_attention_heads n_head n_heads num_heads encoder_attention_heads decoder_attention_heads num_experts "
    "num_encoder_attention_heads num_decoder_attention_heads qk_rope_head_dim n_routed_experts num_local_experts "
    "index_n_heads linear_num_value_heads moe_num_experts swa_num_attention_heads rotary_dim attention_heads "
    "laurel_rank linear_num_heads",
    2: "num_hidden_layers n_layer n_layers num_layers encoder_layers decoder_layers num_encoder_layers num_blocks "
    "num_decoder_layers num_key_value_heads num_experts_per_tok linear_num_key_heads num_experts_per_token moe_topk "
    "moe_k swa_num_key_value_heads altup_num_inputs num_kv_heads num_query_groups",
    1: "n_group topk_group first_k_dense_replace mamba_n_groups n_groups mamba_ngroups num_expert_group "
    "n_shared_experts num_shared_experts moe_num_shared_experts num_dense_layers type_vocab_size",
    0: "num_kv_shared_layers num_nextn_predict_layers pad_token_id",
}  # fmt: skip
_SIZES = {name: size for size, names in _BY_SIZE.items() for name in names.split()}
_IDS = {"bos_token_id": 1, "eos_token_id": 2}

_LATENT = {"num_key_value_heads": 4, "head_dim": 4}  # keys are made of a low rank, one for each head
_ROTARY = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
_INDEXED = {"indexer_n_heads": 4, "indexer_kv_heads": 1, "indexer_head_dim": 8, "indexer_budget": 8,
            "indexer_compress_ratio": 4}  # fmt: skip

MORE: dict[str, dict[str, Any]] = {
    "mamba2": {"num_heads": 8},
    "falcon_h1": {"mamba_n_heads": 4, "lm_head_multiplier": 0.5},
    "reformer": {"is_decoder": True, "axial_pos_shape": [16, 16], "axial_pos_embds_dim": [16, 16]},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "bamba": {"attn_layer_indices": [1]},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"]},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "cohere_compass_text": {
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": dict.fromkeys(("sliding_attention", "full_attention"), _ROTARY),
    },
    "qwen4_exp_text": _INDEXED,
    "qwen4_exp": {"text_config": _INDEXED},
    "dots3_note": {"vision_config": {"adapter_in_dim": 32, "adapter_out_dim": 32}},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["mamba", "hybrid"] * 2,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "hybrid", "mamba"],
        "num_key_value_heads": 4,
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "hybrid_layer_ids": [1],
    },
    "xlm": {"causal": True},
    "zaya": {"num_experts_per_tok": 1},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
}


def tiny_options(config: Any) -> dict[str, Any]:
    """What makes a configuration of the same class tiny."""
    nested = {name: part for name in config.sub_configs if (part := getattr(config, name, None)) is not None}
    values = {name: value for name, value in config.to_dict().items() if name not in nested}
    options: dict[str, Any] = {name: size for name, size in _SIZES.items() if name in values and _is_size(values[name])}
    options |= {name: value for name, value in _IDS.items() if name in values}
    layers = getattr(config, "num_hidden_layers", None)
    listed = {
        name: value
        for name, value in values.items()
        if isinstance(value, list) and len(value) == layers and len(set(map(str, value))) <= _KINDS
    }
    if layers and listed:
        layers_kept = max(2, *(len(set(map(str, value))) for value in listed.values()))
        own = next((name for name in _LAYERS if name in options), "num_hidden_layers")
        options[own] = layers_kept
        options |= {name: _every_kind(value, layers_kept) for name, value in listed.items()}
    if "kv_lora_rank" in values:
        options |= {name: value for name, value in _LATENT.items() if name in values}
    if DECODER in values and not values[DECODER] and not config.is_encoder_decoder:
        options[DECODER] = True
    return options | {name: tiny_options(part) for name, part in nested.items()}


_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


def _is_size(value: Any) -> bool:
    return value is None or (isinstance(value, int) and not isinstance(value, bool))


def _every_kind(values: list[Any], most: int) -> list[Any]:
    kinds = list(dict.fromkeys(values))
    return [kinds[i % len(kinds)] for i in range(most)]


def tiny_config(family: str) -> Any:
    """The configuration of a family's tiny model."""
    kind = CONFIG_MAPPING[family]
    return kind(**_merged(tiny_options(kind()), MORE.get(family, {})))


def _merged(options: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    out = dict(options)
    for name, value in more.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = _merged(out[name], value) if both else value
    return out


def tiny_family(family: str, seed: int = 0) -> PreTrainedModel:
    """A tiny model in float32 with random weights, ready to be scored."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(tiny_config(family)).float()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.mul_(SPREAD)
    return model.eval()
