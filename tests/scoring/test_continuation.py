"""A continuation equals what transformers generates, and its scores equal those of the finished text."""

import numpy as np
import pytest
import torch

from model.errors import MicroStepError, TextError, TooLarge
from model.scoring.continuation import continue_text
from model.scoring.scores import Sampling
from model.scoring.token_scores import score
from tests.support.tiny import tiny_model

PROMPT = np.random.default_rng(3).integers(5, 400, 9)


@pytest.mark.parametrize("prefix", [(), (1,), (1, 7)])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2", "qwen3"])
def test_greedy_equals_generate_and_scores_equal_one_pass(family, prefix):
    model = tiny_model(family)
    found = continue_text(model, PROMPT, 20, prefix=prefix)
    fed = torch.tensor([[*prefix, *PROMPT]])
    expected = model.generate(fed, attention_mask=torch.ones_like(fed), max_new_tokens=20, do_sample=False)
    assert found.ids.tolist() == expected[0, fed.shape[1] :].tolist()
    (whole,) = score(model, [np.concatenate([PROMPT, found.ids])], prefix=prefix)
    for name in ("entropy", "confidence", "margin", "surprisal"):
        np.testing.assert_allclose(getattr(found.scores, name), getattr(whole, name), rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(found.scores.rank[len(PROMPT) :], 1)


def test_sampling_is_seeded_and_scored_before_the_temperature():
    model = tiny_model("llama")
    warm = Sampling(temperature=1.5, top_p=0.9, seed=4)
    one, two = (continue_text(model, PROMPT, 15, warm) for _ in range(2))
    other = continue_text(model, PROMPT, 15, Sampling(temperature=1.5, top_p=0.9, seed=5))
    assert one.ids.tolist() == two.ids.tolist() != other.ids.tolist()
    (whole,) = score(model, [np.concatenate([PROMPT, one.ids])])
    np.testing.assert_allclose(one.scores.entropy[1:], whole.entropy[1:], rtol=1e-3, atol=1e-4)


def test_stops_at_the_end_of_text_and_reports_tokens_as_they_come():
    model = tiny_model("llama")
    free = continue_text(model, PROMPT, 10)
    try:
        model.generation_config.eos_token_id = [int(free.ids[3])]
        seen = []
        ended = continue_text(model, PROMPT, 10, on_token=lambda token, scores: seen.append((token, len(scores))))
    finally:
        model.generation_config.eos_token_id = 2
    cut = free.ids.tolist().index(int(free.ids[3])) + 1
    assert ended.ended and ended.ids.tolist() == free.ids[:cut].tolist()
    assert seen == [(int(token), 1) for token in ended.ids]


def test_what_cannot_be_continued_is_refused():
    model = tiny_model("llama")
    with pytest.raises(TextError, match="nothing|no text"):
        continue_text(model, PROMPT[:0], 5)
    assert len(continue_text(model, PROMPT[:0], 5, prefix=(1,)).ids) <= 5
    with pytest.raises(TooLarge, match="512"):
        continue_text(model, PROMPT, 510)
    with pytest.raises(MicroStepError, match="top-p"):
        Sampling(top_p=0)
