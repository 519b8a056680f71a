"""HAMburger's published layout: an import of random tensors equals a slow reference in float64, and back again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

import model.convert.convert as conversion
from model.convert.hamburger import model_of, read_hamburger
from model.convert.reload import _read_hamburger, observe
from model.convert.source import open_hamburger
from model.errors import ModelBroken, ModelError
from model.hub.spec import ModelSpec
from model.micro_step.fingerprint import fingerprint
from tests.hub.test_convert import collect
from tests.support.micro_steps import ragged
from tests.support.tiny import BOS, EOS, PAD, tiny_tokenizer

pytestmark = pytest.mark.slow

D, LAYERS, HEADS, KV, M, WORDS, FEATURES = 64, 16, 4, 2, 4, 400, (3, 7, 11, 15)
THETA, EPS = 10_000.0, 1e-5


def published(seed: int = 0) -> dict[str, Tensor]:
    """Random tensors under the published names, bfloat16; matrices are large enough that answers vary."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int, spread: float = 0.3) -> Tensor:
        return torch.randn(*shape, generator=generator).mul(spread).to(torch.bfloat16)

    state = {"model.model.embed_tokens.weight": random(WORDS, D), "model.model.norm.weight": 1 + random(D)}
    towers = {"model.model.layers": LAYERS, "micro_step_decoder.decoders": 4}
    for prefix in (f"{tower}.{i}" for tower, count in towers.items() for i in range(count)):
        for name, rows, columns in (
            ("self_attn.q_proj", D, D), ("self_attn.k_proj", D * KV // HEADS, D),
            ("self_attn.v_proj", D * KV // HEADS, D), ("self_attn.o_proj", D, D),
            ("mlp.gate_proj", 96, D), ("mlp.up_proj", 96, D), ("mlp.down_proj", D, 96),
        ):  # fmt: skip
            state[f"{prefix}.{name}.weight"] = random(rows, columns, spread=0.15)
        for name in ("input_layernorm", "post_attention_layernorm"):
            state[f"{prefix}.{name}.weight"] = 1 + random(D)
    for name, columns in (
        ("merger.q_proj", D),
        ("merger.k_proj", D * 3 // 2),
        ("merger.v_proj", D * 3 // 2),
        ("out_proj", D),
    ):
        state[f"comp_embedder.{name}.weight"] = random(D, columns)
        state[f"comp_embedder.{name}.bias"] = random(D)
    state["comp_embedder.merger.pos"] = random(M, D // 2)
    for i, rows in ((0, D), (2, D), (4, 1)):
        state[f"micro_step_decoder.stop_head.{i}.weight"] = random(rows, D)
        state[f"micro_step_decoder.stop_head.{i}.bias"] = random(rows)
    state["model.lm_head.weight"] = state["comp_embedder.embedding.weight"] = state["model.model.embed_tokens.weight"]
    state["teacher.teacher.model.norm.weight"] = random(D)
    return state


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A base of the right shape, with other weights, and a checkpoint."""
    root = tmp_path_factory.mktemp("published")
    config = LlamaConfig(
        vocab_size=WORDS, hidden_size=D, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
        num_key_value_heads=KV, rms_norm_eps=EPS, tie_word_embeddings=True, max_position_embeddings=256,
        rope_parameters={"rope_type": "default", "rope_theta": THETA},
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(root / "base")
    tiny_tokenizer().save_pretrained(root / "base")
    torch.save({"state_dict": published(), "epoch": 3}, root / "last.ckpt")
    return root


class Reference:
    """The published model, one token and one head at a time, in float64."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.w = {name: weight.double() for name, weight in state.items()}
        self.embed = self.w["model.model.embed_tokens.weight"]

    def write(self, prompt: list[int], macro_steps: int, tau: float) -> tuple[list[list[int]], list[float], Tensor]:
        """Greedy segments, the probability that each token ends its segment, and the states that predicted them."""
        steps, places = [self.embed[i] for i in prompt], list(range(len(prompt)))
        segments, stops, predicted = [], [], []
        for _ in range(macro_steps):
            layers = self.tower("model.model.layers", LAYERS, torch.stack(steps), places)
            layers[-1] = self.normed(layers[-1], "model.model.norm")
            read = [layers[i][-1] for i in FEATURES]
            segment: list[int] = []
            while len(segment) < M:
                state = read[-1]
                if segment:
                    state = self.tower("micro_step_decoder.decoders", 4, torch.stack(read), list(range(len(read))))[-1][
                        -1
                    ]
                token = int((self.embed @ state).argmax())
                segment.append(token)
                read.append(self.embed[token])
                stops.append(float(self.stop(state).sigmoid()))
                predicted.append(state)
                if 1 - stops[-1] < tau:
                    break
            segments.append(segment)
            steps.append(self.merged(torch.stack([self.embed[i] for i in segment])))
            places.append(places[-1] + len(segment))
        return segments, stops, torch.stack(predicted)

    def merged(self, e: Tensor) -> Tensor:
        if len(e) == 1:
            return e[0]
        w, placed = self.w, torch.cat([e, self.w["comp_embedder.merger.pos"][: len(e)]], 1)
        q = self.linear(e.mean(0), "comp_embedder.merger.q_proj")
        k, v = (self.linear(placed, f"comp_embedder.merger.{name}_proj") for name in "kv")
        size = D // 64
        heads = [slice(h * size, (h + 1) * size) for h in range(64)]
        mixed = [((k[:, h] @ q[h]) / size**0.5).softmax(0) @ v[:, h] for h in heads]
        return e.mean(0) + w["comp_embedder.out_proj.weight"] @ torch.cat(mixed) + w["comp_embedder.out_proj.bias"]

    def stop(self, x: Tensor) -> Tensor:
        for i in (0, 2, 4):
            x = self.linear(x if i == 0 else x * x.sigmoid(), f"micro_step_decoder.stop_head.{i}")
        return x[0]

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def normed(self, x: Tensor, name: str) -> Tensor:
        return x / (x.square().mean(-1, keepdim=True) + EPS).sqrt() * self.w[f"{name}.weight"]

    def tower(self, prefix: str, layers: int, x: Tensor, places: list[int]) -> list[Tensor]:
        """The states after each layer of a llama without its final norm."""
        found = []
        for i in range(layers):
            name = f"{prefix}.{i}"
            h = self.normed(x, f"{name}.input_layernorm")
            q, k, v = (h @ self.w[f"{name}.self_attn.{p}_proj.weight"].T for p in "qkv")
            heads = [self.head(q, k, v, n, places) for n in range(HEADS)]
            x = x + torch.cat(heads, 1) @ self.w[f"{name}.self_attn.o_proj.weight"].T
            h = self.normed(x, f"{name}.post_attention_layernorm")
            gate = h @ self.w[f"{name}.mlp.gate_proj.weight"].T
            up = h @ self.w[f"{name}.mlp.up_proj.weight"].T
            x = x + (gate * gate.sigmoid() * up) @ self.w[f"{name}.mlp.down_proj.weight"].T
            found.append(x)
        return found

    def head(self, q: Tensor, k: Tensor, v: Tensor, n: int, places: list[int]) -> Tensor:
        size, shared = D // HEADS, n * KV // HEADS
        own, other = slice(n * size, (n + 1) * size), slice(shared * size, (shared + 1) * size)
        at = torch.tensor(places, dtype=torch.float64)[:, None]
        angle = at / THETA ** (torch.arange(0, size, 2, dtype=torch.float64) / size)

        def turned(x: Tensor) -> Tensor:
            a, b = x.chunk(2, 1)
            return torch.cat([a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()], 1)

        scores = turned(q[:, own]) @ turned(k[:, other]).T / size**0.5
        hidden = torch.ones_like(scores, dtype=torch.bool).triu(1)
        return scores.masked_fill(hidden, -torch.inf).softmax(1) @ v[:, other]


def imported(files):
    base = LlamaForCausalLM.from_pretrained(files / "base")
    return model_of(read_hamburger(files / "last.ckpt"), base, tiny_tokenizer())


def test_rows_that_a_stop_head_ends_stand_alone(files):
    ours, (ids, mask) = imported(files), ragged([9, 4, 6])
    options = {"rule": "stop_head", "confidence": 0.4, "max_new_tokens": 16, "eos_token_id": None}
    together = ours.generate_segments(ids, mask, **options).rows
    alone = [ours.generate_segments(ids[i : i + 1, mask[i].bool()], **options).rows[0] for i in range(3)]
    assert [row.segments for row in together] == [row.segments for row in alone]
    assert len({tuple(map(len, row.segments)) for row in alone}) == 3


def test_an_import_equals_a_slow_reference(files):
    ours = imported(files).double()
    reference, prompt = Reference(published()), [7, 300, 12, 45, 9]
    stops_all = []
    for tau in (0.2, 0.6):
        segments, stops, predicted = reference.write(prompt, 8, tau)
        ids = [i for segment in segments for i in segment]
        written = ours.generate_segments(
            torch.tensor([prompt]), rule="stop_head", confidence=tau, max_new_tokens=len(ids), eos_token_id=None
        )
        assert written.rows[0].segments == segments
        starts = [True] * len(prompt) + [i == 0 for segment in segments for i in range(len(segment))]
        with torch.no_grad():
            out = ours(torch.tensor([prompt + ids]), segment_starts=torch.tensor([starts]), every_segment=True)
        n = len(prompt)
        assert torch.allclose(out.logits[0, n - 1 : -1].double(), predicted @ reference.embed.T, atol=1e-3)
        assert torch.allclose(out.stop_logits[0, n:].double().sigmoid(), torch.tensor(stops).double(), atol=1e-5)
        stops_all += [len(segment) for segment in segments]
    assert {1, M} <= set(stops_all)  # both rules were seen at work


def test_a_stop_head_that_reads_the_state_before_learns(files):
    """Its loss has the ends of first tokens, too."""
    ours = imported(files)
    ids = torch.randint(5, WORDS, (1, 9), generator=torch.Generator().manual_seed(1))
    starts = torch.tensor([[True, True, True, True, False, True, True, False, False]])
    labels = ids.where(torch.arange(9) > 2, -100)
    ours.stop.requires_grad_(True)
    out = ours(ids, segment_starts=starts, labels=labels)
    ends = torch.tensor([False, True, True, False, False])  # after tokens 3 to 7; the last token's is unknown
    expected = torch.nn.functional.binary_cross_entropy_with_logits(out.stop_logits[0, 3:8], ends.float())
    assert out.stop_count == 5 and torch.allclose(out.stop_loss, expected)
    out.stop_loss.backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in ours.stop.parameters())


def test_it_comes_back_in_the_published_layout(monkeypatch, tmp_path, files):
    checks = []
    base = files / "base"
    collect(monkeypatch, checks, base, "whole", tmp_path / "whole", hamburger=files / "last.ckpt")
    collect(monkeypatch, checks, tmp_path / "whole", "hamburger", tmp_path / "published")
    back = torch.load(tmp_path / "published" / "hamburger.ckpt", weights_only=True)["state_dict"]
    given = {name: weight for name, weight in published().items() if not name.startswith("teacher.")}
    assert set(back) == set(given) and all(torch.equal(back[name], given[name]) for name in given)
    assert checks[0].expected == checks[1].expected
    reread = observe(_read_hamburger(tmp_path / "published").eval(), tiny_tokenizer(), fingerprint)
    assert reread["fingerprint"] == checks[0].expected["fingerprint"]
    assert reread["greedy tokens"] == checks[0].expected["greedy tokens"]
    assert open_hamburger(ModelSpec(str(base)), files / "last.ckpt", "auto").dtype == torch.bfloat16


def test_what_is_no_such_checkpoint_is_one_sentence(tmp_path, files, command):
    base = ("model", "convert", files / "base", "--to", "whole", "--out", tmp_path / "out")
    code, _, lines = command(*base, "--from", "hamburger", files / "last.ckpt")
    assert code == 2 and "--allow-pickle" in lines[-1]
    code, _, lines = command(*base, "--from", "hamburger", files / "base" / "config.json", "--allow-pickle")
    assert code == 1 and "no checkpoint" in lines[-1]
    with pytest.raises(ModelError, match="merger"):
        conversion.convert(ModelSpec("micro-step-tiny"), "hamburger", tmp_path / "out")
    state = published()
    del state["comp_embedder.out_proj.bias"]
    torch.save({"state_dict": state}, tmp_path / "part.ckpt")
    with pytest.raises(ModelError, match="merger.out.bias"):
        conversion.convert(ModelSpec(str(files / "base")), "whole", tmp_path / "out", hamburger=tmp_path / "part.ckpt")
    with pytest.raises(ModelBroken):
        read_hamburger(tmp_path / "nothing.ckpt")
    assert not (tmp_path / "out").exists()
