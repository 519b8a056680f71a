"""Merged decoding in the real vLLM: run it where vLLM is installed, in a process of its own (docs/serving.md)."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from tests.serving.vllm_served import expected, prompts_of, same, served_by_vllm, written

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    yield from served_by_vllm("micro-step-tiny", tmp_path_factory.mktemp("vllm"), lossless=False)


@pytest.mark.parametrize("together", [False, True])
def test_six_prompts_alone_and_together(served, together):
    service, model = served
    prompts = [*prompts_of(service)[:5], prompts_of(service)[0][:1]]  # one has a single token
    rows = written(service, prompts, together, max_tokens=48)
    theirs = [expected(model, prompt, 48, 0.2, verify=False) for prompt in prompts]
    assert [row.ids for row in rows] == [row.ids for row in theirs]
    assert all(map(same, rows, theirs)) and sum(map(len, (row.ids for row in rows))) > 1.2 * sum(
        row.macro_steps for row in rows
    )
    for row, other in zip(rows, theirs, strict=True):
        assert row.probability == pytest.approx(other.probability, abs=1e-3)
        assert row.cache_slots == other.cache_slots


def test_saved_blocks_are_given_back(served):
    service, model = served
    manager = service.engine._llm.engine_core.engine_core.scheduler.kv_cache_manager
    held, allocate = [], manager.allocate_slots

    def allocated(request, *args, **options):
        blocks = allocate(request, *args, **options)
        held.append((len(manager.get_block_ids(request.request_id)[0]), request.num_tokens))
        return blocks

    manager.allocate_slots = allocated
    free = manager.block_pool.get_num_free_blocks()
    size = manager.kv_cache_config.kv_cache_groups[0].kv_cache_spec.block_size
    prompt = (prompts_of(service)[1] * 10)[12 - size :]  # room for 12 more in its last block
    (row,) = written(service, [prompt], False, max_tokens=40)
    theirs = expected(model, prompt, 40, 0.2, verify=False)
    assert row.ids == theirs.ids and len(row.ids) == 40 and row.cache_slots == theirs.cache_slots
    assert held[-1][0] == -(-row.cache_slots // size) < -(-held[-1][1] // size)  # blocks of its slots, of its tokens
    assert manager.block_pool.get_num_free_blocks() == free
