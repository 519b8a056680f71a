"""Time and peak memory of scoring a text, one scorer beside the other.

Every measurement runs in a fresh process. Memory: one scorer a process, the growth of its resident memory over the
loaded and warmed-up model. Time: all scorers in one process and in rounds, each once a round in turning order, and
the ratio to the bare forward pass is taken within the round, so that what else the machine does falls on all alike.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from benchmarks.options import ScoreOptions
from benchmarks.scorers import BARE, SCORERS, Excerpt, Scorer, excerpt
from benchmarks.texts import bundled_text
from benchmarks.timing import (
    device_name,
    environment,
    in_fresh_process,
    in_rounds,
    peak_growth,
    ratios,
    seconds_of,
    spread,
)  # fmt: skip
from model.causal_lm.device_memory import available_memory
from model.errors import MicroStepError, TextError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.progress import Tell

DEFAULT_MODELS = ("smollm2-135m-instruct", "gemma-3-270m")
NAMES = tuple(scorer.name for scorer in SCORERS)
_SPARE = 0.8  # share of the free memory that a scorer may plan with


def check_scorers(given: Sequence[str] | None) -> tuple[str, ...]:
    """The scorers to run: all, or those given and the bare forward pass that they are measured against."""
    for name in given or ():
        if name not in NAMES:
            raise MicroStepError(f"there is no method {name!r}; there are {', '.join(NAMES)}")
    return tuple(name for name in NAMES if not given or name in given or name == BARE.name)


def measure(options: ScoreOptions, tell: Tell) -> list[dict[str, Any]]:
    """A report a model: what was run on what, and a row a scorer with seconds, ratio to bare and peak bytes."""
    scorers = check_scorers(options.method)
    text = bundled_text(options.tokens) if options.text_file is None else _read(options.text_file)
    reports = []
    for name in options.model or DEFAULT_MODELS:
        given = (name, options.dtype, options.device, text, options.tokens)
        tell(f"{name}: timing {options.repeats} rounds", None)
        report = in_fresh_process(timed, *given, options.repeats, scorers)
        for row in report["rows"]:
            if row["seconds"] is not None:
                tell(f"{name}: memory of {row['method']}", None)
                row["peak_bytes"] = in_fresh_process(peak, *given, row["method"])
                row["of_logits"] = row["peak_bytes"] / report["logits_bytes"]
        reports.append(report)
    return reports


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise TextError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise TextError(f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8") from None


# --- in the fresh process


def timed(
    name: str, dtype: str, device: str, text: str, tokens: int, repeats: int, scorers: tuple[str, ...]
) -> dict[str, Any]:
    """All but the peaks of a report."""
    loaded, read = _ready(name, dtype, device, text, tokens)
    vocabulary = loaded.facts.vocab_size
    logits_bytes = 4 * len(read.ids) * vocabulary
    chosen = [scorer for scorer in SCORERS if scorer.name in scorers]
    notes = {scorer.name: _obstacle(scorer, logits_bytes, device) for scorer in chosen}
    if notes[BARE.name] is not None:
        raise MicroStepError(f"{name}: the bare forward pass {notes[BARE.name]}; use fewer tokens")
    usable = [scorer for scorer in chosen if notes[scorer.name] is None]
    for scorer in usable:
        scorer.run(loaded, excerpt(loaded, read.text, 32))
    runs = {
        scorer.name: lambda scorer=scorer: seconds_of(lambda: scorer.run(loaded, read), str(loaded.model.device))[0]
        for scorer in usable
    }
    seconds = in_rounds(runs, repeats)
    return {
        "benchmark": "score",
        "model": loaded.facts.name,
        "dtype": loaded.facts.dtype,
        "device": device_name(device),
        "tokens": len(read.ids),
        "vocabulary": vocabulary,
        "logits_bytes": logits_bytes,
        "repeats": repeats,
        **environment("torch", "transformers", "minicons"),
        "rows": [
            {
                "method": scorer.name,
                "computes": scorer.computes,
                "note": notes[scorer.name],
                "seconds": spread(seconds.get(scorer.name)),
                "ratio": ratios(seconds.get(scorer.name), seconds[BARE.name]),
                "peak_bytes": None,
                "of_logits": None,
            }
            for scorer in chosen
        ],
    }


def peak(name: str, dtype: str, device: str, text: str, tokens: int, scorer: str) -> int:
    """Bytes by which resident memory grows at a scorer's peak over the loaded model."""
    loaded, read = _ready(name, dtype, device, text, tokens)
    chosen = SCORERS[NAMES.index(scorer)]
    chosen.run(loaded, excerpt(loaded, read.text, 32))  # now mapped weights are read, and kernels made
    return peak_growth(lambda: chosen.run(loaded, read), device)


def _ready(name: str, dtype: str, device: str, text: str, tokens: int) -> tuple[LoadedModel, Excerpt]:
    warnings.filterwarnings("ignore", message="tokenizer is changed by adding pad_token_id")  # minicons, of ours
    loaded = load(ModelSpec(name, dtype=cast("Any", dtype), device=device))
    read = excerpt(loaded, text, tokens)
    limit = loaded.facts.context_length
    if limit is not None and len(read.ids) >= limit:
        raise TextError(f"the text has {len(read.ids)} tokens and {name}'s context holds {limit}; use fewer --tokens")
    return loaded, read


def _obstacle(scorer: Scorer, logits_bytes: int, device: str) -> str | None:
    """Why the scorer cannot run here. Running into the kernel's memory killer would take others down."""
    if scorer.name == "minicons" and device != "cpu":
        return "not run: asked for on the processor only"
    needed, free = scorer.logits_held * logits_bytes, available_memory(device)
    if needed > _SPARE * free:
        return f"not run: needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free"
    return scorer.missing()
