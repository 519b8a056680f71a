"""`micro-step bench harness`: the same requests to the harness's own class and to ours, their answers and time.

With tau above 1 a micro_step model is its base, so that all must agree; what differs is the time.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lm_eval.models.huggingface import HFLM

from benchmarks.options import HarnessOptions, use_threads
from benchmarks.ratio import ratio
from benchmarks.timing import environment, in_turn, seconds_of
from evals.benchmark import Benchmark, documents, find_benchmark, read_limits, task_of
from evals.harness import MicroStepLM, RecordedLM
from evals.options import EvalOptions
from evals.run import requests_of
from model.hub.loading import LoadedModel, ModelSpec, load
from model.progress import Tell

THEIRS, PLAIN, MICRO = "the harness's own class", "plain, ours", "micro_step, tau above 1"


@dataclass
class Contestant:
    """One class of the harness, and its answers to the batches of a benchmark."""

    name: str
    ask: Callable[[list[Any]], list[Any]]
    seconds: list[float] = field(default_factory=list)  # of each batch
    answers: list[Any] = field(default_factory=list)  # a text, or a log-likelihood and whether it is greedy

    def answer(self, requests: list[Any]) -> None:
        seconds, answers = seconds_of(lambda: self.ask(requests))
        self.seconds.append(seconds)
        self.answers += answers


def compare(
    base: LoadedModel,
    micro: LoadedModel,
    chosen: Sequence[tuple[Benchmark, int | None]],
    local: Path | None,
    options: EvalOptions,
    tell: Tell,
) -> list[dict[str, Any]]:
    """Ask all the same, batch by batch, in turning order: a row for each benchmark and class."""
    rows = options.batch_rows
    theirs = HFLM(base.model, "causal", tokenizer=base.tokenizer, batch_size=rows)
    out = []
    for benchmark, limit in chosen:
        lms = {THEIRS: theirs, MICRO: MicroStepLM(micro, 1.1, batch_size=rows)}
        if benchmark.generates:  # else it is the harness's own code
            lms[PLAIN] = RecordedLM(base, rows)
        chosen_documents = documents(benchmark, local, limit)
        task = task_of(benchmark, chosen_documents, options.max_new_tokens)
        requests = [each for document in requests_of(benchmark, task, theirs, options).values() for each in document]
        contestants = [Contestant(name, _asker(lm, benchmark.generates)) for name, lm in lms.items()]
        for number, a in enumerate(range(0, len(requests), rows)):
            tell(f"{benchmark.name}: {a:,} of {len(requests):,} requests", a / len(requests))
            for which in in_turn(number, len(contestants)):
                contestants[which].answer(requests[a : a + rows])
        out += [_row(benchmark, len(chosen_documents), contestants[0], each) for each in contestants]
    return out


def _asker(lm: Any, generates: bool) -> Callable[[list[Any]], list[Any]]:
    ask = lm.generate_until if generates else lm.loglikelihood
    return lambda requests: list(ask(requests, disable_tqdm=True))


def _row(benchmark: Benchmark, documents: int, theirs: Contestant, mine: Contestant) -> dict[str, Any]:
    row = {
        "benchmark": benchmark.name,
        "way": mine.name,
        "documents": documents,
        "requests": len(mine.answers),
        "speedup": ratio((np.array(theirs.seconds), np.array(mine.seconds))),
        "seconds": sum(mine.seconds),
    }
    pairs = list(zip(mine.answers, theirs.answers, strict=True))
    if benchmark.generates:
        return {**row, "equal": sum(a == b for a, b in pairs), "difference": None}
    greedy = sum(a[1] == b[1] for a, b in pairs)
    return {**row, "equal": greedy, "difference": max(abs(a[0] - b[0]) for a, b in pairs)}


def measure(options: HarnessOptions, tell: Tell) -> dict[str, Any]:
    chosen = [(find_benchmark(name), most) for name, most in read_limits(options.tasks).items()]
    use_threads(options.threads)
    asked = EvalOptions(
        chat=options.chat,
        multiturn=options.chat,
        batch_rows=options.batch_rows,
        max_new_tokens=options.max_new_tokens,
    )
    specs = (ModelSpec(name, dtype=options.dtype, device=options.device) for name in (options.base, options.model))
    base, micro = (load(spec, tell) for spec in specs)
    rows = compare(base, micro, chosen, options.local, asked, tell)
    where = environment("torch", "transformers", "lm_eval")
    facts = {**asdict(options), "local": options.local and str(options.local), "intervals": "95% over batches"}
    return {"benchmark": "harness", **facts, **where, "rows": rows}
