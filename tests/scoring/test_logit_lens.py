"""The logit lens and the tuned lens against a slow float64 reference, on families that differ in norm and head."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import save
from torch import nn

from model.causal_lm import layer_states
from model.causal_lm.forward import body, vocabulary
from model.causal_lm.layer_states import layer_count
from model.causal_lm.parts import layers_of
from model.errors import ModelBroken, ModelError, NumericalError, TooLarge
from model.scoring.logit_lens import score_layers
from model.scoring.token_scores import score
from model.scoring.tuned_lens import TunedLens, lens_file, read_lens
from tests.support.tiny import tiny_model

NORMS = {"gpt2": "ln_f", "phi": "final_layernorm"}  # "norm" in all others
FIELDS = ("entropy", "confidence", "kl", "js", "surprisal")


def reference(model, ids, prefix, maps=None):
    """Every definition in float64: transformers' own states, then norm, head and cap or scale by hand."""
    family, exact = model.config.model_type, copy.deepcopy(model).double()
    norm, head = getattr(body(exact), NORMS.get(family, "norm")), exact.get_output_embeddings()
    with torch.no_grad():
        out = exact(torch.tensor([[*prefix, *ids]]), output_hidden_states=True)
        logits = []
        for layer, states in enumerate(out.hidden_states[:-1]):  # the last entry is normed already
            hidden = states[0] if maps is None else states[0] + states[0] @ maps[0][layer].double().T + maps[1][layer]
            z = head(norm(hidden))
            if (cap := getattr(model.config, "final_logit_softcapping", None)) is not None:
                z = cap * torch.tanh(z / cap)
            z = z * getattr(model.config, "logit_scale", 1) / getattr(model.config, "logits_scaling", 1)
            logits.append(z)
        logits.append(out.logits[0])
    p = torch.stack(logits).softmax(-1)
    first = max(0, len(prefix) - 1)
    p, actual = p[:, first:-1], torch.tensor(ids if prefix else ids[1:])
    final, mixed = p[-1], (p + p[-1]) / 2
    kl = lambda a, b: (a * (a.log() - b.log())).sum(-1)  # noqa: E731
    own = p.gather(-1, actual.expand(len(p), -1)[..., None])
    top = final.argmax(-1).expand(len(p), -1)[..., None]
    return {
        "entropy": torch.special.entr(p).sum(-1),
        "confidence": p.amax(-1),
        "kl": kl(final, p),
        "js": (kl(p, mixed) + kl(final, mixed)) / 2,
        "surprisal": -own[..., 0].log(),
        "rank": 1 + (p > own).sum(-1),
        "final_rank": 1 + (p > p.gather(-1, top)).sum(-1),
        "top_id": p.argmax(-1),
    }


