"""Tokens know their characters, whatever the text, the tokenizer's kind and the template."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from model.errors import TextError
from model.text.chat_template import render
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode, encode_reply, token_strings
from tests.support.tiny import tiny_tokenizer

HOSTILE = [
    "",
    "a",
    " ",
    "  two  spaces\tand\ttabs\r\n\r\n\n",
    "NUL\x00 and \x1b[31mANSI\x1b[0m \x7f",
    "<script>alert(1)</script> **md** $\\LaTeX$ ![i](http://x/y.png)",
    "👨‍👩‍👧‍👦 🇩🇪 👍🏽 e\u0301 \u200f\u202e",
    "日本語テキスト and العربية",
    "literal ▁ and Ġ and <0x41>",
    "\ufeffBOM \U0010ffff \ufffd",
]


@pytest.mark.parametrize("kind", ["bytelevel", "sentencepiece"])
@pytest.mark.parametrize("text", HOSTILE)
def test_spans_tile_the_text(kind, text):
    encoded = encode(TextInput.plain(text), tiny_tokenizer(kind=kind))
    assert_tiles(encoded, text)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_byte_level_spans_tile_any_text(text):
    encoded = encode(TextInput.plain(text), tiny_tokenizer())
    assert encoded.exact
    assert_tiles(encoded, text)


def assert_tiles(encoded, text):
    """Every character belongs to a token; only a split character belongs to several."""
    assert encoded.text == text
    covered = np.zeros(len(text), dtype=int)
    for start, end in zip(encoded.start, encoded.end, strict=True):
        covered[start:end] += 1
    assert (covered >= 1).all()
    assert (np.diff(encoded.start) >= 0).all() and (encoded.end >= encoded.start).all()
    for i in range(1, len(encoded)):
        overlap = encoded.start[i] < encoded.end[i - 1]
        assert overlap == encoded.continuation[i] or not encoded.exact
    assert all(text[a:b] == shown for a, b, shown in zip(encoded.start, encoded.end, encoded.display, strict=True))


def test_a_split_character_is_shown_whole_on_each_of_its_tokens():
    encoded = encode(TextInput.plain("a🦆b"), tiny_tokenizer())
    pieces = [shown for shown in encoded.display if "🦆" in shown]
    assert len(pieces) > 1 and encoded.continuation.sum() == len(pieces) - 1
    names = "".join(token_strings(tiny_tokenizer(), encoded.ids))
    assert "<0xF0>" in names and "\ufffd" not in names


def test_trailing_space_stays_with_its_token_when_offsets_are_trimmed():
    """GPT-2's own offsets trim white space; a token that ends in a line break lost it to the next one."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Split(";\n", "isolated")
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(";\n", "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    raw.decoder = decoders.ByteLevel()
    raw.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    raw.train_from_iterator(["x;\ny;\nz" * 50], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    assert ";\n" in encode(TextInput.plain("x;\ny"), tokenizer).display


def test_bos_is_context_and_no_row():
    text = "hello there"
    plain, with_bos = tiny_tokenizer(), tiny_tokenizer(add_bos=True)
    assert encode(TextInput.plain(text), plain).prefix == ()
    encoded = encode(TextInput.plain(text), with_bos)
    assert encoded.prefix == (with_bos.bos_token_id,) and encoded.prefix[0] not in encoded.ids
    assert encode(TextInput(Document.plain(text), force_bos=True), plain).prefix == (plain.bos_token_id,)
    plain.bos_token = None
    with pytest.raises(TextError, match="none"):
        encode(TextInput(Document.plain(text), force_bos=True), plain)


CHAT = Document((Message("system", "Be brief."), Message("user", " user "), Message("assistant", "Yes: 4.\n")))


def test_roles_and_source_spans_under_a_template():
    tokenizer = tiny_tokenizer(chat=True)
    encoded = encode(TextInput(CHAT, chat=True), tokenizer)
    assert encoded.chat and set(encoded.role) == {"system", "user", "assistant", "template"}
    for i in range(len(encoded)):
        if encoded.role[i] != "template":
            source = CHAT.text[encoded.source_start[i] : encoded.source_end[i]]
            assert source == encoded.display[i]
        else:
            assert encoded.source_start[i] == encoded.source_end[i] == -1
    content = "".join(encoded.display[i] for i in range(len(encoded)) if encoded.role[i] == "user")
    assert content.strip() == "user"  # not the role's name in the template's header


def test_template_that_strips_contents_or_refuses():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}[{{m.role}}]{{ m.content | trim }}\n{% endfor %}"
    rendered = render(CHAT, tokenizer, chat=True)
    for piece in rendered.pieces:
        length = piece.end - piece.start
        assert rendered.text[piece.start : piece.end] == CHAT.text[piece.source : piece.source + length]
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(TextError, match="no system role"):
        render(CHAT, tokenizer, chat=True)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content | upper }}{% endfor %}"
    with pytest.raises(TextError, match="rewrites"):
        render(CHAT, tokenizer, chat=True)


def test_without_a_template_chat_reads_the_raw_text_and_says_so():
    encoded = encode(TextInput(CHAT, chat=True), tiny_tokenizer())
    assert not encoded.chat and encoded.text == CHAT.text


def test_chat_bos_written_by_the_template_is_no_row():
    tokenizer = tiny_tokenizer(add_bos=True)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    encoded = encode(TextInput(Document.plain("hi there"), chat=True), tokenizer)
    assert encoded.prefix == (tokenizer.bos_token_id,) and encoded.ids[0] != tokenizer.bos_token_id


def test_lone_surrogates_are_refused():
    with pytest.raises(TextError, match="surrogate at character 1"):
        Document.plain("a\ud800b")


def test_reply_tokens_follow_the_prompt():
    tokenizer = tiny_tokenizer()
    prompt = encode(TextInput.plain("the cat"), tokenizer)
    ids = encode(TextInput.plain(" sat 🦆"), tokenizer).ids
    whole = encode_reply(prompt, ids, tokenizer)
    assert_tiles(whole, "the cat sat 🦆")
    assert list(whole.role[len(prompt) :]) == ["assistant"] * len(ids)
    broken = encode_reply(prompt, ids[:-1], tokenizer)  # ends in the middle of a character
    assert broken.end[-1] == len(broken.text) and "\ufffd" in broken.text
