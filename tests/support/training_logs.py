"""Folders of training runs for the tests, written as the trainer writes them, with made-up figures."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from data.run_folder import CHECKPOINTS, FACTS, LOG, MODEL, RECIPE, LogLine, RunFacts, StageFacts, facts_json, to_line

STEPS, EVERY = 400, 10


def facts(name: str = "tiny", **more: Any) -> RunFacts:
    """Facts of a run of two stages."""
    given: dict[str, Any] = {
        "name": name,
        "objective": "micro_step",
        "base": "tiny-sft",
        "base_revision": "sha256:0123",
        "data": "tiny-mix",
        "data_hash": "sha256:4567",
        "steps": STEPS,
        "stages": (
            StageFacts("new modules", 1, STEPS // 2, {"new": 1e-4}),
            StageFacts("joint", STEPS // 2 + 1, STEPS, {"new": 5e-5, "base": 1e-5}),
        ),
        "parameters": {"new": 120_000, "base": 1_500_000, "frozen": 0},
        "tokens_per_step": 512.0,
        "seed": 0,
        "packages": {"torch": "2.9.0", "transformers": "5.0.0"},
    }
    return RunFacts(**{**given, **more})


def line(step: int, split: str = "train", speed: float = 1.0, **more: Any) -> LogLine:
    """A line of a log: losses fall with steps."""
    falls = math.exp(-speed * step / 150)
    wobble = 0.15 * math.sin(step * 1.7) if split == "train" else 0.05
    token_loss = 1.2 + 2.5 * falls + wobble
    joint = step > STEPS // 2
    tokens = 5120 if split == "train" else 4000
    shares = (0.40, 0.30, 0.20, 0.10)
    given: dict[str, Any] = {
        "step": step,
        "stage": "joint" if joint else "new modules",
        "split": split,
        "tokens": tokens,
        "seen": step * 512,
        "loss": token_loss + 0.2 * falls,
        "token_loss": token_loss,
        "stop_loss": 0.4 * falls + 0.2,
        "teacher_loss": None,
        "accuracy": 0.7 - 0.4 * falls,
        "position_tokens": tuple(int(tokens * share) for share in shares),
        "position_loss": tuple(token_loss + 0.3 * i for i in range(4)),
        "position_accuracy": tuple(max(0.02, 0.7 - 0.4 * falls - 0.08 * i) for i in range(4)),
        "stop_accuracy": 0.9 - 0.3 * falls,
        "stops": tokens // 2,
        "rates": ({"new": 5e-5, "base": 1e-5} if joint else {"new": 1e-4}) if split == "train" else {},
        "gradient_norm": 0.5 + falls + abs(wobble) if split == "train" else None,
        "tokens_per_second": 9000.0 + 300 * wobble if split == "train" else None,
        "seconds": step * 0.07,
    }
    return LogLine(**{**given, **more})


def lines(last: int = STEPS, speed: float = 1.0) -> list[LogLine]:
    """A log up to a step: a line every ten steps, a validation every hundred."""
    found = []
    for step in range(EVERY, last + 1, EVERY):
        found.append(line(step, speed=speed))
        if step % 100 == 0:
            found.append(line(step, "validation", speed))
    return found


def save_run(
    folder: Path, log: list[LogLine] | None = None, finished: bool = False, checkpoints: int = 0, **more: Any
) -> Path:
    """Write the folder of a run.

    Args:
        folder: is made.
        log: its lines.
        finished: whether it has a final model.
        checkpoints: how many, one each hundred steps.
        more: facts that differ from the usual ones.
    """
    folder.mkdir(parents=True)
    (folder / FACTS).write_bytes(facts_json(facts(**{"name": folder.name, **more})))
    (folder / LOG).write_text("".join(map(to_line, lines() if log is None else log)), encoding="utf-8")
    (folder / RECIPE).write_text(
        f"name: {folder.name}\nseed: {more.get('seed', 0)}\nmodel:\n  merger: residual_softmax\n  layers: [2, 5]\n"
        "stages:\n- name: new modules\n  steps: 200\n- name: joint\n  steps: 200\n",
        encoding="utf-8",
    )
    places = [folder / CHECKPOINTS / f"step-{100 * i:08d}" / MODEL for i in range(1, checkpoints + 1)]
    for place in [*places, *([folder / MODEL] if finished else [])]:
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    return folder
