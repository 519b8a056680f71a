"""What the tests of the micro_step model share: tiny models, ragged batches, and forced segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from model.decoding.stopping import ProposedToken, StopRule
from model.micro_step.modeling import MicroStepForCausalLM
from tests.support.tiny import PAD, tiny_model

BASES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "mistral", "granite")
MERGERS = ("residual_softmax", "mean", "attention", "local_encoder")


def micro_step(family: str = "llama", seed: int = 0, scrambled: bool = True, **config: Any) -> MicroStepForCausalLM:
    """A tiny model; `scrambled` moves all new weights away from where they start, as training would."""
    torch.manual_seed(seed)
    model = MicroStepForCausalLM.from_base(tiny_model(family, seed=seed), **config)
    if scrambled:
        scramble(model)
    return model.eval()


def scramble(model: MicroStepForCausalLM) -> None:
    """Add noise to all new weights."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if not name.startswith("base."):
                weight += torch.randn(weight.shape, generator=generator).to(weight) * 0.1


def ragged(lengths: list[int], seed: int = 0) -> tuple[Tensor, Tensor]:
    """[B, P] ids and mask of left-padded prompts."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    mask = torch.zeros_like(ids)
    for i, n in enumerate(lengths):
        ids[i, ids.shape[1] - n :] = torch.randint(5, 400, (n,), generator=generator)
        mask[i, ids.shape[1] - n :] = 1
    return ids, mask


def random_starts(ids: Tensor, prompt: int, most: int, seed: int = 0) -> Tensor:
    """[B, N] random segments of at most `most` tokens after a prompt."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.rand(ids.shape, generator=generator) < 0.4
    starts[:, : prompt + 1] = True
    for t in range(prompt + most, ids.shape[1]):
        starts[:, t] |= ~starts[:, t - most + 1 : t].any(1)
    return starts


def forced(pattern: Callable[[int], int]) -> StopRule:
    """A rule that gives the s-th segment `pattern(s)` tokens."""

    def keep(offer: ProposedToken, _: Tensor) -> Tensor:
        return offer.slot < torch.tensor([pattern(step) for step in offer.macro_step.tolist()])

    return StopRule("forced", "segments of given lengths", keep)


def assert_rows_stand_alone(model: MicroStepForCausalLM, left: bool) -> None:
    """Three rows, padded on the left or on the right, give what each gives alone."""
    ids, mask = ragged([23, 9, 17])
    starts = random_starts(ids, prompt=16, most=4)
    if not left:
        order = torch.argsort(mask, dim=1, descending=True, stable=True)
        ids, mask, starts = ids.gather(1, order), mask.gather(1, order), starts.gather(1, order)
        starts[:, :2] = True
    with torch.no_grad():
        whole = model(ids, mask, starts, every_segment=True)
        for row in range(3):
            kept = mask[row].bool()
            alone = model(ids[row, kept][None], None, starts[row, kept][None], every_segment=True)
            assert torch.allclose(whole.logits[row, kept], alone.logits[0], atol=2e-4)
            assert torch.allclose(whole.stop_logits[row, kept], alone.stop_logits[0], atol=1e-4, equal_nan=True)
