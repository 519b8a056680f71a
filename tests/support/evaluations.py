"""What the tests of the evaluation share: a few documents of each data set, and tiny models to ask."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nltk
import torch

from evals.benchmark import Benchmark, find_benchmark
from evals.options import EvalOptions
from evals.samples import FORMAT, Head, Sample, SampleWriter, WrittenAnswer, begin, file_name
from evals.scoring import JUDGES, Response, ScoringContext
from model.hub.loading import LoadedModel, ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from tests.support.micro_steps import scramble
from tests.support.tiny import save_tiny, tiny_tokenizer

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


def save_evaluation(
    folder: Path, name: str, taus: Sequence[float | None], answers: Sequence[str] = (), **model: Any
) -> Path:
    """Write a finished evaluation of GSM8K and ARC as the runner does, with made-up answers and no model.

    Args:
        folder: is made.
        name: the model's.
        taus: of its runs; None is a plain model's.
        answers: to the sums, by default right, wrong and cut off in turns, worse with a lower tau.
        model: facts that differ from the usual ones.
    """
    folder.mkdir(parents=True)
    facts = {"name": name, "device": "cpu", "dtype": "float32", "micro_step": None, **model}
    options = dataclasses.asdict(EvalOptions(limit=len(SUMS)))
    begin(folder, {"format": FORMAT, "model": facts, "options": options, "packages": {}, "threads": 1})
    for tau in taus:
        said = list(answers) or [_answer(i, tau) for i in range(len(SUMS))]
        head = Head("gsm8k_cot_zeroshot", tau, len(said), "0" * 64)
        samples = [_sum(i, text, tau) for i, text in enumerate(said)]
        SampleWriter(folder / file_name(head.benchmark, tau), head).add(samples)
        head = Head("arc_challenge", tau, 3, "1" * 64)
        samples = [
            Sample(i, f"Question: {i}?\nAnswer:", {"acc": float(i == 0), "acc_norm": float(i < 2)},
                   {"target": "B", "log_likelihood": [-3.5, -1.25 - i]}, (), 12, 12 if tau is None else 8, 0, 0.1, 0)
            for i in range(3)
        ]  # fmt: skip
        SampleWriter(folder / file_name(head.benchmark, tau), head).add(samples)
    return folder


def _answer(i: int, tau: float | None) -> str:
    right = SUMS[i]["answer"].split("#### ")[1]
    if i == 4:
        return "Well, let me think about 5"
    return f"So it is.\nThe answer is {right if tau is None or tau > 1 or i % 2 else 1000 + i}."


def _sum(i: int, text: str, tau: float | None) -> Sample:
    tokens = tuple(re.findall(r"\s?\S+|\s", text)) or (" ",)
    length = 1 if tau is None or tau > 1 else 2
    starts = tuple(range(0, len(tokens), length))
    probability = None if tau is None else tuple(round(1 / (1 + j % 3), 4) for j in range(len(tokens)))
    piece = WrittenAnswer(text, tokens, tuple(range(len(tokens))), starts, probability, text.endswith("."))
    judged = JUDGES["gsm8k"](SUMS[i % len(SUMS)], [Response(text, piece.ended)], ScoringContext())
    steps = len(starts)
    return Sample(i, f"Q: {SUMS[i % len(SUMS)]['question']}\nA:", judged.scores, judged.detail, (piece,),
                  len(tokens), steps, len(tokens) - steps, 0.02 * steps, 0)  # fmt: skip
