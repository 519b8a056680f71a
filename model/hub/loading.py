"""Load what a user names as a model in memory, ready to be scored, together with facts about it.

No pickle is opened, and no remote code is run unless the user asks for it. This module keeps no model; callers decide
how many to hold (`app/cache.py`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.access import need_code
from model.checkpoint_files import find_problem, stored_size, weight_files
from model.errors import MicroStepError, ModelBroken, ModelError, TooLarge
from model.hub.adapter import (
    adapter_base,
    adapter_folder,
    adapter_tokenizer,
    held_embeddings,
    local_adapter,
    merge_adapter,
)
from model.hub.cache import remembered_sha256
from model.hub.catalog import find
from model.hub.fetch import ROOT, fetch, model_path
from model.hub.micro_step_io import is_untrained, read_micro_step, saved_in
from model.hub.model_info import MicroStepInfo, ModelInfo, chat_template_hash, find_name, find_source, tokenizer_hash
from model.hub.spec import Dtype, LoadedModel, ModelSpec, Quantization, resolve_device
from model.hub.transformers_io import check_vocabulary, read_config, read_model, read_tokenizer, tokenizer_note
from model.progress import Tell, silent
from model.quiet import quiet

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Dtype", "LoadedModel", "ModelInfo", "ModelSpec", "Quantization", "content_of", "load", "resolve_device"]

DECIDING = (".json", ".jinja", ".model", ".txt", ".py")  # files beside the weights that may decide answers


def load(
    spec: ModelSpec,
    progress: Tell | None = None,
    accept_licence: bool = False,
    keep_adapter: bool = False,
) -> LoadedModel:
    """Fetch the model if needed, and load it. It then keeps nothing of its files open.

    Args:
        spec: what to load, and how.
        progress: called with a message and the share done (None if unknown).
        accept_licence: the user has accepted the model's terms.
        keep_adapter: leave the LoRA adapter of a micro_step model apart, instead of merging it into its base.

    Raises:
        ModelNotFound: no model of that name exists.
        ModelBroken: its files are damaged, incomplete, or of an unsupported kind.
        LicenceNeeded: its terms must be accepted first.
        TooLarge: its weights do not fit into memory.
        ModelError: it is not a causal language model, or an option does not fit it or this machine.
    """
    tell = progress or silent
    need_code(spec.name, spec.trust_remote_code, spec.attn_implementation)
    device = resolve_device(spec.device)
    _check_quantization(spec, device)
    folder = fetch(spec.name, spec.revision, tell, accept_licence, code=spec.trust_remote_code)
    if spec.adapter is not None:
        adapter_folder(spec.adapter, tell)
    tell(f"checking the files of {spec.name}", None)
    begun = content_of(spec)
    changed = ModelBroken(f"the files of {spec.name} changed while they were read; try again when they are complete")
    try:
        loaded = _read(spec, folder, device, tell, accept_licence, keep_adapter)
    except OSError as error:  # all were there when their checks began
        raise changed from error
    except (LookupError, ValueError, TypeError, RuntimeError) as error:
        if content_of(spec) != begun:
            raise changed from error
        raise
    if begun and content_of(spec) != begun:
        raise changed
    return replace(loaded, content=begun)


def load_outline(spec: ModelSpec, device: torch.device, tell: Tell = silent) -> LoadedModel:
    """Load what is known of a model, and its tokenizer; its weights are for another engine to load, on this device.

    The model is on torch's meta device. Weights that must be changed before they can be used, such as those of an
    adapter, are read into memory once.

    Raises:
        MicroStepError: as `load`.
    """
    import torch

    folder = fetch(spec.name, spec.revision, tell)
    if spec.adapter is not None or adapter_base(folder) is not None or saved_in(folder) is not None:
        loaded = load(replace(spec, device="cpu"), tell)
        model, tokenizer, facts = loaded.model.to("meta"), loaded.tokenizer, loaded.facts
    else:
        if (problem := find_problem(folder)) is not None:
            raise ModelBroken(f"{spec.name} cannot be loaded: {problem}")
        with quiet(), torch.device("meta"):
            from transformers import AutoModelForCausalLM

            config = read_config(spec, folder)
            model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
        tokenizer = read_tokenizer(spec, folder)
        notes = [*tokenizer_note(spec, folder), *check_vocabulary(spec, model, tokenizer)]
        facts = _facts(spec, folder, model, tokenizer, notes, None)
    dtype = str(_dtype(spec, model.config, device)).removeprefix("torch.")
    return LoadedModel(spec, replace(facts, dtype=dtype, device=str(device)), model, tokenizer)


def content_of(spec: ModelSpec) -> tuple[str, ...]:
    """Hashes of the files that a model is read from, with those of its base, adapter and tokenizer.

    Files whose state did not change are not read again. Empty if the model is not on this machine.
    """
    wanted = [(spec.name, spec.revision), (spec.adapter, None), (spec.tokenizer, None)]
    digests: dict[Path, str] = {}
    while wanted:
        name, revision = wanted.pop(0)
        path = None if name is None else model_path(name, revision) or local_adapter(name)
        if path is None or path in digests:
            continue
        try:
            digests[path] = _content(path)
            if path.is_dir():
                saved = saved_in(path)
                base = adapter_base(path) if saved is None else (saved.base, saved.base_revision)
                wanted += [] if base is None else [base]
        except (OSError, ValueError, MicroStepError):  # `load` says what is wrong with it
            digests[path] = ""
    return tuple(digests.values())


def _content(path: Path) -> str:
    if path.is_file():
        return remembered_sha256(path)
    weights = {*weight_files(path), path / "adapter_model.safetensors"}
    files = sorted(each for each in path.iterdir() if each.suffix in DECIDING or each in weights)
    return hashlib.sha256("\0".join(f"{each.name}\0{remembered_sha256(each)}" for each in files).encode()).hexdigest()


def _read(
    spec: ModelSpec,
    folder: Path,
    device: torch.device,
    tell: Tell,
    accept_licence: bool,
    keep_adapter: bool,
) -> LoadedModel:
    if spec.adapter is None and (base_of_adapter := adapter_base(folder)) is not None:
        return _adapted(spec, folder, *base_of_adapter, lambda base: load(base, tell, accept_licence))
    if (problem := find_problem(folder)) is not None:
        raise ModelBroken(f"{spec.name} cannot be loaded: {problem}")
    adapter = adapter_folder(spec.adapter, tell) if spec.adapter is not None else None
    with quiet():
        config = read_config(spec, folder)
        dtype = _dtype(spec, config, device)
        _check_memory(spec, folder, dtype, device)
        tell(f"loading {spec.name}", None)
        micro, base_notes = saved_in(folder), tuple[str, ...]()
        if micro is None:
            tokenizer = read_tokenizer(spec, folder)
            model = read_model(spec, folder, config, dtype, device)
        else:
            model, tokenizer, base_notes = read_micro_step(
                spec,
                folder,
                micro,
                lambda: read_model(spec, folder, config, dtype, device),
                lambda place: read_tokenizer(spec, place),
                lambda base: load(base, tell, accept_licence),
                keep_adapter,
            )
            micro = replace(micro, untrained=is_untrained(model))
        notes = [*tokenizer_note(spec, folder), *base_notes]
        if adapter is not None:
            tell(f"merging {spec.adapter}", None)
            held = held_embeddings(model, adapter)
            tokenizer, tokenizer_notes = adapter_tokenizer(
                tokenizer, adapter, lambda place: read_tokenizer(spec, place), held
            )
            model, merge_notes = merge_adapter(model, adapter, held)
            notes += [*tokenizer_notes, *merge_notes]
            if spec.quantization != "none":
                notes.append(f"the adapter was merged into {spec.quantization} weights, which rounds it")
        notes = [*check_vocabulary(spec, model, tokenizer), *notes]
    _own_weights(model)
    model.eval().requires_grad_(False)
    _check_family(spec, model)
    facts = _facts(spec, folder, model, tokenizer, notes, micro)
    from model.causal_lm.forward import token_model

    token_model(model).name_or_path = model.name_or_path = facts.name  # in messages
    return LoadedModel(spec, facts, model, tokenizer)


def _own_weights(model: PreTrainedModel) -> None:
    """Copy weights that are a file's pages: they would change with the file, and end the process if it shrinks."""
    for weight in (*model.parameters(), *model.buffers()):
        if weight.device.type == "cpu" and not weight.untyped_storage().resizable():  # not torch's own memory
            weight.data = weight.data.clone()


