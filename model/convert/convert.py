"""Convert a model into a folder that another tool reads: whole or not at all, and only if it is the same model."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError

from model.atomic_files import atomic_folder, check_writable, make_folder
from model.convert.check import Check, check
from model.convert.gguf_file import write_gguf
from model.convert.hamburger import FILE
from model.convert.reload import NEW_TOKENS
from model.convert.source import SourceModel, open_hamburger, open_source
from model.convert.writers import write_hub, write_modules, write_published, write_vllm, write_whole
from model.errors import ExportError, MicroStepError, ModelError
from model.hub.spec import Dtype, ModelSpec
from model.progress import Tell, silent
from model.quiet import quiet


@dataclass(frozen=True)
class Kind:
    """A kind of copy."""

    write: Callable[[SourceModel, Path, str], list[Check]]  # into an empty folder, which will have this name
    command: str  # that uses the copy {name} in {folder}
    apart: bool | None  # whether a LoRA adapter is left apart; None: as the user says


KINDS = {
    "modules": Kind(write_modules, "micro-step generate --model {folder} --prompt 'Once upon a time'", True),
    "whole": Kind(write_whole, "micro-step generate --model {folder} --prompt 'Once upon a time'", False),
    "hub": Kind(write_hub, "hf upload USER/{name} {folder}", False),
    "gguf": Kind(write_gguf, "llama-cli --model {folder}/*.gguf --prompt 'Once upon a time'", False),
    "hamburger": Kind(
        write_published,
        f"micro-step model convert BASE --from hamburger {{folder}}/{FILE} --allow-pickle --to whole --out OTHER",
        False,
    ),
    "vllm": Kind(write_vllm, "micro-step serve {folder} --engine vllm --lossless", None),
}


@dataclass(frozen=True)
class Converted:
    """A folder that holds the same model as its source, as a fresh process found."""

    folder: Path
    command: str  # that uses it
    fingerprint: str

    @property
    def checked(self) -> str:
        """What was compared, a sentence."""
        return (
            f"A fresh process read it again: the fingerprint {self.fingerprint[:12]}, the tokenizer and {NEW_TOKENS}"
            " greedy tokens are those of its source."
        )


def convert(
    spec: ModelSpec,
    kind: str,
    out: Path,
    dtype: Dtype = "auto",
    keep_adapter: bool = False,
    tell: Tell = silent,
    accept_licence: bool = False,
    hamburger: Path | None = None,
) -> Converted:
    """Convert a model.

    Args:
        spec: the model; its precision and device are chosen here.
        kind: a name in `KINDS`.
        out: the folder to write, which must be empty or not there.
        dtype: of the written weights; "auto": as they are stored.
        keep_adapter: leave the LoRA adapter of a micro_step model apart, instead of merging it into its base.
        tell: called with what is being done.
        accept_licence: the user has accepted the model's terms.
        hamburger: convert this published checkpoint of HAMburger, whose base `spec` is. It is a pickle, of which only
            weights are read.

    Raises:
        ModelError: the model cannot be loaded, or cannot be converted to this kind.
        ModelBroken: what was written is not the same model; nothing is kept.
        ExportError: the folder cannot be written.
    """
    if kind not in KINDS:
        raise MicroStepError(f"unknown kind {kind!r}; use one of {', '.join(KINDS)}")
    chosen = KINDS[kind]
    if keep_adapter and chosen.apart is False:
        raise MicroStepError(f"a copy of the kind {kind} has its adapter merged; modules and vllm can keep it apart")
    place = _free_place(out)
    apart = keep_adapter if chosen.apart is None else chosen.apart
    if hamburger is None:
        source = open_source(spec, dtype, apart, kind == "modules", tell, accept_licence)
    else:
        source = open_hamburger(spec, hamburger, dtype, tell, accept_licence)
    if kind != "modules" and not getattr(source.model.config, "prompt_adapter", True):
        raise ModelError(
            f"{source.facts.name} reads its prompts without its adapter, which only this project does: convert it to"
            " modules"
        )
    new = make_folder(place.parent)
    try:
        with atomic_folder(place) as part:
            tell("writing", None)
            with quiet():
                checks = chosen.write(source, part, place.name)
            del source  # the fresh process needs the memory
            tell("checking it in a fresh process", None)
            check(checks, torch.get_num_threads())
            if place.exists():
                place.rmdir()  # refused if somebody has put something there meanwhile
        new = []
    except (OSError, SafetensorError) as error:
        raise ExportError(f"{out} cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        with suppress(OSError):  # somebody else uses them already
            for folder in new:
                folder.rmdir()
    return Converted(
        out,
        chosen.command.format(folder=shlex.quote(str(out)), name=shlex.quote(place.name)),
        checks[0].expected["fingerprint"],
    )


def _free_place(out: Path) -> Path:
    """Return the place of a folder, without links, at which nothing is yet but an empty folder."""
    try:
        place = out.resolve()
        if place == Path.cwd() or (place.exists() and not (place.is_dir() and not any(place.iterdir()))):
            raise ExportError(f"{out} is there already; choose a new folder")
    except (OSError, RuntimeError) as error:  # too long a name, a circle of links
        raise ExportError(f"{out} cannot be written: {error}") from error
    check_writable(place)
    return place
