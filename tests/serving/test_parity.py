"""What the server answers is what `generate_segments` writes alone, whatever else is being written."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch

from model.decoding.merged import new_rows
from model.decoding.session import DecodingBatch
from serving.engine import Engine, read_together
from serving.options import SegmentOptions
from tests.serving.served import served
from tests.support.micro_steps import micro_step
from tests.support.processes import run_coroutine

LENGTHS = [5, 90, 2, 12, 44, 7, 1, 20]
GREEDY = {"temperature": 0}
CASES = [
    ({"max_tokens": 30, **GREEDY}, {}),
    ({"max_tokens": 12, **GREEDY}, {"verify": True, "confidence": 0.1}),
    ({"max_tokens": 20, **GREEDY}, {"confidence": 0.3, "max_segment_length": 3}),
    ({"max_tokens": 25, **GREEDY}, {"verify": True, "confidence": 0.3, "rule": "product"}),
    ({"max_tokens": 15, "seed": 3}, {"confidence": 0.4}),
    ({"max_tokens": 15, "seed": 4, "temperature": 0.7, "top_p": 0.9}, {"verify": True, "confidence": 0.2}),
    ({"max_tokens": 40, **GREEDY}, {"rule": "stop_head", "confidence": 0.5}),
    ({"max_tokens": 18, "seed": 5, "temperature": 1.3}, {"verify": True, "confidence": 0.1, "eps": 0.5}),
]


def prompts(vocabulary):
    drawn = random.Random(1)
    return [[drawn.randrange(10, vocabulary) for _ in range(n)] for n in LENGTHS]


def alone(model, prompt, asked, segments):
    """The row that `generate_segments` writes."""
    temperature = asked.get("temperature", 1.0)
    sampling = {} if temperature == 0 else {"temperature": temperature, "top_p": asked.get("top_p", 1.0), "top_k": 0}
    return model.generate_segments(
        torch.tensor([prompt]),
        max_new_tokens=asked["max_tokens"],
        do_sample=temperature > 0,
        seed=asked.get("seed"),
        **sampling,
        **segments,
    ).rows[0]


async def all_at_once(server, asked):
    """Send requests one shortly after the other, so that they join while others are written."""
    async with server.client() as client:

        async def one(i, body):
            await asyncio.sleep(0.01 * i)
            return await server.chunks(client, stream_options={"include_usage": True}, **body)

        return await asyncio.gather(*(one(i, body) for i, body in enumerate(asked)))


def test_eight_interleaved_requests_are_answered_as_each_is_alone():
    with served(read_at_once=16) as server:
        given = prompts(900)
        asked = [
            {"prompt": prompt, **how, "micro_step": segments}
            for prompt, (how, segments) in zip(given, CASES, strict=True)
        ]
        answers = run_coroutine(all_at_once(server, asked))
        for prompt, (how, segments), chunks in zip(given, CASES, answers, strict=True):
            row = alone(server.model, prompt, how, segments)
            *written, usage = chunks
            said = [chunk["micro_step"] for chunk in written]
            assert [[token["id"] for token in each["tokens"]] for each in said] == row.segments
            assert [each["why"] for each in said] == row.why and [each["macro_step"] for each in said] == [
                *range(len(said))
            ]
            p = [token["probability"] for each in said for token in each["tokens"]]
            assert p == pytest.approx(row.probability, abs=1e-3)
            assert usage["usage"] == {
                "prompt_tokens": len(prompt),
                "completion_tokens": len(row.ids),
                "total_tokens": len(prompt) + len(row.ids),
                "micro_step": {
                    "macro_steps": row.macro_steps,
                    "tokens_per_macro_step": len(row.ids) / row.macro_steps,
                    "cache_slots": row.cache_slots,
                    "drafted": row.drafted,
                    "accepted": row.accepted,
                },
            }
        assert server.service.engine.running == server.service.engine.waiting == 0


def test_a_plain_base_is_served_as_it_writes_alone():
    with served("tiny-base") as server:
        given = prompts(900)[:4]
        answers = run_coroutine(all_at_once(server, [{"prompt": p, "max_tokens": 20, **GREEDY} for p in given]))
        base = server.model.base
        for prompt, chunks in zip(given, answers, strict=True):
            ids = torch.tensor([prompt])
            expected = base.generate(ids, max_new_tokens=20, do_sample=False)[0, len(prompt) :].tolist()
            written = [token for chunk in chunks[:-1] for token in chunk["micro_step"]["tokens"]]
            assert [token["id"] for token in written] == expected
            assert {token["written_by"] for token in written} == {"base"}


def test_drafts_by_cost_change_no_answer(monkeypatch, tmp_path):
    monkeypatch.setenv("MICRO_STEP_CACHE", str(tmp_path))
    with served(segments=SegmentOptions(lossless=True, confidence=0.0, by_cost=True)) as server:
        given = prompts(900)[:3]
        answers = run_coroutine(all_at_once(server, [{"prompt": p, "max_tokens": 20, **GREEDY} for p in given]))
        for prompt, chunks in zip(given, answers, strict=True):
            written = [token["id"] for chunk in chunks[:-1] for token in chunk["micro_step"]["tokens"]]
            assert written == alone(server.model, prompt, {"max_tokens": 20, **GREEDY}, {"confidence": 2.0}).ids
    assert list((tmp_path / "times").iterdir())


def test_choices_of_one_request_are_sampled_apart():
    with served() as server:
        asked = {"prompt": [11, 12, 13], "n": 3, "seed": 9, "max_tokens": 12, "micro_step": {"confidence": 0.3}}
        (chunks,) = run_coroutine(all_at_once(server, [asked]))
        for choice in range(3):
            row = alone(server.model, [11, 12, 13], {"max_tokens": 12, "seed": 9 + choice}, {"confidence": 0.3})
            own = [chunk for chunk in chunks[:-1] if chunk["choices"][0]["index"] == choice]
            assert [token["id"] for chunk in own for token in chunk["micro_step"]["tokens"]] == row.ids
            assert "".join(chunk["choices"][0]["text"] for chunk in own) == server.service.tokenizer.decode(row.ids)


def test_an_error_ends_only_the_row_that_fails_alone(monkeypatch, capsys):
    """The others begin again, each apart, and go on where their clients are."""
    poison, met = [7, 7, 7], []
    for kind in DecodingBatch.__subclasses__():

        def failing(self, step=kind.step):
            bad = any(row.out.prompt == poison and len(row.out.starts) >= 2 for row in self.rows)
            if bad:
                met.append(len(self.rows))
            step(self)
            if bad:
                raise ValueError("a row that cannot be written")

        monkeypatch.setattr(kind, "step", failing)
    with served(read_at_once=16) as server:
        chosen = [0, 1, 4, 5, 7]
        given = [(prompts(900)[i], *CASES[i]) for i in chosen]
        asked = [{"prompt": prompt, **how, "micro_step": segments} for prompt, how, segments in given]
        stopped = {"prompt": [5, 6, 7], "stop": ["."], "max_tokens": 30, **GREEDY}
        bad = [
            {"prompt": poison, "max_tokens": 40, **GREEDY, "micro_step": {"confidence": 2, "verify": verify}}
            for verify in (False, True)
        ]
        *answers, stop, one, two = run_coroutine(all_at_once(server, [*asked, stopped, *bad]))
        assert met.count(1) == 2 and max(met) > 1 and "cannot be written" in capsys.readouterr().err
        for (prompt, how, segments), (*written, usage) in zip(given, answers, strict=True):
            row = alone(server.model, prompt, how, segments)
            said = [chunk["micro_step"] for chunk in written]
            assert [[token["id"] for token in each["tokens"]] for each in said] == row.segments
            assert usage["usage"]["micro_step"]["macro_steps"] == row.macro_steps
        assert (one[-1]["error"]["type"], two[-1]["error"]["type"]) == ("server_error", "server_error")
        (expected,) = run_coroutine(all_at_once(server, [stopped]))
        texts = ["".join(chunk["choices"][0]["text"] for chunk in chunks[:-1]) for chunks in (stop, expected)]
        assert texts[0] == texts[1]


def test_a_long_prompt_is_read_between_the_steps_of_others(monkeypatch):
    seen, read = [], Engine._read_on
    for kind in DecodingBatch.__subclasses__():
        monkeypatch.setattr(kind, "step", lambda batch, step=kind.step: (seen.append("step"), step(batch)))
    monkeypatch.setattr(Engine, "_read_on", lambda self: (self._reading and seen.append("read"), read(self)))
    with served(read_at_once=16) as server:
        asked = [{"prompt": [5], "max_tokens": 90, **GREEDY}, {"prompt": [6] * 400, "max_tokens": 3, **GREEDY}]
        run_coroutine(all_at_once(server, asked))
    said = "".join(each[0] for each in seen)
    assert said.count("r") == 1 + 25 and "rr" not in said


def test_prompts_that_are_alike_are_read_together():
    def groups(*given, at_once=100):
        rows = [new_rows(server_model, [prompt])[0][0] for prompt in given]
        return [[len(row.out.prompt) for row in group] for group in read_together(rows, at_once)]

    server_model = micro_step()
    long = [9] * 200
    assert groups([1] * 20, [2] * 24, [3] * 25, [4] * 30) == [[20, 24, 25], [30]]
    assert groups([1] * 120, long, long, [*long, 1, 2, 3], [8] * 203) == [[120], [200, 200, 203], [203]]
    assert groups(long[:150], long, at_once=1) == [[150, 200]] and groups([1], [2], at_once=1) == [[1], [1]]
