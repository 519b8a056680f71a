"""Micro attention: weights against a float64 reference worked out here, evenness against its definition."""

import math
import warnings

import numpy as np
import pytest
import torch

from analysis.attention.evenness.statistics import (
    FIGURES,
    EvennessSums,
    document_units,
    measure,
    segment_units,
    verdict,
)
from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.segments import TrainingSegments, model_of, readable_starts, training_of
from analysis.attention.micro.tables import figure_table, finding, segment_figures, slot_table, weight_table
from analysis.attention.micro.weights import BATCH_TOKENS, SegmentedRow, eager_copy, micro_blocks
from analysis.generation.result import Decoding
from analysis.intervals import Estimate
from analysis.segmentation.strategy import Strategy
from model.causal_lm.parts import layers_of
from model.errors import MicroStepError, TextError, TooLarge
from model.hub.loading import ModelSpec, load
from model.hub.wrap_base import wrap
from model.segmentation.features import FeatureOptions
from model.text.document import Document, Message, TextInput
from tests.support.micro_steps import BASES, MERGERS, micro_step, random_starts, scramble

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. She sold 48 clips in April."
M = 4


def rows_of(lengths, seed=0):
    """Random rows in random segments of at most M tokens."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for i, n in enumerate(lengths):
        ids = torch.randint(5, 400, (1, n), generator=generator)
        starts = random_starts(ids, 1, M, seed + i)[0].numpy()
        found.append(SegmentedRow(ids[0].numpy(), readable_starts(starts, 0)))
    return found


def segments_of(row):
    """(first token, length) of the segments of two tokens and more."""
    first = np.flatnonzero(row.starts)
    lengths = np.diff(np.append(first, len(row.ids)))
    return [(int(a), int(n)) for a, n in zip(first, lengths, strict=True) if n > 1]


def joined(blocks):
    blocks = list(blocks)
    return tuple(np.concatenate([getattr(b, name) for b in blocks]) for name in ("row", "first", "length", "weights"))


def contexts(model, row, merged):
    """[tokens, K, d] the states that a segment starting at each token reads, from the model's own whole pass."""
    starts = torch.tensor(row.starts)[None] if merged else torch.ones(1, len(row.ids), dtype=torch.bool)
    with torch.no_grad():
        out = model(torch.tensor(row.ids)[None], segment_starts=starts, output_hidden_states=True)
    states = torch.stack(out.hidden_states, 2)[0]  # [S, K, d]
    step = starts[0].long().cumsum(0) - 1
    return torch.stack([states[max(0, int(step[t]) - 1)] for t in range(len(row.ids))])


# --- a reference of our own, one segment at a time, for families whose layers are spelled out here


