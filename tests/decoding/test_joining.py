"""Rows join and leave a batch while others are written; each is what it is alone, whatever the others ask for."""

from __future__ import annotations

import random

import pytest
import torch

from model.decoding.merged import new_batch, new_rows
from model.decoding.output import Clock
from tests.support.micro_steps import micro_step

LENGTHS = [5, 31, 2, 12, 44, 7, 1, 20]
SETTINGS = [
    {"confidence": 0.1, "max_new_tokens": 30},
    {"confidence": 0.0, "max_new_tokens": 9, "max_segment_length": 3},
    {"confidence": 1.5, "max_new_tokens": 14},
    {"rule": "product", "confidence": 0.02, "max_new_tokens": 25, "repetition_penalty": 1.3},
    {"confidence": 0.1, "max_new_tokens": 12, "do_sample": True, "temperature": 0.8, "seed": 5},
    {"rule": "stop_head", "confidence": 0.5, "max_new_tokens": 21},
    {"confidence": 0.05, "max_new_tokens": 18, "do_sample": True, "top_p": 0.9, "seed": 6},
    {"confidence": 0.0, "max_new_tokens": 40},
]
WAYS = [
    ("llama", {}, False),
    ("llama", {}, True),
    ("gemma3_text", {}, False),
    ("gemma3_text", {}, True),
    ("gpt2", {}, False),
    ("llama", {"merge_layer": 1}, False),
    ("llama", {"merge_layer": 3, "keep": "last"}, False),
]


def prompts():
    drawn = random.Random(1)
    return [[drawn.randrange(5, 400) for _ in range(n)] for n in LENGTHS]


def told(row):
    return row.ids, row.starts, row.why, row.macro_steps, row.micro_steps, row.drafted, row.accepted, row.relaxed


def rows_of(model, prompt, settings, verify):
    seed = settings.get("seed")
    settings = {name: value for name, value in settings.items() if name != "seed"}
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return new_rows(model, [prompt], verify=verify, generator=generator, eos_token_id=None, **settings)[0]


@pytest.mark.parametrize(("family", "config", "verify"), WAYS)
def test_a_row_that_joins_is_what_it_is_alone(family, config, verify):
    model = micro_step(family, **config)
    settings = [{**each, "eps": 0.3} if verify and i == 7 else each for i, each in enumerate(SETTINGS)]
    alone = [
        model.generate_segments(torch.tensor([prompt]), verify=verify, eos_token_id=None, **how).rows[0]
        for prompt, how in zip(prompts(), settings, strict=True)
    ]
    assert max(map(len, (row.starts for row in alone))) > 1
    waiting = [rows_of(model, *each, verify)[0] for each in zip(prompts(), settings, strict=True)]
    every, batch, steps = list(waiting), new_batch(model, verify, Clock()), 0
    with torch.inference_mode():
        while batch.rows or waiting:
            if steps % 2 == 0 and waiting:
                joining = new_batch(model, verify, Clock())
                pauses = len(list(joining.reading(waiting[:2], at_once=14)))
                assert pauses == (max(len(row.out.prompt) for row in waiting[:2]) - 1) // 7
                assert joining.rows_may_join
                waiting = waiting[2:]
                if batch.rows:
                    batch.add(joining)
                else:
                    batch = joining
            batch.step()
            steps += 1
    for mine, theirs in zip(every, alone, strict=True):
        assert told(mine.out) == told(theirs) and mine.error is None
        assert mine.out.probability == pytest.approx(theirs.probability, abs=2e-4)
        assert mine.out.cache_slots == theirs.cache_slots


@pytest.mark.parametrize("verify", [False, True])
def test_a_row_that_fails_or_is_taken_out_leaves_the_others(verify):
    model = micro_step()
    asked = [(prompt, {"confidence": 0.0, "max_new_tokens": 12}) for prompt in prompts()[:3]]
    alone = [model.generate_segments(torch.tensor([p]), verify=verify, eos_token_id=None, **how) for p, how in asked]
    rows = [rows_of(model, *each, verify)[0] for each in asked]
    broken = new_rows(
        model, [[7, 8]], verify=verify, max_new_tokens=12, logits_processor=[lambda ids, scores: scores * torch.nan]
    )[0]
    batch = new_batch(model, verify, Clock())
    with torch.inference_mode():
        batch.read([rows[0], *broken, rows[1], rows[2]])
        batch.step()
        assert broken[0].error is not None and broken[0] not in batch.rows
        batch.keep([at for at, row in enumerate(batch.rows) if row is not rows[1]])
        while batch.rows:
            batch.step()
    assert rows[0].out.ids == alone[0].rows[0].ids and rows[2].out.ids == alone[2].rows[0].ids
    assert len(rows[1].out.ids) < 12


def test_the_cache_of_a_long_batch_gives_back_what_no_row_sees():
    """A long prompt leaves; the slots before the short rows' own go with it."""
    model = micro_step()
    long, short = ([rows_of(model, [9] * n, {"max_new_tokens": new}, False)[0]] for n, new in ((90, 4), (3, 40)))
    batch = new_batch(model, False, Clock())
    with torch.inference_mode():
        batch.read(long + short)
        while len(batch.rows) > 1:
            batch.step()
        assert batch.slots < 40
        while batch.rows:
            batch.step()
    expected = model.generate_segments(torch.tensor([[9] * 3]), max_new_tokens=40, eos_token_id=None)
    assert short[0].out.ids == expected.rows[0].ids and batch.slots == expected.cache_slots
