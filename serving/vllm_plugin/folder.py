"""The folder that vLLM loads: a plain base, with the modules of a micro_step model beside its files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from model.convert.convert import convert
from model.hub.cache import cache_dir, lock, remembered_sha256
from model.hub.fetch import fetch
from model.hub.micro_step_io import saved_in
from model.hub.spec import Dtype, ModelSpec
from model.micro_step.saving import MODULES
from model.progress import Tell
from serving.vllm_plugin.merged import refuse_merge_layer


def vllm_folder(spec: ModelSpec, lossless: bool | None, tell: Tell) -> Path:
    """Return the folder for a model that is to be decoded lossless, merged (False), or as it was trained (None).

    A folder that `model convert --to vllm` wrote, and a plain base, are used as they are. Any other micro_step model is
    converted into the cache, once.

    Raises:
        ModelError: the model cannot be found or converted.
        MicroStepError: it cannot be decoded so.
    """
    source = fetch(spec.name, spec.revision, tell)
    if (source / "micro_step" / MODULES).is_file():
        return source
    saved = saved_in(source)
    if saved is None and spec.adapter is None:
        return source
    if saved is not None and not (saved.decoding == "lossless" if lossless is None else lossless):
        refuse_merge_layer(saved.merge_layer)  # before it is converted in vain
    base = [] if saved is None or saved.base is None else [fetch(saved.base, saved.base_revision, tell)]
    key = _key([source, *base], spec.dtype)
    place = cache_dir() / "engines" / key
    with lock(f"engine-{key}", tell):
        if not place.is_dir():
            convert(spec, "vllm", place, spec.dtype, tell=tell)
    return place


def _key(folders: list[Path], dtype: Dtype) -> str:
    """A name for what the weights and settings of folders give."""
    files = sorted(path for folder in folders for path in (*folder.glob("*.safetensors"), *folder.glob("*.json")))
    hashes = " ".join([dtype, *map(remembered_sha256, files)])
    return hashlib.sha256(hashes.encode()).hexdigest()[:24]
