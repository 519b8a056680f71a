"""Attribution against hand-computed values, plain autograd, explicit forward passes, and float64 references."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.attribution import methods
from analysis.attribution.faithfulness import POINTS, faithfulness
from analysis.attribution.grouping import grouped, offered
from analysis.attribution.methods import METHODS, AttributionProgress, attribute
from analysis.attribution.quantities import QUANTITIES, eligible
from analysis.attribution.request import AttributionRequest, default_target
from analysis.attribution.targets import Problem, problem
from analysis.attribution.view import unit_table
from analysis.uncertainty.scoring import encode_for, score_document
from data.samples import samples
from model.errors import MicroStepError, ModelError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.scoring.token_scores import score_pair
from model.text.document import Document, Message, TextInput
from tests.support.micro_steps import micro_step
from tests.support.tiny import FAMILIES, tiny_model, tiny_tokenizer

TEXT = "the cat sat on the mat,\nand the dog sat on the cat"
SHIPPED = ModelSpec("tiny-sft")


@pytest.fixture(scope="module")
def tiny(models):
    return load(ModelSpec(str(models["base"])))


@pytest.fixture(scope="module")
def sft(models):
    return load(ModelSpec(str(models["sft"])))


def encoded_by(loaded, text=TEXT, prefix=()):
    return replace(encode_for(loaded, TextInput.plain(text)), prefix=prefix)


def wrapped(model, facts):
    model.requires_grad_(False)
    return LoadedModel(ModelSpec("tiny"), facts, model, tiny_tokenizer())


def asked(loaded, text=TEXT, **more):
    """A request of one model, and its answer."""
    request = AttributionRequest((("A", loaded.spec),), TextInput.plain(text), **{"at": 9, **more})
    return request, request.run(lambda _: loaded)


# --- a linear model: every method gives the hand-computed values


@pytest.fixture
def linear(tiny):
    """F(e) = 3 + sum of w * e over a row of five positions, the first of which is not attributed."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(1, 5, 4, generator=generator)
    w = torch.randn(5, 4, generator=generator)
    there = np.array([False, True, True, True, True])
    return Problem(QUANTITIES["entropy"], 4, 1, x, there, lambda e: 3 + (e * w).sum((1, 2)), (tiny,)), w


def base_of_ones(monkeypatch):
    monkeypatch.setattr(
        "analysis.attribution.targets.baseline_vector",
        lambda loaded, name: torch.full((4,), {"zero": 0.0, "mean": 0.7}[name]),
    )


@pytest.mark.parametrize("baseline", ["zero", "mean"])
@pytest.mark.parametrize("method", METHODS)
def test_on_a_linear_model_every_method_gives_the_hand_computed_values(linear, monkeypatch, method, baseline):
    base_of_ones(monkeypatch)
    toy, w = linear
    level = {"zero": 0.0, "mean": 0.7}[baseline]
    x, w = toy.inputs[0].double().numpy(), w.double().numpy()
    by_hand = ((x - (0 if method == "input_x_gradient" else level)) * w).sum(1)
    found = attribute(toy, method, baseline)
    assert np.isnan(found.values[0])
    np.testing.assert_allclose(found.values[1:], by_hand[1:], rtol=1e-5, atol=1e-6)
    assert found.f_input == pytest.approx(3 + (x * w).sum(), rel=1e-5)
    assert found.f_baseline == pytest.approx(3 + (x[0] * w[0]).sum() + level * w[1:].sum(), rel=1e-5)
    if METHODS[method].sums:
        assert abs(found.delta) < 1e-5
    else:
        assert found.delta is None
    if method == "shapley_sampling":  # in a linear model the order does not matter
        assert found.batches.shape == (5, 5) and np.nanmax(found.batches.std(0)) < 1e-6


def test_features_of_several_tokens_move_together_and_spread_their_value_evenly(linear, monkeypatch):
    base_of_ones(monkeypatch)
    toy, w = linear
    by_hand = ((toy.inputs[0] - 0.7) * w).double().sum(1).numpy()
    for method in ("feature_ablation", "shapley_sampling"):
        found = attribute(toy, method, "mean", np.array([-1, 7, 7, 7, 9]))
        np.testing.assert_allclose(found.values[1:4], by_hand[1:4].mean(), rtol=1e-5)
        assert found.values[4] == pytest.approx(by_hand[4], rel=1e-5)


