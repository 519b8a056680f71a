"""From what a model said of one document to its scores, and to the detail that a reader asks for.

A score is a number, or a numerator with its denominator (averages.py). Knows no model and no file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from evals.aggregate import Value
from evals.answers.letters import letter
from evals.answers.numbers import WAYS
from evals.answers.programs import Program, defines, program_in
from evals.benchmark import Judge
from evals.loglikelihood import Scored
from evals.pass_at_k import passes
from evals.sandbox.runner import NOT_ALLOWED, Sandbox
from model.errors import MicroStepError

Document = Mapping[str, Any]
NO_PUNKT = (
    "IFEval's scorer needs the sentence models of NLTK for this instruction: run `python -m nltk.downloader punkt_tab`"
    " where there is a network"
)


@dataclass(frozen=True)
class Response:
    """What a model said to one request: a text, or how likely a given one of so many tokens is."""

    text: str = ""
    ended: bool = True
    total: float = float("nan")  # nats
    tokens: int = 0
    scored: Scored | None = None  # token by token


@dataclass(frozen=True)
class DocumentScores:
    """A document's scores."""

    scores: dict[str, Value]
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoringContext:
    """What stands beside the document."""

    prefixed: bool = False  # the answer's beginning was given
    sandbox: Sandbox | None = None


def _gsm8k(document: Document, said: Sequence[Response], asked: ScoringContext) -> DocumentScores:
    """Each way's share of right answers, and of invalid ones, over the repeats."""
    target = document["answer"].split("####")[-1].strip()
    scores: dict[str, Value] = {}
    values: dict[str, list[str | None]] = {}
    reasons: dict[str, list[str | None]] = {}
    for name, way in WAYS.items():
        read = [way.read(each.text, each.ended) for each in said]
        right = [found.value is not None and way.equal(found.value, target) for found in read]
        scores[name] = float(np.mean(right))
        scores[f"{name} invalid"] = float(np.mean([not found.valid for found in read]))
        values[name], reasons[name] = [found.value for found in read], [found.reason for found in read]
    return DocumentScores(scores, {"target": target, "read": values, "invalid": reasons})


def _letter(document: Document, said: Sequence[Response], asked: ScoringContext) -> DocumentScores:
    key = document["answerKey"]
    target = "ABCDE"[int(key) - 1] if key.isdigit() else key
    choices = dict(zip("ABCDE", document["choices"]["text"], strict=False))
    read = [letter(each.text, asked.prefixed, each.ended, choices) for each in said]
    scores: dict[str, Value] = {
        "accuracy": float(np.mean([found.value == target for found in read])),
        "invalid": float(np.mean([not found.valid for found in read])),
    }
    detail = {"target": target, "read": [found.value for found in read], "invalid": [found.reason for found in read]}
    return DocumentScores(scores, detail)


def _choices(document: Document, said: Sequence[Response], asked: ScoringContext) -> DocumentScores:
    """The harness's acc and acc_norm: the likeliest choice, and the likeliest for its number of characters."""
    texts, labels = document["choices"]["text"], document["choices"]["label"]
    gold = labels.index(document["answerKey"])
    totals = np.array([each.total for each in said])
    by_length = totals / np.array([float(len(text)) for text in texts])
    scores: dict[str, Value] = {
        "acc": float(totals.argmax() == gold),
        "acc_norm": float(by_length.argmax() == gold),
    }
    return DocumentScores(scores, {"target": labels[gold], "log_likelihood": totals.tolist()})


def _humaneval(document: Document, said: Sequence[Response], asked: ScoringContext) -> DocumentScores:
    """The tests of each answer: a whole function, or the body that continues the prompt's."""
    name = document["entry_point"]

    def whole(found: Program) -> str:
        separator = "\n" if defines(found.code, name) else ""  # the prompt ends inside the function that it begins
        return f"{document['prompt']}{separator}{found.code}\n{document['test']}\ncheck({name})\n"

    programs = [program_in(each.text, name) for each in said]
    return _run([(whole(found), found.reason) for found in programs], asked)


