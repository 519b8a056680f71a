"""The view for a few rows gives what the model gives, and leaves the model as it was."""

import pytest
import torch
from torch import nn

from model.causal_lm.fast_linear import MAX_ROWS, SmallBatchLinear, with_fast_linear
from tests.support.tiny import tiny_model


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1,), (3, 1), (1, MAX_ROWS), (2, 2), (1, 3), (1, MAX_ROWS + 1), (0,)])
def test_a_layer_gives_what_a_linear_layer_gives(shape, bias):
    layer = nn.Linear(24, 40, bias=bias)
    x = torch.randn(*shape, 24)
    found = SmallBatchLinear.forward(layer, x)
    assert found.shape == (*shape, 40) and found.is_contiguous()
    torch.testing.assert_close(found, layer(x))


@pytest.mark.parametrize("family", ["llama", "phi", "gpt2", "gemma3_text"])
def test_a_view_of_a_model_gives_its_logits_and_shares_its_weights(family):
    model = tiny_model(family)
    view = with_fast_linear(model)
    ids = torch.randint(5, 300, (1, 4))
    torch.testing.assert_close(view(ids).logits, model(ids).logits, rtol=1e-4, atol=1e-3)
    assert {id(p) for p in view.parameters()} == {id(p) for p in model.parameters()}
    assert not any(isinstance(module, SmallBatchLinear) for module in model.modules())
    assert sum(type(module) is nn.Linear for module in view.modules()) == 0


@pytest.mark.parametrize("family", ["llama", "qwen2", "mistral"])
def test_a_draft_with_a_mask_attends_without_repeated_keys(family, monkeypatch):
    model = tiny_model(family)
    view = with_fast_linear(model)
    ids, mask = torch.randint(5, 300, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    mask[0, :3] = 0
    expected = model(ids, attention_mask=mask).logits
    monkeypatch.setattr("transformers.integrations.sdpa_attention.repeat_kv", lambda *_: pytest.fail("repeated"))
    torch.testing.assert_close(view(ids, attention_mask=mask).logits[:, 3:], expected[:, 3:], rtol=1e-4, atol=1e-3)
    assert model.config._attn_implementation == view.config._attn_implementation == "sdpa"


def test_what_would_not_be_quicker_is_left_alone():
    assert with_fast_linear(trained := tiny_model("llama").train()) is trained
