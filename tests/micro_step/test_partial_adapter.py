"""An adapter that is off for the prompt: the base reads it as it is, in training, in generation, and when loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from model.convert.convert import convert
from model.errors import ModelError
from model.hub.loading import ModelSpec
from model.micro_step.macro_cache import macro_cache
from model.micro_step.macro_inputs import read_segments
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.segment_layout import layout
from tests.support.micro_steps import ragged, random_starts, scramble
from tests.support.tiny import save_tiny, tiny_model

IDS = torch.randint(5, 400, (2, 19), generator=torch.Generator().manual_seed(1))
PROMPT = 6
LINEAR = {"gpt2": ["c_attn", "c_proj", "c_fc"], "gemma2": ["q_proj", "v_proj", "o_proj", "down_proj"]}
CASES = [("llama", 0), ("llama", 3), ("gemma2", 1), ("gpt2", 1), ("cohere", 0)]


def lora(family: str) -> dict[str, object]:
    names = LINEAR.get(family, ["q_proj", "k_proj", "v_proj", "o_proj", "down_proj"])
    return {"r": 2, "lora_alpha": 8, "target_modules": names, "init_lora_weights": False}


def adapted(family: str, merge_layer: int = 0, base: object = None, **more: object) -> MicroStepForCausalLM:
    model = MicroStepForCausalLM.from_base(base or tiny_model(family), merge_layer=merge_layer, **more)
    scramble(model)
    torch.manual_seed(3)
    model.add_adapter_to_base(**lora(family))
    return model.eval()


@pytest.mark.parametrize(("family", "merge_layer"), CASES)
@torch.no_grad()
def test_the_prompt_is_read_as_the_base_reads_it(family: str, merge_layer: int) -> None:
    """Bit for bit; and what is written reads the adapter, with or without a cache."""
    model = adapted(family, merge_layer, prompt_adapter=False)
    starts = random_starts(IDS, prompt=PROMPT, most=4)
    plan, embeds = layout(starts, None, 4), model.get_input_embeddings()(IDS)
    prompt = torch.full((2,), PROMPT)
    ours = read_segments(model, embeds, plan, prompt=prompt).context
    on = read_segments(model, embeds, plan).context
    model.base.disable_adapters()
    theirs = read_segments(model, embeds, plan).context
    model.base.enable_adapters()
    given, written = slice(PROMPT), plan.segments[0].nonzero()[PROMPT:, 0]
    assert torch.equal(ours[:, given], theirs[:, given])
    assert not torch.allclose(on[:, given], theirs[:, given], atol=1e-3)
    assert not torch.allclose(ours[0, written], theirs[0, written], atol=1e-3)
    assert not torch.allclose(ours[0, written], on[0, written], atol=1e-3)
    cache = macro_cache(model)
    _, context = cache.read(IDS[:1, :PROMPT], torch.ones_like(IDS[:1, :PROMPT]))
    torch.testing.assert_close(context, ours[:1, PROMPT - 1], rtol=1e-4, atol=1e-4)
    for s in written.tolist():
        end, n = int(plan.last[0, s]) + 1, int(plan.lengths[0, s])
        padded = torch.zeros(1, 4, embeds.shape[-1])
        padded[:, :n] = embeds[:1, end - n : end]
        _, context = cache.step(padded, torch.arange(4)[None] < n)
        torch.testing.assert_close(context, ours[:1, s], rtol=1e-3, atol=1e-3)


def test_it_is_off_before_a_rows_first_label_and_gradients_do_not_reach_it_there() -> None:
    """So reading the prompts without gradients is exact, for the adapter too."""
    gradients = []
    labels = IDS.clone()
    labels[0, :PROMPT], labels[1, : PROMPT + 2] = -100, -100
    starts = random_starts(IDS, prompt=PROMPT + 2, most=4)
    for prompt_gradients in (True, False):
        model = adapted("llama", 1, prompt_adapter=False)
        chosen = model.trainable("new", "adapter")
        out = model(IDS, segment_starts=starts, labels=labels, prompt_gradients=prompt_gradients)
        out.loss.backward()
        gradients.append([out.loss.detach(), *(p.grad for p in chosen if p.grad is not None)])
    assert len(gradients[0]) == len(gradients[1]) > 30
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4)


def test_a_loaded_model_writes_the_same_tokens_and_keeps_its_adapter_apart(tmp_path: Path) -> None:
    where = save_tiny(tmp_path / "base", "llama")
    model = adapted("llama", base=AutoModelForCausalLM.from_pretrained(where), prompt_adapter=False)
    model.save_modules(tmp_path / "m", str(where))
    again = MicroStepForCausalLM.from_pretrained(tmp_path / "m")
    ids, mask = ragged([4, 9])
    options = {"attention_mask": mask, "max_new_tokens": 12, "confidence": 0.1}
    assert torch.equal(again.generate(ids, **options), model.generate(ids, **options))
    alone = [again.generate(ids[i : i + 1, -n:], max_new_tokens=12, confidence=0.1) for i, n in enumerate((4, 9))]
    both = again.generate(ids, **options)
    assert all(torch.equal(one[0, -12:], row[-12:]) for one, row in zip(alone, both, strict=True))
    again.config.prompt_adapter = True
    assert not torch.equal(again.generate(ids, **options), both)  # it matters
    with pytest.raises(ModelError, match="folded"):
        model.merge_adapter()
    with pytest.raises(ModelError, match="convert it to modules"):
        convert(ModelSpec(str(tmp_path / "m")), "whole", tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


@pytest.mark.parametrize("more", [{"target_modules": ["q_proj", "lm_head"]}, {"use_dora": True}])
def test_an_adapter_that_cannot_be_off_for_a_prompt_alone_is_refused(more: dict[str, object]) -> None:
    model = MicroStepForCausalLM.from_base(tiny_model("llama"), prompt_adapter=False)
    with pytest.raises(ModelError, match="prompt_adapter"):
        model.add_adapter_to_base(**{**lora("llama"), **more})