def test_a_linear_read_out_through_the_language_models_own_path(tiny, monkeypatch):
    """Logits that are linear in the last state, and a body that is the mean of its embeddings."""
    loaded, encoded = tiny, encoded_by(tiny)
    w = torch.randn(400, 32, generator=torch.Generator().manual_seed(0))
    came = int(encoded.ids[6])
    monkeypatch.setattr("analysis.attribution.targets._last_state", lambda model, e: e.mean(1))
    monkeypatch.setattr("analysis.attribution.targets._check_embeddings", lambda *_: None)
    monkeypatch.setattr("analysis.attribution.targets.logits_of", lambda model, hidden: hidden @ w.T)
    monkeypatch.setattr("analysis.attribution.targets._log_softmax", lambda logits: logits)
    asking = problem([loaded], encoded, "surprisal", 6)
    e = loaded.model.get_input_embeddings().weight.double()
    by_hand = -((e[encoded.ids[:6]] - e.mean(0)) @ w[came].double() / 6).numpy()
    for method in ("integrated_gradients", "feature_ablation", "shapley_sampling"):
        np.testing.assert_allclose(attribute(asking, method, "mean").values, by_hand, rtol=1e-4, atol=1e-5)


# --- F itself


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_are_read_as_ids_are_in_every_family_with_and_without_bos(tiny, family):
    loaded = wrapped(tiny_model(family), tiny.facts)
    for prefix in ((), (1,), (1, 7)):
        encoded = encoded_by(tiny, prefix=prefix)
        asking = problem([loaded], encoded, "surprisal", 7)
        ids = [*prefix, *encoded.ids[:7].tolist()]
        with torch.no_grad():
            logits = loaded.model(torch.tensor([ids])).logits[0, -1].double()
        log_p = logits.log_softmax(-1)
        assert asking.value(asking.inputs) == pytest.approx(-float(log_p[int(encoded.ids[7])]), rel=1e-4, abs=1e-4)
        opened = problem([loaded], encoded, "entropy", 7)
        assert opened.value(opened.inputs) == pytest.approx(-float((log_p.exp() * log_p).sum()), rel=1e-3, abs=1e-4)
        assert asking.attributed.tolist() == [False] * len(prefix) + [True] * 7


def test_f_is_what_the_project_scores(tiny, sft):
    encoded = encoded_by(tiny)
    a, _, between = score_pair(tiny.model, sft.model, encoded.ids)
    for t in (1, 5, len(encoded) - 1):
        for name, scored in (("entropy", a.entropy[t]), ("surprisal", a.surprisal[t])):
            asking = problem([tiny], encoded, name, t)
            assert asking.value(asking.inputs) == pytest.approx(float(scored), rel=1e-4, abs=1e-5)
        asking = problem([tiny, sft], encoded, "kl", t)
        assert asking.value(asking.inputs) == pytest.approx(float(between.kl_ab[t]), rel=1e-4, abs=1e-5)


def test_a_model_that_reads_more_than_its_embeddings_is_refused(tiny, monkeypatch):
    loaded = wrapped(tiny_model("llama"), tiny.facts)
    embed = loaded.model.get_input_embeddings()
    hook = loaded.model.model.register_forward_pre_hook(
        lambda module, args, given: (
            (args, {**given, "inputs_embeds": 2 * embed(given["input_ids"]), "input_ids": None})
            if given.get("input_ids") is not None
            else None
        ),
        with_kwargs=True,
    )
    with pytest.raises(ModelError, match="more than its token embeddings"):
        problem([loaded], encoded_by(tiny), "entropy", 5)
    hook.remove()
    problem([loaded], encoded_by(tiny), "entropy", 5)


def test_baselines_are_the_embeddings_that_they_say(tiny):
    asking = problem([tiny], encoded_by(tiny, prefix=(1,)), "entropy", 6)
    weight = tiny.model.get_input_embeddings().weight.double()
    for name, vector in (
        ("zero", weight[0] * 0),
        ("mean", weight.mean(0)),
        ("eos", weight[tiny.tokenizer.pad_token_id]),
    ):
        row = asking.baseline(name)[0].double()
        assert torch.equal(row[0], weight[1])  # BOS stays
        assert torch.allclose(row[1:], vector.expand(6, -1), rtol=1e-5, atol=1e-6)
    with pytest.raises(MicroStepError, match="unknown baseline"):
        asking.baseline("none")


def test_template_tokens_are_kept_and_missing(sft):
    document = Document((Message("user", "the cat"), Message("assistant", "sat on the mat")))
    encoded = encode_for(sft, TextInput(document, chat=True))
    t = len(encoded) - 4
    request = AttributionRequest((("B", sft.spec),), TextInput(document, chat=True), t)
    found = request.run(lambda _: sft)
    assert (np.isnan(found.values) == (encoded.role[:t] == "template")).all() and np.isnan(found.values).any()
    assert abs(found.found.delta) <= 0.05 * abs(found.found.f_input - found.found.f_baseline) + 1e-4


