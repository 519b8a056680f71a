"""What the official client reads; hostile requests get an error of OpenAI's form and leave the server healthy."""

from __future__ import annotations

import asyncio
import json
import threading

import openai
import pytest

from model.decoding.session import DecodingBatch
from model.errors import MicroStepError
from model.hub.loading import load
from model.hub.spec import ModelSpec
from serving.options import LimitOptions, SegmentOptions
from serving.service import Service
from tests.serving.served import served
from tests.support.processes import run_coroutine

GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def server():
    with served(key="secret", max_rows=4, max_waiting=2, max_body=50_000) as running:
        yield running


def asked(server, act):
    """What `act` gives for a client that knows the key, and whether the server is healthy afterwards."""

    async def run():
        async with server.client() as client:
            client.headers["Authorization"] = "Bearer secret"
            result = await act(client)
            assert (await client.get("/health")).json() == {"status": "ok"}
            return result

    return run_coroutine(run())


def test_the_official_client_reads_answers_streams_and_errors(server):
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell a story."}]

    async def act(http):
        client = openai.AsyncOpenAI(api_key="secret", base_url="http://localhost/v1", http_client=http, max_retries=0)
        chat = client.chat.completions
        (model,) = (await client.models.list()).data
        common = {"model": model.id, "messages": messages, "temperature": 0, "max_completion_tokens": 12}
        whole = await chat.create(
            **common, logprobs=True, top_logprobs=3, extra_body={"micro_step": {"confidence": 0.3}}
        )
        stream = await chat.create(
            **common,
            stream=True,
            stream_options={"include_usage": True},
            extra_body={"micro_step": {"confidence": 0.3}},
        )
        chunks = [chunk async for chunk in stream]
        completion = await client.completions.create(model=model.id, prompt="Once upon a time", logprobs=2, **GREEDY)
        with pytest.raises(openai.NotFoundError, match="no model"):
            await chat.create(**{**common, "model": "gpt"})
        with pytest.raises(openai.BadRequestError, match="tools"):
            await chat.create(**common, tools=[{"type": "function", "function": {"name": "f"}}])
        with pytest.raises(openai.BadRequestError) as long:
            await client.completions.create(model=model.id, prompt="a " * 900, max_tokens=400)
        assert long.value.code == "context_length_exceeded"
        with pytest.raises(openai.AuthenticationError):
            await client.with_options(api_key="wrong").models.list()
        return whole, chunks, completion

    whole, chunks, completion = asked(server, act)
    text = whole.choices[0].message.content
    *written, last = chunks
    assert text and "".join(chunk.choices[0].delta.content for chunk in written) == text
    assert last.usage.completion_tokens == whole.usage.completion_tokens == 12
    steps = whole.usage.micro_step["macro_steps"]
    assert len(written) == steps < 12 and [chunk.micro_step["macro_step"] for chunk in written] == [*range(steps)]
    assert written[-1].choices[0].finish_reason == whole.choices[0].finish_reason == "length"
    told = whole.choices[0].logprobs.content
    assert b"".join(bytes(token.bytes) for token in told).decode() == text
    assert all(len(token.top_logprobs) == 3 for token in told)
    assert [token.top_logprobs[0].logprob for token in told] == pytest.approx([t.logprob for t in told], abs=1e-4)
    told = completion.choices[0].logprobs
    assert "".join(told.tokens) == completion.choices[0].text and told.text_offset[0] == 0
    assert next(iter(told.top_logprobs[0].values())) == pytest.approx(told.token_logprobs[0], abs=1e-5)


def test_stop_strings_end_an_answer_and_are_no_part_of_it(server):
    async def act(client):
        async def text(**more):
            body = {"model": server.name, "prompt": "Once upon a time", **GREEDY, "max_tokens": 30, **more}
            return (await client.post("/v1/completions", json=body)).json()["choices"][0]

        free = (await text())["text"]
        stop = free[7:10]
        return free, stop, await text(stop=[stop, "never"]), await text(stop=stop, micro_step={"confidence": 0})

    free, stop, found, other = asked(server, act)
    assert found["text"] == free[: free.index(stop)] and found["finish_reason"] == "stop"
    assert stop not in other["text"]