def rotated(x, theta):
    """[H, n, d] the rotary embedding as the llama paper's code has it, halves turned."""
    n, d = x.shape[1:]
    angle = torch.arange(n, dtype=x.dtype)[:, None] / theta ** (torch.arange(0, d, 2, dtype=x.dtype) / d)
    cos, sin = torch.cat([angle.cos()] * 2, -1), torch.cat([angle.sin()] * 2, -1)
    turned = torch.cat([-x[..., d // 2 :], x[..., : d // 2]], -1)
    return x * cos + turned * sin


def attended(q, k, v):
    """Causal attention of [H, n, d]: weights [H, n, n] and [n, H d]."""
    groups = q.shape[0] // k.shape[0]
    k, v = k.repeat_interleave(groups, 0), v.repeat_interleave(groups, 0)
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    hidden = torch.ones(scores.shape[1:]).triu(1).bool()
    weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)
    return weights, (weights @ v).transpose(0, 1).flatten(1)


def by_hand(model, slots):
    """[L, H, n, n] attention of the micro decoder over the slots [n, d] of one segment, in float64."""
    found, h, inner = [], slots, model.micro.layers
    if model.config.base_config.model_type == "gpt2":
        h = h + inner.wpe.weight[: len(h)]
        for layer in inner.h:
            x = torch.nn.functional.layer_norm(h, h.shape[-1:], layer.ln_1.weight, layer.ln_1.bias, layer.ln_1.eps)
            q, k, v = (
                part.view(len(h), layer.attn.num_heads, -1).transpose(0, 1)
                for part in (x @ layer.attn.c_attn.weight + layer.attn.c_attn.bias).chunk(3, -1)
            )
            weights, mixed = attended(q, k, v)
            found.append(weights)
            h = h + layer.attn.c_proj(mixed)
            x = torch.nn.functional.layer_norm(h, h.shape[-1:], layer.ln_2.weight, layer.ln_2.bias, layer.ln_2.eps)
            x = x @ layer.mlp.c_fc.weight + layer.mlp.c_fc.bias
            x = 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
            h = h + x @ layer.mlp.c_proj.weight + layer.mlp.c_proj.bias
        return torch.stack(found)

    def normed(x, norm):
        return norm.weight * x / (x.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon).sqrt()

    theta = inner.config.rope_parameters["rope_theta"]
    for layer in inner.layers:
        a, x = layer.self_attn, normed(h, layer.input_layernorm)
        q, k, v = (p(x).view(len(h), -1, a.head_dim).transpose(0, 1) for p in (a.q_proj, a.k_proj, a.v_proj))
        if hasattr(a, "q_norm"):
            q, k = normed(q, a.q_norm), normed(k, a.k_norm)
        weights, mixed = attended(rotated(q, theta), rotated(k, theta), v)
        found.append(weights)
        h = h + a.o_proj(mixed)
        x = normed(h, layer.post_attention_layernorm)
        gate = layer.mlp.gate_proj(x)
        h = h + layer.mlp.down_proj(gate * gate.sigmoid() * layer.mlp.up_proj(x))
    return torch.stack(found)


@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "mistral", "gpt2"])
def test_weights_equal_those_worked_out_by_hand_in_float64(family, merged):
    model = micro_step(family, max_segment_length=M).double()
    (row,) = rows_of([23], seed=2)
    _, first, length, weights = joined(micro_blocks(model, [row], merged, M))
    assert list(zip(first.tolist(), length.tolist(), strict=True)) == segments_of(row)
    context, e = contexts(model, row, merged), model.get_input_embeddings().weight
    k = context.shape[1]
    for (begin, n), found in zip(segments_of(row), weights, strict=True):
        with torch.no_grad():
            slots = torch.cat([context[begin], e[torch.tensor(row.ids[begin : begin + n - 1])]])
            expected = by_hand(model, slots)[..., k:, :].numpy()
        for j in range(M - 1):
            if j >= n - 1:
                assert np.isnan(found[:, :, j]).all()
                continue
            np.testing.assert_allclose(
                found[:, :, j, : k + j + 1], expected[:, :, j, : k + j + 1], rtol=1e-5, atol=1e-6
            )
            assert np.isnan(found[:, :, j, k + j + 1 :]).all()


@pytest.mark.parametrize("family", BASES)
def test_all_families_equal_the_whole_eager_pass_and_padding_is_never_a_query(family):
    model = micro_step(family, max_segment_length=M)
    rows, before = rows_of([9, 26, 14]), model.micro.layers.config._attn_implementation
    row, first, _, weights = joined(micro_blocks(model, rows, True, M))
    assert model.micro.layers.config._attn_implementation == before  # the model was not touched
    model.set_attn_implementation("eager")
    for i, each in enumerate(rows):
        ids, starts = torch.tensor(each.ids)[None], torch.tensor(each.starts)[None]
        with torch.no_grad():
            out = model(ids, segment_starts=starts, output_attentions=True)
        whole = torch.stack(out.micro_attentions, 1)
        k = model.micro.context
        of_segment = dict(zip(out.micro_segments[:, 1].tolist(), whole, strict=True))
        for (begin, n), found in zip(segments_of(each), weights[row == i], strict=True):
            expected = of_segment[int(each.starts[: begin + 1].sum()) - 1][..., k:, :].numpy()
            for j in range(n - 1):
                seen = found[:, :, j, : k + j + 1]
                np.testing.assert_allclose(seen, expected[:, :, j, : k + j + 1], atol=2e-5)
                np.testing.assert_allclose(seen.sum(-1), 1, atol=1e-5)
    assert np.isnan(weights).any() and (np.nansum(weights, -1) > 0).sum() == (~np.isnan(weights[..., 0])).sum()
    assert first.min() > 0


def test_a_row_alone_equals_the_same_row_in_a_batch_and_long_rows_are_batched_apart(monkeypatch):
    model = micro_step("gemma2", max_segment_length=M)
    rows = rows_of([30, 7, 19, 11, 2])
    every = joined(micro_blocks(model, rows, True, M))
    alone = [joined(micro_blocks(model, [row], True, M))[3] for row in rows[:4]]
    np.testing.assert_allclose(every[3], np.concatenate(alone), atol=2e-5)
    assert not list(micro_blocks(model, rows[4:], True, M))  # two tokens: no segment of two
    monkeypatch.setattr("analysis.attention.micro.weights.BATCH_TOKENS", 40)
    monkeypatch.setattr("analysis.attention.micro.weights._BLOCK_BYTES", 1)
    blocks = list(micro_blocks(model, rows, True, M))
    assert len(blocks) == len(every[0]) and BATCH_TOKENS > 40
    np.testing.assert_allclose(joined(blocks)[3], every[3], atol=2e-5)