@pytest.mark.parametrize("method", METHODS)
def test_later_tokens_do_not_matter(tiny, method):
    one, other = (asked(tiny, TEXT[:30] + end, at=7, method=method)[1] for end in (" mat", " dog, and more of it"))
    assert one.encoded.ids[:8].tolist() == other.encoded.ids[:8].tolist() and len(one.encoded) != len(other.encoded)
    np.testing.assert_array_equal(one.values, other.values)


# --- each method against its definition


def test_integrated_gradients_sum_to_the_difference_on_ten_texts_with_the_default_steps():
    loaded = load(SHIPPED)
    texts = [sample.messages[-1][1] for sample in samples()][:10]
    assert len(texts) == 10
    steps = []
    for text in texts:
        document = Document.plain(text[:160])
        target = default_target(score_document(loaded, TextInput(document)), "entropy")
        asking = problem([loaded], encode_for(loaded, TextInput(document)), "entropy", target)
        found = attribute(asking, "integrated_gradients", "mean")
        assert abs(found.delta) < 0.05 * abs(found.f_input - found.f_baseline)
        assert np.nansum(found.values) == pytest.approx(found.f_input - found.f_baseline + found.delta, abs=1e-6)
        steps.append(found.steps)
    assert max(steps) < methods.MOST_STEPS


def test_gradient_times_input_is_autograds(tiny):
    encoded = encoded_by(tiny)
    found = attribute(problem([tiny], encoded, "surprisal", 8), "input_x_gradient", "mean")
    e = tiny.model.get_input_embeddings()(torch.tensor(encoded.ids[None, :8])).clone().requires_grad_()
    loss = -tiny.model(inputs_embeds=e).logits[0, -1].log_softmax(-1)[int(encoded.ids[8])]
    (gradient,) = torch.autograd.grad(loss, e)
    np.testing.assert_allclose(found.values, (e * gradient).sum(-1)[0].detach(), rtol=1e-3, atol=1e-5)
    assert all(parameter.grad is None for parameter in tiny.model.parameters())


def test_ablation_is_the_difference_of_two_passes(tiny):
    request, found = asked(tiny, method="feature_ablation", features="words", at=10)
    encoded = found.encoded
    e = tiny.model.get_input_embeddings()(torch.tensor(encoded.ids[None, :10]))
    mean = tiny.model.get_input_embeddings().weight.mean(0)

    def entropy(row):
        log_p = tiny.model(inputs_embeds=row).logits[0, -1].double().log_softmax(-1)
        return -float((log_p.exp() * log_p).sum())

    words = grouped(encoded, found.values, "words")
    assert len(words) > 3 and request.moved == "words"
    with torch.no_grad():
        for i, (first, last) in enumerate(zip(words.first, words.last, strict=True)):
            without = e.clone()
            without[0, first : last + 1] = mean
            assert words.value[i] == pytest.approx(entropy(e) - entropy(without), rel=1e-3, abs=1e-4)


def test_rows_at_once_do_not_change_the_values(tiny, monkeypatch):
    encoded = encoded_by(tiny)
    whole = {m: attribute(problem([tiny], encoded, "entropy", 9), m, "mean").values for m in METHODS}
    monkeypatch.setattr(methods, "MOST_POSITIONS", 18)
    for method, values in whole.items():
        found = attribute(problem([tiny], encoded, "entropy", 9), method, "mean")
        np.testing.assert_allclose(found.values, values, rtol=1e-3, atol=1e-4)


def test_shapley_sampling_is_seeded_and_says_its_error(tiny):
    state = torch.get_rng_state()
    one, again = (asked(tiny, method="shapley_sampling")[1] for _ in range(2))
    np.testing.assert_array_equal(one.values, again.values)
    assert torch.equal(state, torch.get_rng_state())
    assert (one.standard_error[~np.isnan(one.values)] > 0).any() and abs(one.found.delta) < 1e-3
    words = grouped(one.encoded, one.values, "words", one.batches)
    by_hand = [np.sqrt(np.var([row[a : b + 1].sum() for row in one.batches], ddof=1) / 5)
               for a, b in zip(words.first, words.last, strict=True)]  # fmt: skip
    np.testing.assert_allclose(words.standard_error, by_hand, rtol=1e-9, atol=1e-15)