def assert_equal(found, expected, missing):
    for name, values in expected.items():
        own, values = getattr(found, name)[:, missing:], values.numpy()
        if name in FIELDS:
            np.testing.assert_allclose(own, values, rtol=3e-4, atol=3e-5, err_msg=name)
        else:
            assert (own == values).mean() > 0.99, name  # neighbours may swap places by rounding
    top = expected["top_id"].numpy()
    for t in range(top.shape[1]):  # decided, word by word
        last = max((layer + 1 for layer in range(len(top)) if top[layer, t] != top[-1, t]), default=0)
        assert found.decided[missing + t] == last or (top[:, t] != found.top_id[:, missing + t]).any()


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3", "gemma2", "gemma3_text", "gpt2", "cohere", "granite"])
def test_every_layer_equals_the_float64_reference(family, tied):
    model = tiny_model(family)
    if not tied and model.config.tie_word_embeddings:
        head, torch_seed = model.get_output_embeddings(), torch.Generator().manual_seed(5)
        head.weight = nn.Parameter(torch.randn(head.weight.shape, generator=torch_seed), requires_grad=False)
    prefix = (1,) if tied else ()
    ids = np.random.default_rng(0).integers(5, vocabulary(model), 30)
    if "gemma" in family:
        model.config.final_logit_softcapping = 3.0
    scores, layers = score_layers(model, ids, prefix, chunk=11)
    assert layers.count == layer_count(model) and len(scores) == layers.entropy.shape[1] == 30
    assert layers.missing.sum() == (not prefix) and (layers.decided[layers.missing] == -1).all()
    assert_equal(layers, reference(model, ids, prefix), int(not prefix))
    (ordinary,) = score(model, [ids], prefix)
    for name in ("entropy", "confidence", "surprisal", "rank"):  # the last layer is the model's own prediction
        np.testing.assert_allclose(getattr(layers, name)[-1], getattr(ordinary, name), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(getattr(scores, name), getattr(ordinary, name), rtol=1e-5, atol=1e-6)


def random_lens(model, seed=3):
    generator = torch.Generator().manual_seed(seed)
    layers, d = layer_count(model), model.config.hidden_size
    return TunedLens(
        torch.randn(layers, d, d, generator=generator) / d, 0.1 * torch.randn(layers, d, generator=generator)
    )


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_a_tuned_lens_equals_the_float64_reference(family):
    model = tiny_model(family)
    ids, lens = np.random.default_rng(1).integers(5, vocabulary(model), 25), random_lens(model)
    _, layers = score_layers(model, ids, (1,), lens=lens)
    assert_equal(layers, reference(model, ids, (1,), (lens.weight, lens.bias)), 0)
    _, plain = score_layers(model, ids, (1,))
    assert np.abs(layers.kl - plain.kl)[:-1].max() > 0.1
    nothing = TunedLens(torch.zeros_like(lens.weight), torch.zeros_like(lens.bias))
    _, same = score_layers(model, ids, (1,), lens=nothing)
    np.testing.assert_allclose(same.kl, plain.kl, rtol=1e-5, atol=1e-5)


def test_a_lens_is_read_from_both_kinds_of_file_and_nothing_else(tmp_path):
    model = tiny_model("llama")
    lens = random_lens(model)
    tensors = {f"{i}.{name}": getattr(lens, name)[i].clone() for i in range(3) for name in ("weight", "bias")}
    (tmp_path / "params.safetensors").write_bytes(save(tensors))
    torch.save(tensors, tmp_path / "params.pt")
    assert lens_file(tmp_path).name == "params.safetensors"
    for name in ("params.safetensors", "params.pt"):
        found = read_lens((tmp_path / name).read_bytes(), tmp_path / name)
        assert torch.equal(found.weight, lens.weight) and torch.equal(found.bias, lens.bias)
        found.check_fits(model, "tiny")
    with pytest.raises(ModelError, match="trained for"):
        TunedLens(lens.weight[:2], lens.bias[:2]).check_fits(model, "tiny")
    with pytest.raises(ModelError, match="tuned lens"):
        lens_file(tmp_path / "nowhere")
    hostile = {
        "code.pt": {"0.weight": print},
        "number.pt": {0: torch.zeros(2, 2)},
        "scalar.pt": {"0.weight": torch.zeros(())},
        "sparse.pt": {"0.weight": torch.zeros(2, 2).to_sparse()},
        "empty.pt": {"0.weight": torch.zeros(2, 2, device="meta")},
        "large.pt": {"0.weight": torch.zeros(1).expand(10**6, 10**6)},
    }
    for name, content in hostile.items():
        torch.save(content, tmp_path / name)
    broken = {
        **{name: (tmp_path / name).read_bytes() for name in hostile},
        "pickle.pt": b"\x80\x02.",
        "text.safetensors": b"no tensors",
        "names.safetensors": save({"lm_head.weight": torch.zeros(2, 2)}),
        "gap.safetensors": save({"1.weight": torch.zeros(2, 2)}),
        "shape.safetensors": save({"0.weight": torch.zeros(2, 3)}),
        "nan.safetensors": save({"0.weight": torch.full((2, 2), torch.nan)}),
    }
    for name, content in broken.items():
        with pytest.raises(ModelBroken, match=name):
            read_lens(content, tmp_path / name)


def test_the_model_is_left_as_it_was_and_one_token_has_no_scores():
    model = tiny_model("llama")
    _, layers = score_layers(model, np.array([7]))
    assert layers.missing.all() and layers.decided.tolist() == [-1]
    _, none = score_layers(model, np.array([], dtype=np.int64))
    assert none.entropy.shape == (4, 0)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    shares = []
    score_layers(model, np.arange(5, 60), chunk=20, progress=shares.append)
    assert shares == sorted(shares) and shares[-1] == 1
    with pytest.raises(TooLarge):
        score_layers(model, np.full(600, 7))


def test_bfloat16_is_near_float32_and_numbers_that_are_not_finite_are_refused():
    model, ids = tiny_model("llama"), np.random.default_rng(2).integers(5, 400, 40)
    _, layers = score_layers(copy.deepcopy(model).bfloat16(), ids, (1,))
    _, exact = score_layers(model, ids, (1,))
    assert np.abs(layers.entropy - exact.entropy).mean() < 0.1 and layers.entropy.dtype == np.float32
    (ordinary,) = score(copy.deepcopy(model).bfloat16(), [ids], (1,))
    np.testing.assert_allclose(layers.entropy[-1], ordinary.entropy, atol=1e-6)
    lens = random_lens(model)
    with pytest.raises(NumericalError, match="layer 1"):
        bias = lens.bias.clone()
        bias[1] = torch.nan
        score_layers(model, ids, (1,), lens=TunedLens(lens.weight, bias))


def test_a_family_that_mixes_positions_after_its_last_layer_is_refused():
    model = tiny_model("llama")

    def mix(_, __, output):
        output.last_hidden_state = output.last_hidden_state.cumsum(1)
        return output

    model.model.register_forward_hook(mix)
    with pytest.raises(ModelError, match="last layer"):
        score_layers(model, np.arange(5, 20))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_mlps_that_read_a_few_positions_at_a_time_give_the_same(family, monkeypatch):
    model, ids = tiny_model(family), np.random.default_rng(4).integers(5, 400, 40)
    _, whole = score_layers(model, ids)
    sizes = []
    chunk_mlps = layer_states._chunk_mlps

    def watched(private, positions):
        for layer in layers_of(body(private)):
            layer.mlp.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
            child = next(layer.mlp.children())
            child.register_forward_pre_hook(lambda _, args: sizes.append(args[0].shape[1]))
        chunk_mlps(private, 16)

    monkeypatch.setattr(layer_states, "_chunk_mlps", watched)
    _, parts = score_layers(model, ids)
    assert sizes[:4] == [39, 16, 16, 7]
    np.testing.assert_allclose(parts.kl, whole.kl, rtol=1e-4, atol=1e-5)

    def mixing(self, states):
        return states.cumsum(1)

    monkeypatch.setattr(layer_states, "_chunk_mlps", chunk_mlps)
    other = tiny_model(family, seed=9)
    monkeypatch.setattr(type(layers_of(body(other))[0].mlp), "forward", mixing)
    assert not layer_states._way(other).chunks  # an MLP that looks at other positions is left whole
