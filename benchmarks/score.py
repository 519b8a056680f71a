"""Time and peak memory of scoring a text, method beside method.

Every measurement runs in a fresh process. Memory: one method a process, the growth of its resident memory over the
loaded and warmed-up model. Time: all methods in one process and in rounds, each once a round in turning order, and
the ratio to the bare forward pass is taken within the round, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import gc
import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from benchmarks.measure import (
    device_name,
    highest,
    in_fresh_process,
    in_turn,
    resident,
    seconds_of,
    settle,
    spread,
    version,
)  # fmt: skip
from model.errors import MicroStepError, TextError
from model.terminal import Tell

if TYPE_CHECKING:
    from benchmarks.methods import Excerpt, Method
    from model.hub.loading import LoadedModel

DEFAULT_MODELS = ("smollm2-135m-instruct", "gemma-3-270m")
_METHODS = ("bare", "discarded", "ours", "naive", "minicons")  # known without loading torch
_SPARE = 0.8  # share of the free memory that a method may plan with


def check_methods(asked: Sequence[str] | None) -> tuple[str, ...]:
    """The methods to run: all, or those asked for and the bare forward pass that they are measured against.

    Raises:
        MicroStepError: there is no method of that name.
    """
    for name in asked or ():
        if name not in _METHODS:
            raise MicroStepError(f"there is no method {name!r}; there are {', '.join(_METHODS)}")
    return tuple(name for name in _METHODS if not asked or name in asked or name == "bare")


def benchmark(
    name: str,
    tokens: int,
    repeats: int,
    methods: Sequence[str] = _METHODS,
    text: str | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    tell: Tell = lambda message, fraction: None,
) -> dict[str, Any]:
    """Measure one model: what was run on what, and a row a method with seconds, ratio to bare and peak bytes.

    Args:
        name: catalog name, hub id or folder.
        tokens: length of the text; less where the text ends before.
        repeats: rounds of the timing.
        methods: from `check_methods`.
        text: what to score; the bundled examples, shuffled and repeated, if None.
        dtype: of the weights.
        device: where it is run.
        tell: told what is being done.
    """
    text = bundled_text(tokens) if text is None else text
    tell(f"{name}: timing {repeats} rounds", None)
    report = in_fresh_process(timed, name, dtype, device, text, tokens, repeats, tuple(methods))
    for row in report["rows"]:
        if row["seconds"] is not None:
            tell(f"{name}: memory of {row['method']}", None)
            row["peak_bytes"] = in_fresh_process(peak, name, dtype, device, text, tokens, row["method"])
    return report


def bundled_text(tokens: int) -> str:
    """The sentences of the bundled examples, in a new order on every pass; long enough for so many tokens."""
    from data.samples import samples

    sentences = [s for sample in samples() for s in re.findall(r"\S.*?(?:[.!?](?=\s)|\n|$)\s*", sample.text, re.DOTALL)]
    order, parts, length = random.Random(0), list[str](), 0
    while length < 8 * tokens:  # no tokenizer in use makes tokens of 8 characters on average of these texts
        for sentence in order.sample(sentences, len(sentences)):
            parts.append(sentence if sentence[-1].isspace() else sentence + " ")
            length += len(parts[-1])
    return "".join(parts)


# --- in the fresh process


def timed(
    name: str, dtype: str, device: str, text: str, tokens: int, repeats: int, methods: tuple[str, ...]
) -> dict[str, Any]:
    """All but the peaks of a report."""
    import torch

    loaded, piece = _ready(name, dtype, device, text, tokens)
    words = loaded.facts.vocab_size
    logits_bytes = 4 * len(piece.ids) * words
    notes = {method.name: _obstacle(method, logits_bytes, device) for method in _named(methods)}
    usable = [method for method in _named(methods) if notes[method.name] is None]
    if not usable or usable[0].name != "bare":
        raise MicroStepError(f"{name}: the bare forward pass {notes['bare']}; use fewer tokens")
    for method in usable:
        method.run(loaded, _start(loaded, piece))
    seconds: dict[str, list[float]] = {method.name: [] for method in usable}
    for turn in range(repeats):
        for method in (usable[i] for i in in_turn(turn, len(usable))):
            seconds[method.name].append(_seconds(method, loaded, piece))
    rows = []
    for method in _named(methods):
        taken = seconds.get(method.name)
        ratios = [a / b for a, b in zip(taken, seconds["bare"], strict=True)] if taken else None
        rows.append(
            {
                "method": method.name,
                "computes": method.computes,
                "note": notes[method.name],
                "seconds": spread(taken),
                "ratio": spread(ratios),
                "peak_bytes": None,
            }
        )
    return {
        "benchmark": "score",
        "model": loaded.facts.name,
        "dtype": loaded.facts.dtype,
        "device": device_name(device),
        "tokens": len(piece.ids),
        "vocabulary": words,
        "logits_bytes": logits_bytes,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "versions": {package: version(package) for package in ("torch", "transformers", "minicons")},
        "rows": rows,
    }


def peak(name: str, dtype: str, device: str, text: str, tokens: int, method: str) -> int:
    """Bytes by which a method's resident memory grows at its peak over the loaded model."""
    loaded, piece = _ready(name, dtype, device, text, tokens)
    (chosen,) = _named((method,))
    chosen.run(loaded, _start(loaded, piece))  # weights that are mapped from a file are read now, kernels made
    gc.collect()
    before = resident(device)
    chosen.run(loaded, piece)
    return max(0, highest(device) - before)


def _ready(name: str, dtype: str, device: str, text: str, tokens: int) -> tuple[LoadedModel, Excerpt]:
    import warnings

    from benchmarks.methods import excerpt
    from model.hub.loading import ModelSpec, load

    warnings.filterwarnings("ignore", message="tokenizer is changed by adding pad_token_id")  # minicons, of ours
    loaded = load(ModelSpec(name, dtype=cast("Any", dtype), device=device))
    piece = excerpt(loaded, text, tokens)
    limit = loaded.facts.context_length
    if limit is not None and len(piece.ids) >= limit:
        raise TextError(f"the text has {len(piece.ids)} tokens and {name}'s context holds {limit}; use fewer --tokens")
    return loaded, piece


def _start(loaded: LoadedModel, piece: Excerpt) -> Excerpt:
    from benchmarks.methods import excerpt

    return excerpt(loaded, piece.text, 32)


def _named(names: Sequence[str]) -> list[Method]:
    from benchmarks.methods import METHODS

    return [method for method in METHODS if method.name in names]


def _obstacle(method: Method, logits_bytes: int, device: str) -> str | None:
    """Why the method cannot run here. Running into the kernel's memory killer would take others down."""
    from model.causal_lm.device_memory import available_memory

    if method.name == "minicons" and device != "cpu":
        return "not run: asked for on the processor only"
    needed, there = method.logits_held * logits_bytes, available_memory(device)
    if needed > _SPARE * there:
        return f"not run: needs {needed / 1e9:.1f} GB, {there / 1e9:.1f} GB are free"
    return method.missing()


def _seconds(method: Method, loaded: LoadedModel, piece: Excerpt) -> float:
    device = str(loaded.model.device)
    gc.collect()
    settle(device)

    def run() -> None:
        method.run(loaded, piece)
        settle(device)

    return seconds_of(run)[0]