def _adapted(
    spec: ModelSpec, folder: Path, base: str, revision: str | None, load_base: Callable[[ModelSpec], LoadedModel]
) -> LoadedModel:
    """Return an adapter that was named alone, merged into the base that it names."""
    try:
        base_model = load_base(replace(spec, name=base, revision=revision, adapter=str(folder)))
    except MicroStepError as error:
        raise type(error)(f"the base of the adapter {folder.name} cannot be loaded: {error}") from error
    adapter_hash = remembered_sha256(folder / "adapter_model.safetensors")
    facts = replace(
        base_model.facts,
        name=find_name(spec.name, folder, find(spec.name) is not None),
        source=find_source(spec.name, folder, ROOT).source,
        revision=f"sha256:{adapter_hash}",
        adapter=None,
        kind="sft",
        approximations=(
            *base_model.facts.approximations,
            f"an adapter, merged into {base} ({base_model.facts.revision[:19]})",
        ),
    )
    return LoadedModel(spec, facts, base_model.model, base_model.tokenizer)


def _check_quantization(spec: ModelSpec, device: torch.device) -> None:
    if spec.quantization == "none":
        return
    from importlib.util import find_spec

    if find_spec("bitsandbytes") is None:
        raise ModelError(
            f"{spec.quantization} loading needs the bitsandbytes package (`pip install bitsandbytes`);"
            " without it, choose no quantisation"
        )
    if device.type == "mps":
        raise ModelError(f"{spec.quantization} loading does not work on mps; choose cpu or cuda")


