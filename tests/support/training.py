"""What the tests of the trainer share: prepared data of a tiny model, and recipes for it."""

from __future__ import annotations

import json
import os
import random
import socket
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.corpus.documents import CorpusSpec, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.scoring import score_corpus
from data.examples import TABLE
from data.prepared import EXAMPLES, STORE, Prepared, read_prepared
from data.run_folder import LogLine
from data.yaml_config import dump_yaml
from model.hub.loading import ModelSpec, load
from model.terminal import start
from tests.support.processes import Forked
from trainer.recipe import Recipe

WORDS = ("the cat", "a dog", "two birds", "my hat", "the sea", "her book", "an egg", "his lamp")


def conversation(chance: random.Random) -> list[dict[str, str]]:
    """A request and an answer that follows from it, so that there is something to learn."""
    a, b = chance.sample(WORDS, 2)
    asked = f"Say {a} and {b}."
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": f"Here: {a} and {b}, {a} and {b}."}]


def make_prepared(
    folder: Path, model: Path, examples: int = 48, messages: list[Any] | None = None, every: int = 8
) -> Prepared:
    """Prepared data under a tiny model with a chat template; every eighth example, or so, is held out."""
    chance = random.Random(0)
    talks = messages if messages is not None else [conversation(chance) for _ in range(examples)]
    n = len(talks)
    columns = {
        "source": ["made"] * n,
        "number": list(range(n)),
        "messages": talks,
        "ended": [i % 5 != 4 for i in range(n)],
        "held_out": [i % every == every - 1 for i in range(n)],
        "repeat": [1 + (i == 0) for i in range(n)],
    }
    file = folder / EXAMPLES / TABLE
    file.parent.mkdir(parents=True)
    pq.write_table(pa.table(columns), file)
    corpus = open_corpus(CorpusSpec(str(file), "messages"))
    score_corpus(lambda: load(ModelSpec(str(model))), corpus, folder / STORE, CorpusOptions(chat=True, max_tokens=256))
    return read_prepared(folder)


def recipe(model: Path, objective: str = "micro_step", steps: int = 6, **more: Any) -> Recipe:
    """A short run on one model; as YAML would give it."""
    rates = {"micro_step": {"new": 3e-3}, "draft": {"new": 3e-3}, "control": {"base": 3e-3}}[objective]
    said = {
        "name": "short",
        "objective": objective,
        "base": {"name": str(model)},
        "data": {"mix": "made"},
        "segmentation": {"rule": "fixed", "parameters": {"k": 2}},
        "stages": [{"name": "only", "steps": steps, "rates": rates, "warmup": 2}],
        "batch": {"tokens": 512},
        "log_every": 1,
        "validation": {"every": 4},
        "checkpoint": {"every": 2},
        **more,
    }
    return Recipe.model_validate_json(json.dumps(said))


def same_curve(a: tuple[LogLine, ...], b: tuple[LogLine, ...]) -> None:
    """The same curve within float error."""
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert (x.step, x.split, x.tokens, x.stops) == (y.step, y.split, y.tokens, y.stops)
        assert x.loss == pytest.approx(y.loss, rel=2e-4) and x.stop_loss == pytest.approx(y.stop_loss, rel=2e-3)


def write_recipe(chosen: Recipe, path: Path) -> Path:
    path.write_text(dump_yaml(chosen), "utf-8")
    return path


def train_in_processes(file: Path, out: Path, prepared: Path, world: int, *words: str) -> None:
    """Train in some processes, as torchrun starts them, but without their fresh interpreters."""
    given = ["train", str(file), "--out", str(out), "--prepared", str(prepared), "--device", "cpu", *words]
    port = _free_port()
    processes = [Forked(_train_as, rank, world, port, given) for rank in range(world)]
    codes = [process.ended() for process in processes]
    assert codes == [0] * world, "".join(process.err for process in processes)
    said = [process.out.splitlines() for process in processes]
    assert said == [[str(out / "model")]] + [[]] * (world - 1)  # said once


def _train_as(rank: int, world: int, port: int, words: list[str]) -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)  # what this process was before it was copied
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    sys.argv = ["micro-step", *words]
    start()


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
