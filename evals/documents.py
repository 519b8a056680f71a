"""Convert the records of data sets to documents; files of the original releases get the shape of the hub's."""

import re
from collections.abc import Callable, Mapping
from typing import Any

Document = dict[str, Any]
_CALCULATOR = re.compile(r"<<[^<>]*>>")  # GSM8K's calculator calls, which are not part of the written solution
_MBPP_TEST = range(11, 511)  # task ids, according to the data set's card


def _plain(record: Mapping[str, Any], *columns: str) -> Document:
    return {column: record[column] for column in columns or record}


def _gsm8k_solution(record: Mapping[str, Any]) -> Document:
    return {"question": record["question"], "answer": _CALCULATOR.sub("", record["answer"])}


def _arc(record: Mapping[str, Any]) -> Document:
    """Return the hub's columns; in the original, the question holds stem and choices."""
    question, choices = record["question"], record.get("choices")
    if isinstance(question, Mapping):
        choices = {key: [choice[key] for choice in question["choices"]] for key in ("text", "label")}
        question = question["stem"]
    assert choices is not None
    key = str(record["answerKey"])
    if key not in choices["label"]:
        raise ValueError(f"the answer {key!r} is none of the choices")
    return {"question": question, "choices": dict(choices), "answerKey": key}


def _mbpp(record: Mapping[str, Any]) -> Document | None:
    if record["task_id"] not in _MBPP_TEST:
        return None  # the hub's test split is the same
    return _plain(record, "task_id", "text", "test_setup_code", "test_list")


def _text(record: Mapping[str, Any]) -> Document | None:
    text = record["page"] if "page" in record else record["text"]
    return {"text": text} if text.strip() else None


SHAPES: dict[str, Callable[[Mapping[str, Any]], Document | None]] = {
    "plain": _plain,
    "gsm8k": lambda record: _plain(record, "question", "answer"),
    "gsm8k_solution": _gsm8k_solution,
    "arc": _arc,
    "humaneval": lambda record: _plain(record, "task_id", "prompt", "entry_point", "test"),
    "mbpp": _mbpp,
    "ifeval": lambda record: _plain(record, "key", "prompt", "instruction_id_list", "kwargs"),
    "text": _text,
}
