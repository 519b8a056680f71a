"""The micro_step model's forward pass: identities of the design, and a slow reference that loops."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.causal_lm.forward import body, logits_of
from model.errors import MicroStepError, ModelError
from model.micro_step.configuration import MicroStepConfig, evenly_spaced
from model.micro_step.macro_inputs import merged
from model.micro_step.modeling import MicroStepForCausalLM
from model.micro_step.segment_layout import layout
from tests.support.micro_steps import BASES, MERGERS, assert_rows_stand_alone, micro_step, random_starts
from tests.support.tiny import tiny_model

IDS = torch.randint(5, 400, (3, 23), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", BASES)
@pytest.mark.parametrize("merger", MERGERS)
def test_fresh_with_segments_of_one_it_is_the_base(family, merger):
    model = micro_step(family, scrambled=False, merger=merger)
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, model.base(IDS).logits.float())


@pytest.mark.parametrize("merger", MERGERS)
def test_a_fresh_merger_is_the_mean(merger):
    model = micro_step(scrambled=False, merger=merger)
    e = torch.randn(5, 4, 32)
    there = torch.arange(4) < torch.tensor([1, 2, 3, 4, 2])[:, None]
    mean = torch.stack([row[kept].mean(0) for row, kept in zip(e, there, strict=True)])
    assert torch.allclose(merged(model, e, there), mean, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("merger", ["residual_softmax", "attention", "local_encoder"])
def test_a_merger_sees_its_segments_tokens_alone_in_their_order(merger):
    model = micro_step(merger=merger)
    e, there = torch.randn(6, 4, 32), torch.arange(4) < torch.tensor([1, 2, 3, 4, 2, 3])[:, None]
    whole = merged(model, e, there)
    assert torch.equal(whole[0], e[0, 0])
    for i, n in enumerate([1, 2, 3, 4, 2, 3]):
        alone = merged(model, e[i : i + 1, :n], there[i : i + 1, :n])
        assert torch.allclose(whole[i], alone[0], atol=1e-5)
    junk = torch.where(there[..., None], e, torch.full_like(e, 9.0))
    assert torch.allclose(merged(model, junk, there), whole, atol=1e-5)
    turned = merged(model, e[3:4].flip(1), there[3:4])
    assert not torch.allclose(turned, whole[3:4], atol=1e-3)


def test_residual_softmax_is_its_formula():
    model = micro_step(merger="residual_softmax")
    merger, e = model.merger, torch.randn(1, 3, 32)
    rows = []
    for i in range(3):
        x = torch.cat([e[0, i], merger.position[i]])
        hidden = x @ merger.inner.weight.T + merger.inner.bias
        rows.append((hidden * torch.sigmoid(hidden)) @ merger.gate.weight.T + merger.gate.bias)
    mixed = torch.zeros(32)
    for dimension in range(32):
        g = torch.stack([row[dimension] for row in rows]).exp()
        for i in range(3):
            mixed[dimension] += g[i] / g.sum() * e[0, i, dimension]
    expected = e[0].mean(0) + merger.out.weight @ mixed
    assert torch.allclose(merged(model, e, torch.ones(1, 3, dtype=torch.bool))[0], expected, atol=1e-5)


def slow_logits(model: MicroStepForCausalLM, ids: Tensor, starts: Tensor) -> Tensor:
    """[N, V] of one row without padding, from the design's words, one segment and one prefix at a time."""
    embed = model.get_input_embeddings()
    bounds = [*torch.nonzero(starts)[:, 0].tolist(), len(ids)]
    segments = [list(range(a, b)) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]
    macro = []
    for tokens in segments:
        e = embed(ids[tokens])
        macro.append(e[0] if len(tokens) == 1 else model.merger(e[None], torch.ones(1, len(tokens)).bool())[0])
    states = body(model.base)(
        inputs_embeds=torch.stack(macro)[None],
        position_ids=torch.tensor([[tokens[-1] for tokens in segments]]),
        attention_mask=torch.ones(1, len(segments), dtype=torch.long),
        output_hidden_states=True,
    )
    every = [*states.hidden_states[:-1], states.last_hidden_state]
    out = torch.zeros(len(ids), model.config.vocab_size)
    for s, tokens in enumerate(segments):
        out[tokens[-1]] = logits_of(model.base, states.last_hidden_state[0, s : s + 1])[0]
        for j in range(1, len(tokens)):
            context = torch.stack([every[layer][0, s - 1] for layer in model.config.context_layers])
            state, _ = model.micro(context[None], embed(ids[tokens[:j]])[None])
            out[tokens[j - 1]] = logits_of(model.base, state[0, -1:])[0]
    return out


@pytest.mark.parametrize("family", BASES)
def test_logits_equal_a_slow_reference(family):
    model = micro_step(family)
    starts = random_starts(IDS, prompt=5, most=4)
    assert (layout(starts, None, 4).lengths > 1).any()
    with torch.no_grad():
        found = model(IDS, segment_starts=starts).logits
        for row in range(len(IDS)):
            assert torch.allclose(found[row], slow_logits(model, IDS[row], starts[row]), atol=2e-4)


