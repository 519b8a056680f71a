"""The cost estimate, held against what torch really allocates, and the refusals that rest on it."""

from __future__ import annotations

import os

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoModelForCausalLM

from model.causal_lm.device_memory import available_memory
from model.errors import TooLarge
from model.hub.fetch import is_cached
from model.hub.memory import MemoryEstimate, estimate_memory, require_memory, tokens_that_fit
from model.scoring.token_scores import reduce_in_chunks
from tests.support.tiny import FAMILIES, tiny_config, tiny_model

MARGIN = (1.0, 2.5)  # estimate over measured peak


def peak(prof: profile) -> int:
    """The most bytes of tensors alive at once during a profile."""
    now = most = 0
    events = prof.profiler.kineto_results.events()  # type: ignore[union-attr]
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("tokens", "batch"), [(1024, 1), (256, 4)])
def test_estimate_covers_the_measured_peak_of_a_forward_pass(family: str, tokens: int, batch: int) -> None:
    config = tiny_config(family)
    setattr(config, "n_positions" if family == "gpt2" else "max_position_embeddings", 1024)
    model = AutoModelForCausalLM.from_config(config).eval()
    body = getattr(model, model.base_model_prefix)
    ids = torch.zeros(batch, tokens, dtype=torch.long)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        body(input_ids=ids, use_cache=False)
    cost = estimate_memory(model.config, tokens, batch)
    ratio = (cost.activations + cost.attention) / peak(prof)
    assert MARGIN[0] <= ratio <= MARGIN[1], f"{family}: the estimate is {ratio:.2f} times the measured peak"


def test_estimate_covers_a_chunk_of_logits_and_its_scores() -> None:
    model, chunk = tiny_model("llama", vocab_size=20_000), 128
    states = torch.randn(1024, model.config.hidden_size)
    targets = torch.zeros(1024, dtype=torch.long)
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        reduce_in_chunks(model, states, targets.numpy(), 10, chunk)
    ratio = estimate_memory(model.config, 1024, chunk=chunk).logits_chunk / peak(prof)
    assert MARGIN[0] <= ratio <= MARGIN[1], f"the estimate is {ratio:.2f} times the measured peak"


def test_weights_are_counted_exactly_for_a_model_and_nearly_from_its_config() -> None:
    model = tiny_model("llama")
    by_formula = estimate_memory(model.config, 1).weights
    real = 4 * model.num_parameters()
    assert 0.9 < by_formula / real < 1.1
    assert estimate_memory(model.config, 1, parameters=1000, dtype="bfloat16").weights == 2000


def test_a_config_file_and_a_config_object_cost_the_same() -> None:
    for family in FAMILIES:
        config = tiny_config(family)
        written = {**config.to_dict(), "_attn_implementation": getattr(config, "_attn_implementation", None)}
        assert estimate_memory(written, 100) == estimate_memory(config, 100)


def test_cost_grows_linearly_without_windows_and_quadratically_with_kept_maps() -> None:
    config = tiny_config("llama")
    one, two = estimate_memory(config, 1000), estimate_memory(config, 2000)
    assert two.activations == 2 * one.activations
    assert one.attention == 0
    maps = [estimate_memory(config, n, attention_maps=2).attention for n in (1000, 2000)]
    assert maps[1] == 4 * maps[0]


def test_layers_and_logits_do_not_add_up() -> None:
    cost = MemoryEstimate(weights=10, activations=5, logits_chunk=9, attention=2)
    assert cost.run == 9
    assert cost.total == 19


def test_too_large_a_run_is_refused_with_both_numbers() -> None:
    there = available_memory("cpu")
    with pytest.raises(TooLarge, match=r"needs about [\d.]+ GB.*layers.*[\d.]+ GB are free on cpu"):
        require_memory(MemoryEstimate(0, 2 * there, 0, 0), "cpu")
    require_memory(MemoryEstimate(10 * there, 1000, 1000, 0), "cpu")  # weights that are loaded already count no more
    with pytest.raises(TooLarge):
        require_memory(MemoryEstimate(10 * there, 1000, 1000, 0), "cpu", loaded=False)


def test_tokens_that_fit_is_the_largest_that_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.hub.memory.available_memory", lambda device: 50_000_000)
    for family in ("llama", "gemma3_text"):
        config = tiny_config(family)
        n = tokens_that_fit(config, "cpu")
        require_memory(estimate_memory(config, n), "cpu")
        with pytest.raises(TooLarge):
            require_memory(estimate_memory(config, n + 1), "cpu")
    monkeypatch.setattr("model.hub.memory.available_memory", lambda device: 10)
    assert tokens_that_fit(tiny_config("llama"), "cpu") == 0


@pytest.mark.real
def test_estimate_covers_a_real_model_s_memory_as_the_system_sees_it() -> None:
    if not is_cached("smollm2-135m-instruct"):
        pytest.skip("smollm2-135m-instruct is not in the cache; `micro-step model fetch smollm2-135m-instruct`")
    import subprocess
    import sys

    code = """
import resource, torch
from model.hub.memory import estimate_memory
from model.hub.loading import ModelSpec, load
loaded = load(ModelSpec("smollm2-135m-instruct"))
body = loaded.model.model
rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
ids = torch.arange(512)[None]
with torch.no_grad():
    body(input_ids=ids[:, :64], use_cache=False)  # pages in the weights and the kernels
    before = rss()
    body(input_ids=ids, use_cache=False)
cost = estimate_memory(loaded, 512)
print(cost.activations + cost.attention, rss() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}
    )
    assert done.returncode == 0, done.stderr
    estimated, grown = map(int, done.stdout.split())
    assert grown <= 1.25 * estimated, f"estimated {estimated / 1e6:.0f} MB, grown by {grown / 1e6:.0f} MB"