BODIES = {
    "no json": (b"{", 400),
    "not utf-8": b'{"model": "\xff\xfe"}',
    "half a surrogate": b'{"model": "micro-step-tiny", "prompt": "\\ud800"}',
    "a list": b"[]",
    "nested": b"[" * 20_000,
    "nan": b'{"model": "micro-step-tiny", "prompt": "a", "temperature": NaN}',
    "huge": (b'{"prompt": "' + b"a" * 60_000 + b'"}', 413),
}
FIELDS = {
    "no prompt": {},
    "empty prompt": {"prompt": ""},
    "empty ids": {"prompt": []},
    "unknown id": {"prompt": [10**6]},
    "negative id": {"prompt": [-1]},
    "huge id": {"prompt": [10**30]},
    "negative limit": {"prompt": "a", "max_tokens": -1},
    "no limit": {"prompt": "a", "max_tokens": 10**12},
    "too hot": {"prompt": "a", "temperature": 3},
    "text for a number": {"prompt": "a", "temperature": "1"},
    "ten thousand stops": {"prompt": "a", "stop": ["b"] * 10_000},
    "long stop": {"prompt": "a", "stop": "b" * 2000},
    "empty stop": {"prompt": "a", "stop": [""]},
    "empty text as stop": {"prompt": "a", "stop": ""},
    "many answers": {"prompt": "a", "n": 100},
    "many prompts": {"prompt": ["a"] * 5},
    "unknown field": {"prompt": "a", "beam_width": 3},
    "unsupported": {"prompt": "a", "logit_bias": {"5": 100}},
    "best of": {"prompt": "a", "best_of": 2},
    "unknown rule": {"prompt": "a", "micro_step": {"rule": "luck"}},
    "long rule": {"prompt": "a", "micro_step": {"rule": "l" * 20_000}},
    "no confidence": {"prompt": "a", "micro_step": {"confidence": -1}},
    "long segments": {"prompt": "a", "micro_step": {"max_segment_length": 1000}},
    "eps without a check": {"prompt": "a", "micro_step": {"eps": 0.5, "verify": False}},
    "unknown in micro_step": {"prompt": "a", "micro_step": {"tau": 1}},
    "stream options": {"prompt": "a", "stream_options": {"include_usage": True}},
}
NULLS = ("stream", "stream_options", "n", "max_tokens", "temperature", "top_p", "seed", "stop", "logprobs", "user")
CHATS = {
    "no messages": [],
    "no role": [{"content": "a"}],
    "unknown role": [{"role": "king", "content": "a"}],
    "long role": [{"role": "k" * 20_000, "content": "a"}],
    "no content": [{"role": "user"}],
    "a picture": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}]}],
    "a number": [{"role": "user", "content": 3}],
}


def test_hostile_requests_get_an_error_of_openais_form(server):
    async def act(client):
        answers = {}
        for name, body in BODIES.items():
            body, status = body if isinstance(body, tuple) else (body, 400)
            headers = {"content-type": "application/json"}
            answers[name] = await client.post("/v1/completions", content=body, headers=headers), status
        for name, fields in FIELDS.items():
            answers[name] = await client.post("/v1/completions", json={"model": server.name, **fields}), 400
        for name, messages in CHATS.items():
            body = {"model": server.name, "messages": messages}
            answers[name] = await client.post("/v1/chat/completions", json=body), 400
        plain = {"model": server.name, "prompt": "a"}
        form = {"content-type": "application/x-www-form-urlencoded"}
        answers["a form"] = await client.post("/v1/completions", content=b"{}", headers=form), 415
        answers["a foreign page"] = await client.get("/v1/models", headers={"host": "evil.example"}), 403
        answers["an address"] = await client.get("/v1/models", headers={"host": "[::1]:8000"}), 200
        answers["no such path"] = await client.get("/v1/chat"), 404
        answers["a slash more"] = await client.post("/v1/completions/", json={}), 404
        answers["null"] = await client.post("/v1/completions", json=dict.fromkeys(NULLS) | plain), 200
        answers["wrong method"] = await client.get("/v1/completions"), 405
        answers["no key"] = await client.get("/v1/models", headers={"authorization": ""}), 401
        answers["odd key"] = await client.get("/v1/models", headers={"authorization": b"Bearer \xe9"}), 401
        return answers

    answers = asked(server, act)
    assert "1 character" in answers["empty text as stop"][0].text and "equal to 0" in answers["negative id"][0].text
    for name, (answer, status) in answers.items():
        assert answer.status_code == status, (name, answer.text)
        if status != 200:
            error = answer.json()["error"]
            assert set(error) == {"message", "type", "param", "code"} and error["message"], name
            assert "Traceback" not in answer.text and len(answer.text) < 1500, name


