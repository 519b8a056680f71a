"""An adapter is read as it was trained: with its own tokenizer, chat template and vocabulary."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from analysis.uncertainty.compare import compare
from analysis.uncertainty.scoring import score_document
from model.errors import ModelError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.model_info import chat_template_hash, tokenizer_hash
from model.text.document import Document, Message, TextInput
from tests.support.tiny import CHAT_TEMPLATE, save_tiny, tiny_model, tiny_tokenizer

HEADED = "{% for m in messages %}### {{ m.role }}:\n{{ m.content }}\n\n{% endfor %}"
TALK = Document((Message("user", "Name a colour."), Message("assistant", "Blue.")))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "base", chat=True)


def trained(
    base: Path, folder: Path, rows: int | None = None, saving: dict[str, Any] | None = None, **how: Any
) -> PeftModel:
    """A LoRA adapter with random weights on the tiny llama, saved as peft saves it."""
    model = copy.deepcopy(tiny_model("llama"))
    if rows is not None:
        model.resize_token_embeddings(rows, mean_resizing=False)
    model.config._name_or_path = model.name_or_path = str(base)
    torch.manual_seed(0)
    adapted = get_peft_model(model, LoraConfig(r=2, init_lora_weights=False, **{"target_modules": ["q_proj"], **how}))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_" in name or "modules_to_save" in name or "trainable_tokens" in name:
                weight.normal_()
    adapted.save_pretrained(folder, **saving or {})
    return adapted.eval()


def adapter(base: Path, folder: Path) -> LoadedModel:
    return load(ModelSpec(str(base), adapter=str(folder), device="cpu"))


def test_an_adapter_is_read_in_its_own_chat_template(base: Path, tmp_path: Path) -> None:
    """The adapter was scored under its base's template, one that it has never seen."""
    folder = tmp_path / "sft"
    trained(base, folder)
    own = tiny_tokenizer()
    own.chat_template = HEADED
    own.save_pretrained(folder)
    for loaded in (adapter(base, folder), load(ModelSpec(str(folder), device="cpu"))):  # beside its base; named alone
        scored = score_document(loaded, TextInput(TALK, chat=True))
        assert scored.encoded.text == "### user:\nName a colour.\n\n### assistant:\nBlue.\n\n"
        assert loaded.facts.chat_template_hash == chat_template_hash(own)
        assert "the adapter's own chat template is used" in scored.notes
    plain = load(ModelSpec(str(base), device="cpu"))
    found = compare(plain, loaded, TextInput(TALK, chat=True))
    assert "<|im_start|>" in found.a.encoded.text and found.divergences is None
    assert [found.document.text[a:b] for a, b in zip(found.cells.start, found.cells.end, strict=True)][-1] == "."


@pytest.mark.parametrize("file", ["chat_template.jinja", "tokenizer_config.json"])
def test_a_template_alone_goes_with_the_bases_tokenizer(base: Path, tmp_path: Path, file: str) -> None:
    folder = tmp_path / "sft"
    trained(base, folder)
    text = '{"chat_template": "### {{ messages[0].content }}"}'
    (folder / file).write_text(HEADED if file.endswith("jinja") else text, encoding="utf-8")
    loaded = adapter(base, folder)
    assert loaded.tokenizer.chat_template == (HEADED if file.endswith("jinja") else "### {{ messages[0].content }}")
    assert any("with the base's tokenizer" in note for note in loaded.facts.approximations)
    assert load(ModelSpec(str(base), device="cpu")).tokenizer.chat_template == CHAT_TEMPLATE


def test_an_adapter_without_a_template_takes_its_bases_and_says_so(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "sft")
    tiny_tokenizer().save_pretrained(tmp_path / "sft")
    loaded = adapter(base, tmp_path / "sft")
    assert loaded.tokenizer.chat_template == CHAT_TEMPLATE
    assert any("has no chat template; the base's is used" in note for note in loaded.facts.approximations)
    bare = save_tiny(tmp_path / "bare")
    trained(bare, tmp_path / "other")
    assert adapter(bare, tmp_path / "other").tokenizer.chat_template is None


GROWN = {
    "resized": {},
    "modules_to_save": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "lora_on_embeddings": {"target_modules": ["q_proj", "embed_tokens"]},
    "token_rows": {
        "trainable_token_indices": {"embed_tokens": list(range(400, 408))},
        "saving": {"save_embedding_layers": False},
    },
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", GROWN)
def test_an_adapter_whose_vocabulary_grew(base: Path, tmp_path: Path, kind: str) -> None:
    """Such an adapter could not be merged; changes to tied embeddings were merged into the output layer, too."""
    folder = tmp_path / "sft"
    adapted = trained(base, folder, rows=408, **GROWN[kind])  # 402 tokens, padded to a multiple of 8
    own = tiny_tokenizer()
    own.add_special_tokens({"additional_special_tokens": ["<call>", "</call>"]})
    own.save_pretrained(folder)
    loaded = adapter(base, folder)
    assert loaded.model.get_input_embeddings().weight.shape[0] == loaded.facts.vocab_size == 408
    assert loaded.facts.tokenizer_hash == tokenizer_hash(own)
    ids = loaded.tokenizer("<call>the dog</call>", return_tensors="pt")["input_ids"]
    assert ids.max() >= 400
    torch.testing.assert_close(loaded.model(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
    notes = loaded.facts.approximations
    assert any("resized from 400 rows to the 408" in note for note in notes)
    assert "the adapter's own tokenizer is used" in notes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("layer", ["embed_tokens", "lm_head"])
def test_changes_to_one_of_two_tied_layers_stay_its_own(base: Path, tmp_path: Path, layer: str) -> None:
    adapted = trained(base, tmp_path / "sft", target_modules=[layer])
    loaded, ids = adapter(base, tmp_path / "sft"), torch.tensor([[5, 80, 17, 200]])
    torch.testing.assert_close(loaded.model(ids).logits, adapted(ids).logits, atol=1e-4, rtol=1e-4)
    assert any("no longer share weights" in note for note in loaded.facts.approximations)


def test_a_tokenizer_of_other_tokens_without_their_embeddings_is_refused(base: Path, tmp_path: Path) -> None:
    trained(base, tmp_path / "sft")
    tiny_tokenizer(kind="sentencepiece").save_pretrained(tmp_path / "sft")
    with pytest.raises(ModelError, match="do not belong together"):
        adapter(base, tmp_path / "sft")
