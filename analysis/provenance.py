"""Where a figure comes from: what was asked, of which models, and the command that reproduces it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from analysis.segmentation.strategy import Segmenter
from model.hub.model_info import ModelInfo
from model.hub.spec import ModelSpec
from model.text.document import TextInput

# Functions of the face that draw what their command draws.
PYTHON = ("compare", "attribute", "attention", "micro_attention", "generate", "depth", "segment")
SEVERAL = {"layer": "layers", "head": "heads"}  # options of commands that functions of the face call otherwise


@dataclass(frozen=True)
class Provenance:
    """Where a figure comes from: what its manifest says beside the figure, and the command that reproduces it."""

    command: Callable[[str, str], str]  # (name of the figure, file to write): run in a folder that holds `files`
    request: Mapping[str, Any]  # what was asked, in plain values
    view: Mapping[str, Any]  # how it is looked at
    models: Mapping[str, ModelInfo]
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # what a reader must know, by model
    files: Mapping[str, bytes] = field(default_factory=dict)  # what the command reads
    read: Mapping[str, str] = field(default_factory=dict)  # the text that each model read, its chat template included
    python: Callable[[str], str] | None = None  # (name of the figure): lines that draw it; None where there are none


def python_lines(
    function: str, models: Sequence[ModelSpec], loading: Any, text: TextInput, view: Any, options: Sequence[Any]
) -> Callable[[str], str] | None:
    """The lines of Python that draw a figure, from the options that its command is made of; None where there are none.

    Args:
        function: of `import micro_step as ms`; commands have a hyphen for its underscore.
        models: one or two.
        loading: how they are loaded.
        text: as they read it.
        view: a dataclass, whose fields are options of the figure.
        options: of the command, beside those of models, loading, text and view.
    """
    document = text.document
    function = function.replace("-", "_")
    if function not in PYTHON or document.arguments or document.date:
        return None
    looked = {each.name for each in dataclasses.fields(view)}
    given = {
        SEVERAL.get(name, name): value for group in options for name, value in told(group).items() if name not in looked
    }
    if isinstance(given.get("strategy"), list) and len(given["strategy"]) == 1:
        (given["strategy"],) = given["strategy"]
    if isinstance(given.get("confidence"), tuple):
        if len(given["confidence"]) > 1:
            return None
        (given["confidence"],) = given["confidence"]
    given |= {name: True for name in ("chat", "force_bos") if getattr(text, name)}
    words = _arguments(given)
    loaded = ["a", "b"][: len(models)]
    pair = loaded if function == "compare" else [name if name == "a" else f"{name}={name}" for name in loaded]
    called = ", ".join([pair[0], *(pair[1:] if function == "compare" else []), "text"])
    more = [*(pair[1:] if function != "compare" else []), *([words] if words else [])]
    plain = len(document.messages) == 1 and document.messages[0].role == "text"
    content: Any = (
        document.text if plain else [{"role": each.role, "content": each.content} for each in document.messages]
    )
    before = [f"{name} = {_load(spec, loading)}" for name, spec in zip(loaded, models, strict=True)]
    return drawing_lines([*before, f"text = {content!r}"], f"{function}({', '.join([called, *more])})", told(view))


def drawing_lines(before: Sequence[str], call: str, view: Mapping[str, Any]) -> Callable[[str], str]:
    """The lines of Python that draw a figure of what a call of the face returns.

    Args:
        before: lines that the call needs.
        call: the function of `import micro_step as ms`, with its arguments.
        view: options of the figure.
    """
    looks = f", {_arguments(view)}" if view else ""

    def lines(figure: str) -> str:
        drawn = f"result.figure({figure!r}{looks})"
        return "\n".join(["import micro_step as ms", "", *before, f"result = ms.{call}", drawn])

    return lines


def _arguments(given: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def told(options: Any) -> dict[str, Any]:
    """The options of a dataclass that are others than their defaults."""
    return {
        each.name: value
        for each in dataclasses.fields(options)
        if (value := getattr(options, each.name)) is not None and value != each.default
    }


def _load(spec: ModelSpec, loading: Any) -> str:
    own = {"revision": spec.revision, "adapter": spec.adapter}
    given = {name: value for name, value in own.items() if value} | told(loading)
    return f"ms.load({', '.join([repr(spec.name), *([_arguments(given)] if given else [])])})"


def plain_values(query: Any) -> dict[str, Any]:
    """A query as a manifest holds it: its fields as plain values, those of its text and its segmenter among them."""
    values = asdict(query)
    text = values.pop("text") or {"document": None, "chat": False, "force_bos": False}
    if "segmenter" in values:
        segmenter = values.pop("segmenter") or asdict(Segmenter())
        strategy = None if query.segmenter is None else str(query.segmenter.strategy)
        values |= {"strategy": strategy, "max_length": segmenter["max_length"], "how": segmenter["features"]}
    return {**text, **values}