def test_the_kl_of_a_model_with_itself_is_zero_everywhere(tiny, sft):
    request = AttributionRequest((("A", tiny.spec), ("B", tiny.spec)), TextInput.plain(TEXT), 8, quantity="kl")
    for method in METHODS:
        found = replace(request, method=method).run(lambda _: tiny)
        assert np.abs(found.values).max() < 1e-4 and found.found.f_input == 0 and np.isnan(found.faithfulness.own)
    other = AttributionRequest((("A", tiny.spec), ("B", sft.spec)), TextInput.plain(TEXT), 8, quantity="kl")
    moved = other.run({tiny.spec: tiny, sft.spec: sft}.__getitem__)
    assert np.abs(moved.values).max() > 1e-2 and len(moved.facts) == 2


def test_kl_moves_both_models_by_one_step(tiny, sft):
    """At every point of the path both models read the same mixture of a token and their own baseline."""
    encoded = encoded_by(tiny)
    asking = problem([tiny, sft], encoded, "kl", 6)
    half = (asking.inputs + asking.baseline("mean")) / 2
    logs = []
    with torch.no_grad():
        for loaded in (tiny, sft):
            embed = loaded.model.get_input_embeddings()
            row = (embed(torch.tensor(encoded.ids[None, :6])) + embed.weight.mean(0)) / 2
            logs.append(loaded.model(inputs_embeds=row).logits[0, -1].double().log_softmax(-1))
    by_hand = float((logs[0].exp() * (logs[0] - logs[1])).sum())
    assert asking.value(half) == pytest.approx(by_hand, rel=1e-3, abs=1e-5)


# --- a micro_step model's own quantities


STARTS = np.array([1, 1, 1, 0, 0, 1, 0, 1, 1, 0, 0, 0], dtype=bool)


def by_hand(model, ids, starts, target):
    """The micro decoder's states of the segment that holds `target`, in float64: [j, d], and its first token."""
    model = model.double()
    e = model.get_input_embeddings()(torch.as_tensor(ids)[None])
    first = int(np.flatnonzero(starts[: target + 1])[-1])
    before = np.flatnonzero(starts[:first])
    spans = list(zip(before, [*before[1:], first], strict=True))
    macro = torch.stack(
        [
            e[0, a] if b - a == 1 else model.merger(e[:, a:b], torch.ones(1, b - a, dtype=torch.bool))[0]
            for a, b in spans
        ]
    )
    if model.config.decoding == "lossless":
        macro, spans = e[0, :first], [(i, i + 1) for i in range(first)]
    position = torch.tensor([[b - 1 for _, b in spans]])
    read = model.macro(macro[None], torch.ones_like(position), position)
    states, _ = model.micro(read.context[:, -1], e[:, first : target + 1])
    return states[0], first


@pytest.mark.parametrize("decoding", ["merged", "lossless"])
def test_a_micro_step_models_quantities_against_a_float64_forward(tiny, decoding):
    ids = np.random.default_rng(0).integers(5, 400, len(STARTS))
    encoded = replace(encoded_by(tiny), prefix=())
    encoded = encoded.head(len(STARTS))
    assert len(encoded) == len(STARTS)
    encoded = replace(encoded, ids=ids)
    loaded = wrapped(micro_step(stop_head=True, decoding=decoding), tiny.facts)
    measured = {}
    for quantity, targets in (("micro_confidence", (3, 4, 6, 10)), ("stop", (4, 5, 7, 8, 11))):
        for t in targets:
            asking = problem([loaded], encoded, quantity, t, STARTS)
            measured[quantity, t] = asking.value(asking.inputs)
            assert not asking.attributed[t:].any() and asking.attributed[:t].all()
            values = attribute(asking, "input_x_gradient", "mean").values
            assert np.isfinite(values[:t]).all() and np.abs(values[:t]).sum() > 0
    with torch.no_grad():
        for (quantity, t), value in measured.items():
            states, _ = by_hand(loaded.model, ids, STARTS, t - 1)
            if quantity == "stop":
                assert value == pytest.approx(float(loaded.model.stop(states[-1])), rel=1e-3, abs=1e-4)
            else:
                logits = loaded.model.get_output_embeddings()(states[-1])
                assert value == pytest.approx(float(logits.softmax(-1).max()), rel=1e-3, abs=1e-4)


