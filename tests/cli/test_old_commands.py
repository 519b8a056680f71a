"""Commands of before `micro-step`, as bundles that were made then hold them: they mean the same today."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import typer

from micro_step import cli
from micro_step.old_commands import translated
from tests.support.command import repeat

TEXT = "--text-file text.txt"
OLD = {  # name: (the command of a bundle, what it asks for today)
    "compare": (
        f"analysis figure line --a tiny-base --b tiny-sft {TEXT} --dtype float32 --score surprisal --unit bits"
        " --theme dark --pinned 3 --role text --out figure.csv",
        {"figure": "line", "a": "tiny-base", "unit": "bits", "pinned": 3, "role": "text"},
    ),
    "continuations": (
        f"analysis figure line --a tiny-base --b tiny-sft {TEXT} --continue 6 --temperature 0.8 --top-p 1.0 --seed 4"
        " --dtype float32 --score entropy --unit nats --theme light --out figure.csv",
        {"new_tokens": 6, "temperature": 0.8, "seed": 4},
    ),
    "segments": (
        f"analysis segmentation-figure values --a tiny-base --b tiny-sft {TEXT} --dtype float32 --strategy"
        " entropy:threshold=1.5 --strategy attention_mass:tau=0.3 --max-length 4 --layer 0 --layer 1 --history-method"
        " exact --history-stride 16 --chosen 2 --metric f1 --change 0.05 --unit bits --theme light --out figure.csv",
        {"figure": "values", "chosen": 1, "strategy": ["entropy:threshold=1.5", "attention_mass:tau=0.3"]},
    ),
    "options that no strategy reads": (
        f"analysis segmentation-figure values --a tiny-base {TEXT} --strategy word --max-length 4 --layer 0 --head 1"
        " --history-method banded --history-stride 8 --chosen 1 --out figure.csv",
        {"layer": (), "head": (), "history_method": "exact", "history_stride": 16},
    ),
    "a history that is compared": (
        f"analysis segmentation-figure history --a tiny-base {TEXT} --strategy word --max-length 4"
        " --history-method banded --history-stride 8 --window 6 --chosen 1 --out figure.csv",
        {"history_method": "banded", "history_stride": 8, "window": 6},
    ),
    "store": (
        "analysis segmentation-figure agreement --store /tmp/store --number 3 --strategy word --max-length 4"
        " --history-method exact --history-stride 16 --chosen 1 --metric pk --change 0.05 --unit nats --theme light"
        " --out figure.csv",
        {"store": "/tmp/store", "number": 3, "chosen": 0},
    ),
    "answer": (
        f"analysis generation-figure answer --model micro-step-tiny {TEXT} --chat --template-date 2026-11-27 --dtype"
        " float32 --rule confidence --confidence 0.4 --max-segment-length 4 --merged --max-new-tokens 12 --unit bits"
        " --theme light --over time --out figure.csv",
        {"figure": "answer", "confidence": ["0.4"], "lossless": False, "chat": True},
    ),
    "sweep": (
        f"analysis generation-figure sweep --model micro-step-tiny {TEXT} --dtype float32 --rule confidence"
        " --confidence 0.8 --max-segment-length 4 --merged --max-new-tokens 8 --taus '0.3 1.01' --unit nats --theme"
        " light --over time --out figure.csv",
        {"figure": "sweep", "confidence": ["0.3 1.01"]},
    ),
    "attention": (
        f"analysis attention-figure map --a tiny-base --b tiny-sft {TEXT} --dtype float32 --strategy word --max-length"
        " 4 --pool max --shown evenness --layer 1 --head 2 --source mean --level segments --queries 1:9 --theme light"
        " --out figure.csv",
        {"figure": "map", "layer": ["1"], "head": ["2"], "source": "mean", "queries": "1:9"},
    ),
    "micro attention": (
        f"analysis micro-attention-figure micro_weights --model micro-step-tiny {TEXT} --dtype float32 --max-length 4"
        " --layer 2 --segment 2 --theme light --out figure.csv",
        {"figure": "micro_weights", "layer": 1, "segment": 1},
    ),
    "attribution": (
        f"analysis attribution-figure units --a tiny-base --b tiny-sft {TEXT} --dtype float32 --quantity kl --at 9"
        " --method input_x_gradient --baseline mean --unit words --information bits --theme light --out figure.csv",
        {"figure": "units", "group_by": "words", "unit": "bits", "at": 9},
    ),
    "attribute": (
        f"analysis attribute --model tiny-base --b tiny-sft {TEXT} --quantity kl --unit words --information bits",
        {"a": "tiny-base", "b": "tiny-sft", "model": None, "group_by": "words", "unit": "bits"},
    ),
    "runs": (
        "analysis runs-figure curves 'runs/my run' runs/-other --folder runs --seen seen.json --curves 'loss accuracy'"
        " --x tokens --smoothing 0.9 --log --measure nll --unit nats --theme light --out figure.csv",
        {"figure": "curves", "runs": [Path("runs/my run"), Path("runs/-other")], "log": True},
    ),
    "evenness": (
        "analysis evenness-figure models evenness.csv --theme light --out figure.csv",
        {"figure": "models", "table": "evenness.csv"},
    ),
    "report": (
        "evals report evaluations/plain evaluations/micro --tasks gsm8k_cot --out figure.csv",
        {"folders": [Path("evaluations/plain"), Path("evaluations/micro")], "tasks": ["gsm8k_cot"]},
    ),
    "samples": (
        "evals samples evaluations/A/x@0.5.jsonl --table documents --score=exact_match --show=all --out figure.csv",
        {"table": "documents", "score": "exact_match"},
    ),
    "corpus": ("analysis corpus --model tiny-base --data x.txt --out store", {"model": "tiny-base"}),
    "corpus report": ("analysis corpus-report store --table curves", {"table": "curves"}),
    "corpus study": (
        "analysis corpus-study --data x.txt --model tiny-base --model tiny-sft --out study",
        {"a": "tiny-base", "b": "tiny-sft"},
    ),
    "model": ("model show tiny-base --tokens 9", {"name": "tiny-base", "tokens": 9}),
    "data": ("data prepare tiny --model tiny-base --out x", {"mix": "tiny"}),
    "training": ("trainer tiny --minutes 2", {"recipe": "tiny", "minutes": 2.0}),
    "benchmark": ("benchmarks decode --model tiny-base --max-new-tokens 9", {"max_new_tokens": 9}),
}


def parsed(words: list[str]) -> dict[str, Any]:
    """The values of a command's options."""
    command: Any = typer.main.get_command(cli.command(words))
    context = None
    while hasattr(command, "resolve_command"):
        context = command.context_class(command, info_name="micro-step", parent=context)
        _, command, words = command.resolve_command(context, words)
    return dict(command.make_context("micro-step", list(words), parent=context).params)


@pytest.mark.parametrize("kind", OLD)
def test_the_command_of_an_old_bundle_asks_for_the_same(kind: str) -> None:
    command, expected = OLD[kind]
    program, *words = shlex.split(command)
    assert expected.items() <= parsed(translated(program, words)).items()


def test_an_old_command_draws_its_figure(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("the cat sat on the mat", "utf-8")
    pair = f"--a {models['base']} --b {models['sft']}"
    assert repeat(monkeypatch, f"python -m analysis figure line {pair} {TEXT} --unit bits --out old.csv") == 0
    assert repeat(monkeypatch, f"micro-step compare {pair} {TEXT} --unit bits --figure line --out new.csv") == 0
    pd.testing.assert_frame_equal(pd.read_csv("old.csv"), pd.read_csv("new.csv"))
