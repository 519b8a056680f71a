"""Drafts as long as measured times and what was kept make quickest: the choice by simulation, and unchanged answers."""

import json

import numpy as np
import pytest
import torch

from model.decoding.draft_length import MARGIN, PassTimes, tokens_to_draft
from model.decoding.output import RowOutput
from model.decoding.pass_times import UNSEEN, MeasuredTimes
from model.errors import MicroStepError
from tests.support.micro_steps import micro_step, ragged

PROMPTS = [9, 3, 17, 1]
GREEDY = {"verify": True, "confidence": 0.0, "max_new_tokens": 24, "do_sample": False, "eos_token_id": None}
FLAT = PassTimes({1: (1.0, 1.0, 1.0, 1.0)}, {1: 0.01})  # more tokens cost nothing: drafting always pays
STEEP = PassTimes({1: (1.0, 2.0, 3.0, 4.0)}, {1: 0.5})  # a token more costs a pass more: it never does


def row(drafted, proposed, kept, ended_early):
    return RowOutput([], drafted=drafted, micro_steps=proposed, accepted=kept, ended_early=ended_early)


def simulated(rows, base, micro, most, rng, passes=20_000):
    """The tokens a second with drafts of at most 1, 2, .. `most` tokens; row: (d, k), k <= d."""
    rates = [len(rows) / base[0]]
    for n in range(1, most + 1):
        written = np.full(passes, len(rows), dtype=float)
        longest, steps = np.zeros(passes, int), np.zeros(passes, int)
        for d, k in rows:
            draws = rng.random((passes, n))
            drafted = np.cumprod(draws < d, 1).sum(1)
            written += np.cumprod(draws < k, 1).sum(1)
            longest = np.maximum(longest, drafted)
        steps = np.minimum(longest + 1, n)
        rates.append(written.sum() / (np.array(base)[longest].sum() + micro * steps.sum()))
    return rates


def test_the_choice_is_the_quickest_of_a_simulation():
    rng, chosen = np.random.default_rng(0), set()
    for _ in range(60):
        kept = rng.uniform(0.05, 0.9, rng.integers(1, 6))
        rates = [(rng.uniform(k, 1), k) for k in kept]
        base = np.cumprod([1.0, *rng.uniform(1.01, 1.6, 3)])
        micro = rng.uniform(0.01, 0.3)
        count = 1_000_000  # of proposals, so that no prior counts
        rows = [row(int(d * count), count, int(k * count), count - int(k * count)) for d, k in rates]
        found = tokens_to_draft(rows, PassTimes({len(rows): base}, {len(rows): micro}), 3)
        speeds = simulated(rates, base, micro, 3, rng)
        assert speeds[found] * MARGIN >= 0.99 * max(speeds)
        chosen.add(found)
    assert chosen == {0, 1, 2, 3}


def test_a_row_that_keeps_nothing_is_no_longer_drafted_for():
    costs = PassTimes({1: (1.0, 1.2, 1.4, 1.6)}, {1: 0.1})
    assert tokens_to_draft([row(0, 0, 0, 0)], costs, 3) > 0  # nothing known: tried
    assert tokens_to_draft([row(30, 30, 0, 30)], costs, 3) == 0
    assert tokens_to_draft([row(30, 30, 29, 1)], costs, 3) == 3


def test_a_short_answer_wastes_one_draft():
    """The times are those of SmolLM2-135M: a second draft would cost an answer of ten tokens another 4%."""
    costs, found = PassTimes({1: (1.0, 1.26, 1.34, 1.34)}, {1: 0.1}), row(0, 0, 0, 0)
    wasted = 0
    while tokens := tokens_to_draft([found], costs, 3):
        found = row(found.drafted + tokens, found.micro_steps + tokens, 0, found.ended_early + 1)
        wasted += 1
    assert wasted == 1


