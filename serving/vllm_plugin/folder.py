"""The folder that vLLM loads: a plain base, with the modules of a micro_step model beside its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model.convert.convert import convert
from model.hub.adapter import adapter_base, adapter_folder
from model.hub.cache import cache_dir, lock, remembered_sha256
from model.hub.fetch import fetch
from model.hub.micro_step_io import saved_in
from model.hub.spec import Dtype, ModelSpec
from model.micro_step.saving import MODULES
from model.progress import Tell
from serving.vllm_plugin.merged import refuse_merge_layer


def vllm_folder(spec: ModelSpec, lossless: bool | None, tell: Tell) -> Path:
    """Return the folder for a model that is to be decoded lossless, merged (False), or as it was trained (None).

    A folder that `model convert --to vllm` wrote, and a plain base, are used as they are. Any other micro_step model,
    and a base with an adapter, is converted into the cache, once.

    Raises:
        ModelError: the model cannot be found or converted.
        MicroStepError: it cannot be decoded so.
    """
    source = fetch(spec.name, spec.revision, tell)
    if (source / "micro_step" / MODULES).is_file():
        return source
    saved, alone = saved_in(source), adapter_base(source)
    if saved is None and alone is None and spec.adapter is None:
        return source
    if saved is not None and not (saved.decoding == "lossless" if lossless is None else lossless):
        refuse_merge_layer(saved.merge_layer)  # before it is converted in vain
    adapter = [] if spec.adapter is None else [adapter_folder(spec.adapter, tell)]
    named = alone if saved is None else (saved.base, saved.base_revision)
    base = [] if named is None or named[0] is None else [fetch(named[0], named[1], tell)]
    key = _key([source, *adapter, *base], spec.dtype)
    place = cache_dir() / "engines" / key
    with lock(f"engine-{key}", tell):
        if not place.is_dir():
            convert(spec, "whole" if saved is None else "vllm", place, spec.dtype, tell=tell)
    return place


def _key(folders: list[Path], dtype: Dtype) -> str:
    """A name for what the weights and settings of folders give."""
    files = sorted(path for folder in folders for path in (*folder.glob("*.safetensors"), *folder.glob("*.json")))
    hashes = " ".join([dtype, *map(remembered_sha256, files)])
    return hashlib.sha256(hashes.encode()).hexdigest()[:24]
