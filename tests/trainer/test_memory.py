"""The arithmetic of training over several devices, against what PyTorch holds, and its table in the documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.processes.memory import LlamaShape, flops_by_parameters, gathered_bytes, kept_bytes

SHAPES = {
    "1B": LlamaShape(2048, 8192, 512, 16, 128256, True),
    "8B": LlamaShape(4096, 14336, 1024, 32, 128256, False),
    "70B": LlamaShape(8192, 28672, 1024, 80, 128256, False),
}
TINY = LlamaShape(hidden=128, intermediate=384, key_value=64, layers=3, vocabulary=96, tied=False)


def tiny(shape: LlamaShape = TINY) -> LlamaForCausalLM:
    config = LlamaConfig(
        hidden_size=shape.hidden, intermediate_size=shape.intermediate, num_hidden_layers=shape.layers,
        num_attention_heads=4, head_dim=shape.hidden // 4, num_key_value_heads=shape.key_value * 4 // shape.hidden,
        vocab_size=shape.vocabulary, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    return LlamaForCausalLM(config).train()


def test_parameters_and_what_is_kept_are_what_pytorch_holds() -> None:
    model = tiny()
    assert sum(weight.numel() for weight in model.parameters()) == TINY.parameters
    assert sum(weight.numel() for weight in model.model.layers[0].parameters()) == TINY.layer
    adam = torch.optim.AdamW(model.parameters())
    model(input_ids=torch.zeros(1, 4, dtype=torch.long)).logits.sum().backward()
    adam.step()
    weights = list(model.parameters())
    moments = [value for state in adam.state.values() for value in state.values() if value.dim()]
    held = sum(each.nbytes for each in [*weights, *(weight.grad for weight in weights), *moments])
    assert kept_bytes(TINY.parameters, 0, 1) == held == 8 * kept_bytes(TINY.parameters, 0, 8)
    assert sum(weight.nbytes for weight in model.bfloat16().parameters()) == kept_bytes(0, TINY.parameters, 1)
    largest = 4 * TINY.layer + 4 * TINY.rest  # two layers in bfloat16, the rest in float32
    assert gathered_bytes(TINY, True) == largest + 6 * TINY.layer + 4 * TINY.rest


def test_activations_are_what_autograd_saves() -> None:
    """Of one more layer, since embedding and last norm save something too; without autocast's copies of weights."""
    n, deeper = 64, LlamaShape(128, 384, 64, 4, 96, False)
    grown = (_saved(deeper, n) - _saved(TINY, n)) / n - 2 * (TINY.layer - 2 * TINY.hidden) / n
    assert deeper.activations - TINY.activations == pytest.approx(grown, rel=0.01)


def _saved(shape: LlamaShape, n: int) -> int:
    model = tiny(shape)
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        out = model.model(input_ids=torch.zeros(1, n, dtype=torch.long), use_cache=False).last_hidden_state
    assert out.requires_grad
    return sum(storage.nbytes() for storage in saved.values())


@pytest.mark.parametrize("trained", [True, False])
def test_operations_are_those_that_pytorch_counts(trained: bool) -> None:
    """Of the linear layers: attention's own operations grow with the length, and a short text has few."""
    model = tiny()
    linear = sum(part.weight.numel() for part in model.modules() if isinstance(part, nn.Linear))
    embedded = torch.randn(1, 8, TINY.hidden, requires_grad=True)
    model.requires_grad_(trained)
    with FlopCounterMode(display=False) as counter:
        model(inputs_embeds=embedded).logits.sum().backward()
    assert counter.get_total_flops() == pytest.approx(flops_by_parameters(linear, 8, trained), rel=0.02)


def test_the_documents_have_the_table_of_these_formulas() -> None:
    text = (Path(__file__).parents[2] / "docs/training.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d+B) \| (\d+) \| (all weights|adapter) \| (.*) \|$", text, re.M)
    assert len(rows) == 18
    for name, processes, what, figures in rows:
        shape, p, trained = SHAPES[name], int(processes), what == "all weights"
        whole = shape.parameters
        kept = kept_bytes(whole, 0, p) if trained else kept_bytes(0.005 * whole, whole, p)
        hours = flops_by_parameters(whole, 1e9, trained) / (p * 0.4e15) / 3600
        sizes = (kept, gathered_bytes(shape, trained), 4096 * shape.activations)
        assert figures == " | ".join([*(f"{size / 1e9:.1f}" for size in sizes), f"{hours:.2f}"])
