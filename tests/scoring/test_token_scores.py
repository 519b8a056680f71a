"""Scores against an independent float64 reference, on every family, at every batch and chunk size."""

import numpy as np
import pytest
import torch

from model.causal_lm.forward import vocabulary, watched
from model.errors import ModelError, TooLarge
from model.scoring.token_scores import reduce_logits, score, score_pair
from tests.support.tiny import tiny_model

FAMILIES = ["llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "mistral", "cohere", "granite"]
FIELDS = ("entropy", "confidence", "margin", "surprisal")


def reference(model, ids, prefix):
    """The definitions, word by word, in float64 from the whole of the model's own logits."""
    sequence = [*prefix, *ids]
    with torch.no_grad():
        logits = model(torch.tensor([sequence])).logits[0].double().numpy()
    rows = []
    for t, token in enumerate(ids):
        at = t + len(prefix) - 1
        if at < 0:
            rows.append((np.nan,) * 4 + (0,))
            continue
        z = logits[at] - logits[at].max()
        p = np.exp(z) / np.exp(z).sum()
        best = np.sort(p)[::-1]
        entropy = -sum(x * np.log(x) for x in p if x > 0)
        rows.append((entropy, best[0], best[0] - best[1], -np.log(p[token]), 1 + int((p > p[token]).sum())))
    return [np.array(column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("prefix", [(), (1,), (1, 7)])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_the_float64_reference(family, prefix):
    model = tiny_model(family)
    ids = np.random.default_rng(0).integers(5, vocabulary(model), 40)
    (found,) = score(model, [ids], prefix=prefix)
    expected = reference(model, ids, prefix)
    for name, values in zip(FIELDS, expected, strict=False):
        np.testing.assert_allclose(getattr(found, name), values, rtol=2e-4, atol=2e-5, err_msg=name)
    np.testing.assert_array_equal(found.rank, expected[4])
    scored = ~found.missing
    np.testing.assert_allclose(found.topk_probability[scored, 0], expected[1][scored], rtol=2e-4)
    assert found.missing.sum() == (not prefix)
    assert (found.topk_ids[found.missing] == -1).all()


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_scores_do_not_depend_on_batch_or_chunk(family):
    model = tiny_model(family)
    rng = np.random.default_rng(1)
    rows = [rng.integers(5, vocabulary(model), n) for n in (0, 1, 2, 17, 40, 33)]
    together = score(model, rows, prefix=(1,), chunk=7)
    for row, batched in zip(rows, together, strict=True):
        (alone,) = score(model, [row], prefix=(1,), chunk=1000)
        assert len(batched) == len(row)
        for name in FIELDS:
            np.testing.assert_allclose(getattr(batched, name), getattr(alone, name), rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(batched.rank, alone.rank)
        np.testing.assert_array_equal(batched.topk_ids, alone.topk_ids)


def test_first_token_without_bos_is_missing_and_nothing_shifts():
    model = tiny_model("llama")
    ids = np.arange(10, 30)
    (bare,), (with_bos,) = score(model, [ids]), score(model, [ids], prefix=(1,))
    assert len(bare) == len(with_bos) == len(ids)
    assert np.isnan(bare.entropy[0]) and bare.rank[0] == 0
    (longer,) = score(model, [np.concatenate([[1], ids])])
    np.testing.assert_allclose(longer.entropy[1:], with_bos.entropy, rtol=1e-5, atol=1e-5)


def test_closed_forms():
    uniform = reduce_logits(torch.zeros(3, 7), torch.tensor([0, 3, 6]), k=5)
    np.testing.assert_allclose(uniform.entropy, np.log(7), rtol=1e-6)
    np.testing.assert_allclose(uniform.surprisal, np.log(7), rtol=1e-6)
    assert (uniform.rank == 1).all() and (uniform.margin == 0).all()
    certain = torch.full((1, 50_000), -torch.inf)
    certain[0, 3] = 0.0
    sure = reduce_logits(certain.clone(), torch.tensor([3]), k=2)
    assert sure.entropy[0] == 0 and sure.confidence[0] == 1 and sure.surprisal[0] == 0
    wrong = reduce_logits(certain.clone(), torch.tensor([4]), k=2)
    assert np.isinf(wrong.surprisal[0]) and wrong.rank[0] == 2


def test_large_logits_keep_their_precision():
    """ln sum e^z - sum p z loses digits when the maximum is not taken off first."""
    torch.manual_seed(0)
    z = torch.randn(4, 100_000) + 3000
    p = torch.softmax(z.double(), -1)
    np.testing.assert_allclose(
        reduce_logits(z.clone(), torch.zeros(4, dtype=torch.long), 1).entropy,
        -(p * p.log()).sum(-1),
        rtol=1e-5,
        atol=2e-5,
    )


def test_divergences_equal_the_reference_and_vanish_on_equal_models():
    a, b = tiny_model("llama", seed=0), tiny_model("llama", seed=1)
    ids = np.random.default_rng(2).integers(5, 400, 25)
    scores_a, scores_b, between = score_pair(a, b, ids, prefix=(1,), chunk=4)
    (alone,) = score(a, [ids], prefix=(1,))
    np.testing.assert_allclose(scores_a.entropy, alone.entropy, rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        feed = torch.tensor([[1, *ids[:-1]]])
        pa, pb = (m(feed).logits[0].double().softmax(-1) for m in (a, b))
    mean = (pa + pb) / 2
    kl = lambda p, q: (p * (p.log() - q.log())).sum(-1).numpy()  # noqa: E731
    np.testing.assert_allclose(between.kl_ab, kl(pa, pb), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(between.kl_ba, kl(pb, pa), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(between.js, (kl(pa, mean) + kl(pb, mean)) / 2, rtol=1e-4, atol=1e-5)
    assert (between.js <= np.log(2) + 1e-6).all()
    np.testing.assert_allclose(between.tv, (pa - pb).abs().sum(-1).numpy() / 2, rtol=1e-4, atol=1e-6)
    surprise = -pa.log().gather(-1, torch.tensor(ids)[:, None])[:, 0]
    excess = surprise + (pa * pa.log()).sum(-1)
    np.testing.assert_allclose(scores_a.excess_surprisal, excess.numpy(), rtol=1e-4, atol=1e-4)
    assert len(scores_b) == 25
    _, _, same = score_pair(a, a, ids)
    assert np.isnan(same.js[0]) and same.kl_ab[1:].max() < 1e-6


def test_no_divergence_between_different_widths():
    with pytest.raises(ModelError, match="400 and 500"):
        score_pair(tiny_model("llama"), tiny_model("llama", vocab_size=500), np.arange(5))


def test_text_longer_than_the_context_is_refused_with_both_numbers():
    model = tiny_model("gpt2")
    limit = model.config.max_position_embeddings
    with pytest.raises(TooLarge, match=str(limit)):
        score(model, [np.full(limit + 1, 7)], prefix=(1,))


def test_progress_rises_to_one_can_stop_the_run_and_leaves_no_hook():
    model = tiny_model("llama")
    seen = []
    score(model, [np.arange(5, 60)], prefix=(1,), chunk=10, progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == pytest.approx(1.0)

    def stop(_share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(model, [np.arange(5, 60)], progress=stop)
    assert not any(module._forward_hooks for module in model.modules())
    with watched(model, seen.append):
        pass


def test_the_shared_model_is_untouched():
    model = tiny_model("llama")
    before = dict(model._modules)
    score(model, [np.arange(5, 20)], prefix=(1,))
    assert dict(model._modules) == before


def test_families_that_ask_more_of_the_body_than_hidden_states():
    """Mixtures of experts ask for router logits, state-space models for their cache."""
    from transformers import MambaConfig, MambaForCausalLM, MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    small = dict(vocab_size=90, hidden_size=32, num_hidden_layers=2)
    mixtral = MixtralConfig(
        **small, intermediate_size=16, num_attention_heads=2, num_key_value_heads=1, num_local_experts=2
    )
    for model in (MixtralForCausalLM(mixtral).eval(), MambaForCausalLM(MambaConfig(**small)).eval()):
        ids = np.arange(3, 30)
        (found,) = score(model, [ids], prefix=(1,))
        np.testing.assert_allclose(found.entropy, reference(model, ids, (1,))[0], rtol=2e-4, atol=2e-5)
