from __future__ import annotations

import gzip
import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

import data
from data.make_tokenizer import SHIPPED_SHA256, TRAINED_ON, train_tokenizer, training_texts
from data.mixes import read_mix
from data.samples import KINDS, ROLES, sample, samples
from data.sources.reading import readings
from data.sources.registry import source
from model.errors import MicroStepError, TextError
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.scoring.token_scores import score

DEMO = Path(data.__file__).parent / "demo"
PAIR = ("tiny-base", "tiny-sft")
HOSTILE = (
    "\x00\x07\x1b[31m <s> </s> \r\n\t \u202e\u2066\ufeff\u00a0 👨‍👩‍👧‍👦 🇫🇷 👋🏿 e\u0302\u0301 中文 שלום 12345  end "
)


def write(folder: Path, name: str, text: str) -> None:
    path = folder / (source(name).local or "").replace("*", "book")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()))


def lines(records: list[dict[str, str]]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records)


def dolly(prompt: str) -> str:
    return f"Below is an instruction.\n\n### Instruction:\n{prompt}\n\n### Response:\n"


def read(name: str, local: Path | None = None) -> list[tuple[str, ...]]:
    """The turns of every document of a source."""
    found = [reading.messages for reading in readings(source(name), local)]
    return [tuple(message.content for message in messages) for messages in found if messages is not None]


# Sources


def test_pairs_and_texts_are_read_from_local_files(tmp_path: Path) -> None:
    write(tmp_path, "gsm8k", lines([{"question": "2 + 2?", "answer": "It is 2 + 2 = <<2+2=4>>4.\n#### 4"}]))
    write(tmp_path, "dolly_hhrlhf", lines([{"prompt": dolly("Name a\n\ncolour."), "response": "Red. "}]))
    write(tmp_path, "tinystories", "Once.\n<|endoftext|>\nTwice.<|endoftext|>\n")
    write(tmp_path, "thealgorithms_python", lines([{"path": "a.py", "text": "x = 1\n"}]))
    assert read("gsm8k", tmp_path) == [("2 + 2?", "It is 2 + 2 = 4.\n#### 4")]
    assert read("dolly_hhrlhf", tmp_path) == [("Name a\n\ncolour.", "Red.")]
    assert read("tinystories", tmp_path) == [("Once.",), ("Twice.",)]
    assert read("thealgorithms_python", tmp_path) == [("x = 1",)]


def test_long_books_are_cut_at_blank_lines_and_nothing_is_lost(tmp_path: Path) -> None:
    paragraphs = [f"Paragraph {i}. " + "word " * 100 for i in range(40)]
    write(tmp_path, "novels", "\ufeff" + "\r\n\r\n".join(paragraphs))
    pieces = [text for (text,) in read("novels", tmp_path)]
    assert len(pieces) == 5
    assert "\n\n".join(pieces).split("\n\n") == [p.strip() if p is paragraphs[-1] else p for p in paragraphs]


def test_the_hub_is_read_by_id_subset_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load_dataset(*names: Any, **options: Any) -> list[dict[str, str]]:
        asked.append((names, options))
        return [{"question": "Why?", "answer": "Because."}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read("gsm8k") == [("Why?", "Because.")]
    assert asked == [(("openai/gsm8k", "main"), {"split": "train", "streaming": True})]


def test_errors_say_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MicroStepError, match=r"'novel'; choose from tinystories, novels"):
        source("novel")
    with pytest.raises(MicroStepError, match=r"'novels' is not on the hub; give the folder that holds text/novels"):
        read("novels")
    with pytest.raises(MicroStepError, match=r"no file gsm8k/train.jsonl.gz in .*give the folder that holds it"):
        read("gsm8k", tmp_path)
    write(tmp_path, "gsm8k", lines([{"question": "2 + 2?", "solution": "4"}]))
    with pytest.raises(MicroStepError, match=r"no text in column 'answer', only question, solution"):
        read("gsm8k", tmp_path)
    for broken in (b"not gzip", gzip.compress(b"[1]\n"), gzip.compress(b"\xff\xfe"), gzip.compress(b"{}" * 99)[:-9]):
        (tmp_path / "gsm8k/train.jsonl.gz").write_bytes(broken)
        with pytest.raises(MicroStepError, match=r"is not a gzip file of UTF-8 JSON lines .*fetch it again"):
            read("gsm8k", tmp_path)

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(MicroStepError, match=r"openai/gsm8k cannot be read from the hub \(no route\).*local folder"):
        read("gsm8k")


def test_no_source_is_an_evaluation_set() -> None:
    assert all(item.split == "train" and "test" not in str(item.local).lower() for item in map(source, TRAINED_ON))


# Samples


def test_samples_are_valid_and_of_all_kinds() -> None:
    assert {s.kind for s in samples()} == set(KINDS)
    assert len({s.name for s in samples()}) == len(samples())
    for s in samples():
        roles = [role for role, _ in s.messages]
        assert roles == ["text"] or (set(roles) <= set(ROLES) and roles[-1] == "assistant")
        assert 300 <= len(s.text) <= 1200
        assert s.title and s.origin
    assert any("\u200d" in s.text for s in samples())
    listed = {entry["file"] for entry in json.loads((DEMO.parent / "samples/index.json").read_text(encoding="utf-8"))}
    assert listed == {p.name for p in (DEMO.parent / "samples").iterdir() if p.suffix in (".txt", ".json")} - {
        "index.json"
    }


