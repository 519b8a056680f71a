"""`merge_layer` k: the base's first k layers read every token, the others one slot a segment."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, DynamicCache, Lfm2Config

from analysis.attention.layer import layer_attention
from analysis.attention.maps import MapWindow, window
from analysis.attention.micro.weights import SegmentedRow, micro_blocks
from analysis.attention.overview import overview
from analysis.attention.passes.attend import encode_whole, read
from analysis.attribution.methods import attribute
from analysis.attribution.targets import problem
from evals.loglikelihood import by_own_segments
from model.causal_lm.forward import body, logits_of
from model.causal_lm.parts import layers_of
from model.errors import ModelError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.micro_step_io import saved_in
from model.hub.model_info import MicroStepInfo
from model.micro_step.configuration import MicroStepConfig
from model.micro_step.macro_inputs import merged
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.segment_layout import layout
from model.text.document import TextInput
from tests.support.micro_steps import (
    BASES,
    assert_rows_stand_alone,
    forced,
    micro_step,
    ragged,
    random_starts,
    scramble,
)
from tests.support.tiny import save_tiny, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.slow

IDS = torch.randint(5, 400, (3, 23), generator=torch.Generator().manual_seed(1))
FAMILIES = ("llama", "qwen3", "gemma3_text", "gpt2")
WAYS = [(1, "last"), (2, "last"), (3, "last"), (3, "first_last")]  # of the tiny models' three layers
# Every way with one family, and every family with one way: neither depends on the other.
CROSS = [*(("llama", *way) for way in WAYS), *((family, *WAYS[i % 4]) for i, family in enumerate(BASES[1:], 1))]
FEW = [*(("llama", *way) for way in WAYS), *((family, *WAYS[i]) for i, family in enumerate(FAMILIES[1:], 1))]


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    """Facts of some model."""
    return load(ModelSpec(str(save_tiny(tmp_path_factory.mktemp("facts") / "llama")))).facts


def upper_layers(model: MicroStepForCausalLM, k: int) -> nn.Module:
    """A body of its own of the layers above the k-th, as a model with fewer layers is built."""
    inner = copy.deepcopy(body(model.base))
    name = next(name for name, module in inner.named_children() if module is layers_of(inner))
    setattr(inner, name, nn.ModuleList(list(layers_of(inner))[k:]))
    inner.config.num_hidden_layers -= k
    if getattr(inner.config, "layer_types", None):
        inner.config.layer_types = inner.config.layer_types[k:]
    return inner


def without_what_the_family_adds(model: MicroStepForCausalLM, states: Tensor, position: Tensor) -> Tensor:
    """Inputs whose states before the first layer are `states`."""
    inner, config = body(model.base), model.base.config
    if hasattr(inner, "wpe"):
        return states - inner.wpe(position)
    return states / getattr(config, "embedding_multiplier", 1.0)


def slow_states(model: MicroStepForCausalLM, ids: Tensor, segments: list[list[int]]) -> list[Tensor]:
    """Per layer, and after the final norm, [S, d] of one row without padding, 0 < k < layers."""
    k, read = model.config.merge_layer, torch.ones(1, len(ids), dtype=torch.long)
    below = body(model.base)(input_ids=ids[None], attention_mask=read, output_hidden_states=True).hidden_states
    steps = []
    for tokens in segments:
        states, there = below[k][:, tokens], torch.ones(1, len(tokens)).bool()
        steps.append(states[0, 0] if len(tokens) == 1 else model.merger(states, there)[0])
    position = torch.tensor([[tokens[-1] for tokens in segments]])
    fed = without_what_the_family_adds(model, torch.stack(steps)[None], position)
    above = upper_layers(model, k)(
        inputs_embeds=fed,
        position_ids=position,
        attention_mask=torch.ones_like(position),
        use_cache=False,
        output_hidden_states=True,
    )
    return [
        *(each[0, position[0]] for each in below[: k + 1]),
        *(each[0] for each in above.hidden_states[1:-1]),
        above.last_hidden_state[0],
    ]


def slow_folded(model: MicroStepForCausalLM, ids: Tensor, segments: list[list[int]]) -> list[Tensor]:
    """The same where only the cache is folded: segment by segment, slots taken out of an ordinary cache."""
    cache, found, held = DynamicCache(), [], 0
    for tokens in segments:
        out = body(model.base)(
            input_ids=ids[None, tokens],
            position_ids=torch.tensor([tokens]),
            attention_mask=torch.ones(1, held + len(tokens), dtype=torch.long),
            past_key_values=cache,
            use_cache=True,
            output_hidden_states=True,
        )
        found.append([each[0, -1] for each in (*out.hidden_states[:-1], out.last_hidden_state)])
        own = sorted({0, len(tokens) - 1} if model.config.keep == "first_last" else {len(tokens) - 1})
        kept = [*range(held), *(held + slot for slot in own)]
        held = len(kept)
        for layer in cache.layers:
            layer.keys, layer.values = layer.keys[:, :, kept], layer.values[:, :, kept]
    return [torch.stack(each) for each in zip(*found, strict=True)]


def slow_logits(model: MicroStepForCausalLM, ids: Tensor, starts: Tensor) -> Tensor:
    """[N, V] of one row without padding, one segment and one prefix at a time."""
    embed = model.get_input_embeddings()
    bounds = [*torch.nonzero(starts)[:, 0].tolist(), len(ids)]
    segments = [list(range(a, b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    every = (slow_folded if model.config.folds_cache else slow_states)(model, ids, segments)
    out = torch.zeros(len(ids), model.config.vocab_size)
    for s, tokens in enumerate(segments):
        out[tokens[-1]] = logits_of(model.base, every[-1][s : s + 1])[0]
        for j in range(1, len(tokens)):
            context = torch.stack([every[layer][s - 1] for layer in model.config.context_layers])
            state, _ = model.micro(context[None], embed(ids[tokens[:j]])[None])
            out[tokens[j - 1]] = logits_of(model.base, state[0, -1:])[0]
    return out


@pytest.mark.parametrize(("family", "k", "keep"), FEW)
def test_fresh_with_segments_of_one_it_is_the_base(family, k, keep):
    model = micro_step(family, scrambled=False, merge_layer=k, keep=keep)
    with torch.no_grad():
        found, expected = model(IDS).logits, model.base(IDS).logits.float()
    assert torch.equal(found, expected) if k < 3 else torch.allclose(found, expected, atol=2e-4)


@pytest.mark.parametrize(("family", "k", "keep"), CROSS)
def test_logits_equal_a_slow_reference(family, k, keep):
    model = micro_step(family, merge_layer=k, keep=keep)
    starts = random_starts(IDS, prompt=5, most=4)
    assert (layout(starts, None, 4).lengths > 1).any()
    with torch.no_grad():
        found = model(IDS, segment_starts=starts).logits
        for row in range(len(IDS)):
            assert torch.allclose(found[row], slow_logits(model, IDS[row], starts[row]), atol=2e-4)


@pytest.mark.parametrize(("family", "k", "keep"), FEW)
@pytest.mark.parametrize("left", [True, False])
def test_a_row_alone_equals_the_row_in_a_padded_batch(family, k, keep, left):
    model = micro_step(family, merge_layer=k, keep=keep)
    assert_rows_stand_alone(model, left)


@pytest.mark.parametrize("merger", ["residual_softmax", "mean", "attention", "local_encoder"])
def test_a_fresh_merger_is_the_last_tokens_state(merger):
    model = micro_step(scrambled=False, merger=merger, merge_layer=1)
    states, there = torch.randn(5, 4, 32), torch.arange(4) < torch.tensor([1, 2, 3, 4, 2])[:, None]
    assert torch.equal(merged(model, states, there), states[torch.arange(5), torch.tensor([0, 1, 2, 3, 1])])


@pytest.mark.parametrize("group", ["new", "base", "adapter"])
@pytest.mark.parametrize(("k", "keep"), WAYS)
def test_gradients_reach_exactly_what_the_stage_says(group, k, keep):
    model = micro_step("qwen3", merge_layer=k, keep=keep).train()
    model.add_adapter_to_base(r=2, target_modules=["q_proj", "v_proj"], lora_alpha=4, init_lora_weights=False)
    model.trainable(group)
    starts = random_starts(IDS, prompt=5, most=4)
    model(IDS, segment_starts=starts, labels=IDS).loss.backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    nonzero = {name for name, w in model.named_parameters() if w.grad is not None and bool((w.grad != 0).any())}
    groups = {"adapter": lambda n: "lora_" in n, "base": lambda n: n.startswith("base.") and "lora_" not in n}
    groups["new"] = lambda n: not n.startswith("base.")
    assert reached == nonzero == {name for name, _ in model.named_parameters() if groups[group](name)}


@pytest.mark.parametrize(("family", "k", "keep"), CROSS)
def test_step_by_step_equals_teacher_forced(family, k, keep):
    model = micro_step(family, merge_layer=k, keep=keep)
    ids, mask = ragged([9, 3, 17, 1])
    rule = forced(lambda s: [1, 4, 2, 3, 1, 2][s % 6])
    found = model.generate_segments(ids, mask, rule=rule, max_new_tokens=21, eos_token_id=None)
    width = ids.shape[1]
    starts = torch.cat([torch.ones_like(ids).bool(), found.segment_starts], 1)
    whole = torch.cat([mask, torch.ones_like(found.segment_starts).long()], 1)
    with torch.no_grad():
        logits = model(found.sequences, whole, starts).logits[:, width - 1 : -1]
    new = found.sequences[:, width:]
    assert torch.equal(logits.argmax(-1), new)
    probability = logits.softmax(-1).gather(2, new[..., None])[..., 0]
    assert torch.allclose(probability, found.probability, atol=1e-4)


@pytest.mark.parametrize(("family", "k", "keep"), FEW)
def test_a_batch_equals_single_runs(family, k, keep):
    model = micro_step(family, merge_layer=k, keep=keep)
    lengths = [9, 3, 17, 1]
    ids, mask = ragged(lengths)
    options = {"confidence": 0.5 if family == "gemma3_text" else 0.15, "max_new_tokens": 20}
    batch = model.generate_segments(ids, mask, **options)
    for i, n in enumerate(lengths):
        ours, theirs = batch.rows[i], model.generate_segments(ids[i : i + 1, -n:], **options).rows[0]
        assert ours.ids == theirs.ids and ours.starts == theirs.starts and ours.why == theirs.why
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-4)
    lengths = {len(segment) for row in batch.rows for segment in row.segments}
    assert len(lengths) > 1, "every segment has one length: the test shows nothing"


@pytest.mark.parametrize(("family", "k", "keep"), FEW)
def test_above_one_the_base_alone_writes(family, k, keep):
    model = micro_step(family, merge_layer=k, keep=keep)
    ids, mask = ragged([9, 3, 17, 1])
    expected = model.base.generate(ids, attention_mask=mask, max_new_tokens=20, do_sample=False)
    for verify, tau in ((False, 1.01), (True, 0.0)):
        found = model.generate_segments(ids, mask, confidence=tau, max_new_tokens=20, verify=verify)
        assert torch.equal(found.sequences[:, : expected.shape[1]], expected)


def test_saved_and_loaded_it_is_equal(tmp_path):
    """Whole, beside its base, and as folders from before there was a `merge_layer`, which open as they did."""
    where, starts = save_tiny(tmp_path / "base", "gemma3_text"), random_starts(IDS, prompt=5, most=4)
    for k, keep in WAYS:
        base = AutoModelForCausalLM.from_pretrained(where)
        model = MicroStepForCausalLM.from_base(base, merge_layer=k, keep=keep).eval()
        scramble(model)
        model.save_modules(tmp_path / "modules", str(where))
        model.save_pretrained(tmp_path / "whole")
        with torch.no_grad():
            expected = model(IDS, segment_starts=starts).logits
            for folder in ("modules", "whole"):
                again = AutoModelForCausalLM.from_pretrained(tmp_path / folder).eval()
                said = saved_in(tmp_path / folder)
                assert (again.config.merge_layer, again.config.keep) == (said.merge_layer, said.keep) == (k, keep)
                assert torch.equal(again(IDS, segment_starts=starts).logits, expected)
    file = tmp_path / "whole" / "config.json"
    said = json.loads(file.read_text())
    file.write_text(json.dumps({name: said[name] for name in said if name not in ("merge_layer", "keep")}))
    assert MicroStepConfig.from_pretrained(file.parent).merge_layer == 0


@pytest.mark.parametrize(("k", "keep"), WAYS)
def test_slots_of_the_cache(k, keep):
    """Three prompts of 9 tokens or fewer, 12 new tokens in segments of 3, the last of which is never read."""
    model = micro_step(merge_layer=k, keep=keep)
    ids, mask = ragged([4, 9, 2])
    found = model.generate_segments(ids, mask, rule=forced(lambda s: 3), max_new_tokens=12, eos_token_id=None)
    slots = {(1, "last"): (18 + 12 + 12) / 3, (2, "last"): (18 + 18 + 12) / 3, (3, "last"): 12, (3, "first_last"): 15}
    assert found.cache_slots == slots[k, keep]


def test_what_does_not_go_together_is_refused():
    base = tiny_model("llama")
    for config, said in (
        ({"merge_layer": 4}, "merge_layer must be from 0 to the base's 3 layers, got 4"),
        ({"merge_layer": 1, "keep": "first_last"}, "keep 'first_last' needs a merge_layer of 3"),
        ({"merge_layer": 3, "keep": "both"}, "keep is 'both'; it must be one of last, first_last"),
        ({"merge_layer": 1, "decoding": "lossless"}, "a lossless model merges nothing"),
    ):
        with pytest.raises(ModelError, match=said):
            MicroStepForCausalLM.from_base(base, **config)


def test_a_family_whose_layers_cannot_be_parted_is_refused_by_its_name():
    """Recurrent layers, whose states no segment can be taken out of; and a body that adds something to its layers."""
    recurrent = Lfm2Config(
        vocab_size=400,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
    )
    base = AutoModelForCausalLM.from_config(recurrent).eval()
    MicroStepForCausalLM.from_base(base)
    for k in (1, 2, 3):
        with pytest.raises(ModelError, match=r"merge_layer \d does not work with a base of the family lfm2: its"):
            MicroStepForCausalLM.from_base(base, merge_layer=k)
    odd = tiny_model("llama")
    body(odd).norm.register_forward_pre_hook(lambda _, args: (args[0] + body(odd).last_embedded,))
    body(odd).register_forward_pre_hook(
        lambda inner, _, given: setattr(inner, "last_embedded", given["inputs_embeds"]), with_kwargs=True
    )
    with pytest.raises(ModelError, match="does not work with a base of the family llama"):
        MicroStepForCausalLM.from_base(odd, merge_layer=1)


@pytest.mark.parametrize(("k", "keep"), WAYS)
def test_attention_maps_have_a_row_a_token_below_and_a_row_a_segment_above(k, keep):
    model = micro_step(merge_layer=k, keep=keep)
    model.base.set_attn_implementation("eager")
    starts = random_starts(IDS, prompt=5, most=4)
    with torch.no_grad():
        out = model(IDS, segment_starts=starts, output_attentions=True, output_hidden_states=True)
        tokens = model.base(IDS, output_attentions=True).attentions
    s = layout(starts, None, 4).lengths.shape[1]
    assert [each.shape[2:] for each in out.macro_attentions] == [(23, 23)] * k + [(s, s)] * (3 - k)
    for below, plain in zip(out.macro_attentions[:k], tokens, strict=False):
        assert torch.allclose(below.sum(-1), torch.ones(3, 4, 23), atol=1e-5)
        assert k == 3 or torch.allclose(below, plain, atol=1e-6)
    assert torch.allclose(out.logits, model(IDS, segment_starts=starts).logits, atol=1e-5)


def test_the_views_read_what_the_model_reads(facts):
    """Maps of the layers above, micro maps and quantities are the model's own; maps of layers below are refused."""
    model = micro_step(merge_layer=1, stop_head=True)
    micro = MicroStepInfo("merged", 4, "residual_softmax", 2, (1, 2, 3), True, None, None, False, 1)
    loaded = LoadedModel(ModelSpec("tiny"), replace(facts, micro_step=micro), model, tiny_tokenizer())
    encoded, _ = encode_whole(loaded, TextInput.plain("the cat sat on the mat, and the cat sat on the dog"))
    reading = read(loaded, encoded, np.arange(len(encoded)) % 3 == 0, "test")
    starts = reading.token_starts
    model.base.set_attn_implementation("eager")
    with torch.no_grad():
        ids, segments = torch.as_tensor(encoded.ids)[None], torch.as_tensor(starts)[None]
        out = model(ids, segment_starts=segments, output_attentions=True)
    for layer in (1, 2):
        found = layer_attention(loaded, reading, layer).rows_of(2)
        truth = out.macro_attentions[layer][0, 2].numpy()
        np.testing.assert_allclose(
            np.nan_to_num(window(found, MapWindow.of(len(reading)))), truth, rtol=1e-5, atol=5e-6
        )
    with pytest.raises(ModelError, match="layer 0 reads tokens, and has no map of segments; choose layers from 1 to 2"):
        overview(loaded, reading)
    blocks = list(micro_blocks(model, [SegmentedRow(encoded.ids, starts)], True, 4))
    model.micro.layers.set_attn_implementation("eager")
    with torch.no_grad():
        out = model(ids, segment_starts=segments, output_attentions=True)
    whole = torch.stack(out.micro_attentions, 1)[1, :, :, 4, :5]  # the second segment, after its second token
    np.testing.assert_allclose(blocks[0].weights[1][:, :, 1, :5], whole.numpy(), atol=2e-5)
    t = int(np.flatnonzero(~starts)[-1])
    asking = problem([loaded], encoded, "micro_confidence", t, starts)
    with torch.no_grad():
        expected = slow_logits(model, ids[0], segments[0])[t - 1].softmax(-1).max()
    assert asking.value(asking.inputs) == pytest.approx(float(expected), rel=1e-4)
    values = attribute(asking, "input_x_gradient", "mean").values
    assert np.isfinite(values[:t]).all() and np.abs(values[:t]).min() > 0


