"""Generations that come with the project: one where drafting wins, one where it loses, and one of merged decoding.

`python -m analysis.generation.recordings` makes them anew: it runs each several times, and keeps the run whose speed
ratio is the median. Their seconds are processor time of one core, which other programs on the machine hardly change.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from unittest.mock import patch

from analysis.generation.request import GenerationRequest
from analysis.generation.result import Decoding, Generation
from analysis.stored_results.codec import StoredFile, write_npz
from model.atomic_files import atomic_write
from model.errors import MicroStepError
from model.hub.spec import ModelSpec
from model.reading.regular_files import read_bytes
from model.text.document import Document, Message, TextInput

FOLDER = Path(__file__).resolve().parents[2] / "data" / "recordings"
ROUNDS = 3
NOTE = "recorded; seconds are processor time of one core"


@dataclass(frozen=True)
class Recording:
    """One of the generations that come with the project."""

    name: str
    title: str
    why: str  # why it is as fast or as slow as it is
    request: GenerationRequest


def _asked(model: str, prompt: str, tau: float) -> GenerationRequest:
    text = TextInput(Document((Message("user", prompt),)), chat=True)
    return GenerationRequest(ModelSpec(model), text, Decoding(tau=tau, max_new_tokens=96))


RECORDINGS = {
    each.name: each
    for each in (
        Recording(
            "wins",
            "Drafting wins",
            "plain English prose like this is what the micro decoder was trained on",
            _asked("micro-step-smollm2-135m-draft", "Why is the sky blue?", 0.2),
        ),
        Recording(
            "loses",
            "Drafting loses",
            "the micro decoder was trained on English answers, and this one is German",
            _asked("micro-step-smollm2-135m-draft", "Nenne fünf deutsche Städte und je eine Sehenswürdigkeit.", 0.2),
        ),
        Recording(
            "merged",
            "One slot per segment",
            "nothing checks the micro decoder here",
            _asked("micro-step-smollm2-135m", "Why is the sky blue?", 0.8),
        ),
    )
}


def recorded(name: str) -> Generation:
    """The generation of a recording, read from its file.

    Raises:
        MicroStepError: the file is missing or damaged.
    """
    return _read(FOLDER / f"{name}.npz")


@cache
def _read(path: Path) -> Generation:
    try:
        generation: Generation = StoredFile(read_bytes(path)).read("generation", Generation)
    except OSError as error:
        raise MicroStepError(f"the recording {path.name} cannot be read: {error.strerror}") from None
    return generation


def write(generation: Generation, path: Path) -> Path:
    """Write a recording's file."""
    noted = replace(generation, notes=(*generation.notes, NOTE))
    atomic_write(path, write_npz({"generation": (Generation, noted)}))
    return path


def record(name: str) -> Path:
    """Run a recording's request, and write its file."""
    import torch

    from model.hub.loading import load

    torch.set_num_threads(1)
    request = RECORDINGS[name].request
    loaded = load(request.model)
    with patch("time.perf_counter", time.process_time):
        runs = sorted((request.run(lambda _: loaded) for _ in range(ROUNDS)), key=lambda run: run.speed_ratio)
    FOLDER.mkdir(exist_ok=True)
    return write(runs[ROUNDS // 2], FOLDER / f"{name}.npz")


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RECORDINGS:
        print(record(chosen))