def test_too_many_requests_wait_and_further_ones_are_told_when_to_come_back(server, monkeypatch):
    go_on = threading.Event()
    for kind in DecodingBatch.__subclasses__():
        step = kind.step
        monkeypatch.setattr(kind, "step", lambda batch, step=step: go_on.wait(60) and step(batch))

    async def until(holds):
        for _ in range(6000):
            if holds():
                return
            await asyncio.sleep(0.005)
        raise AssertionError("it never comes to that")

    async def act(client):
        try:
            body = {"model": server.name, "prompt": [5, 6], "n": 4, "max_tokens": 20, "seed": 1}
            first = asyncio.create_task(client.post("/v1/completions", json=body))
            await until(lambda: server.service.engine.running == 4)
            second = asyncio.create_task(client.post("/v1/completions", json={**body, "n": 2, "max_tokens": 2}))
            await until(lambda: server.service.engine.waiting == 2)
            third = await client.post("/v1/completions", json={**body, "n": 1})
            metrics = (await client.get("/metrics")).text
        finally:
            go_on.set()
        return (await first).status_code, (await second).status_code, third, metrics

    first, second, third, metrics = asked(server, act)
    assert (first, second, third.status_code) == (200, 200, 429) and int(third.headers["retry-after"]) > 0
    assert third.json()["error"]["type"] == "rate_limit_error"
    lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    assert (lines["micro_step_rows_running"], lines["micro_step_rows_waiting"]) == ("4", "2")
    assert int(lines["micro_step_generated_tokens_total"]) > 0
    assert int(lines['micro_step_requests_total{path="/v1/completions",status="400"}']) > 10
    assert lines['micro_step_request_seconds_bucket{le="+Inf"}'] == lines["micro_step_request_seconds_count"]


def test_an_error_while_an_answer_is_written_is_told_and_the_next_request_is_answered(server, monkeypatch, capsys):
    whole, steps = {kind: kind.step for kind in DecodingBatch.__subclasses__()}, [0]

    def failing(self):
        steps[0] += 1
        if steps[0] == 3:
            raise RuntimeError("out of memory")
        whole[type(self)](self)

    for kind in whole:
        monkeypatch.setattr(kind, "step", failing)

    async def act(client):
        body = {"model": server.name, "prompt": [5, 6], "stream": True, "max_tokens": 50, "seed": 1}
        broken = (await client.post("/v1/completions", json=body)).text
        return broken, await server.chunks(client, prompt=[5, 6], **GREEDY)

    broken, after = asked(server, act)
    *_, error, done = broken.strip().split("\n\n")
    assert json.loads(error.removeprefix("data: "))["error"]["type"] == "server_error" and "memory" not in error
    assert done == "data: [DONE]" and after[-1]["choices"][0]["finish_reason"] == "length"
    assert "out of memory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong", [{"eps": 5.0}, {"eps": 0.5}, {"max_segment_length": 99}, {"rule": "luck"}, {"by_cost": True}]
)
def test_settings_that_fit_no_request_are_refused_at_the_start(wrong):
    loaded = load(ModelSpec("micro-step-tiny"))  # decodes merged, which has no check that eps could relax
    with pytest.raises(MicroStepError):
        Service(loaded, "tiny", SegmentOptions(**wrong), LimitOptions())