@pytest.mark.parametrize("family", BASES)
@pytest.mark.parametrize("left", [True, False])
def test_a_row_alone_equals_the_row_in_a_padded_batch(family, left):
    model = micro_step(family)
    assert_rows_stand_alone(model, left)


def test_no_token_sees_what_comes_after_it():
    model = micro_step()
    starts = random_starts(IDS, prompt=3, most=4)
    with torch.no_grad():
        before = model(IDS, segment_starts=starts).logits
        for t in range(8, 22):
            changed = IDS.clone()
            changed[:, t] = (changed[:, t] + 50) % 390 + 5
            after = model(changed, segment_starts=starts).logits
            assert torch.allclose(before[:, :t], after[:, :t], atol=1e-5)
            assert not torch.allclose(before[:, t], after[:, t], atol=1e-3)


def test_the_loss_is_that_of_the_logits():
    model = micro_step()
    starts = random_starts(IDS, prompt=5, most=4)
    labels = IDS.clone()
    labels[:, :6] = -100
    with torch.no_grad():
        logits = model(IDS, segment_starts=starts).logits
        out = model(IDS, segment_starts=starts, labels=labels)
    nll = F.cross_entropy(logits[:, 5:-1].flatten(0, 1), IDS[:, 6:].flatten(), reduction="none").view(3, -1)
    assert out.logits is None
    assert torch.allclose(out.nll[:, 6:], nll, atol=1e-5) and out.nll[:, :6].isnan().all()
    assert torch.allclose(out.token_loss, nll.mean(), rtol=1e-5, atol=1e-6)
    assert torch.equal(out.correct[:, 6:], logits[:, 5:-1].argmax(-1) == IDS[:, 6:])
    expected = []
    for row in range(3):
        for t in range(6, 22):
            if out.micro_position[row, t] < 3:
                p = out.stop_logits[row, t].sigmoid()
                expected.append(-(p if starts[row, t + 1] else 1 - p).log())
    assert torch.allclose(out.stop_loss, torch.stack(expected).mean(), atol=1e-5)
    assert torch.allclose(out.loss, out.token_loss + 0.5 * out.stop_loss)


def test_stops_are_known_after_every_token_but_the_last_of_a_full_segment():
    model = micro_step()
    starts = random_starts(IDS, prompt=5, most=4)
    plan = layout(starts, None, 4)
    with torch.no_grad():
        stops = model(IDS, segment_starts=starts, every_segment=True).stop_logits
    assert torch.equal(stops.isnan(), (plan.slot == 3) | (plan.segment == 0))


@pytest.mark.parametrize(("tied", "token_weight"), [(True, 1.0), (False, 1.0), (False, 0.0)])
def test_the_lean_loss_has_the_plain_losss_value_and_gradients(tied, token_weight, monkeypatch):
    monkeypatch.setattr("model.causal_lm.chunked_cross_entropy.CHUNK_BYTES", 7 * 400 * 4)  # seven positions a chunk
    base = tiny_model("llama" if tied else "qwen3").requires_grad_(True)
    hidden, teacher = torch.randn(20, 32), torch.randn(20, 32)
    target, weight = torch.randint(0, 400, (20,)), torch.rand(20)
    head = base.get_output_embeddings().weight
    found = []
    for lean in (True, False):
        h = hidden.clone().requires_grad_()
        head.grad = None
        if lean:
            told = chunked_lm_head_loss(base, h, target, weight, teacher, 0.3, token_weight)
            loss = told.loss
        else:
            logits, theirs = logits_of(base, h), logits_of(base, teacher).detach().log_softmax(-1)
            nll = F.cross_entropy(logits, target, reduction="none")
            kl = F.kl_div(logits.log_softmax(-1), theirs, log_target=True, reduction="none").sum(-1)
            loss = (weight * (token_weight * nll + 0.3 * kl)).sum()
            assert torch.allclose(told.nll, nll, atol=1e-5) and torch.allclose(told.divergence, kl, atol=1e-5)
        (2 * loss).backward()
        found.append((loss.detach(), h.grad, head.grad.clone()))
    for ours, plain in zip(*found, strict=True):
        assert torch.allclose(ours, plain, atol=1e-4, rtol=1e-4)


def test_the_teacher_of_an_unmerged_reading_is_the_model_itself():
    model = micro_step(scrambled=False)
    with torch.no_grad():
        states = body(model.base)(input_ids=IDS).last_hidden_state
        out = model(IDS, labels=IDS, teacher_states=states)
    assert out.teacher_loss.abs() < 1e-6
    assert torch.allclose(out.loss, out.token_loss + 0.5 * out.stop_loss, atol=1e-5)