def test_the_copy_shares_weights_and_nothing_else():
    model = micro_step("llama")
    private = eager_copy(model.micro)
    assert all(a is b for a, b in zip(private.parameters(), model.micro.parameters(), strict=True))
    assert private.layers.config._attn_implementation == "eager" and private.layers is not model.micro.layers
    assert layers_of(private.layers)[0] is not layers_of(model.micro.layers)[0]


def test_what_does_not_fit_is_refused():
    model = micro_step("gpt2", max_segment_length=M)
    with pytest.raises(TooLarge, match="512"):
        list(micro_blocks(model, rows_of([513]), True, M))
    with pytest.raises(MicroStepError, match="at most 2"):
        list(micro_blocks(model, [SegmentedRow(np.arange(5, 10), np.array([1, 1, 0, 0, 0], bool))], True, 2))
    with pytest.raises(ValueError, match="first two"):
        SegmentedRow(np.arange(3), np.array([True, False, True]))


# --- evenness


def given(weights):
    """[1, 1, 1, P, K + P] out of rows of weights, one a query."""
    p = len(weights)
    k = len(weights[0]) - 1
    out = np.full((1, 1, 1, p, k + p), np.nan)
    for j, row in enumerate(weights):
        out[0, 0, 0, j, : len(row)] = row
    return out, k


def test_evenness_has_its_ends_and_its_definition():
    weights, k = given([[0.2, 0.2, 0.2, 0.2, 0.2], [0.0, 0.5, 0.0, 0.0, 0.3, 0.2], [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]])
    found = dict(zip(FIGURES, measure(weights, k).figures[:, 0, 0, 0], strict=True))
    assert found["evenness"][:2] == pytest.approx([1, 0]) and found["effective"][:2] == pytest.approx([4, 1])
    assert found["largest"] == pytest.approx([0.25, 1, 0.4 / 0.7])
    assert found["context_share"] == pytest.approx([0.8, 0.5, 0.7])
    assert found["evenness_all"][0] == pytest.approx(1)
    p = np.array([4, 1, 1, 1]) / 7
    entropy = -(p * np.log(p)).sum()
    assert found["effective"][2] == pytest.approx(math.exp(entropy))
    assert found["evenness"][2] == pytest.approx(entropy / math.log(4))
    every = np.array([0.5, 0.3, 0.2])
    assert found["evenness_all"][1] == pytest.approx(-(every * np.log(every)).sum() / math.log(6))
    assert measure(weights, k).top[0, 0, 0].tolist() == [0, 1, 0]


def test_a_query_with_nothing_on_the_context_is_left_out_and_one_state_has_no_evenness():
    weights, k = given([[0.0, 0.0, 1.0], [0.25, 0.25, 0.25, 0.25]])
    sums = EvennessSums.of([(np.array([0]), weights)], k, segment_units(1))
    assert sums.figure("evenness").mean == 1 and sums.counted.sum() == 1 and sums.queries.sum() == 2
    weights, k = given([[0.5, 0.5]])
    sums = EvennessSums.of([(np.array([0]), weights)], k, segment_units(1))
    assert np.isnan(sums.figure("evenness").mean) and sums.effective.mean == 1


def random_weights(q, layers=2, heads=3, p=3, k=4, seed=0):
    """[Q, L, H, P, K + P] random rows that sum to 1, segments of 2 to p + 1 tokens."""
    generator = np.random.default_rng(seed)
    out = np.full((q, layers, heads, p, k + p), np.nan)
    for i, n in enumerate(generator.integers(1, p + 1, q)):
        for j in range(n):
            row = generator.exponential(size=(layers, heads, k + j + 1))
            out[i, :, :, j, : k + j + 1] = row / row.sum(-1, keepdims=True)
    return out


