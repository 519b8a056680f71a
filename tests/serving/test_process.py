"""The command as a process of its own: streams, clients that leave or dawdle, and signals."""

from __future__ import annotations

import json
import random
import re
import signal
import socket
import time
from contextlib import nullcontext

import httpx2
import openai
import pytest

from benchmarks.options import ServeOptions
from benchmarks.speed import serve
from model.hub.loading import load
from model.hub.spec import ModelSpec
from tests.support.command import call
from tests.support.processes import program

LONG = {"model": "micro-step-tiny", "prompt": [5, 6, 7], "max_tokens": 900, "seed": 2, "temperature": 1.9}


@pytest.fixture(scope="module")
def server():
    process, url = started(0)
    try:
        yield process, url
    finally:
        process.killed()


def started(port):
    process = program("micro-step", "serve", "micro-step-tiny", "--port", str(port), "--confidence", "0.4")
    process.until(lambda: "/v1" in process.out)
    return process, re.search(r"http://\S+", process.out)[0]


@pytest.fixture(scope="module")
def started_again(server):
    """Another server at the port of one that was killed while it wrote, and what its client saw."""
    process, url = server
    client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
    with client.completions.create(**LONG, stream=True) as stream:
        next(stream)
        process.send(signal.SIGKILL)
        with pytest.raises(openai.APIConnectionError):
            list(stream)
    again, its_url = started(re.search(r":(\d+)/", url)[1])
    try:
        assert its_url == url
        yield again, url
    finally:
        again.killed()


def running(url):
    text = httpx2.get(url.replace("/v1", "/metrics")).text
    return sum(int(value) for value in re.findall(r"^micro_step_rows_\w+ (\d+)$", text, re.M))


def free(url):
    """Wait until the server writes nothing."""
    end = time.monotonic() + 30
    while running(url):
        assert time.monotonic() < end, "rows are not freed"
        time.sleep(0.01)


def test_segments_arrive_one_by_one_and_a_client_that_leaves_frees_its_row(server):
    _, url = server
    client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
    drawn = random.Random(4)
    for reads in (1, drawn.randrange(2, 9), drawn.randrange(2, 9)):
        with client.completions.create(**LONG, stream=True) as stream:
            chunks = [chunk for _, chunk in zip(range(reads), stream, strict=False)]
            assert running(url) == 1, "the answer was not written while it was read"
        assert [chunk.micro_step["macro_step"] for chunk in chunks] == [*range(reads)]
        free(url)
    with pytest.raises(httpx2.ReadTimeout):  # a client that waits for the whole answer, and gives up
        httpx2.post(f"{url}/completions", json={**LONG, "n": 4}, timeout=0.05)
    free(url)


def test_slow_and_broken_clients_hold_nothing_up(server):
    _, url = server
    host, port = re.search(r"//(.*):(\d+)/", url).groups()
    body = json.dumps({**LONG, "stream": True}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    whole = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    held = []
    for sent in (
        b"",
        b"POST /v1",
        head,
        whole[:-9],
        whole,
        b"\x16\x03\x01\x02\x00",
        whole.replace(b"%d" % len(body), b"-1"),
    ):
        held.append(socket.create_connection((host, int(port)), timeout=10))
        held[-1].sendall(sent)  # and it reads nothing
    answer = httpx2.post(f"{url}/completions", json={**LONG, "max_tokens": 3, "temperature": 0}).json()
    assert answer["usage"]["completion_tokens"] == 3
    json_type = {"Content-Type": "application/json"}
    huge = httpx2.post(f"{url}/completions", content=b"a" * 5_000_000, headers=json_type)  # it sends all of it first
    assert huge.status_code == 413 and huge.json()["error"]["code"] == "request_too_large"
    for each in held:
        each.close()
    free(url)


def test_the_benchmark_asks_the_server_the_same_as_it_asks_the_model(server, monkeypatch):
    running = serve.RunningServer("micro-step-tiny", server[1], server[0].process.pid)
    monkeypatch.setattr(serve, "server", lambda *_: nullcontext(running))
    options = ServeOptions("micro-step-tiny", clients=(1, 2), prompts=3, max_new_tokens=5, confidence=0.4, repeats=1)
    report = serve.measure(options, lambda message, share: None)
    ways = {row["way"]: row for row in report["rows"]}
    assert [*ways] == [serve.GENERATE, serve.ALONE, "1 client", "2 clients"] and report["new_tokens"] <= 15
    assert ways[serve.ALONE]["ratio"]["median"] == ways[serve.GENERATE]["ratio_to_generate"]["median"] == 1
    for row in ways.values():
        assert 0 < row["first_segment_p50_seconds"] <= row["answer_p50_seconds"] <= row["answer_p99_seconds"]
    loaded = load(ModelSpec("micro-step-tiny"))
    prompts = serve.some_prompts(loaded, 3)
    runs = serve.alone(loaded, prompts, options), serve.by_clients(running, prompts, 2, options.max_new_tokens)
    mine, theirs = ([answer.tokens for answer in run.answers] for run in runs)
    assert mine == theirs


def test_a_killed_server_starts_again_at_its_port(started_again):
    _, url = started_again
    answer = httpx2.post(f"{url}/completions", json={**LONG, "max_tokens": 3, "temperature": 0}).json()
    assert answer["usage"]["completion_tokens"] == 3 and running(url) == 0


def test_sigterm_lets_the_running_answer_end(started_again):
    process, url = started_again
    client = openai.OpenAI(api_key="none", base_url=url, max_retries=0)
    with client.completions.create(**{**LONG, "max_tokens": 300}, stream=True) as stream:
        chunks = [next(stream)]
        process.send(signal.SIGTERM)
        chunks += stream
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")
    assert process.ended() in (0, -signal.SIGTERM)
    assert "Traceback" not in process.err
    with pytest.raises(openai.APIConnectionError):
        client.models.list()


def test_what_cannot_be_served_is_said_in_one_line(monkeypatch, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert call(monkeypatch, "serve", "micro-step-tiny", "--port", taken.getsockname()[1]) == 1
        assert "--port" in capsys.readouterr().err
    assert call(monkeypatch, "serve", "tiny-base", "--port", 0, "--confidence", 0.5) == 1
    assert "no micro_step model" in capsys.readouterr().err
