"""The relaxed check: what it keeps, by a slow reference; with eps = 1 it is lossless decoding."""

from __future__ import annotations

import pytest
import torch

from model.errors import MicroStepError
from tests.support.micro_steps import micro_step, ragged

PROMPTS = [9, 3, 17, 1]
GREEDY = {"verify": True, "confidence": 0.0, "max_new_tokens": 24, "do_sample": False, "eos_token_id": None}


def base_scores(model, row):
    """[T, V] the base's log-probabilities before each new token, from one pass over the whole answer, in float64."""
    ids = torch.tensor([row.prompt + row.ids])
    with torch.no_grad():
        logits = model.base(ids).logits[0, len(row.prompt) - 1 : -1]
    return logits.double().log_softmax(-1)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("eps", [0.9, 0.3, 0.02])
def test_every_token_that_is_kept_satisfies_the_rule_and_every_refused_one_does_not(family, eps):
    model = micro_step(family)
    found = model.generate_segments(*ragged(PROMPTS), **GREEDY, eps=eps)
    relaxed = 0
    for row in found.rows:
        scores = base_scores(model, row)
        share = (scores.gather(1, torch.tensor(row.ids)[:, None])[:, 0] - scores.amax(-1)).exp()
        drafted = torch.tensor([at not in row.starts for at in range(len(row.ids))])
        assert bool((share[~drafted] == 1).all()), "the base's own tokens are its likeliest"
        assert bool((share[drafted] >= eps * (1 - 1e-4)).all())
        assert row.relaxed == int((share[drafted] < 1 - 1e-6).sum())
        ends = [*row.starts[1:], len(row.ids)]
        for end, why, refused in zip(ends, row.why, row.refused, strict=True):
            if why == "disagreed":
                assert scores[end, refused[0]] - scores[end].max() < torch.tensor(eps).log()
        relaxed += row.relaxed
    assert found.eps == eps and found.verified
    assert relaxed > 0 or eps == 0.9, "nothing was kept that lossless decoding refuses: the test shows nothing"


@pytest.mark.parametrize("options", [{}, {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "seed": 3}])
def test_eps_of_one_is_lossless_and_a_smaller_one_needs_fewer_passes(options):
    model = micro_step("llama")
    asked = {**GREEDY, **options}
    lossless = model.generate_segments(*ragged(PROMPTS), **asked)
    strict = model.generate_segments(*ragged(PROMPTS), **asked, eps=1.0)
    assert torch.equal(lossless.sequences, strict.sequences) and lossless.macro_steps == strict.macro_steps
    assert all(row.relaxed == 0 for row in strict.rows)
    free = model.generate_segments(*ragged(PROMPTS), **asked, eps=1e-6)
    assert free.macro_steps < lossless.macro_steps and sum(row.relaxed for row in free.rows) > 0


def test_a_row_alone_equals_the_row_in_a_batch_and_penalties_count():
    model = micro_step("llama")
    ids, mask = ragged(PROMPTS)
    asked = {**GREEDY, "eps": 0.3, "repetition_penalty": 1.3}
    batch = model.generate_segments(ids, mask, **asked)
    for i, n in enumerate(PROMPTS):
        alone = model.generate_segments(ids[i : i + 1, -n:], **asked).rows[0]
        assert alone.ids == batch.rows[i].ids and alone.relaxed == batch.rows[i].relaxed


def test_sampling_keeps_no_token_that_its_warpers_forbid():
    model = micro_step("llama")
    found = model.generate_segments(*ragged(PROMPTS), **{**GREEDY, "do_sample": True, "top_k": 2}, eps=1e-9, seed=1)
    for row in found.rows:
        best = base_scores(model, row).topk(2).indices
        assert all(token in words for token, words in zip(row.ids, best.tolist(), strict=True))


@pytest.mark.parametrize(
    ("options", "said"), [({"eps": 0.0}, "eps"), ({"eps": 1.5}, "eps"), ({"verify": False}, "merged")]
)
def test_what_eps_cannot_mean_is_refused(options, said):
    with pytest.raises(MicroStepError, match=said):
        micro_step("llama").generate_segments(*ragged([3]), **{**GREEDY, "eps": 0.5, **options})