def test_the_average_is_the_mean_of_singles_and_sums_add_up():
    weights = random_weights(60)
    owners = np.sort(np.random.default_rng(1).integers(0, 12, 60))
    units = document_units(12)
    whole = EvennessSums.of([(owners, weights)], 4, units)
    parts = EvennessSums.of([(owners[:25], weights[:25]), (owners[25:], weights[25:])], 4, units)
    for name in ("queries", "weights", "figures", "counted", "top"):
        np.testing.assert_allclose(getattr(whole, name), getattr(parts, name))
    with warnings.catch_warnings(action="ignore"):  # slots that no query sees
        expected = np.nanmean(weights, 0)
    np.testing.assert_allclose(whole.mean_weights.mean, expected, atol=1e-12)
    figures = measure(weights, 4).figures
    for i, name in enumerate(FIGURES):
        assert whole.figure(name).mean == pytest.approx(np.nanmean(figures[i]))
        np.testing.assert_allclose(whole.figure(name, ("layer", "position")).mean, np.nanmean(figures[i], (0, 2)))
    by_layer = whole.figure("effective", ("layer", "head"))
    assert by_layer.mean.shape == (2, 3) and (by_layer.low <= by_layer.mean).all()
    np.testing.assert_allclose(np.nansum(whole.slot_shares.mean, -1), 1)
    assert whole.largest_at.mean.sum() == pytest.approx(1)
    context = np.nansum(weights, (0, 1, 2, 3))[:4]
    p = context / context.sum()
    assert whole.effective_of_mean.mean == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    assert whole.effective_of_mean.mean > whole.effective.mean  # heads that differ even out


def test_intervals_are_over_units_and_narrow_with_them():
    units = document_units(40)
    effective = []
    for d in range(40):  # every document its own evenness: spread between documents is all there is
        share = 0.25 + 0.7 * (d % 10) / 10
        row = [share, *[(1 - share) / 3] * 3, 0.0]
        weights, k = given([row])
        effective.append((np.array([d]), weights))
    sums = EvennessSums.of(effective, k, units)
    values = np.array([measure(w, k).figures[1].item() for _, w in effective])
    draws = np.random.default_rng(5).choice(values, (4000, 40)).mean(1)
    assert sums.effective.mean == pytest.approx(values.mean())
    assert sums.effective.low == pytest.approx(np.quantile(draws, 0.025), abs=0.06)
    assert sums.effective.high == pytest.approx(np.quantile(draws, 0.975), abs=0.06)
    one = EvennessSums.of(effective[:1], k, segment_units(1))
    assert math.isnan(one.effective.low) and verdict(one.effective, k) == "undecided"
    assert segment_units(4500).kind == "runs of 5 segments" and segment_units(27).in_order


def test_the_verdict_follows_its_rule():
    assert verdict(Estimate(3.5, 3.0, 3.9), 4) == "confirmed"
    assert verdict(Estimate(3.5, 2.9, 3.9), 4) == "undecided"
    assert verdict(Estimate(2.5, 2.0, 2.99), 4) == "refuted"


# --- texts


@pytest.mark.parametrize("name", ["base", "other"])
def test_a_text_has_the_weights_of_its_segments_with_and_without_bos(models, name):
    spec = ModelSpec(str(models[name]))
    found = MicroRequest(spec, TextInput.plain(TEXT), strategy=Strategy.of("fixed", {"k": 3})).run(load)
    model, encoded = wrap(load(spec)).model, found.encoded
    bos = list(encoded.prefix)
    assert bool(bos) == (name == "other") and found.untrained and any("untrained" in note for note in found.notes)
    row = SegmentedRow(np.array([*bos, *encoded.ids]), np.array([True] * len(bos) + found.starts.tolist()))
    expected = segments_of(row)
    assert [(a - len(bos), n) for a, n in expected] == list(zip(found.first, found.length, strict=True))
    _, _, _, weights = joined(micro_blocks(model, [row], True, M))
    np.testing.assert_allclose(found.weights, weights)
    at = int(encoded.start[found.first[1]])
    assert found.holding(at) == 1 and found.holding(10**6) is None
    assert found.tokens(1) == encoded.display[found.first[1] :][: found.length[1]]


