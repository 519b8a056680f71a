"""The server under 1, 4, 16, 32 clients at once, beside one prompt at a time: `generate_segments` and `generate`.

The server is a process of its own on this machine. All ways answer the same prompts greedily, one way after the other
in a round, in turning order.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import torch
from torch import Tensor
from transformers.generation import BaseStreamer

from benchmarks.options import ServeOptions, use_threads
from benchmarks.texts import bundled_ids
from benchmarks.timing import device_name, environment, in_rounds, ratios, spread
from model.command_options import command_line
from model.decoding.generation_config import ends_of, explicit_settings
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.wrap_base import wrap
from model.progress import Tell

GENERATE = "transformers' generate, one at a time"
ALONE = "generate_segments, one at a time"
PROMPTS = (24, 120)  # tokens of the shortest and of the longest prompt
SECONDS = 600.0  # for one answer


@dataclass(frozen=True)
class RunningServer:
    model: str
    url: str
    pid: int

    @property
    def cpu_seconds(self) -> float:
        """Seconds of processors that it has used."""
        times = psutil.Process(self.pid).cpu_times()
        return float(times.user + times.system)


@dataclass(frozen=True)
class TimedAnswer:
    tokens: int
    first: float  # seconds until its first segment
    whole: float


@dataclass(frozen=True)
class TimedRun:
    """The answers to all prompts, by one way."""

    answers: list[TimedAnswer]
    seconds: float
    cpu_seconds: float  # of the process that writes

    @property
    def tokens(self) -> int:
        return sum(answer.tokens for answer in self.answers)


def some_prompts(loaded: LoadedModel, count: int) -> list[list[int]]:
    """Prompts of different lengths, from the bundled text."""
    lengths = np.random.default_rng(0).permutation(np.linspace(*PROMPTS, count).astype(int)).tolist()
    ends = np.cumsum(lengths).tolist()
    ids = bundled_ids(loaded.tokenizer, ends[-1])
    return [ids[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def alone(loaded: LoadedModel, prompts: Sequence[list[int]], options: ServeOptions) -> TimedRun:
    """Answer one prompt after the other in this process."""
    wrapped, answers, began, worked = wrap(loaded), [], time.perf_counter(), time.process_time()
    tau = 2.0 if wrapped.facts.untrained else options.confidence
    for prompt in prompts:
        start = time.perf_counter()
        row = wrapped.model.generate_segments(
            torch.tensor([prompt], device=wrapped.model.device),
            confidence=tau,
            **explicit_settings(max_new_tokens=options.max_new_tokens),
        ).rows[0]
        end = row.starts[1] if len(row.starts) > 1 else len(row.ids)
        answers.append(TimedAnswer(len(row.ids), row.seconds[end - 1], time.perf_counter() - start))
    return TimedRun(answers, time.perf_counter() - began, time.process_time() - worked)


class _FirstToken(BaseStreamer):  # type: ignore[misc]
    """Notes when the first new token comes; what comes before it is the prompt."""

    def __init__(self) -> None:
        self.begun, self.times = time.perf_counter(), list[float]()

    def put(self, value: Tensor) -> None:
        """Take a token."""
        self.times.append(time.perf_counter() - self.begun)

    def end(self) -> None:
        """The answer is over."""


def by_generate(loaded: LoadedModel, prompts: Sequence[list[int]], options: ServeOptions) -> TimedRun:
    """Answer one prompt after the other with transformers' own `generate` of the base."""
    model, answers, began, worked = wrap(loaded).model, [], time.perf_counter(), time.process_time()
    for prompt in prompts:
        streamer = _FirstToken()
        ids = torch.tensor([prompt], device=model.device)
        with torch.inference_mode():
            whole = model.base.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                streamer=streamer,
                **ends_of(model),
                **explicit_settings(max_new_tokens=options.max_new_tokens),
            )
        seconds = time.perf_counter() - streamer.begun
        answers.append(TimedAnswer(whole.shape[1] - len(prompt), streamer.times[1], seconds))
    return TimedRun(answers, time.perf_counter() - began, time.process_time() - worked)


def by_clients(running: RunningServer, prompts: Sequence[list[int]], clients: int, new_tokens: int) -> TimedRun:
    """Let so many clients ask the server, each for one answer after the other."""
    began, worked = time.perf_counter(), running.cpu_seconds
    ask = partial(_ask, running.url, running.model, new_tokens)
    with ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(ask, prompts))
    return TimedRun(answers, time.perf_counter() - began, running.cpu_seconds - worked)


