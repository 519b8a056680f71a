"""Time and peak memory of scoring a text, one scorer beside the other.

Every measurement runs in a fresh process. Memory: one scorer a process, the growth of its resident memory over the
loaded and warmed-up model. Time: all scorers in one process and in rounds, each once a round in turning order, and
the ratio to the bare forward pass is taken within the round, so that what else the machine does falls on all alike.
"""

import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from benchmarks.options import ScoreOptions
from benchmarks.scorers import BARE, SCORERS, Excerpt, Scorer, excerpt
from benchmarks.texts import bundled_text, read_text
from benchmarks.timing import Method, MethodSet, device_name, environment, measure_methods
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
    text = bundled_text(options.tokens) if options.text_file is None else read_text(options.text_file)
    reports = []
    for name in options.model or DEFAULT_MODELS:
        arguments = (name, options.dtype, options.device, text, options.tokens, scorers)
        report = measure_methods(name, prepare, arguments, options.repeats, tell)
        for row in report["rows"]:
            peak = row["peak_bytes"]
            row["of_logits"] = None if peak is None else peak / report["logits_bytes"]
        reports.append({"benchmark": "score", **report})
    return reports


def prepare(name: str, dtype: str, device: str, text: str, tokens: int, scorers: tuple[str, ...]) -> MethodSet:
    """The scorers, ready to run on a text."""
    loaded, read = _ready(name, dtype, device, text, tokens)
    vocabulary, short = loaded.facts.vocab_size, excerpt(loaded, read.text, 32)
    logits_bytes = 4 * len(read.ids) * vocabulary
    methods = {
        scorer.name: Method(
            scorer.computes,
            partial(scorer.run, loaded, read),
            partial(scorer.run, loaded, short),
            _obstacle(scorer, logits_bytes, device),
        )
        for scorer in SCORERS
        if scorer.name in scorers
    }
    if (obstacle := methods[BARE.name].note) is not None:
        raise MicroStepError(f"{name}: the bare forward pass {obstacle}; use fewer tokens")
    facts = {
        "model": loaded.facts.name,
        "dtype": loaded.facts.dtype,
        "device": device_name(device),
        "tokens": len(read.ids),
        "vocabulary": vocabulary,
        "logits_bytes": logits_bytes,
        **environment("torch", "transformers", "minicons"),
    }
    return MethodSet(facts, methods, str(loaded.model.device))


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