def test_where_a_micro_step_models_quantities_are_defined(tiny):
    encoded = encoded_by(tiny).head(len(STARTS))
    loaded = wrapped(micro_step(stop_head=True, max_segment_length=3), tiny.facts)
    starts = STARTS.copy()
    starts[11] = True
    inside = np.flatnonzero(eligible(encoded, "micro_confidence", starts, 3))
    ends = np.flatnonzero(eligible(encoded, "stop", starts, 3))
    assert inside.tolist() == [3, 4, 6, 9, 10] and ends.tolist() == [2, 3, 4, 6, 7, 8, 9, 10]
    for t in range(len(STARTS)):
        for quantity, there in (("micro_confidence", inside), ("stop", ends)):
            if t in there:
                asking = problem([loaded], encoded, quantity, t, starts)
                assert np.isfinite(asking.value(asking.inputs))
            else:
                with pytest.raises(MicroStepError):
                    problem([loaded], encoded, quantity, t, starts)


# --- units and faithfulness


def test_units_conserve_the_sum_and_never_cut_a_feature(tiny):
    _, found = asked(tiny, at=12)
    starts = np.arange(len(found.encoded)) % 3 == 0
    for unit in offered(found.encoded, found.feature, starts):
        part = grouped(found.encoded, found.values, unit, segments=starts)
        assert np.nansum(part.value) == pytest.approx(np.nansum(found.values), abs=1e-12)
        assert part.first[0] == 0 and part.last[-1] == 11 and (part.first[1:] == part.last[:-1] + 1).all()
        table = unit_table(part, found.encoded, 2.0)
        assert isinstance(table, pd.DataFrame) and table["attribution"].sum() == pytest.approx(2 * part.value.sum())
    assert offered(found.encoded, found.feature, starts) == ("tokens", "words", "segments", "lines")
    _, words = asked(tiny, at=12, method="shapley_sampling")
    assert offered(words.encoded, words.feature, starts) == ("words", "lines")
    with pytest.raises(MicroStepError, match="no segments"):
        grouped(found.encoded, found.values, "segments")


def test_a_unit_without_an_attributed_token_is_missing(tiny):
    encoded = encoded_by(tiny)
    values = np.full(8, 1.0)
    values[:2] = np.nan
    tokens = grouped(encoded, values, "tokens")
    assert np.isnan(tokens.value[:2]).all() and tokens.value[2:].tolist() == [1.0] * 6


def test_the_curves_ends_are_the_text_and_the_baseline(tiny):
    _, found = asked(tiny, at=14, method="feature_ablation")
    curves, f = found.faithfulness, found.found
    for row in (curves.deletion, *curves.random_deletion):
        assert len(row) == POINTS and row[0] == f.f_input and row[-1] == f.f_baseline
    for row in (curves.insertion, *curves.random_insertion):
        assert row[0] == f.f_baseline and row[-1] == f.f_input
    asking = problem([tiny], found.encoded, "entropy", 14)
    assert f.f_baseline == asking.value(asking.baseline("mean"))
    assert len(curves.table()) == 2 * 6 * POINTS and len(curves.random) == 5


def test_deletion_takes_the_most_attributed_tokens_first(tiny):
    """On a model that is the sum of its tokens, the curves and the area are known."""
    x = torch.arange(1.0, 11.0)[None, :, None]
    toy = Problem(QUANTITIES["entropy"], 10, 0, x, np.ones(10, dtype=bool), lambda e: e.sum((1, 2)), (tiny,))
    object.__setattr__(toy, "baseline", lambda name: torch.zeros_like(x))
    found = attribute(toy, "feature_ablation", "zero")
    curves = faithfulness(toy, found, "zero", AttributionProgress(toy, 1, None))
    left = [55.0 - sum(range(11 - k, 11)) for k in range(11)]
    np.testing.assert_allclose(curves.deletion, left)
    np.testing.assert_allclose(curves.insertion, 55 - np.array(left))
    assert curves.own == pytest.approx(np.trapezoid(55 - 2 * np.array(left), dx=0.1) / 55)
    assert curves.own > curves.random.max()
    names = ("deletion", "insertion", "random_deletion", "random_insertion")
    turned = replace(curves, **{name: -getattr(curves, name) for name in names})
    assert turned.own == pytest.approx(curves.own)
    wide = replace(curves, insertion=np.where(curves.share == 0.5, 110.0, curves.insertion))  # F leaves both ends
    assert wide.span == 110 and abs(wide.own) <= 1


def test_integrated_gradients_are_more_faithful_than_a_random_order():
    loaded = load(SHIPPED)
    text = "Question: Tom has 12 apples and eats 5 of them. How many apples does Tom have left? Answer: 7 apples"
    request = AttributionRequest((("A", SHIPPED),), TextInput.plain(text), 20, quantity="surprisal")
    found = request.run(lambda _: loaded)
    assert found.faithfulness.own > found.faithfulness.random.mean()
