"""A cache that grows in place holds what transformers' own holds."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache, MambaConfig, MambaForCausalLM

from model.causal_lm.kv_cache import MIN_ROOM, growing_cache, keeps_all
from tests.support.tiny import FAMILIES, tiny_model

STEPS = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 90)),
    st.tuples(st.just("crop"), st.integers(1, 3)),
    st.tuples(st.just("select"), st.integers(0, 7)),
    st.tuples(st.just("repeat"), st.integers(1, 2)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=12), st.integers(1, 3), st.integers(1, 2))
def test_it_holds_what_a_dynamic_cache_holds(steps, rows, heads):
    mine, theirs = growing_cache(), DynamicCache()
    generator = torch.Generator().manual_seed(0)
    for what, n in [("add", 4), *steps]:
        size = mine.get_seq_length()
        rows = len(mine.layers[0].keys) if mine.layers else rows
        for cache in (mine, theirs):
            if what == "add":
                state = generator.get_state()
                found = cache.update(*torch.randn(2, rows, heads, n, 8, generator=generator), 0)
                if cache is mine:
                    generator.set_state(state)
                assert found[0].shape[2] == size + n
            elif what == "crop" and size > n:
                cache.crop(-n)
            elif what == "select":
                cache.batch_select_indices(torch.arange(rows)[n % rows :])
            elif what == "repeat":
                cache.batch_repeat_interleave(n)
        for name in ("keys", "values"):
            assert torch.equal(getattr(mine.layers[0], name), getattr(theirs.layers[0], name))


def test_a_step_writes_behind_what_there_is():
    cache = growing_cache()
    cache.update(*torch.randn(2, 3, 2, 10, 8), 0)
    at = cache.layers[0].keys.data_ptr()
    for _ in range(MIN_ROOM):
        cache.update(*torch.randn(2, 3, 2, 1, 8), 0)
    assert cache.layers[0].keys.data_ptr() == at
    cache.update(*torch.randn(2, 3, 2, 1, 8), 0)
    assert cache.layers[0].keys.data_ptr() != at and cache.get_seq_length() == 11 + MIN_ROOM


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_reads_with_it_as_with_its_own(family):
    model = tiny_model(family)
    ids = torch.randint(5, 300, (2, 30), generator=torch.Generator().manual_seed(1))
    caches = growing_cache(model.config), DynamicCache(config=model.config)
    with torch.inference_mode():
        for part in ids.split([10, 1, 1, 9, 9], 1):
            mine, theirs = (model(part, past_key_values=cache).logits for cache in caches)
            torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-5)


def test_what_does_not_keep_everything_is_known():
    whole = {family for family in FAMILIES if keeps_all(tiny_model(family))}
    assert set(FAMILIES) - whole == {"gemma2", "gemma3_text", "mistral"}
    config = MambaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=2, state_size=4)
    assert not keeps_all(MambaForCausalLM(config))


def test_gradients_reach_what_was_read_before():
    model = tiny_model("llama")
    cache = growing_cache(model.config)
    e = torch.randn(1, 6, 32, requires_grad=True)
    model(inputs_embeds=e[:, :5], past_key_values=cache)
    model(inputs_embeds=e[:, 5:], past_key_values=cache).logits.sum().backward()
    assert e.grad[:, :5].abs().sum() > 0
