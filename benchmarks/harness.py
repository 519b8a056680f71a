"""`python -m benchmarks harness`: the same requests to the harness's own class and to ours, their answers and time.

With tau above 1 a micro_step model is its base, so that all must agree; what differs is the time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from benchmarks.account_ratio import ratio
from benchmarks.measure import in_turn, seconds_of
from benchmarks.output import Out, check_out, columns, interval_cell, show, write
from model.terminal import Tell, progress_bar

if TYPE_CHECKING:
    from evals.benchmark import Benchmark
    from model.hub.loading import LoadedModel

commands = typer.Typer()
THEIRS, PLAIN, MICRO = "the harness's own class", "plain, ours", "micro_step, tau above 1"


@dataclass
class Side:
    """What one way said to the batches of a benchmark."""

    name: str
    ask: Callable[[list[Any]], list[Any]]
    seconds: list[float] = field(default_factory=list)  # a batch
    said: list[Any] = field(default_factory=list)  # a request: a text, or a log-likelihood and whether it is greedy

    def answer(self, requests: list[Any]) -> None:
        """Ask a batch."""
        seconds, said = seconds_of(lambda: self.ask(requests))
        self.seconds.append(seconds)
        self.said += said


def compare(
    base: LoadedModel,
    micro: LoadedModel,
    chosen: Sequence[tuple[Benchmark, int | None]],
    local: Path | None,
    options: Any,
    tell: Tell,
) -> list[dict[str, Any]]:
    """Ask all sides the same, batch by batch, in turning order.

    Args:
        base: a plain model.
        micro: a micro_step model around it, without an adapter.
        chosen: benchmarks, and how many of their documents; None: all.
        local: folder of the data sets; None: the hub.
        options: `evals.run.EvalOptions`.
        tell: told about the progress.
    """
    from lm_eval.models.huggingface import HFLM

    from evals.benchmark import documents, task_of
    from evals.harness import MicroStepLM, RecordedLM
    from evals.run import requests_of

    rows = options.batch_rows
    theirs = HFLM(base.model, "causal", tokenizer=base.tokenizer, batch_size=rows)
    out = []
    for benchmark, limit in chosen:
        lms = {THEIRS: theirs, MICRO: MicroStepLM(micro, 1.1, batch_size=rows)}
        if benchmark.generates:  # else it is the harness's own code
            lms[PLAIN] = RecordedLM(base, rows)
        found = documents(benchmark, local, limit)
        asked = requests_of(benchmark, task_of(benchmark, found, options.max_new_tokens), theirs, options)
        several = [each for document in asked.values() for each in document]
        sides = [Side(name, _asker(lm, benchmark.generates)) for name, lm in lms.items()]
        for number, a in enumerate(range(0, len(several), rows)):
            tell(f"{benchmark.name}: {a:,} of {len(several):,} requests", a / len(several))
            for which in in_turn(number, len(sides)):
                sides[which].answer(several[a : a + rows])
        out += [_row(benchmark, len(found), sides[0], side) for side in sides]
    return out


def _asker(lm: Any, generates: bool) -> Callable[[list[Any]], list[Any]]:
    ask = lm.generate_until if generates else lm.loglikelihood
    return lambda requests: list(ask(requests, disable_tqdm=True))


def _row(benchmark: Benchmark, documents: int, theirs: Side, side: Side) -> dict[str, Any]:
    spent, before = np.array(side.seconds), np.array(theirs.seconds)
    row = {
        "benchmark": benchmark.name,
        "way": side.name,
        "documents": documents,
        "requests": len(side.said),
        "speedup": ratio((before, spent)),
        "seconds": float(spent.sum()),
    }
    if benchmark.generates:
        return {**row, "equal": sum(a == b for a, b in zip(side.said, theirs.said, strict=True))}
    mine, others = (np.array([total for total, _ in each.said]) for each in (side, theirs))
    greedy = sum(a[1] == b[1] for a, b in zip(side.said, theirs.said, strict=True))
    return {**row, "equal": greedy, "difference": float(np.abs(mine - others).max())}


@commands.command("harness")
def harness_command(
    model: Annotated[str, typer.Option(help="A micro_step model without an adapter on its base.")] = (
        "micro-step-smollm2-135m-draft"
    ),
    base: Annotated[str, typer.Option(help="Its base.")] = "smollm2-135m-instruct",
    tasks: Annotated[str, typer.Option(help="Benchmarks with commas between; NAME:N asks for the first N.")] = (
        "arc_challenge:200,gsm8k_cot_zeroshot:50"
    ),
    local: Annotated[Path | None, typer.Option(help="Folder with the data sets' files; without it, the hub.")] = None,
    chat: Annotated[bool, typer.Option(help="Ask through the chat template, examples as turns.")] = True,
    batch_rows: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an answer at most.")] = 256,
    dtype: Annotated[str, typer.Option(help="Of the weights.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; its own choice if not given.")] = None,
    out: Out = None,
) -> None:
    """Answers and likelihoods beside the harness's own class: whether they are equal, and the time they take."""
    from evals.benchmark import read_limits
    from evals.requirements import require_harness

    check_out(out)
    limits = read_limits(tasks)
    require_harness()
    import torch

    from evals.benchmark import find_benchmark
    from evals.run import EvalOptions
    from model.hub.loading import ModelSpec, load

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = [(find_benchmark(name), most) for name, most in limits.items()]
    options = EvalOptions(chat=chat, multiturn=chat, batch_rows=batch_rows, max_new_tokens=max_new_tokens)
    with progress_bar() as tell:
        plain, micro = (load(ModelSpec(name, dtype=dtype, device=device), tell) for name in (base, model))  # type: ignore[arg-type]
        rows = compare(plain, micro, chosen, local, options, tell)
    table = columns("benchmark", "way", "documents", "requests", "equal", "most nats apart", "x harness")
    for row in rows:
        apart = f"{row['difference']:.1e}" if "difference" in row else "-"
        counts = (str(row[key]) for key in ("documents", "requests", "equal"))
        table.add_row(row["benchmark"], row["way"], *counts, apart, interval_cell(row["speedup"], 2))
    show(f"\n{base}, {dtype}, {torch.get_num_threads()} threads, {batch_rows} at once; 95% over batches", table)
    write({"base": base, "model": model, "dtype": dtype, "threads": torch.get_num_threads(), "rows": rows}, out)
