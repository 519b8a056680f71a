"""What prompts share is read once, and changes nothing."""

from __future__ import annotations

import pytest
import torch

from model.decoding.shared_prefix import MIN_SHARED, shared_first
from tests.support.micro_steps import BASES, micro_step, ragged
from tests.support.tiny import tiny_model

pytestmark = pytest.mark.slow

WHOLE = tuple(family for family in BASES if family not in ("gemma2", "gemma3_text", "mistral"))


def alike(shared: int, lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Left-padded prompts whose first tokens are the same."""
    ids, mask = ragged(lengths)
    first = ids[lengths.index(max(lengths)), :shared]
    for row, n in zip(ids, lengths, strict=True):
        row[len(row) - n :][:shared] = first
    return ids, mask


def test_shared_tokens_stand_before_the_padding():
    ids, mask = alike(40, [45, 60, 52])
    found = shared_first(ids, mask, tiny_model("llama"))
    assert found.shared == 40
    for row, kept, before, there in zip(found.ids, found.mask, ids, mask, strict=True):
        assert torch.equal(row[kept.bool()], before[there.bool()])
        assert kept[:40].all() and kept[-1] == 1 and kept[40:].diff().min() >= 0
    assert found.position[:, -1].tolist() == [44, 59, 51]


@pytest.mark.parametrize("shared", [MIN_SHARED - 1, MIN_SHARED])
def test_little_is_not_worth_a_pass(shared):
    ids, mask = alike(shared, [60, 70])
    assert shared_first(ids, mask, tiny_model("llama")).shared == (shared if shared >= MIN_SHARED else 0)


def test_every_row_keeps_a_token_of_its_own():
    ids, mask = ragged([50])
    found = shared_first(ids.expand(3, -1), mask.expand(3, -1), tiny_model("llama"))
    assert found.shared == 49
    longer = torch.cat([ids, ids[:, :5]], 1)
    pair = torch.cat([torch.nn.functional.pad(ids, (5, 0)), longer])
    begins = torch.cat([torch.nn.functional.pad(mask, (5, 0)), torch.ones_like(longer)])
    assert shared_first(pair, begins, tiny_model("llama")).shared == 49


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text", "mistral"])
def test_a_window_that_slides_counts_slots_so_that_nothing_is_moved(family):
    ids, mask = alike(40, [45, 60])
    assert shared_first(ids, mask, tiny_model(family)).shared == 0


def test_one_prompt_is_left_alone():
    ids, mask = ragged([50])
    assert shared_first(ids, mask, tiny_model("llama")).shared == 0


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("family", WHOLE)
def test_answers_are_those_of_each_prompt_alone(family, verify):
    model = micro_step(family)
    ids, mask = alike(40, [45, 60, 52, 41])
    settings = {"confidence": 0.02, "max_new_tokens": 12, "verify": verify, "eos_token_id": -1}
    together = model.generate_segments(ids, mask, **settings)
    assert shared_first(ids, mask, model.base).shared == 40
    for row, one, there in zip(together.rows, ids, mask, strict=True):
        (alone,) = model.generate_segments(one[there.bool()][None], **settings).rows
        assert row.ids == alone.ids and row.starts == alone.starts
        assert row.probability == pytest.approx(alone.probability, abs=1e-5)


def test_the_shared_part_is_read_once(monkeypatch):
    model = micro_step("llama")
    ids, mask = alike(40, [45, 60, 52])
    model.generate_segments(ids, mask, max_new_tokens=1)  # what is tried once has been tried
    seen = []
    macro = type(model).macro
    monkeypatch.setattr(
        type(model), "macro", lambda self, e, *rest: (seen.append(tuple(e.shape[:2])), macro(self, e, *rest))[1]
    )
    model.generate_segments(ids, mask, max_new_tokens=1)
    assert seen == [(1, 40), (3, 20)]
