"""The model to convert: in float32 on the CPU, with weights rounded to the precision in which they will be written."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from model.checkpoint_files import stored_dtypes
from model.convert.check import Check
from model.convert.hamburger import model_of, read_hamburger
from model.convert.reload import observe
from model.errors import ModelError
from model.hub.cache import remembered_sha256
from model.hub.fetch import fetch
from model.hub.loading import load
from model.hub.model_info import MicroStepInfo, ModelInfo
from model.hub.spec import Dtype, ModelSpec
from model.micro_step.fingerprint import fingerprint
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.pretrained import move_weights
from model.micro_step.saving import base_reference
from model.progress import Tell
from model.quiet import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NAMES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


@dataclass(frozen=True)
class SourceModel:
    """A model that is only held here, so that it may be changed while it is written."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    facts: ModelInfo
    folder: Path
    dtype: torch.dtype  # of the written weights

    @property
    def micro_step(self) -> MicroStepForCausalLM:
        """The model, which must be a micro_step model."""
        if not isinstance(self.model, MicroStepForCausalLM):
            raise ModelError(f"{self.facts.name} is no micro_step model: convert it to whole or gguf")
        return self.model

    @property
    def base(self) -> PreTrainedModel:
        """The model without merger and micro decoder."""
        return cast("PreTrainedModel", getattr(self.model, "base", self.model))

    def expected(
        self, folder: Path, model: PreTrainedModel | None = None, only: tuple[str, ...] = (), **how: bool
    ) -> Check:
        """Say that a folder must hold the model, or another one; `only` these of its properties count."""
        with quiet():
            seen = observe(self.model if model is None else model, self.tokenizer, fingerprint)
        seen = {name: value for name, value in seen.items() if not only or name in only}
        return Check(folder, json.loads(json.dumps(seen)), **how)


def open_source(
    spec: ModelSpec,
    dtype: Dtype,
    keep_adapter: bool,
    modules_only: bool,
    tell: Tell | None = None,
    accept_licence: bool = False,
) -> SourceModel:
    """Load a model to convert it.

    Args:
        spec: the model; its precision and device are chosen here.
        dtype: of the written weights; "auto": as they are stored, and float32 where several are.
        keep_adapter: leave the LoRA adapter of a micro_step model apart.
        modules_only: the base of a micro_step model is not written.
        tell: called with what is being done.
        accept_licence: the user has accepted the model's terms.
    """
    folder = fetch(spec.name, spec.revision, tell, accept_licence, code=spec.trust_remote_code)
    loaded = load(replace(spec, dtype="float32", device="cpu"), tell, accept_licence, keep_adapter)
    target = _stored(folder, with_base=not modules_only) if dtype == "auto" else dtype
    source = SourceModel(loaded.model, loaded.tokenizer, loaded.facts, folder, getattr(torch, target))
    base = _base_name(source)
    for config in (source.base.config, getattr(source.model.config, "base_config", source.base.config)):
        config._name_or_path = base
    source.model.config._name_or_path = source.facts.name
    return source


def open_hamburger(
    spec: ModelSpec, file: Path, dtype: Dtype, tell: Tell | None = None, accept_licence: bool = False
) -> SourceModel:
    """Load a published checkpoint of HAMburger, as `open_source` loads a model; `spec` is its base."""
    base = open_source(spec, "float32", False, False, tell, accept_licence)
    weights = read_hamburger(file)
    model = model_of(weights, base.model, base.tokenizer)
    stored = next(iter(weights.values())).dtype
    facts = replace(
        base.facts,
        name=file.stem,
        revision=f"sha256:{remembered_sha256(file)}",
        source=f"file {file}",
        micro_step=MicroStepInfo.of(vars(model.config), base.facts.name, base.facts.revision, untrained=False),
        approximations=("the published code writes each segment one position later than it was trained",),
    )
    return replace(base, model=model, facts=facts, dtype=stored if dtype == "auto" else getattr(torch, dtype))


def rounded(source: SourceModel, modules_only: bool = False) -> SourceModel:
    """Round the weights to the written precision, in float32; those of the base may stay as they are."""
    for name, weight in source.model.named_parameters():
        if not modules_only or not name.startswith("base.") or "lora_" in name:
            weight.data = weight.data.to(source.dtype).float()
    return source


def cast_weights(model: Any, dtype: torch.dtype) -> None:
    """Cast the weights of a model, and say so in its configuration."""
    move_weights(model, model.device, dtype)
    for config in (model.config, getattr(model.config, "base_config", None)):
        if config is not None:
            config.dtype = dtype


def _base_name(source: SourceModel) -> str:
    micro = source.facts.micro_step
    named = source.facts.name if micro is None else micro.base or source.base.config._name_or_path or ""
    return "" if Path(named).is_absolute() else named  # no folder of this machine


def _stored(folder: Path, with_base: bool) -> str:
    found = stored_dtypes(folder)
    reference = base_reference(folder)
    if with_base and reference is not None:
        found |= stored_dtypes(fetch(reference["name"], reference["revision"]))
    known = {_NAMES.get(each, "float32") for each in found}
    return known.pop() if len(known) == 1 else "float32"