def _mbpp(document: Document, said: Sequence[Response], asked: ScoringContext) -> DocumentScores:
    """The tests of each answer, which is a whole program."""
    tests = document["test_list"]
    tested = re.search(r"assert\s+\(?\s*(\w+)\s*\(", tests[0]) if tests else None

    def whole(found: Program) -> str:
        return "\n".join([found.code, document["test_setup_code"], *tests, ""])

    texts = [each.text.split("[DONE]")[0] for each in said]
    programs = [program_in(text, tested and tested.group(1)) for text in texts]
    return _run([(whole(found), found.reason) for found in programs], asked)


def _run(programs: list[tuple[str, str | None]], asked: ScoringContext) -> DocumentScores:
    """Run programs; where none was found in an answer, that is the reason why it did not pass."""
    if asked.sandbox is None:
        raise MicroStepError(NOT_ALLOWED)
    verdicts = [asked.sandbox.run(program) for program, _ in programs]
    scores: dict[str, Value] = {**passes([verdict.passed for verdict in verdicts])}
    scores["timed out"] = float(np.mean([verdict.outcome == "timed out" for verdict in verdicts]))
    reasons = [
        verdict.reason if verdict.passed or missing is None else f"{missing} ({verdict.reason})"
        for verdict, (_, missing) in zip(verdicts, programs, strict=True)
    ]
    detail = {
        "outcome": [verdict.outcome for verdict in verdicts],
        "reason": reasons,
        "isolation": asked.sandbox.isolation,
    }
    return DocumentScores(scores, detail)


def _ifeval(document: Document, said: Sequence[Response], asked: ScoringContext) -> DocumentScores:
    """The harness's own scorer; the instructions of a prompt are counted together."""
    with redirect_stdout(sys.stderr):  # it says so when it fetches NLTK's sentence models
        from lm_eval.tasks.ifeval import utils

    found = []
    for each in said:
        try:
            found.append(utils.process_results(dict(document), [each.text]))
        except LookupError as error:
            raise MicroStepError(NO_PUNKT) from error
    scores: dict[str, Value] = {}
    for name in ("strict", "loose"):
        followed = [each[f"inst_level_{name}_acc"] for each in found]
        scores[f"prompt_{name}"] = float(np.mean([each[f"prompt_level_{name}_acc"] for each in found]))
        scores[f"instruction_{name}"] = (float(sum(map(sum, followed))), float(sum(map(len, followed))))
    return DocumentScores(scores, {"followed": [each["inst_level_strict_acc"] for each in found]})


def _tokens(document: Document, said: Sequence[Response], asked: ScoringContext) -> DocumentScores:
    """Token accuracy of all tokens, and at each place of a segment: 0 is the base's, the others the micro decoder's."""
    (scored,) = (each.scored for each in said if each.scored is not None)
    scores: dict[str, Value] = {"accuracy": (float(scored.correct.sum()), float(len(scored.correct)))}
    for slot in range(int(scored.slot.max()) + 1):
        here = scored.slot == slot
        scores[f"accuracy at {slot}"] = (float(scored.correct[here].sum()), float(here.sum()))
    scores["perplexity"] = (-scored.total, float(len(scored.nll)))
    return DocumentScores(scores)


def _text(document: Document, said: Sequence[Response], asked: ScoringContext) -> DocumentScores:
    """Bits per byte of UTF-8, and the perplexity of a token."""
    nats, tokens = -sum(each.total for each in said), sum(each.tokens for each in said)
    size = len(document["text"].encode())
    return DocumentScores(
        {"bits_per_byte": (float(nats / np.log(2)), float(size)), "perplexity": (nats, float(tokens))}
    )


JUDGES: dict[Judge, Callable[[Document, Sequence[Response], ScoringContext], DocumentScores]] = {
    "gsm8k": _gsm8k,
    "choices": _choices,
    "letter": _letter,
    "humaneval": _humaneval,
    "mbpp": _mbpp,
    "ifeval": _ifeval,
    "tokens": _tokens,
    "text": _text,
}
