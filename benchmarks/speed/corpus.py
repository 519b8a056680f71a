"""Scoring a corpus in this process and inside vLLM, in turn in one process, and how far apart the scores are.

It runs in vLLM's environment, so both have the same torch.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.options import CorpusTimingOptions, use_threads
from benchmarks.scorers import excerpt
from benchmarks.texts import bundled_text
from benchmarks.timing import environment
from data.corpus.budget import MAX_BATCH_TOKENS
from model.command_options import LoadOptions
from model.hub.loading import load
from model.hub.spec import ModelSpec
from model.progress import Tell
from model.scoring import token_scores
from model.scoring.scores import TokenScores
from serving.vllm_plugin.launch import need_vllm
from serving.vllm_plugin.scorer import VllmOptions, load_in_vllm


def measure(options: CorpusTimingOptions, tell: Tell) -> dict[str, Any]:
    """A row for each engine: tokens per second, and the median over rounds of the ratio to this process."""
    need_vllm(LoadOptions())
    use_threads(options.threads)
    spec, n = ModelSpec(options.model, dtype="float32"), options.document_tokens
    own = load(spec, tell)
    engine = load_in_vllm(spec, VllmOptions(threads=options.threads), tell).engine
    read = excerpt(own, bundled_text(options.tokens), options.tokens)
    rows = [read.ids[start : start + n] for start in range(0, len(read.ids) - n + 1, n)]
    engine.start(n + len(read.prefix))
    count = max(1, MAX_BATCH_TOKENS[own.model.device.type] // n)

    def there() -> list[TokenScores]:
        return engine.score(rows, read.prefix, lambda _: None)

    def here() -> list[TokenScores]:
        batches = (rows[at : at + count] for at in range(0, len(rows), count))
        return [each for batch in batches for each in token_scores.score(own.model, batch, read.prefix, k=1)]

    ways: dict[str, Callable[[], list[TokenScores]]] = {"this process": here, "vLLM": there}
    scored = {name: run() for name, run in ways.items()}  # also warms them up
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    processor: dict[str, list[float]] = {name: [] for name in ways}  # other programs do not add to it
    for turn in range(options.repeats):
        for name in sorted(ways, reverse=bool(turn % 2)):
            tell(f"round {turn + 1} of {options.repeats}: {name}", turn / options.repeats)
            started, used = time.perf_counter(), time.process_time()
            ways[name]()
            seconds[name].append(time.perf_counter() - started)
            processor[name].append(time.process_time() - used)
    tokens = len(rows) * n

    def to_own(times: dict[str, list[float]], name: str) -> float:
        return median(own / each for own, each in zip(times["this process"], times[name], strict=True))

    return {
        "benchmark": "corpus",
        "model": own.facts.name,
        "engine": engine.name,
        "tokens": tokens,
        "documents": len(rows),
        "threads": options.threads,
        **{f"largest difference of {name}": _apart(scored, name) for name in ("entropy", "surprisal")},
        **environment("torch", "transformers"),
        "rows": [
            {
                "name": name,
                "tokens_per_second": tokens / median(seconds[name]),
                "ratio": to_own(seconds, name),
                "tokens_per_processor_second": tokens / median(processor[name]),
                "processor_ratio": to_own(processor, name),
            }
            for name in ways
        ],
    }


def _apart(scored: dict[str, list[TokenScores]], name: str) -> float:
    """The largest difference of a score, in nats."""
    one, other = (np.concatenate([getattr(row, name) for row in rows]) for rows in scored.values())
    difference: NDArray[np.float64] = np.abs(one.astype(np.float64) - other)
    return float(np.nanmax(difference))
