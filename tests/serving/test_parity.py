"""What the server answers is what `generate_segments` writes alone, whatever else is being written."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch

from tests.serving.served import served
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
    with served() as server:
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


def test_choices_of_one_request_are_sampled_apart():
    with served() as server:
        asked = {"prompt": [11, 12, 13], "n": 3, "seed": 9, "max_tokens": 12, "micro_step": {"confidence": 0.3}}
        (chunks,) = run_coroutine(all_at_once(server, [asked]))
        for choice in range(3):
            row = alone(server.model, [11, 12, 13], {"max_tokens": 12, "seed": 9 + choice}, {"confidence": 0.3})
            own = [chunk for chunk in chunks[:-1] if chunk["choices"][0]["index"] == choice]
            assert [token["id"] for chunk in own for token in chunk["micro_step"]["tokens"]] == row.ids
            assert "".join(chunk["choices"][0]["text"] for chunk in own) == server.service.tokenizer.decode(row.ids)