def test_tables_hold_the_weights_and_their_means(models):
    found = MicroRequest(ModelSpec(str(models["sft"])), TextInput.plain(TEXT)).run(load)
    one, mean = weight_table(found, 2), weight_table(found)
    assert (one["segment"] == 3).all() and mean["segment"].isna().all() and one["low"].isna().all()
    by = ["layer", "head", "position"]
    assert one.groupby(by)["weight"].sum().to_numpy() == pytest.approx(1, abs=1e-5)
    assert mean.groupby(by)["weight"].sum().to_numpy() == pytest.approx(1, abs=1e-5)
    assert one["slot"].iloc[0] == "context: layer 1" and one["slot"].iloc[-1].startswith("token ")
    row = mean[(mean["layer"] == 1) & (mean["head"] == 3) & (mean["position"] == 2) & (mean["slot"] == "token 1")]
    k = found.states
    assert row["weight"].item() == pytest.approx(np.nanmean(found.weights[:, 1, 3, 0, k]), rel=1e-6)
    assert row["low"].item() <= row["weight"].item() <= row["high"].item()
    table = figure_table(found.sums)
    assert set(table["level"]) == {"pooled", "layer", "position", "head", "query"}
    even, effective = segment_figures(found)
    figures = measure(found.weights, k).figures
    np.testing.assert_allclose(even, np.nanmean(figures[0], (1, 2, 3)))
    np.testing.assert_allclose(effective, np.nanmean(figures[1], (1, 2, 3)))
    assert slot_table(found).groupby("position")["weight"].sum().to_numpy() == pytest.approx(1, abs=1e-5)
    assert f"effective context states of {k}" in finding(found.sums)


def test_what_the_model_writes_is_cut_where_it_cut(models):
    spec = ModelSpec(str(models["sft"]))
    chat = Document((Message("user", "Say something."),))
    how = Decoding(tau=0.0, max_new_tokens=10, lossless=False)
    found = MicroRequest(spec, TextInput(chat, chat=True), written=how, max_length=3).run(load)
    prompt = len(found.encoded) - 10
    lengths = np.diff(np.append(np.flatnonzero(found.starts), len(found.starts)))
    assert (lengths[:prompt] == 1).all() and lengths.max() == 3 and found.first.min() >= prompt
    assert "written by the model itself" in found.cut and found.merged
    drafted = MicroRequest(
        spec, TextInput(chat, chat=True), written=Decoding(tau=0.0, lossless=True, max_new_tokens=10)
    ).run(load)
    assert not drafted.merged and any("token by token" in note for note in drafted.notes)


def test_a_trained_model_is_cut_as_its_recipe_says(models, tmp_path):
    folder = tmp_path / "trained"
    model = wrap(load(ModelSpec(str(models["sft"])))).model
    scramble(model)
    model.save_modules(folder, str(models["sft"]))
    said = f"name: x\nseed: 0\nbase: {{name: {models['sft']}}}\nstages: []\n"
    assert training_of(str(folder)) is None
    (folder / "recipe.yaml").write_text(said + "segmentation: {rule: fixed, parameters: {k: 2}, max_length: 4}\n")
    request = MicroRequest(ModelSpec(str(folder)), TextInput.plain(TEXT), how=FeatureOptions())
    found = request.run(load)
    assert (found.length == 2).all() and "as in training" in found.cut and not found.untrained
    (folder / "recipe.yaml").write_text(said + "segmentation: {rule: confidence, target_length: 3.0}\n")
    found = request.run(load)
    assert len(found.starts) / found.starts.sum() == pytest.approx(3, abs=0.4) and "solved here for 3" in found.cut
    (folder / "recipe.yaml").write_text(said + "objective: draft\nsegmentation: {max_length: 3}\n")
    assert training_of(str(folder)).cut == TrainingSegments("fixed", (("k", 3.0),), None, known=True)
    (folder / "recipe.yaml").write_text("name: [")
    with pytest.raises(MicroStepError, match="YAML"):
        request.run(load)
    assert model_of("micro-step-tiny") == "micro-step-tiny"


def test_texts_without_a_micro_step_and_impossible_segments_are_refused(models):
    spec = ModelSpec(str(models["base"]))
    with pytest.raises(TextError, match="no segment has two tokens"):
        MicroRequest(spec, TextInput.plain(TEXT), strategy=Strategy.of("fixed", {"k": 1})).run(load)
    with pytest.raises(MicroStepError, match="at most the model's 8"):
        MicroRequest(spec, TextInput.plain(TEXT), max_length=9).run(load)
    with pytest.raises(TextError, match="empty"):
        MicroRequest(spec, TextInput.plain("")).run(load)


def test_every_merger_is_read(models):
    for merger in MERGERS:
        model = micro_step("llama", merger=merger, max_segment_length=M)
        row, _, _, weights = joined(micro_blocks(model, rows_of([12]), True, M))
        assert len(row) and np.nansum(weights, -1).max() == pytest.approx(1, abs=1e-5)


def test_a_cost_is_known_before_the_run(models):
    spec = ModelSpec(str(models["base"]))
    short, long = (MicroRequest(spec, TextInput.plain(TEXT * n)).cost(load(spec)) for n in (1, 4))
    assert long.tokens > 3 * short.tokens and long.memory > short.memory and long.work > 3 * short.work