def test_likelihoods_of_answers_are_those_of_the_forward_pass():
    model = micro_step(merge_layer=1)
    prompts, answers = [[7, 9, 11], [30, 31, 32, 33, 34]], [[50, 60, 70, 80, 90, 100, 110], [12, 13, 14]]
    for prompt, answer, found in zip(prompts, answers, by_own_segments(model, prompts, answers, 0.003), strict=True):
        ids = torch.tensor([prompt + answer])
        starts = torch.cat([torch.ones(len(prompt)).bool(), torch.tensor(found.slot == 0)])[None]
        with torch.no_grad():
            logits = model(ids, segment_starts=starts).logits[0, len(prompt) - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="none")
        np.testing.assert_allclose(found.nll, expected.numpy(), rtol=1e-4, atol=1e-4)
        assert len(prompt) > 3 or found.slot.max() > 0, "every segment has one token: the test shows nothing"


@pytest.mark.parametrize(("k", "keep"), WAYS)
def test_prompts_that_begin_alike_are_written_as_if_alone(k, keep):
    """What they share is read once, into both caches."""
    model = micro_step(merge_layer=k, keep=keep)
    ids, mask = ragged([50, 44, 47])
    for i, n in enumerate([50, 44, 47]):
        ids[i, 50 - n : 90 - n] = torch.arange(5, 45)
    options = {"confidence": 0.1, "max_new_tokens": 16}
    batch = model.generate_segments(ids, mask, **options)
    for i, n in enumerate([50, 44, 47]):
        alone = model.generate_segments(ids[i : i + 1, -n:], **options).rows[0]
        assert batch.rows[i].ids == alone.ids and batch.rows[i].starts == alone.starts
    assert any(len(segment) > 1 for row in batch.rows for segment in row.segments)
