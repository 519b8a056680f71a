"""Answers that come with the project, each in a file of its own: found by question, and only for the same weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from analysis.query import Query
from analysis.stored_results.codec import CodecError, StoredFile, key_of, write_npz
from model.atomic_files import atomic_write
from model.errors import MicroStepError
from model.hub.cache import remembered_sha256
from model.hub.catalog import find
from model.hub.fetch import ROOT, fetch, is_cached
from model.hub.micro_step_io import saved_in
from model.hub.model_info import find_source
from model.hub.spec import ModelSpec
from model.reading.regular_files import read_bytes
from model.text.document import Document

FOLDER = ROOT / "data" / "examples"
VERSION = 1  # of the files
# Files of a bundled model that decide its answers; logs and summaries of its training do not.
DECIDES = re.compile(r".*config\.json|tokenizer.*\.json|special_tokens_map\.json|.*\.jinja|.*\.safetensors")
PACKAGES = ("torch", "transformers", "tokenizers", "numpy")
Answer = TypeVar("Answer")
Header = dict[str, str]
logger = logging.getLogger(__name__)


def stored_answer(query: Query[Answer], folder: Path = FOLDER) -> Answer | None:
    """The answer that comes with the project; None if there is none, or if it was computed with other weights."""
    weights = _weights(query)
    if not weights:
        return None
    path = folder / _file_name(query)
    if not path.is_file():
        return None
    try:
        file = StoredFile(read_bytes(path))
        header = file.read("header", Header)
        if header["version"] != str(VERSION) or header["question"] != _key(query) or header["weights"] != weights:
            return None
        answer: Answer = file.read("answer", _answer_type(query))
    except (OSError, KeyError, CodecError) as error:  # the figures are computed instead
        logger.warning("%s is left out: %s", path, error)
        return None
    return answer


def store_answer(query: Query[Answer], answer: Answer, folder: Path = FOLDER) -> Path:
    """Write an answer to the folder, and return its file.

    Raises:
        MicroStepError: the models are not those of the catalog with their plain options; the answer depends on the day;
            the question or the answer cannot be stored; or the file cannot be written.
    """
    weights = _weights(query)
    if not weights:
        raise MicroStepError("answers are stored for models of the catalog that are on this machine, without options")
    if any(getattr(part, "date", None) for part in _parts(answer) if not isinstance(part, Document)):
        raise MicroStepError("a chat template wrote the day's date, so the answer is another one tomorrow")
    header = {"version": str(VERSION), "question": _key(query), "weights": weights}
    header |= {name: version(name) for name in PACKAGES}
    path = folder / _file_name(query)
    content = write_npz(
        {
            "header": (Header, header),
            "question": (type(query), undated(query)),
            "answer": (_answer_type(query), undated(answer)),
        }
    )
    atomic_write(path, content)
    return path


def undated(value: Any) -> Any:
    """A question or an answer without the day that its document gives to chat templates: what is stored needs none."""
    if isinstance(value, tuple):
        return tuple(undated(each) for each in value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    changes = {field.name: undated(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return dataclasses.replace(value, **changes | ({"date": None} if isinstance(value, Document) else {}))


def _parts(value: Any) -> Iterator[Any]:
    """A dataclass and all dataclasses in it."""
    if isinstance(value, tuple):
        for each in value:
            yield from _parts(each)
    elif dataclasses.is_dataclass(value):
        yield value
        for field in dataclasses.fields(value):
            yield from _parts(getattr(value, field.name))


def _key(query: Query[Any]) -> str:
    return key_of(undated(query))


def _file_name(query: Query[Any]) -> str:
    """A name that tells what the file holds: question, models, and a hash of the whole question."""
    models = "_".join(spec.name for spec in query.specs.values())
    return f"{type(query).__name__}_{models}_{hashlib.sha256(_key(query).encode()).hexdigest()[:12]}.npz"


def _answer_type(query: Query[Any]) -> Any:
    """What its `run` returns. Types of other parameters may need torch, so they are not resolved."""
    run = type(query).run
    only = type("Run", (), {"__annotations__": {"return": run.__annotations__["return"]}})
    return get_type_hints(only, run.__globals__)["return"]


def _weights(query: Query[Any]) -> str:
    """What decides the models' answers, beside the question: their files. "" if these are not the catalog's own."""
    found = {side: weights_of(spec) for side, spec in query.specs.items()}
    return json.dumps(found) if found and None not in found.values() else ""


def weights_of(spec: ModelSpec) -> str | None:
    """One hash, or the source's revision, of a model of the catalog that is on this machine, and of its base's.

    None for other models and for those with options: nothing is stored for them.
    """
    if spec != ModelSpec(spec.name) or find(spec.name) is None or not is_cached(spec.name):
        return None
    folder = fetch(spec.name)
    place = find_source(spec.name, folder, ROOT)
    revision = place.revision
    if place.source.startswith("project "):
        files = sorted(path for path in folder.iterdir() if DECIDES.fullmatch(path.name))
        revision = hashlib.sha256("".join(path.name + remembered_sha256(path) for path in files).encode()).hexdigest()
    saved = saved_in(folder)
    if saved is None or saved.base is None:
        return revision
    base = weights_of(ModelSpec(saved.base)) if saved.base_revision is None else None
    return None if base is None else f"{revision} on {base}"
