"""Tiny real models for tests: real transformers classes with random weights, and tokenizers trained here.

It downloads nothing and knows nothing of the project. A forward pass takes a millisecond,
while every feature that makes a family special is on: grouped key/value heads, sliding windows short enough
to bite within 16 tokens, soft-capped and scaled logits, tied and untied heads, biases.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "mistral", "phi", "cohere", "granite")
"""Every family that `tiny_model` builds; the names are transformers' `config.model_type`."""

TokenizerKind = Literal["bytelevel", "sentencepiece"]

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

CORPUS = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on.",
    "She sold 48 clips in April; in May she sold half as many: 48 / 2 = 24.",
    "def fibonacci(n):\n    if n < 2:\n        return n\n    return fibonacci(n - 1) + fibonacci(n - 2)\n",
    "Where is a language model unsure, and what did fine-tuning change?",
    "Größe, naïveté, café: déjà vu. Привет, мир! 你好，世界。 こんにちは。 שלום. مرحبا. 🙂👩‍👩‍👧",
    '{"prompt": "What is 12 * 7?", "answer": 84, "steps": ["10 * 7 = 70", "2 * 7 = 14", "70 + 14 = 84"]}',
    "It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of folly.",
    "User: hello there!\nAssistant: Hello! How can I help you today?\n\nUser: tell me about the sea.\n",
)

SPECIALS = ("<pad>", "<s>", "<|im_end|>", "<unk>", "<|im_start|>")
PAD, BOS, EOS, UNK = range(4)


def _llama_like(vocab_size: int, **extra: Any) -> dict[str, Any]:
    """The options that most families share; two key/value heads for four query heads."""
    return {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "pad_token_id": PAD,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        **extra,
    }


def tiny_config(family: str, vocab_size: int = 400) -> Any:
    """The `PretrainedConfig` of one tiny model; fails on a misnamed option rather than ignore it."""
    per_family: dict[str, dict[str, Any]] = {
        "llama": {"tie_word_embeddings": True},
        "qwen2": {"tie_word_embeddings": True},
        "qwen3": {"head_dim": 16, "tie_word_embeddings": False},
        "gemma2": {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16},
        "gemma3_text": {
            "head_dim": 16,
            "sliding_window": 8,
            "query_pre_attn_scalar": 16,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
        "mistral": {"sliding_window": 8, "tie_word_embeddings": False},
        "phi": {"tie_word_embeddings": False},
        "cohere": {"logit_scale": 2.0},
        "granite": {
            "logits_scaling": 0.5,
            "embedding_multiplier": 6.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.2,
        },
    }
    if family == "gpt2":
        options: dict[str, Any] = {
            "vocab_size": vocab_size,
            "n_embd": 32,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 512,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "pad_token_id": PAD,
            "bos_token_id": BOS,
            "eos_token_id": EOS,
        }
    elif family in per_family:
        options = _llama_like(vocab_size, **per_family[family])
    else:
        raise ValueError(f"no tiny model of family {family!r}; there are {', '.join(FAMILIES)}")
    config_class = CONFIG_MAPPING[family]
    config = config_class(**options)
    plain = config_class()
    unknown = [name for name in options if not hasattr(plain, name)]
    if unknown:
        raise ValueError(f"{family} has no option {unknown}")
    return config


def tiny_model(family: str, vocab_size: int = 400, seed: int = 0, spread: float = 16.0) -> PreTrainedModel:
    """A causal LM of `family` with random float32 weights, in eval mode.

    Args:
        family: one of `FAMILIES`.
        vocab_size: width of the logits; may be larger than the tokenizer's.
        seed: same seed, same weights; torch's global generator is left as it was.
        spread: factor on the matrices, so that the predictions are not near uniform.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: PreTrainedModel = AutoModelForCausalLM.from_config(tiny_config(family, vocab_size))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.ndim == 2:
                    parameter.mul_(spread)
                elif name.endswith("bias") or "norm" in name or ".ln_" in name:
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.float().eval().requires_grad_(False)


@lru_cache(maxsize=8)
def _trained(add_bos: bool, kind: TokenizerKind, vocab_size: int) -> str:
    """The trained tokenizer as JSON text, since training is the slow part."""
    specials = [AddedToken(text, special=True, normalized=False) for text in SPECIALS]
    if kind == "bytelevel":
        raw = Tokenizer(models.BPE())
        raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        raw.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        # As gemma's: spaces become "▁", no prefix, unknown characters fall back to bytes.
        specials += [AddedToken(f"<0x{byte:02X}>", special=False, normalized=False) for byte in range(256)]
        raw = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
        raw.normalizer = normalizers.Replace(" ", "▁")
        raw.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
        raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet = []
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=alphabet,
        limit_alphabet=256 if kind == "bytelevel" else 60,
        show_progress=False,
    )
    raw.train_from_iterator(CORPUS, trainer)
    if kind == "sentencepiece":
        raw = _without_added_bytes(raw)
    if add_bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", BOS)]
        )
    return str(raw.to_str())


def _without_added_bytes(raw: Tokenizer) -> Tokenizer:
    """Keep the byte tokens in the vocabulary only: as *added* tokens they would match the text "<0x41>"."""
    state = json.loads(raw.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] in SPECIALS]
    return Tokenizer.from_str(json.dumps(state))


def tiny_tokenizer(
    add_bos: bool = False, kind: TokenizerKind = "bytelevel", vocab_size: int = 400, chat: bool = False
) -> PreTrainedTokenizerFast:
    """A byte-pair tokenizer trained on `CORPUS` (prose, code, sums, several scripts, emoji).

    Args:
        add_bos: put `<s>` before a text, as gemma's and llama's do; SmolLM2's and GPT-2's do not.
        kind: "bytelevel" (Ġ, as GPT-2, llama 3, qwen) or "sentencepiece" (▁ with byte fallback, as gemma).
        vocab_size: at most so many tokens; the sentencepiece kind needs 320 or more for its bytes.
        chat: give it a ChatML template.
    """
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained(add_bos, kind, vocab_size)),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="<|im_end|>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    if chat:
        tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def save_tiny(
    folder: Path,
    family: str = "llama",
    *,
    vocab_size: int = 400,
    seed: int = 0,
    add_bos: bool = False,
    kind: TokenizerKind = "bytelevel",
    chat: bool = False,
) -> Path:
    """Write a tiny model and its tokenizer as `save_pretrained` would; returns `folder`."""
    tiny_model(family, vocab_size, seed).save_pretrained(folder)
    tiny_tokenizer(add_bos, kind, vocab_size, chat).save_pretrained(folder)
    return folder
