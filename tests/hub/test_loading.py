"""Loading: every family, the facts about it, adapters, and one clear sentence for everything that can be wrong."""

from __future__ import annotations

import importlib.util
import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertForMaskedLM,
    LlamaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from model.errors import ModelBroken, ModelError, ModelNotFound, TooLarge
from model.hub import huggingface
from model.hub.fetch import is_cached
from model.hub.loading import LoadedModel, ModelSpec, load, resolve_device
from model.hub.model_info import tokenizer_hash, weights_hash
from tests.support.tiny import CORPUS, FAMILIES, save_tiny, tiny_config, tiny_model, tiny_tokenizer


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No hub; and, but for the real models, an empty cache."""
    monkeypatch.setattr(huggingface, "reachable", lambda: False)
    if "real" not in request.keywords:
        monkeypatch.setenv("MICRO_STEP_CACHE", str(tmp_path / "cache"))


def tiny(folder: Path, **options: str) -> LoadedModel:
    return load(ModelSpec(str(folder), device="cpu", **options))  # type: ignore[arg-type]


# --- what is loaded ---


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_loads_with_its_weights_and_facts(family: str, tmp_path: Path) -> None:
    loaded = tiny(save_tiny(tmp_path / "a model", family))
    ids = loaded.tokenizer(CORPUS[0], return_tensors="pt")["input_ids"]
    expected = tiny_model(family)(ids).logits
    torch.testing.assert_close(loaded.model(ids).logits, expected)
    facts, config = loaded.facts, tiny_config(family)
    assert (facts.name, facts.source) == ("a model", f"folder {tmp_path / 'a model'}")
    assert facts.family == family
    assert facts.parameters == sum(p.numel() for p in tiny_model(family).parameters())
    assert (facts.vocab_size, facts.layers, facts.hidden_size, facts.context_length) == (400, 3, 32, 512)
    assert (facts.dtype, facts.device, facts.quantization, facts.kind) == ("float32", "cpu", "none", "unknown")
    assert facts.attn_implementation == ("eager" if family == "gemma2" else "sdpa")
    assert facts.revision == weights_hash(tmp_path / "a model")
    assert facts.chat_template_hash is None
    assert json.loads(json.dumps(facts.to_dict())) == facts.to_dict()
    assert config.model_type == family


def test_the_model_is_ready_to_be_shared(tmp_path: Path) -> None:
    loaded = tiny(save_tiny(tmp_path / "m"))
    assert not loaded.model.training
    assert not any(p.requires_grad for p in loaded.model.parameters())
    assert hash(loaded.spec) == hash(ModelSpec(str(tmp_path / "m"), device="cpu"))


def test_options_reach_the_model(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    loaded = tiny(folder, dtype="bfloat16", attn_implementation="eager")
    assert loaded.model.dtype == torch.bfloat16
    assert (loaded.facts.dtype, loaded.facts.attn_implementation) == ("bfloat16", "eager")


def test_a_checkpoint_in_half_precision_is_scored_in_float32_on_the_cpu(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    tiny_model("llama").to(torch.bfloat16).save_pretrained(folder)
    assert tiny(folder).facts.dtype == "float32"


def test_loading_says_nothing_and_leaves_the_libraries_as_they_were(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    folder = save_tiny(tmp_path / "m")
    capfd.readouterr()
    tiny(folder)
    assert capfd.readouterr() == ("", "")
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


# --- the hashes ---


def test_equal_tokenizers_have_equal_hashes_whatever_their_template_and_bos(tmp_path: Path) -> None:
    plain = tiny_tokenizer()
    assert tokenizer_hash(plain) == tokenizer_hash(tiny_tokenizer(chat=True))
    assert tokenizer_hash(plain) == tokenizer_hash(tiny_tokenizer(add_bos=True))
    plain.save_pretrained(tmp_path)
    from transformers import AutoTokenizer

    assert tokenizer_hash(AutoTokenizer.from_pretrained(tmp_path)) == tokenizer_hash(plain)


def test_a_nested_sequence_hashes_as_a_flat_one() -> None:
    one, two = tiny_tokenizer(), tiny_tokenizer()
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    one.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Sequence([level])])
    two.backend_tokenizer.pre_tokenizer = level
    assert tokenizer_hash(one) == tokenizer_hash(two)


def test_tokenizers_that_cut_otherwise_have_other_hashes() -> None:
    base = tokenizer_hash(tiny_tokenizer())
    digits, added = tiny_tokenizer(), tiny_tokenizer()
    digits.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    added.add_tokens([AddedToken("fox")])
    others = [tiny_tokenizer(vocab_size=380), tiny_tokenizer(kind="sentencepiece"), digits, added]
    hashes = {base, *(tokenizer_hash(other) for other in others)}
    assert len(hashes) == 1 + len(others)


def test_the_revision_of_a_folder_changes_with_one_weight(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    before = weights_hash(folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert weights_hash(folder) != before


# --- adapters ---


def save_adapter(folder: Path, vocab_or_width: str = "same") -> PeftModel:
    """A LoRA adapter with random weights for the tiny llama, or for a wider one."""
    config = tiny_config("llama")
    if vocab_or_width == "wider":
        config.hidden_size, config.head_dim = 64, 16
    base = AutoModelForCausalLM.from_config(config) if vocab_or_width == "wider" else tiny_model("llama")
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "up_proj"], init_lora_weights=False))
    adapted.save_pretrained(folder)
    return adapted.eval()


def test_an_adapter_is_merged(tmp_path: Path) -> None:
    adapted = save_adapter(tmp_path / "adapter")
    loaded = tiny(save_tiny(tmp_path / "m"), adapter=str(tmp_path / "adapter"))
    ids = loaded.tokenizer(CORPUS[0], return_tensors="pt")["input_ids"]
    torch.testing.assert_close(loaded.model(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(loaded.model(ids).logits, tiny_model("llama")(ids).logits, atol=1e-2)
    assert loaded.facts.adapter == str(tmp_path / "adapter")
    assert type(loaded.model) is type(tiny_model("llama"))


def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    save_adapter(tmp_path / "wide", "wider")
    with pytest.raises(ModelError, match=r"adapter .*wide does not fit the model llama"):
        tiny(save_tiny(tmp_path / "m"), adapter=str(tmp_path / "wide"))
    save_adapter(tmp_path / "adapter")
    with pytest.raises(ModelError, match="does not fit the model gpt2"):
        tiny(save_tiny(tmp_path / "other", "gpt2"), adapter=str(tmp_path / "adapter"))


def test_a_wrong_adapter_is_one_sentence(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    with pytest.raises(ModelBroken, match=r"no readable adapter_config\.json"):
        tiny(folder, adapter=str(folder))
    with pytest.raises(ModelNotFound, match="no adapter folder"):
        tiny(folder, adapter="../nowhere/at/all")
    with pytest.raises(ModelNotFound, match="hub cannot be reached"):
        tiny(folder, adapter="someone/adapter")
    save_adapter(tmp_path / "cut")
    weights = tmp_path / "cut" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(ModelBroken, match="truncated"):
        tiny(folder, adapter=str(tmp_path / "cut"))
    with pytest.raises(ModelBroken, match="truncated"):
        tiny(tmp_path / "cut")


# --- everything that can be wrong ---


def edit_config(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def no_model(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "notes.txt").write_text("hello")


def no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    no_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def no_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"x")


def empty_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def missing_shard(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def foreign_shard(folder: Path) -> None:
    no_weights(folder)
    (folder / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../etc/passwd"}}')


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama",')


def list_config(folder: Path) -> None:
    (folder / "config.json").write_text("[]")


def unknown_family(folder: Path) -> None:
    edit_config(folder, model_type="no-such-family")


def own_code(folder: Path) -> None:
    edit_config(folder, model_type="no-such-family", auto_map={"AutoConfig": "evil.Config"})
    (folder / "evil.py").write_text("raise SystemExit('this code was run')")


def other_shape(folder: Path) -> None:
    edit_config(folder, num_hidden_layers=5)


def other_width(folder: Path) -> None:
    edit_config(folder, intermediate_size=96)


def no_head(folder: Path) -> None:
    model = tiny_model("mistral")
    LlamaModel(tiny_config("llama"))  # the class exists; a body alone is what base-model uploads hold
    model.model.save_pretrained(folder)


def no_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


def broken_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": "1.0"')


def masked(folder: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertForMaskedLM(BertConfig(vocab_size=400, **shape)).save_pretrained(folder)


def seq2seq(folder: Path) -> None:
    shape = {"d_model": 32, "num_layers": 2, "num_heads": 2, "d_ff": 64, "d_kv": 16}
    T5ForConditionalGeneration(T5Config(vocab_size=400, **shape)).save_pretrained(folder)


def small_embedding(folder: Path) -> None:
    tiny_model("llama", vocab_size=300).save_pretrained(folder)


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (no_model, "has no config.json, so it is no model"),
        (no_weights, "no weights (*.safetensors)"),
        (pickled, "weights are pickled (pytorch_model.bin), which can run code"),
        (truncated, "model.safetensors is truncated"),
        (no_header, "model.safetensors is not a safetensors file"),
        (empty_weights, "model.safetensors is not a safetensors file"),
        (missing_shard, "model-2.safetensors, one of 2 weight files, is missing"),
        (foreign_shard, "names a file outside the folder"),
        (broken_config, "config.json cannot be read"),
        (list_config, "config.json is not an object"),
        (unknown_family, "config.json of"),
        (own_code, "needs Python code of its own"),
        (other_shape, "are missing or of another shape"),
        (other_width, "weights of"),
        (no_head, "lm_head.weight"),
        (no_tokenizer, "comes without a tokenizer"),
        (broken_tokenizer, "tokenizer of"),
        (masked, "is a bert (BertForMaskedLM): only decoder-only causal language models"),
        (seq2seq, "is a t5 (T5ForConditionalGeneration): only decoder-only"),
        (small_embedding, "embeds only 300"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_harmed_folder_is_one_clear_sentence(harm: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "harmed")
    harm(folder)
    with pytest.raises(ModelError) as error:
        tiny(folder)
    assert message in str(error.value)
    assert "harmed" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_added_token_without_embedding_is_told_and_not_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens([AddedToken("<image>", special=True)])
    tokenizer.save_pretrained(folder)
    assert tiny(folder).facts.approximations == (
        "1 added tokens of the tokenizer have no embedding and cannot be used",
    )


def test_wrong_options_are_refused_before_anything_is_read() -> None:
    with pytest.raises(ModelError, match="unknown dtype 'int7'; choose from auto, float32"):
        ModelSpec("x", dtype="int7")  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="unknown quantization '3bit'"):
        ModelSpec("x", quantization="3bit")  # type: ignore[arg-type]


def test_devices() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type in ("cpu", "cuda", "mps")
    with pytest.raises(ModelError, match="unknown device 'gpu'; give auto, cpu, cuda"):
        resolve_device("gpu")
    with pytest.raises(ModelError, match="not supported"):
        resolve_device("meta")
    with pytest.raises(ModelError, match=r"this machine has \d+ CUDA devices"):
        resolve_device("cuda:99")


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is installed")
def test_quantised_loading_without_bitsandbytes_says_what_to_install() -> None:
    with pytest.raises(ModelError, match=r"8bit loading needs the bitsandbytes package \(`pip install bitsandbytes`\)"):
        load(ModelSpec("tiny-base", quantization="8bit", device="cpu"))


def test_an_unknown_attention_implementation_is_refused(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "m")
    for name in ("nonsense", "flash_attention_2"):
        if name == "flash_attention_2" and importlib.util.find_spec("flash_attn") is not None:
            continue
        with pytest.raises(ModelError, match="cannot be loaded this way"):
            tiny(folder, attn_implementation=name)


def test_weights_that_do_not_fit_are_refused_before_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny(tmp_path / "m")
    monkeypatch.setattr("model.causal_lm.device_memory.available_memory", lambda device: 1000)
    with pytest.raises(TooLarge, match=r"float32.* available on cpu"):
        tiny(folder)


# --- the real models ---


def real(name: str) -> LoadedModel:
    if not is_cached(name):
        pytest.skip(f"{name} is not in the cache; `micro-step model fetch {name}`")
    return load(ModelSpec(name, device="cpu"))


PARAGRAPH = (
    "The history of the city goes back more than two thousand years. It was founded by Roman soldiers on the bank of"
    " the river, where a bridge could be built, and it soon became an important centre of trade. After the fall of the"
    " empire, the city was ruled by a series of local kings."
)


def surprisal(loaded: LoadedModel, text: str) -> float:
    """Mean surprisal in nats, the first token left out."""
    ids = loaded.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        logits = loaded.model(ids).logits.float()
    return float(torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]))


@pytest.mark.real
def test_smollm2_135m_instruct() -> None:
    loaded = real("smollm2-135m-instruct")
    facts, tokenizer = loaded.facts, loaded.tokenizer
    assert (facts.parameters, facts.vocab_size, facts.context_length, facts.layers) == (134_515_008, 49152, 8192, 30)
    assert (facts.kind, facts.licence) == ("sft", "apache-2.0")
    assert facts.chat_template_hash is not None
    assert loaded.model.config.rope_parameters["rope_theta"] == 100_000
    assert tokenizer("a")["input_ids"] == [81]  # no BOS
    assert (tokenizer.eos_token, tokenizer.eos_token_id) == ("<|im_end|>", 2)
    # Every digit alone and the white space before it whole, as in the original; GPT-2's rule gives "ĊĠĠĠ", "Ġ", "1".
    assert tokenizer.tokenize("[\n    12") == ["[", "ĊĠĠĠĠ", "1", "2"]
    assert surprisal(loaded, PARAGRAPH) < 2.5
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = loaded.model.generate(**ids, max_new_tokens=12, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


@pytest.mark.real
def test_gemma_3_270m() -> None:
    loaded = real("gemma-3-270m")
    facts, tokenizer, config = loaded.facts, loaded.tokenizer, loaded.model.config
    assert (facts.parameters, facts.vocab_size, facts.context_length, facts.layers) == (268_098_176, 262144, 32768, 18)
    assert (facts.kind, facts.licence, facts.chat_template_hash) == ("pretrained", "gemma", None)
    assert config.query_pre_attn_scalar == config.head_dim == 256
    assert config.sliding_window == 512
    assert config.layer_types == (["sliding_attention"] * 5 + ["full_attention"]) * 3
    assert config.rope_parameters["full_attention"]["rope_theta"] == 1_000_000
    assert config.rope_parameters["sliding_attention"]["rope_theta"] == 10_000
    assert tokenizer("a")["input_ids"] == [2, 236746]  # <bos>
    for text in (*CORPUS, "  two  spaces\n\n\n   and\tmore "):
        assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text
    assert surprisal(loaded, PARAGRAPH) < 2.5
