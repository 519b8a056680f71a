"""Turn a model's responses to one document into scores, and into details for the reader.

A score is a number, or a numerator with its denominator (aggregate.py). This module knows no model and no file.
"""

import builtins
import keyword
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
    " on a machine with a network"
)


@dataclass(frozen=True)
class Response:
    """A model's response to one request: a text, or the likelihood of a given one."""

    text: str = ""
    ended: bool = True
    total: float = float("nan")  # nats
    tokens: int = 0
    scored: Scored | None = None  # scores of each token


@dataclass(frozen=True)
class DocumentScores:
    scores: dict[str, Value]
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoringContext:
    prefixed: bool = False  # the beginning of the answer was given
    sandbox: Sandbox | None = None


def _gsm8k(document: Document, responses: Sequence[Response], context: ScoringContext) -> DocumentScores:
    """Return each reader's share of right answers, and of invalid ones, over the repeats."""
    target = document["answer"].split("####")[-1].strip()
    scores: dict[str, Value] = {}
    values: dict[str, list[str | None]] = {}
    reasons: dict[str, list[str | None]] = {}
    for name, way in WAYS.items():
        read = [way.read(response.text, response.ended) for response in responses]
        right = [result.value is not None and way.equal(result.value, target) for result in read]
        scores[name] = float(np.mean(right))
        scores[f"{name} invalid"] = float(np.mean([not result.valid for result in read]))
        values[name], reasons[name] = [result.value for result in read], [result.reason for result in read]
    return DocumentScores(scores, {"target": target, "read": values, "invalid": reasons})


def _letter(document: Document, responses: Sequence[Response], context: ScoringContext) -> DocumentScores:
    key = document["answerKey"]
    target = "ABCDE"[int(key) - 1] if key.isdigit() else key
    choices = dict(zip("ABCDE", document["choices"]["text"], strict=False))
    read = [letter(response.text, context.prefixed, response.ended, choices) for response in responses]
    scores: dict[str, Value] = {
        "accuracy": float(np.mean([result.value == target for result in read])),
        "invalid": float(np.mean([not result.valid for result in read])),
    }
    detail = {
        "target": target,
        "read": [result.value for result in read],
        "invalid": [result.reason for result in read],
    }
    return DocumentScores(scores, detail)


def _choices(document: Document, responses: Sequence[Response], context: ScoringContext) -> DocumentScores:
    """Return the harness's acc and acc_norm: the likeliest choice, and the likeliest per character."""
    texts, labels = document["choices"]["text"], document["choices"]["label"]
    gold = labels.index(document["answerKey"])
    totals = np.array([response.total for response in responses])
    by_length = totals / np.array([float(len(text)) for text in texts])
    scores: dict[str, Value] = {
        "acc": float(totals.argmax() == gold),
        "acc_norm": float(by_length.argmax() == gold),
    }
    return DocumentScores(scores, {"target": labels[gold], "log_likelihood": totals.tolist()})


def _humaneval(document: Document, responses: Sequence[Response], context: ScoringContext) -> DocumentScores:
    """Run the tests of each answer, which is a whole function or the body that continues the prompt's.

    The tests may use what the prompt defines before the function that is asked for.
    """
    name = document["entry_point"]
    tests = f"{document['prompt']}\n{document['test']}\ndel {name}\ncheck({name})\n"

    def whole(program: Program) -> str:
        separator = "\n" if defines(program.code, name) else ""  # the prompt ends inside the function that it begins
        return f"{document['prompt']}{separator}{program.code}\n"

    programs = [program_in(response.text, name) for response in responses]
    return _run([(whole(program), program.reason) for program in programs], tests, name, context)


def _mbpp(document: Document, responses: Sequence[Response], context: ScoringContext) -> DocumentScores:
    """Run the tests of each answer, which is a whole program."""
    tests = document["test_list"]
    tested = re.search(r"assert\s+\(?\s*(\w+)\s*\(", tests[0]) if tests else None
    called = [name for name in re.findall(r"\b([A-Za-z_]\w*)\s*\(", " ".join(tests)) if not keyword.iskeyword(name)]
    own = [name for name in called if name not in vars(builtins)]
    code = "\n".join([document["test_setup_code"], *tests, ""])
    texts = [response.text.split("[DONE]")[0] for response in responses]
    programs = [program_in(text, tested and tested.group(1)) for text in texts]
    function = next(iter(own or called), None)
    return _run([(program.code, program.reason) for program in programs], code, function, context)


def _run(
    programs: list[tuple[str, str | None]], tests: str, function: str | None, context: ScoringContext
) -> DocumentScores:
    """Run programs and their tests; an answer without a program fails for that reason."""
    if context.sandbox is None:
        raise MicroStepError(NOT_ALLOWED)
    verdicts = [context.sandbox.run(program, tests, function) for program, _ in programs]
    scores: dict[str, Value] = {**passes([verdict.passed for verdict in verdicts])}
    scores["timed out"] = float(np.mean([verdict.outcome == "timed out" for verdict in verdicts]))
    reasons = [
        verdict.reason if verdict.passed or missing is None else f"{missing} ({verdict.reason})"
        for verdict, (_, missing) in zip(verdicts, programs, strict=True)
    ]
    detail = {
        "outcome": [verdict.outcome for verdict in verdicts],
        "reason": reasons,
        "isolation": context.sandbox.isolation,
    }
    return DocumentScores(scores, detail)


def _ifeval(document: Document, responses: Sequence[Response], context: ScoringContext) -> DocumentScores:
    """Use the harness's own scorer; the instructions of all prompts are counted together."""
    with redirect_stdout(sys.stderr):  # it prints a message when it fetches NLTK's sentence models
        from lm_eval.tasks.ifeval import utils

    results = []
    for result in responses:
        try:
            results.append(utils.process_results(dict(document), [result.text]))
        except LookupError as error:
            raise MicroStepError(NO_PUNKT) from error
    scores: dict[str, Value] = {}
    for name in ("strict", "loose"):
        followed = [result[f"inst_level_{name}_acc"] for result in results]
        scores[f"prompt_{name}"] = float(np.mean([result[f"prompt_level_{name}_acc"] for result in results]))
        scores[f"instruction_{name}"] = (float(sum(map(sum, followed))), float(sum(map(len, followed))))
    return DocumentScores(scores, {"followed": [result["inst_level_strict_acc"] for result in results]})


def _tokens(document: Document, responses: Sequence[Response], context: ScoringContext) -> DocumentScores:
    """Return token accuracy over all tokens and at each place in a segment; place 0 is the base's."""
    (scored,) = (response.scored for response in responses if response.scored is not None)
    scores: dict[str, Value] = {"accuracy": (float(scored.correct.sum()), float(len(scored.correct)))}
    for slot in range(int(scored.slot.max()) + 1):
        at_slot = scored.slot == slot
        scores[f"accuracy at {slot}"] = (float(scored.correct[at_slot].sum()), float(at_slot.sum()))
    scores["perplexity"] = (-scored.total, float(len(scored.nll)))
    return DocumentScores(scores)


def _text(document: Document, responses: Sequence[Response], context: ScoringContext) -> DocumentScores:
    """Return bits per UTF-8 byte, and the perplexity per token."""
    nats, tokens = -sum(response.total for response in responses), sum(response.tokens for response in responses)
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