def test_times_between_known_rows_are_interpolated():
    times = PassTimes({1: (1.0, 2.0), 4: (4.0, 8.0)}, {1: 0.1, 4: 0.4})
    base, micro = times.seconds(2, 1)
    assert base == pytest.approx([2.0, 4.0]) and micro == pytest.approx(0.2)
    assert times.seconds(9, 1)[0] == pytest.approx([4.0, 8.0])


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_greedy_answers_are_the_same_whatever_the_times_say(family):
    model = micro_step(family)
    free = model.generate_segments(*ragged(PROMPTS), **GREEDY)
    alone = model.generate_segments(*ragged(PROMPTS), **{**GREEDY, "confidence": 1.1})
    flat = model.generate_segments(*ragged(PROMPTS), **GREEDY, draft_costs=FLAT)
    never = model.generate_segments(*ragged(PROMPTS), **GREEDY, draft_costs=STEEP)
    some = model.generate_segments(
        *ragged(PROMPTS), **GREEDY, draft_costs=PassTimes({1: (1.0, 1.01, 9.0, 9.0)}, {1: 0.001})
    )
    for found in (flat, never, some):
        assert torch.equal(found.sequences, free.sequences)
    assert free.macro_steps <= flat.macro_steps <= never.macro_steps
    assert never.macro_steps == alone.macro_steps and sum(each.micro_steps for each in never.rows) == 0
    assert {why for each in never.rows for why in each.why} == {"cost", "limit"}
    proposed, freely = (sum(each.micro_steps for each in found.rows) for found in (some, free))
    assert 0 < proposed < freely


def test_merged_decoding_takes_no_costs():
    with pytest.raises(MicroStepError, match="draft_costs"):
        micro_step("llama").generate_segments(*ragged([3]), **{**GREEDY, "verify": False}, draft_costs=FLAT)


def test_times_follow_what_passes_took(tmp_path):
    times = MeasuredTimes(micro_step("llama"), tmp_path)
    base, micro = times.seconds(2, 3)
    assert times.needs_plain_pass
    times.observe(2, 0, 0, 2 * base[0])  # the base alone took twice as long
    assert not times.needs_plain_pass and times.seconds(2, 3)[0] == pytest.approx([2 * each for each in base])
    for took in (5, 5, 5, 50):  # one pass that another program held up changes nothing
        times.observe(2, 2, 2, took * (base[2] + 2 * micro))
    found, step = times.seconds(2, 3)
    assert found == pytest.approx([2 * base[0], *(5 * each for each in base[1:])]) and step == pytest.approx(5 * micro)
    times.observe(2, 0, 1, 9.0)  # all was refused: no time of the base alone
    assert times.seconds(2, 3)[0][0] == found[0]
    for _ in range(UNSEEN):
        times.observe(2, 2, 2, 1.0)
    assert times.needs_plain_pass


def test_drafts_that_cost_more_than_they_save_end(monkeypatch, tmp_path):
    """Measured apart, drafting pays; in use it does not, and after a few passes the base writes alone."""
    times = MeasuredTimes(model := micro_step("llama"), tmp_path)
    flat = ([1.0, 1.0, 1.0, 1.0], 0.01)
    monkeypatch.setattr(times, "_measured", lambda rows, most: flat)
    taken = times.observe
    monkeypatch.setattr(times, "observe", lambda rows, drafted, steps, _: taken(rows, drafted, steps, 1 + 9 * steps))
    found = model.generate_segments(*ragged([9]), **GREEDY | {"max_new_tokens": 60}, draft_costs=times)
    alone = model.generate_segments(*ragged([9]), **GREEDY | {"max_new_tokens": 60, "confidence": 1.1})
    assert torch.equal(found.sequences, alone.sequences)
    assert 0 < found.rows[0].micro_steps < 12


def test_times_are_measured_once_and_damage_is_measured_again(tmp_path, monkeypatch):
    model = micro_step("llama")
    base, micro = MeasuredTimes(model, tmp_path).seconds(3, 3)
    assert len(base) == 4 and min(*base, micro) > 0
    (file,) = tmp_path.iterdir()
    assert set(json.loads(file.read_text())["base"]) == {"2", "4"}
    monkeypatch.setattr("model.decoding.pass_times.time_passes", lambda *_: pytest.fail("they are known"))
    assert MeasuredTimes(model, tmp_path).seconds(3, 3) == (base, micro)
    monkeypatch.undo()
    file.write_text('{"base": {"2": "x"}}')
    assert MeasuredTimes(model, tmp_path).seconds(2, 3)[1] > 0
