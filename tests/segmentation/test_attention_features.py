"""Attention rows by blocks against transformers' own whole arrays; the shared model stays as it was."""

import numpy as np
import pytest
import torch

from model.causal_lm.probe import parted
from model.errors import MicroStepError, TooLarge
from model.segmentation.attention_features import attention_shares, router_turns
from tests.support.tiny import FAMILIES, tiny_model

IDS = np.random.default_rng(0).integers(5, 400, 37)


def eager(family, fed):
    """Attentions [layers][H, n, n] and hidden states [layers + 1][n, d] as transformers gives them."""
    model = tiny_model(family)
    model.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(torch.as_tensor(fed)[None], output_attentions=True, output_hidden_states=True)
    return [a[0].double().numpy() for a in out.attentions], [h[0].double().numpy() for h in out.hidden_states]


def slow_shares(attentions, n, lead, layers, heads, width):
    """Mass [n, width] and sparsity [n] from whole arrays, token by token."""
    mean = np.mean([attentions[i][heads] for i in layers], axis=(0, 1))
    seen = np.any([attentions[i][heads] > 0 for i in layers], axis=(0, 1))
    mass, sparsity = np.full((n, width), np.nan), np.full(n, np.nan)
    for t in range(n):
        position = t - 1 + lead  # that predicts token t
        if position < max(1, lead):
            continue
        row = mean[position, max(1, lead) : position + 1]
        row = row / row.sum()
        for j in range(1, width + 1):
            mass[t, j - 1] = row[max(0, len(row) - j) :].sum()
        inside = row[row > 0]
        sparsity[t] = np.exp(-(inside * np.log(inside)).sum()) / seen[position, max(1, lead) :].sum()
    return mass, sparsity


@pytest.mark.parametrize(("family", "prefix"), [(name, ((), (1,), (1, 7))[i % 3]) for i, name in enumerate(FAMILIES)])
def test_shares_equal_those_of_whole_arrays(family, prefix, monkeypatch):
    monkeypatch.setattr("model.segmentation.attention_features._BLOCK_ELEMENTS", 4 * 37 * 15)  # blocks of 15 queries
    attentions, _ = eager(family, np.array([*prefix, *IDS[:-1]]))
    for implementation in (None, "eager") if family == "llama" else (None,):  # sdpa where the family has it
        model = tiny_model(family)
        if implementation:
            model.set_attn_implementation(implementation)
        for layers, heads in ((None, None), ([0, 2], [1, 3]), ([1], [0])):
            found = attention_shares(model, IDS, prefix, layers, heads, width=5)
            mass, sparsity = slow_shares(attentions, len(IDS), len(prefix), layers or range(3), heads or slice(None), 5)
            np.testing.assert_allclose(found.mass, mass, atol=2e-4)
            np.testing.assert_allclose(found.sparsity, sparsity, atol=2e-4)
            assert found.layers == tuple(layers or range(3)) and found.mass.dtype == np.float32


@pytest.mark.parametrize("prefix", [(), (1,), (1, 7)])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_router_equals_the_hidden_states(family, prefix):
    _, states = eager(family, np.array([*prefix, *IDS]))
    for layer in (0, 1, 2):  # transformers gives the last one after its final norm
        h = states[layer][len(prefix) :]
        norm = np.linalg.norm(h, axis=1)
        turn = (1 - (h[1:] * h[:-1]).sum(1) / (norm[1:] * norm[:-1])) / 2
        found = router_turns(tiny_model(family), IDS, layer, prefix)
        assert np.isnan(found[0])
        np.testing.assert_allclose(found[1:], turn, atol=1e-4)


def test_a_text_that_fills_the_context_leaves_the_last_router_value_out():
    ids = np.random.default_rng(0).integers(5, 400, 513)
    assert np.flatnonzero(np.isnan(router_turns(tiny_model("gpt2"), ids, 1))).tolist() == [0, 512]
    with pytest.raises(TooLarge, match="512"):
        router_turns(tiny_model("gpt2"), np.append(ids, 5), 1)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_the_model_stays_as_it_was(family):
    model = tiny_model(family)

    def state():
        return [
            (
                name,
                sorted(map(str, vars(module))),
                len(module._forward_hooks),
                len(module._forward_pre_hooks),
                id(config),
            )
            for name, module in model.named_modules()
            for config in (getattr(module, "config", None),)
        ]

    parted(model)  # what is found out about a model once is kept on it, and is no state of a run
    before, implementation = state(), model.config._attn_implementation
    attention_shares(model, IDS, (1,))
    router_turns(model, IDS, 0, (1,))
    router_turns(model, IDS, 3, (1,))

    def stop(share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attention_shares(model, IDS, (1,), progress=stop)
    assert state() == before and model.config._attn_implementation == implementation


@pytest.mark.parametrize("ids", [IDS[:0], IDS[:1], IDS[:2]])
@pytest.mark.parametrize("prefix", [(), (1,), (1, 7)])
def test_short_texts(ids, prefix):
    found = attention_shares(tiny_model("llama"), ids, prefix)
    assert found.mass.shape == (len(ids), 4) and found.sparsity.shape == (len(ids),)
    assert router_turns(tiny_model("llama"), ids, 1, prefix).shape == (len(ids),)


def test_progress_reaches_the_end():
    told = []
    attention_shares(tiny_model("llama"), IDS, (1,), progress=told.append)
    assert told == sorted(told) and told[-1] == 1


def test_impossible_choices_are_refused(monkeypatch):
    model = tiny_model("llama")
    for layers, heads, said in (([3], None, "layer must be from 0 to 2"), (None, [-1], "head must be from 0 to 3")):
        with pytest.raises(MicroStepError, match=said):
            attention_shares(model, IDS, None, layers, heads)
    with pytest.raises(MicroStepError, match="from 0 to 3"):
        router_turns(model, IDS, 4)
    monkeypatch.setattr("model.segmentation.attention_features.available_memory", lambda device: 100)
    with pytest.raises(TooLarge, match="fewer layers"):
        attention_shares(model, IDS)
