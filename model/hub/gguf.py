"""Convert a GGUF file to a folder in Hugging Face format: float32 safetensors, config, tokenizer, chat template.

transformers reads the file. This module corrects what its reader gets wrong, then loads the finished folder again and
compares it with the GGUF before anything else uses it. It knows neither the file's source nor the folder's place.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.checkpoint_files import share_weights
from model.errors import ModelBroken, TooLarge, first_line
from model.progress import Tell
from model.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_LOG = logging.getLogger(__name__)

# Vocabularies whose merges were learned with each digit separate. transformers has no entry for them and falls back to
# GPT-2's rule, which splits "\n  3" into "\n ", " ", "3" instead of "\n  ", "3".
# (llama.cpp, src/llama-vocab.cpp: these types share the expressions \p{N} and GPT-2's.)
SINGLE_DIGITS_RULE = "smollm"
_SINGLE_DIGITS = {SINGLE_DIGITS_RULE, "starcoder", "refact", "command-r", "codeshell"}
_GPT2_RULE = {None, "default", "gpt-2", "gpt2"}

_PROBE_TEXTS = (
    "The quick brown fox, aged 48, can't jump over 1,234 dogs.",
    "def f(x):\n    return x + 1\n\n\n  y = [\n    1,\n    23,\n  ]\n\tz",
    "  leading and trailing  ",
    "Größe naïve 你好，世界 Привет שלום 🙂👩‍👩‍👧 \u200b ﬁ",
    "a",
    "",
)


def convert(gguf: Path, folder: Path, original: dict[str, object], progress: Tell) -> tuple[str, ...]:
    """Write the model of `gguf` into the empty `folder`.

    Returns:
        Sentences on what is only approximate; empty for a GGUF of full-precision weights.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        try:
            metadata = _metadata(gguf)
            progress(f"reading the tokenizer of {gguf.name}", None)
            tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            notes = [*_precision(metadata), *_fix_tokenizer(tokenizer, metadata)]
            with _reported(f"dequantising {gguf.name}", progress):
                source: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
                    gguf.parent, gguf_file=gguf.name, dtype=torch.float32
                )
        except MemoryError as error:
            raise TooLarge(f"there is too little memory to convert {gguf.name}; close other programs") from error
        except Exception as error:  # the readers raise many kinds of errors for damaged or unknown files
            raise ModelBroken(f"{gguf.name} cannot be read as a GGUF model: {first_line(error)}") from error
        source.eval()
        progress("writing safetensors", None)
        _write(source, tokenizer, folder, original)
        progress("checking the copy", None)
        _compare(source, tokenizer, folder)
    return tuple(notes)


@contextmanager
def _reported(title: str, progress: Tell) -> Iterator[None]:
    """Route the progress bar of transformers' GGUF reader, which cannot be switched off, to our callback."""
    from transformers import modeling_gguf_pytorch_utils as reader

    def report(tensors: Sequence[Any], **_: Any) -> Iterator[Any]:
        for done, tensor in enumerate(tensors):
            progress(title, done / len(tensors))
            yield tensor

    original = reader.tqdm
    reader.tqdm = report
    try:
        yield
    finally:
        reader.tqdm = original


def _metadata(gguf: Path) -> dict[str, Any]:
    """Return the GGUF's key-value pairs; of long arrays only their length."""
    from transformers.integrations.gguf.reader import read_gguf_metadata

    metadata: dict[str, Any] = read_gguf_metadata(str(gguf))[0]
    return metadata


def _precision(metadata: dict[str, Any]) -> list[str]:
    """Return a sentence about quantised weights, if there are any."""
    from gguf import LlamaFileType

    try:
        name = LlamaFileType(metadata["general.file_type"]).name.removeprefix("MOSTLY_").removeprefix("ALL_")
    except (KeyError, ValueError):
        return ["weights read from a GGUF file of unknown precision"]
    return [] if name in ("F32", "F16", "BF16") else [f"weights dequantised from {name}"]


def _fix_tokenizer(tokenizer: PreTrainedTokenizerBase, metadata: dict[str, Any]) -> list[str]:
    """Set the pre-tokenizer if transformers has no rule for the one that the GGUF names."""
    from tokenizers import pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    name = metadata.get("tokenizer.ggml.pre")
    if name in _SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    elif metadata.get("tokenizer.ggml.model") == "gpt2" and name not in {*GGUF_PRE_TOKENIZER_SPLITS, *_GPT2_RULE}:
        return [f"the pre-tokenizer {name!r} is replaced by GPT-2's, so some texts give other tokens"]
    return []


def _write(
    source: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path, original: dict[str, object]
) -> None:
    """Save a copy of `source` without traces of GGUF; the model as read refuses to be saved."""
    import torch
    from transformers import AutoModelForCausalLM

    config = _clean_config(source.config, original)
    with torch.device("meta"):
        copy: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    copy.load_state_dict(source.state_dict(), strict=True, assign=True)
    copy.tie_weights()
    copy.save_pretrained(folder)
    tokenizer.name_or_path = ""
    tokenizer.save_pretrained(folder)
    share_weights(folder)


def _clean_config(config: Any, original: dict[str, object]) -> Any:
    """Return the config without traces of GGUF, and with the original's values where they are known."""
    values = config.to_dict()
    for trace in ("quantization_config", "_name_or_path", "_model_name_or_path"):
        values.pop(trace, None)
    for name, value in values.items():
        if isinstance(value, float):  # 9.999999747378752e-06 is 1e-05 after a trip through float32
            values[name] = float(f"{value:.7g}")
    for name, value in original.items():
        wanted = list(value) if isinstance(value, tuple) else value
        if name == "rope_theta":
            read, values["rope_parameters"] = (
                values["rope_parameters"]["rope_theta"],
                {
                    **values["rope_parameters"],
                    "rope_theta": wanted,
                },
            )
        else:
            read, values[name] = values.get(name), wanted
        if read != wanted:
            _LOG.info("config %s: %r as read from the GGUF, set to %r", name, read, wanted)
    clean = type(config).from_dict(values)
    clean.architectures = None  # save_pretrained fills in the class that is saved
    return clean


def _compare(source: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Load the written folder and compare its tokens, text, BOS and logits with the GGUF's."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    written = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in _PROBE_TEXTS:
        ids = tokenizer(text)["input_ids"]
        if written(text)["input_ids"] != ids or written.decode(ids) != tokenizer.decode(ids):
            raise ModelBroken(f"the written tokenizer splits {text!r} differently from the GGUF's")
    if written.chat_template != tokenizer.chat_template or len(written) != len(tokenizer):
        raise ModelBroken("the written tokenizer lost its chat template or tokens")
    copy = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()
    ids = tokenizer(_PROBE_TEXTS[0], return_tensors="pt")["input_ids"]
    with torch.no_grad():
        difference = (copy(ids).logits - source(ids).logits).abs().max().item()
    # Not `difference > 1e-4`: NaN must fail too.
    if not difference <= 1e-4:
        raise ModelBroken(f"the written model's logits differ from the GGUF's by up to {difference:.3g}")
    if source.config.tie_word_embeddings != copy.config.tie_word_embeddings:
        raise ModelBroken("the written model's head and embedding are no longer tied")
