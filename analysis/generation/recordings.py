"""Generations that come with the project: one where drafting wins, one where it loses, and one of merged decoding.

`python -m analysis.generation.recordings` makes them anew: each is run several times, and of these the run with the median speed
ratio is kept.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from analysis.generation.request import GenerationRequest
from analysis.generation.result import Decoding, Generation
from analysis.stored_results.codec import StoredFile, write_npz
from model.atomic_files import atomic_write
from model.errors import MicroStepError
from model.hub.spec import ModelSpec
from model.text.document import Document, Message, TextInput

FOLDER = Path(__file__).resolve().parents[2] / "data" / "recordings"
ROUNDS = 5


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
            "the answer is the kind of text that the micro decoder was trained on",
            _asked("micro-step-smollm2-135m-draft", "Why is the sky blue?", 0.2),
        ),
        Recording(
            "loses",
            "Drafting loses",
            "TODO",
            _asked("micro-step-smollm2-135m-draft", "Сочини короткий рассказ о лисе.", 0.2),
        ),
        Recording(
            "merged",
            "One slot per segment",
            "nothing checks the micro decoder, so its text is its own",
            _asked("micro-step-smollm2-135m", "Why is the sky blue?", 0.95),
        ),
    )
}


@cache
def recorded(name: str) -> Generation:
    """The generation of a recording, read from its file.

    Raises:
        MicroStepError: the file is missing or damaged.
    """
    path = FOLDER / f"{name}.npz"
    try:
        generation: Generation = StoredFile(path.read_bytes()).read("generation", Generation)
    except OSError as error:
        raise MicroStepError(f"the recording {path.name} cannot be read: {error.strerror}") from None
    return generation


def record(name: str) -> Path:
    """Run a recording's request, and write its file."""
    from model.hub.loading import load

    request = RECORDINGS[name].request
    loaded = load(request.model)
    runs = sorted((request.run(lambda _: loaded) for _ in range(ROUNDS)), key=lambda run: run.speed_ratio)
    path = FOLDER / f"{name}.npz"
    atomic_write(path, write_npz({"generation": (Generation, runs[ROUNDS // 2])}))
    return path


if __name__ == "__main__":
    for chosen in sys.argv[1:] or RECORDINGS:
        print(record(chosen))