def _ask(url: str, model: str, new_tokens: int, prompt: list[int]) -> TimedAnswer:
    start, first, usage = time.perf_counter(), 0.0, None
    body = {"model": model, "prompt": prompt, "max_tokens": new_tokens, "temperature": 0, "stream": True}
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    try:
        asked = json.dumps({**body, "stream_options": {"include_usage": True}})
        connection.request("POST", "/v1/completions", asked, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            first = first or time.perf_counter() - start
            chunk = json.loads(line.removeprefix(b"data: "))
            if "error" in chunk or answer.status != 200:
                raise MicroStepError(f"the server answered with an error: {chunk}")
            usage = chunk["usage"]
    finally:
        connection.close()
    if usage is None:
        raise MicroStepError(f"the server did not answer (status {answer.status})")
    return TimedAnswer(usage["completion_tokens"], first, time.perf_counter() - start)


@contextmanager
def server(model: str, options: ServeOptions, *more: str, python: str = sys.executable) -> Iterator[RunningServer]:
    """Start `micro-step serve` in a process of its own."""
    words = ["serve", model, "--port", "0", "--max-rows", str(max(options.clients)), "--dtype", options.dtype]
    words += ["--threads", str(torch.get_num_threads()), *more]
    process = subprocess.Popen([python, "-m", "micro_step", *words], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = next((line for line in process.stdout if "served at http://" in line), None)  # vLLM says more before it
        if said is None:
            raise MicroStepError(f"the server did not start: {command_line(*words)}")
        yield RunningServer(model, said.split()[-1], process.pid)
    finally:
        process.terminate()
        process.wait(60)


def measure(options: ServeOptions, tell: Tell) -> dict[str, Any]:
    """Tokens per second, seconds to the first segment and to the whole answer, and ratios in the same round.

    Tokens per second of processor time, of the process that writes, depend less on what else the machine does.
    """
    use_threads(options.threads)
    loaded = load(ModelSpec(options.model, dtype=options.dtype, device=options.device), tell)
    prompts, trained = some_prompts(loaded, options.prompts), not wrap(loaded).facts.untrained
    tau = ("--confidence", str(options.confidence)) if trained else ()
    with ExitStack() as running:
        servers = {"": running.enter_context(server(options.model, options, "--device", options.device, *tau))}
        inside = {"vLLM, ": (options.model, *tau), "vLLM with the base alone, ": (options.plain_base,)}
        for name, (model, *words) in inside.items() if options.vllm is not None else ():
            if model is not None:
                tell(f"serve: vLLM loads {model}", None)
                words = ["--engine", "vllm", *words]
                servers[name] = running.enter_context(server(model, options, *words, python=str(options.vllm)))
        runs: dict[str, Callable[[], TimedRun]] = {
            GENERATE: partial(by_generate, loaded, prompts, options),
            ALONE: partial(alone, loaded, prompts, options),
        }
        for server_name, each in servers.items():
            by_clients(each, prompts[:1], 1, options.max_new_tokens)
            for count in options.clients:
                name = server_name + ("1 client" if count == 1 else f"{count} clients")
                runs[name] = partial(by_clients, each, prompts, count, options.max_new_tokens)
        by_generate(loaded, prompts[:1], options)
        alone(loaded, prompts[:1], options)
        tell(f"serve: {options.repeats} rounds", None)
        found = in_rounds(runs, options.repeats)
    speeds = {name: [run.tokens / run.seconds for run in each] for name, each in found.items()}
    per_cpu = {name: [run.tokens / run.cpu_seconds for run in each] for name, each in found.items()}
    return {
        "benchmark": "serve",
        "model": loaded.facts.name,
        "dtype": loaded.facts.dtype,
        "device": device_name(loaded.facts.device),
        "confidence": options.confidence if trained else None,
        "prompts": len(prompts),
        "new_tokens": found[ALONE][0].tokens,
        "repeats": options.repeats,
        **environment("torch", "transformers", "starlette", "uvicorn"),
        "rows": [
            {
                "way": name,
                "tokens_per_second": spread(speeds[name]),
                "ratio": ratios(speeds[name], speeds[ALONE]),
                "ratio_to_generate": ratios(speeds[name], speeds[GENERATE]),
                "tokens_per_cpu_second": spread(per_cpu[name]),
                "cpu_ratio": ratios(per_cpu[name], per_cpu[ALONE]),
                "cpu_ratio_to_generate": ratios(per_cpu[name], per_cpu[GENERATE]),
                **_seconds("first_segment", [answer.first for run in each for answer in run.answers]),
                **_seconds("answer", [answer.whole for run in each for answer in run.answers]),
            }
            for name, each in found.items()
        ],
    }


def _seconds(of: str, values: list[float]) -> dict[str, float]:
    """The median and two percentiles, over the answers of all rounds."""
    return {f"{of}_p{p}_seconds": float(np.percentile(values, p)) for p in (50, 90, 99)}