def _dtype(spec: ModelSpec, config: Any, device: torch.device) -> torch.dtype:
    import torch

    if spec.dtype != "auto":
        return getattr(torch, spec.dtype)  # type: ignore[no-any-return]
    if device.type == "cpu":
        return torch.float32
    own = config.get_text_config().dtype or torch.float32
    return getattr(torch, own) if isinstance(own, str) else own


def _check_memory(spec: ModelSpec, folder: Path, dtype: torch.dtype, device: torch.device) -> None:
    """Refuse a model that cannot fit before loading it: running out of memory may kill the whole process."""
    from model.causal_lm.device_memory import available_memory

    count, _ = stored_size(folder)
    # 4-bit weights carry scales; their embeddings and head keep their precision, which is not counted here
    size = count * {"none": dtype.itemsize, "8bit": 1.0, "4bit": 0.6}[spec.quantization]
    available = available_memory(device)
    if size > available:
        raise TooLarge(
            f"{spec.name} needs {size / 1e9:.2f} GB for its weights as {str(dtype).removeprefix('torch.')}, but"
            f" {available / 1e9:.2f} GB are available on {device}; choose a smaller dtype, quantisation or model"
        )


def _check_family(spec: ModelSpec, model: PreTrainedModel) -> None:
    """Raise ModelError for a model that cannot be read from left to right."""
    from model.causal_lm.forward import text_config
    from model.causal_lm.probe import parted

    config = text_config(model)
    for name in ("num_hidden_layers", "hidden_size", "vocab_size"):
        if getattr(config, name, None) is None:
            raise ModelError(f"{spec.name} is of family {config.model_type}, which has no {name}, so it cannot be used")
    parted(model)


def _facts(
    spec: ModelSpec,
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    notes: list[str],
    micro: MicroStepInfo | None,
) -> ModelInfo:
    from model.causal_lm.forward import text_config

    config = text_config(model)
    place = find_source(spec.name, folder, ROOT)
    built_in = getattr(model.config, "quantization_config", None)
    quantization: str = spec.quantization
    if quantization != "none":
        notes = [f"{quantization.removesuffix('bit')}-bit weights", *notes]
    elif built_in is not None:
        method = built_in.get("quant_method") if isinstance(built_in, dict) else built_in.quant_method
        quantization = str(getattr(method, "value", method))
        notes = [f"weights quantised by {quantization}", *notes]
    head = model.get_output_embeddings()
    return ModelInfo(
        name=place.name,
        source=place.source,
        revision=place.revision,
        tokenizer_hash=tokenizer_hash(tokenizer),
        chat_template_hash=chat_template_hash(tokenizer),
        family=str(model.config.model_type),
        dtype=str(model.dtype).removeprefix("torch."),
        device=str(model.device),
        attn_implementation=str(model.config._attn_implementation),
        quantization=quantization,
        adapter=spec.adapter,
        parameters=int(model.num_parameters()),
        vocab_size=int(getattr(head, "out_features", None) or config.vocab_size),
        context_length=getattr(config, "max_position_embeddings", None),
        layers=int(config.num_hidden_layers),
        hidden_size=int(config.hidden_size),
        licence=place.licence,
        kind=place.kind,
        approximations=(*place.approximations, *notes),
        micro_step=micro,
    )
