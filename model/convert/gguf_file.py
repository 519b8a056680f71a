"""Write a base as a GGUF file, for llama.cpp: the families llama, qwen2 and qwen3 with a byte-level tokenizer.

Matrices are stored in the chosen precision, vectors in float32, as llama.cpp's own converter does. What such a file
cannot say of a model is refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gguf
import numpy as np
import torch
from torch import Tensor

from model.convert.card import write_card
from model.convert.check import Check
from model.convert.source import SourceModel, rounded
from model.errors import ModelError
from model.hub.gguf import SINGLE_DIGITS_RULE

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_ARCHITECTURES = {
    "llama": gguf.MODEL_ARCH.LLAMA,
    "qwen2": gguf.MODEL_ARCH.QWEN2,
    "qwen3": gguf.MODEL_ARCH.QWEN3,
}
_TYPES = {
    torch.float32: ("F32", gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    torch.float16: ("F16", gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    torch.bfloat16: ("BF16", gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
}
_ALIKE = ("fingerprint", "token ids of a text", "logits", "greedy tokens", "chat template")  # what a file can hold


def write_gguf(source: SourceModel, folder: Path, name: str) -> list[Check]:
    """The base alone, without merger and micro decoder."""
    base = rounded(source).base
    precision, kind, file_type = _TYPES[source.dtype]
    _check_config(source)
    path = folder / f"{name}-{precision}.gguf"
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[_ARCHITECTURES[base.config.model_type]])
    writer.add_name(source.facts.name)
    if source.facts.licence:
        writer.add_license(source.facts.licence)
    writer.add_file_type(file_type)
    _add_config(writer, base.config)
    _add_tokenizer(writer, source, int(base.config.vocab_size))
    for tensor, weight in _tensors(base):
        stored = kind if weight.ndim > 1 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(tensor, gguf.quants.quantize(weight, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_card(
        source, folder, "A base as a GGUF file.", f"```\nllama-cli --model {path.name} --prompt 'Once upon a time'\n```"
    )
    return [source.expected(folder, base, only=_ALIKE)]


def _check_config(source: SourceModel) -> None:
    """Raise ModelError for a model that such a file cannot hold."""
    name, config = source.facts.name, source.base.config
    if config.model_type not in _ARCHITECTURES:
        raise ModelError(
            f"{name} is of family {config.model_type}; a GGUF file is only written for {', '.join(_ARCHITECTURES)}:"
            " use llama.cpp's own converter on a copy of the kind whole or vllm"
        )
    rope = config.rope_parameters.get("rope_type", "default")
    if rope != "default":
        raise ModelError(f"{name} scales its rotary positions ({rope}), which is not written into a GGUF file here")
    if config.model_type == "llama" and (config.attention_bias or config.mlp_bias):
        raise ModelError(f"{name} has biases in its layers, which is not written into a GGUF file here")
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        raise ModelError(f"{name} has sliding windows, which is not written into a GGUF file here")


def _add_config(writer: gguf.GGUFWriter, config: Any) -> None:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)


def _add_tokenizer(writer: gguf.GGUFWriter, source: SourceModel, rows: int) -> None:
    """Add vocabulary, merges and special tokens; rows of the embeddings without a token get a name of their own."""
    tokenizer = source.tokenizer
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    words = {i: word for word, i in tokenizer.get_vocab().items() if i < rows}
    added = {i: token.special for i, token in tokenizer.added_tokens_decoder.items()}
    kind = gguf.TokenType
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_pre_tokenizer(source, state))
    writer.add_token_list([words.get(i, f"[PAD{i}]") for i in range(rows)])
    writer.add_token_types(
        [
            kind.UNUSED if i not in words
            else kind.NORMAL if i not in added
            else kind.CONTROL if added[i]
            else kind.USER_DEFINED
            for i in range(rows)
        ]
    )  # fmt: skip
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in state["model"]["merges"]])
    for add, special in (
        (writer.add_bos_token_id, tokenizer.bos_token_id),
        (writer.add_eos_token_id, tokenizer.eos_token_id),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if special is not None:
            add(special)
    writer.add_add_bos_token(_begins_with_bos(tokenizer))
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _begins_with_bos(tokenizer: PreTrainedTokenizerBase) -> bool:
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer("a")["input_ids"][:1] == [bos]


def _pre_tokenizer(source: SourceModel, state: dict[str, Any]) -> str:
    """Return llama.cpp's name of the rule that cuts a text into words."""
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    normal = (state.get("normalizer") or {"type": "NFC"})["type"] == "NFC"  # qwen2's, which llama.cpp leaves out
    if state["model"]["type"] == "BPE" and not state["model"].get("byte_fallback") and normal:
        rule = state.get("pre_tokenizer") or {}
        steps = rule.get("pretokenizers", [rule])
        kinds = [step.get("type") for step in steps]
        if kinds == ["ByteLevel"] and steps[0]["use_regex"]:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and steps[0]["individual_digits"] and steps[1]["use_regex"]:
            return SINGLE_DIGITS_RULE
        if kinds == ["Split", "ByteLevel"]:
            for known in ("llama-bpe", "qwen2"):
                if steps[0]["pattern"].get("Regex") == GGUF_PRE_TOKENIZER_SPLITS[known]:
                    return known
    raise ModelError(
        f"the tokenizer of {source.facts.name} has no name in llama.cpp that is known here; only byte-level ones that"
        " cut words as gpt-2, llama 3, qwen2 or smollm do are written into a GGUF file"
    )


def _tensors(base: Any) -> list[tuple[str, np.ndarray]]:
    """Return the tensors under llama.cpp's names; a tied head is not repeated."""
    config = base.config
    names = gguf.get_tensor_name_map(_ARCHITECTURES[config.model_type], config.num_hidden_layers)
    tied = base.get_output_embeddings().weight is base.get_input_embeddings().weight
    found = []
    for name, weight in base.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        if config.model_type == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            weight = _interleaved(weight, heads)
        known = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if known is None:
            raise ModelError(f"{name} has no name in a GGUF file")
        found.append((known, weight.numpy()))
    return found


def _interleaved(weight: Tensor, heads: int) -> Tensor:
    """Return the rows of each head with its rotary pairs side by side, as llama.cpp wants llama's."""
    half = weight.shape[0] // heads // 2
    return weight.view(heads, 2, half, -1).transpose(1, 2).reshape(weight.shape)