def test_an_unknown_sample_is_named() -> None:
    assert sample("bakery").is_chat and not sample("tide").is_chat
    with pytest.raises(TextError, match=r"'bakerei'; choose from tide, "):
        sample("bakerei")


# The tokenizer


def test_the_tokenizer_is_trained_on_all_sources_but_not_on_what_is_held_out(tmp_path: Path) -> None:
    for name in ("tinyshakespeare", "novels", "tinystories"):
        write(tmp_path, name, f"Here is {name}.")
    write(tmp_path, "thealgorithms_python", lines([{"text": "x = 12"}]))
    write(tmp_path, "gsm8k", lines([{"question": "2 + 2?", "answer": f"{i}"} for i in range(50)]))
    write(tmp_path, "dolly_hhrlhf", lines([{"prompt": dolly("Name a colour."), "response": "red"}]))
    texts = list(training_texts(tmp_path))
    assert texts[:2] == ["Here is tinystories.", "Here is novels."] and texts[-1] == "Name a colour.\nred"
    assert "2 + 2?\n48" in texts and "2 + 2?\n49" not in texts
    trained = train_tokenizer(texts)
    assert trained.decode(trained(HOSTILE)["input_ids"]) == HOSTILE
    assert trained.chat_template == AutoTokenizer.from_pretrained(DEMO / "tiny-base").chat_template
    assert hashlib.sha256((DEMO / "tiny-base/tokenizer.json").read_bytes()).hexdigest() == SHIPPED_SHA256


# The pair


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(DEMO / "tiny-sft")


def test_the_family_is_small_and_shares_its_tokenizer() -> None:
    family = (*PAIR, "micro-step-tiny")
    files = [file for name in family for file in (DEMO / name).rglob("*")]
    assert sum(file.stat().st_size for file in files if file.is_file()) <= 12_000_000
    for file in ("tokenizer.json", "chat_template.jinja"):
        shared = {hashlib.sha256((DEMO / name / file).read_bytes()).hexdigest() for name in family}
        assert len(shared) == 1
    for name, mix in zip(PAIR, ("tiny_texts", "tiny_chats"), strict=True):
        card = (DEMO / name / "README.md").read_text(encoding="utf-8")
        assert all(use.definition.title in card for use in read_mix(mix).sources)


@given(st.text())
@settings(max_examples=200, deadline=None)
def test_any_text_comes_back_exactly(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_hostile_text_and_special_tokens(tokenizer: Any) -> None:
    for text in (HOSTILE, *(s.text for s in samples())):
        assert tokenizer.decode(tokenizer(text)["input_ids"]).encode() == text.encode()
    assert tokenizer("a")["input_ids"] == tokenizer("a", add_special_tokens=False)["input_ids"]
    assert (tokenizer.eos_token, tokenizer.pad_token, len(tokenizer)) == ("<|endoftext|>", "<|pad|>", 2048)
    assert len(tokenizer("<|im_start|><|im_end|><|endoftext|><|pad|>")["input_ids"]) == 4


def test_the_chat_template_renders(tokenizer: Any) -> None:
    messages = [{"role": role, "content": role.upper()} for role in ROLES]
    turns = [f"<|im_start|>{role}\n{role.upper()}<|im_end|>\n" for role in ROLES]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == "".join(turns)
    asked = tokenizer.apply_chat_template(messages[:2], tokenize=False, add_generation_prompt=True)
    assert asked == "".join(turns[:2]) + "<|im_start|>assistant\n"


@pytest.mark.usefixtures("offline")
def test_fine_tuning_made_answers_likelier_and_surer(tokenizer: Any) -> None:
    prompt, answer = (content for _, content in sample("bakery").messages)
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    given = tokenizer(asked)["input_ids"]
    ids = np.array(given + tokenizer(answer)["input_ids"])
    base, tuned = (score(load(ModelSpec(name, dtype="float32")).model, [ids])[0] for name in PAIR)
    assert tuned.surprisal[len(given) :].mean() < base.surprisal[len(given) :].mean()
    assert tuned.entropy[len(given) :].mean() < base.entropy[len(given) :].mean()


def test_the_card_shows_the_figures_that_were_measured() -> None:
    for name in PAIR:
        report = json.loads((DEMO / name / "training.json").read_text(encoding="utf-8"))
        after, before = report["held_out"]["after"], report["held_out"]["before"]
        assert after["gsm8k, chat"]["loss"] < before["gsm8k, chat"]["loss"]
        assert f"{after['gsm8k, chat']['loss']:.3f}" in (DEMO / name / "README.md").read_text(encoding="utf-8")


def test_the_micro_step_model_writes_its_held_out_answers_in_segments() -> None:
    """It gains macro steps at every tau, more at a lower one, and its answers end."""
    loaded = load(ModelSpec("micro-step-tiny"))
    assert loaded.facts.micro_step is not None and not loaded.facts.micro_step.untrained
    assert isinstance(loaded.model, MicroStepForCausalLM)
    prompt = [{"role": "user", "content": "Name three fruits."}]
    ids = loaded.tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_tensors="pt")["input_ids"]
    gained = [
        loaded.model.generate_segments(ids, confidence=tau, max_new_tokens=64).tokens_per_macro_step
        for tau in (1.1, 0.8, 0.4)
    ]
    assert gained[0] == 1 and 1.2 < gained[1] < gained[2]
