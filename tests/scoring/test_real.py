"""Real models against transformers itself: whatever the kernels and the tokenizers do, the figures are these."""

import numpy as np
import pytest
import torch

from analysis.uncertainty.scoring import score_document
from data.samples import samples
from model.hub.fetch import is_cached
from model.hub.loading import ModelSpec, load
from model.text.document import Document, Message, TextInput
from model.text.encoding import encode

NAMES = ["smollm2-135m-instruct", "gemma-3-270m", "tiny-base", "tiny-sft"]


@pytest.fixture(scope="module", params=NAMES)
def loaded(request):
    if not is_cached(request.param):
        pytest.skip(f"{request.param} is not on this machine: micro-step model fetch {request.param}")
    return load(ModelSpec(request.param))


@pytest.mark.real
@pytest.mark.parametrize("chat", [False, True])
def test_scores_equal_transformers_in_float64(loaded, chat):
    """Ids as the tokenizer gives them, logits as the model gives them, the definitions in float64."""
    text = next(sample for sample in samples() if sample.kind == "code").messages[0][1]
    document = Document((Message("user", text[:300]), Message("assistant", "Yes: \U0001f986 = 2.")))
    scored = score_document(loaded, TextInput(document, chat))
    tokenizer = loaded.tokenizer
    if scored.encoded.chat:
        turns = [{"role": m.role, "content": m.content} for m in document.messages]
        expected = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=True)["input_ids"]
    else:
        expected = tokenizer(document.text)["input_ids"]
    prefix = scored.encoded.prefix
    assert [*prefix, *scored.encoded.ids.tolist()] == list(expected)

    with torch.no_grad():
        logits = loaded.model(torch.tensor([expected])).logits[0].double()
    log_p = logits.log_softmax(-1)
    first = 0 if prefix else 1  # rows that have scores
    log_p, ids = log_p[:-1], torch.tensor(expected[1:])
    entropy = -(log_p.exp() * log_p).sum(-1).numpy()
    best = log_p.exp().topk(2).values.numpy()
    true = log_p.gather(1, ids[:, None])
    found = scored.scores
    np.testing.assert_allclose(found.entropy[first:], entropy, rtol=1e-4, atol=5e-4)
    np.testing.assert_allclose(found.confidence[first:], best[:, 0], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.margin[first:], best[:, 0] - best[:, 1], rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(found.surprisal[first:], -true[:, 0].numpy(), rtol=1e-4, atol=5e-4)
    rank = 1 + (log_p > true).sum(-1).numpy()
    assert (np.abs(found.rank[first:] - rank) <= 1).all()  # a rank may turn on the last bit of a tie
    assert found.missing.sum() == first


@pytest.mark.real
def test_every_sample_is_placed_exactly(loaded):
    for sample in samples():
        document = Document(tuple(Message(role, content) for role, content in sample.messages))
        encoded = encode(TextInput(document), loaded.tokenizer)
        assert encoded.exact, sample.name
        covered = np.zeros(len(encoded.text), dtype=bool)
        for start, end in zip(encoded.start, encoded.end, strict=True):
            covered[start:end] = True
        assert covered.all(), sample.name
