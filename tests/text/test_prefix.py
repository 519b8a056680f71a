"""What a tokenizer puts before a text is context, however many tokens it is; what it puts after is not read."""

import numpy as np
import pytest
import torch
from tokenizers.processors import TemplateProcessing

from model.scoring.token_scores import score
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode
from tests.support.tiny import tiny_model, tiny_tokenizer

TEXT = "The quick brown fox, déjà vu."
NAMES = ("<s>", "<|im_start|>", "<|im_end|>")


def tokenizer_with(single: str):
    """A tokenizer whose post-processor puts these tokens around a text, `$A`."""
    tokenizer = tiny_tokenizer()
    known = [(name, tokenizer.convert_tokens_to_ids(name)) for name in NAMES]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=single, special_tokens=known)
    return tokenizer


@pytest.mark.parametrize(
    ("single", "before", "after"),
    [
        ("$A", 0, 0),
        ("<s> $A", 1, 0),
        ("<|im_start|> $A", 1, 0),  # not BOS
        ("<|im_start|> <s> $A", 2, 0),  # as GLM-4's [gMASK]<sop>
        ("<s> <|im_start|> <s> $A <|im_end|>", 3, 1),
        ("$A <|im_end|>", 0, 1),
    ],
)
def test_surprisals_are_those_of_the_ids_that_transformers_feeds(single, before, after):
    """A prefix that was no BOS, or longer than a token, used to be dropped: every score was then another model's."""
    tokenizer, model = tokenizer_with(single), tiny_model("llama")
    ids = tokenizer(TEXT)["input_ids"]
    with torch.no_grad():
        log_p = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    came = [-float(log_p[i - 1, ids[i]]) if i else np.nan for i in range(len(ids))]

    encoded = encode(TextInput.plain(TEXT), tokenizer)
    (scores,) = score(model, [encoded.ids], encoded.prefix)
    assert encoded.prefix == tuple(ids[:before]) and encoded.text == TEXT
    np.testing.assert_allclose(scores.surprisal, came[before : len(ids) - after], rtol=1e-4)


def test_a_template_that_writes_the_prefix_writes_it_once():
    """Only a single BOS used to be taken out of a rendered chat."""
    tokenizer = tokenizer_with("<|im_start|> <s> $A")
    tokenizer.chat_template = "<|im_start|><s>{% for m in messages %}{{ m.content }}{% endfor %}"
    document = Document((Message("user", "Name a colour."),))
    encoded = encode(TextInput(document, chat=True), tokenizer)
    whole = tokenizer.apply_chat_template([{"role": "user", "content": "Name a colour."}], return_dict=False)
    assert [*encoded.prefix, *encoded.ids.tolist()] == whole and set(encoded.role) == {"user"}


def test_a_forced_bos_stands_first():
    assert encode(TextInput(Document.plain(TEXT), force_bos=True), tokenizer_with("<|im_start|> $A")).prefix == (1, 4)
    assert encode(TextInput(Document.plain(TEXT), force_bos=True), tokenizer_with("<|im_start|> <s> $A")).prefix == (
        4,
        1,
    )