@pytest.mark.parametrize("group", ["new", "base", "adapter"])
def test_gradients_reach_exactly_what_the_stage_says(group):
    model = micro_step("qwen3").train()
    model.add_adapter_to_base(r=2, target_modules=["q_proj", "v_proj"], lora_alpha=4, init_lora_weights=False)
    chosen = model.trainable(group)
    starts = random_starts(IDS, prompt=5, most=4)
    model(IDS, segment_starts=starts, labels=IDS).loss.backward()
    reached = {name for name, weight in model.named_parameters() if weight.grad is not None}
    nonzero = {name for name, w in model.named_parameters() if w.grad is not None and bool((w.grad != 0).any())}
    wanted = {name for name, _ in model.named_parameters() if _group(name) == group}
    assert reached == nonzero == wanted
    assert sum(p.numel() for p in chosen) == sum(p.numel() for n, p in model.named_parameters() if n in wanted)


def _group(name: str) -> str:
    return "adapter" if "lora_" in name else "base" if name.startswith("base.") else "new"


def test_attention_and_states_come_on_request():
    model = micro_step()
    model.base.set_attn_implementation("eager")
    model.micro.layers.set_attn_implementation("eager")
    starts = random_starts(IDS, prompt=5, most=4)
    with torch.no_grad():
        out = model(IDS, segment_starts=starts, output_attentions=True, output_hidden_states=True)
        plain = model(IDS, segment_starts=starts)
    q, s = len(out.micro_segments), layout(starts, None, 4).lengths.shape[1]
    assert [a.shape for a in out.macro_attentions] == [(3, 4, s, s)] * 3
    assert [a.shape for a in out.micro_attentions] == [(q, 4, 6, 6)] * 2
    assert torch.allclose(out.micro_attentions[0].sum(-1), torch.ones(q, 4, 6), atol=1e-5)
    assert [h.shape for h in out.hidden_states] == [(3, s, 32)] * len(model.config.context_layers)
    assert torch.allclose(out.logits, plain.logits, atol=1e-5)


def test_context_layers_are_spaced_evenly_and_end_with_the_last():
    assert (
        evenly_spaced(30) == [7, 15, 22, 30]
        and evenly_spaced(3) == [1, 2, 3]
        and evenly_spaced(1) == [1]
        and evenly_spaced(8) == [2, 4, 6, 8]
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"merger": "sum"}, "merger is 'sum'; it must be one of"),
        ({"merges": "mean"}, "no setting 'merges'; did you mean 'merger'"),
        ({"micro_layers": 9}, "9 micro layers cannot be copies"),
        ({"context_layers": [2, 1]}, "context_layers must rise"),
        ({"context_layers": [1]}, "base's last layer 3"),
        ({"draft_vocabulary": [400]}, "ids from 0 to 399"),
        ({"merger": "attention", "merger_heads": 5}, "must divide the hidden size 32"),
        ({"max_segment_length": 0}, "at least 1"),
    ],
)
def test_what_does_not_go_together_is_refused(config, message):
    with pytest.raises(ModelError, match=message):
        MicroStepForCausalLM.from_base(tiny_model("llama"), **config)


def test_wrong_rows_are_refused():
    model = micro_step()
    long = torch.ones_like(IDS, dtype=torch.bool)
    long[0, 5:9] = False
    with pytest.raises(MicroStepError, match="has 5 tokens, .*at most 4"):
        model(IDS, segment_starts=long)
    first = torch.ones_like(long)
    first[0, 1] = False
    with pytest.raises(MicroStepError, match="first segment must be one token"):
        model(IDS, segment_starts=first)
    holes = torch.ones_like(IDS)
    holes[0, 4] = 0
    with pytest.raises(MicroStepError, match="padding must be at the ends"):
        model(IDS, holes)
    with pytest.raises(MicroStepError, match="labels must have input_ids' shape"):
        model(IDS, labels=IDS[:, :4])


def test_the_base_is_shared_and_its_configuration_left_alone():
    base = tiny_model("gemma3_text")
    before = base.config.to_dict(), base.config._attn_implementation
    model = MicroStepForCausalLM.from_base(base)
    assert model.base is base
    assert (base.config.to_dict(), base.config._attn_implementation) == before
    assert isinstance(model.config, MicroStepConfig) and model.micro.layers.config._attn_implementation == before[1]


def test_segments_of_one_token_only_need_no_micro_decoder():
    model = micro_step(max_segment_length=1)
    with torch.no_grad():
        assert torch.equal(model(IDS, every_segment=True).logits, model.base(IDS).logits)
        out = model(IDS, labels=IDS)
        assert torch.isfinite(out.loss) and out.stop_logits.isnan().all()


def test_embeddings_may_stand_for_ids_and_the_last_logits_alone_be_kept():
    model = micro_step("llama")
    ids = torch.randint(5, 400, (2, 14), generator=torch.Generator().manual_seed(1))
    starts = random_starts(ids, 4, 4)
    whole = model(ids, segment_starts=starts).logits
    e = model.get_input_embeddings()(ids)
    assert torch.equal(model(torch.zeros_like(ids), segment_starts=starts, inputs_embeds=e).logits, whole)
    torch.testing.assert_close(model(ids, segment_starts=starts, logits_to_keep=2).logits, whole[:, -2:])
    e = e.detach().requires_grad_()
    model(ids, segment_starts=starts, inputs_embeds=e, logits_to_keep=1).logits.sum().backward()
    assert e.grad is not None and bool((e.grad[:, 0] != 0).any())
