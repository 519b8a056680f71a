"""What the tests of the evaluation share: a few documents of each data set, and tiny models to ask."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nltk
import torch

from evals.benchmark import Benchmark, find_benchmark
from evals.run import EvalOptions
from model.loading import LoadedModel, ModelSpec, load
from model.modeling import MicroStepForCausalLM
from tests.micro_steps import scramble
from tests.tiny import save_tiny, tiny_tokenizer

nltk.download = lambda *_, **__: False  # the scorer of IFEval fetches data when it is imported; no test asks a server
OPTIONS = EvalOptions(batch_rows=3, max_new_tokens=12)
SUMS = [
    {
        "question": f"Ann has {n} eggs and buys {m}. How many?",
        "answer": f"{n} + {m} = <<{n}+{m}={n + m}>>{n + m}\n#### {n + m}",
    }
    for n, m in ((3, 4), (12, 5), (48, 2), (7, 7), (5, 31))
]


def lines(*records: Any) -> str:
    """JSON lines."""
    return "".join(json.dumps(record) + "\n" for record in records)


def write_local(root: Path) -> Path:
    """A folder with a few documents of each data set, in the shapes of their releases."""
    for name in ("gsm8k", "arc", "humaneval", "mbpp", "ifeval", "text"):
        (root / name).mkdir()
    (root / "gsm8k/test.jsonl").write_text(lines(*SUMS), "utf-8")
    choices = [
        {"text": f"the {word} dog", "label": label}
        for word, label in zip(("brown", "lazy", "quick"), "ABC", strict=True)
    ]
    arc = [{"id": None, "question": {"stem": f"Which dog sleeps {n} times?", "choices": choices}, "answerKey": key}
           for n, key in enumerate("ABCAB")]  # fmt: skip
    hub = {"id": "x", "question": "Which?", "choices": {"text": ["a", "b"], "label": ["1", "2"]}, "answerKey": "2"}
    with gzip.open(root / "arc/ARC-Challenge-Test.full1172.derived.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines(*arc, hub))
    code = {"task_id": "HumanEval/0", "prompt": "def add(a, b):\n    \"\"\"Add.\"\"\"\n", "entry_point": "add",
            "canonical_solution": "    return a + b\n", "test": "def check(f):\n    assert f(2, 3) == 5\n"}  # fmt: skip
    with gzip.open(root / "humaneval/HumanEval.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines(code))
    mbpp = {"text": "Write a function to add.", "code": "...", "test_setup_code": ""}
    mbpp |= {"test_list": ["assert add(2, 3) == 5"] * 3, "challenge_test_list": []}
    (root / "mbpp/mbpp.jsonl").write_text(lines(*({**mbpp, "task_id": n} for n in (2, 10, 11, 510, 511))), "utf-8")
    asked = {"key": 1, "prompt": "Write no comma.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]}
    (root / "ifeval/ifeval.jsonl").write_text(lines(asked), "utf-8")
    with gzip.open(root / "text/wikitext_document_level-test.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines({"text": "It was the best of times. " * 20}, {"text": " \n"}, {"text": "naïveté"}))
    with gzip.open(root / "text/c4_demo.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write(lines({"text": "A page.", "url": "http://example.com"}))
    return root


def plain_model(folder: Path) -> LoadedModel:
    """A tiny plain model, saved and loaded."""
    return load(ModelSpec(str(save_tiny(folder, "llama", chat=True)), dtype="float32", device="cpu"))


def micro_model(folder: Path, plain: LoadedModel) -> LoadedModel:
    """A tiny micro_step model around it, saved and loaded; its new weights are away from their start."""
    torch.manual_seed(0)
    model = MicroStepForCausalLM.from_base(plain.model, plain.tokenizer)
    scramble(model)
    model.save_pretrained(folder)
    tiny_tokenizer(chat=True).save_pretrained(folder)
    return load(ModelSpec(str(folder), dtype="float32", device="cpu"))


def chosen(*names: str) -> list[Benchmark]:
    """Benchmarks."""
    return [find_benchmark(name) for name in names]
