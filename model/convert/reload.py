"""Read written models in a process of its own, and say what they are and do. `check.py` starts it.

It needs torch and transformers alone, so that it also runs where this project cannot be imported.
"""

from __future__ import annotations

import json
import runpy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

TEXT = "The quick brown fox jumps over the lazy dog, and then"
NEW_TOKENS = 32
_SETTINGS = (  # of generation: those that decide what an answer is
    "bos_token_id", "eos_token_id", "pad_token_id", "do_sample", "temperature", "top_k", "top_p", "repetition_penalty",
    "max_length", "max_new_tokens",
)  # fmt: skip


def observe(model: Any, tokenizer: Any, fingerprint: Callable[[Any], str]) -> dict[str, Any]:
    """Return what must be the same in a copy, in words for a message.

    A micro_step model writes segments of M tokens, so that merger and micro decoder take part.
    """
    ids = tokenizer(TEXT, return_tensors="pt")["input_ids"]
    options: dict[str, Any] = {"confidence": 0.0} if hasattr(model, "generate_segments") else {}
    written = model.generate(
        ids, attention_mask=ids.new_ones(ids.shape), do_sample=False, num_beams=1,
        max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, **options,
    )  # fmt: skip
    with torch.no_grad():
        logits = model(ids).logits[0, -1]
    return {
        "fingerprint": fingerprint(model),
        "token ids of a text": ids[0].tolist(),
        "logits": logits.float().tolist(),  # of the token after the text
        "greedy tokens": written[0, ids.shape[1] :].tolist(),
        "chat template": tokenizer.chat_template,
        "special tokens": {name: str(token) for name, token in sorted(tokenizer.special_tokens_map.items())},
        "generation settings": {name: getattr(model.generation_config, name, None) for name in _SETTINGS},
    }


def _main(jobs: list[dict[str, Any]], fingerprint_file: str, alone: bool) -> list[dict[str, Any]]:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if not alone:
        from model.hub import fetch  # noqa: F401 - it finds bases by the names of the catalog
        from model.micro_step import modeling, tokenizer  # noqa: F401 - they register themselves
    fingerprint = runpy.run_path(fingerprint_file)["fingerprint"]
    found = []
    for job in jobs:
        options = {"trust_remote_code": True} if job["own_code"] else {}
        with tempfile.TemporaryDirectory() as place:
            folder = _read_gguf(Path(job["folder"]), Path(place)) or job["folder"]
            model = _read_hamburger(Path(folder)) or AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, **options
            )
            model.eval()
            found.append(observe(model, AutoTokenizer.from_pretrained(folder, **options), fingerprint))
    here = sorted(name for name in sys.modules if name.partition(".")[0] in ("model", "micro_step"))
    if alone and here:
        raise ImportError(f"{here[0]} was imported, which only this project has")
    return found


def _read_gguf(folder: Path, place: Path) -> Path | None:
    """Convert the GGUF file of a folder, if that is what it holds, and return the place of the copy."""
    files = list(folder.glob("*.gguf"))
    if not files:
        return None
    from model.hub.gguf import convert
    from model.progress import silent

    convert(files[0], place, {}, silent)
    return place


def _read_hamburger(folder: Path) -> Any:
    """Return the model in a folder with HAMburger's layout; None for any other folder."""
    files = list(folder.glob("*.ckpt"))
    if not files:
        return None
    from transformers import GenerationConfig

    from model.convert.hamburger import read_hamburger
    from model.micro_step.configuration import MicroStepConfig
    from model.micro_step.modeling import MicroStepForCausalLM

    model = MicroStepForCausalLM(MicroStepConfig.from_pretrained(folder))
    model.load_state_dict(read_hamburger(files[0]))
    model.tie_weights()
    model.generation_config = GenerationConfig.from_pretrained(folder)
    return model.float()


if __name__ == "__main__":
    _jobs, _fingerprint_file, _out, _alone = sys.argv[1:]
    Path(_out).write_text(json.dumps(_main(json.loads(_jobs), _fingerprint_file, _alone == "alone")), "utf-8")
