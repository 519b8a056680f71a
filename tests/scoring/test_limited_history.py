"""Limited history: against windows encoded one by one, and equal to the full scores where the window holds all."""

import numpy as np
import pytest

from model.errors import MicroStepError
from model.scoring.limited_history import limited_history
from model.scoring.token_scores import score
from tests.support.tiny import tiny_model

FAMILIES = ["llama", "gemma3_text", "gpt2", "qwen2"]
IDS = np.random.default_rng(0).integers(5, 400, 37)


@pytest.mark.parametrize("prefix", [(), (1,), (1, 7)])
@pytest.mark.parametrize("family", FAMILIES)
def test_exact_equals_one_window_at_a_time(family, prefix):
    model, window = tiny_model(family), 6
    found = limited_history(model, IDS, window, prefix=prefix).scores
    for t in range(0 if prefix else 1, len(IDS)):
        context = IDS[max(0, t - window) : t + 1]
        (alone,) = score(model, [context], prefix=prefix)
        np.testing.assert_allclose(found.entropy[t], alone.entropy[-1], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.surprisal[t], alone.surprisal[-1], rtol=1e-3, atol=1e-4)
    assert len(found) == len(IDS) and found.missing.sum() == (not prefix)


@pytest.mark.parametrize("stride", [1, 3])
def test_strided_gives_each_token_at_least_w_tokens(stride):
    model, window = tiny_model("llama"), 6
    found = limited_history(model, IDS, window, method="strided", stride=stride, prefix=(1,))
    assert (found.context_min, found.context_max) == (window, window + stride - 1)
    for t in range(len(IDS)):
        candidates = [
            score(model, [IDS[max(0, t - context) : t + 1]], prefix=(1,))[0].entropy[-1]
            for context in range(window, window + stride)
        ]
        assert np.abs(np.array(candidates) - found.scores.entropy[t]).min() < 1e-3


def test_one_stride_over_the_whole_text_is_the_full_history():
    model = tiny_model("llama")
    found = limited_history(model, IDS, 6, method="strided", stride=64, prefix=(1,)).scores
    np.testing.assert_allclose(found.entropy, score(model, [IDS], prefix=(1,))[0].entropy, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["exact", "strided", "banded"])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefix", [(), (1,), (1, 7)])
def test_a_window_that_holds_everything_changes_nothing(method, family, prefix):
    model = tiny_model(family)
    ids = IDS[: 9 - len(prefix)]  # within the tiny models' sliding windows
    (full,) = score(model, [ids], prefix=prefix)
    found = limited_history(model, ids, 8, method=method, prefix=prefix).scores
    np.testing.assert_allclose(found.entropy, full.entropy, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found.rank, full.rank)


def test_banded_reaches_exactly_as_far_as_it_says():
    """It was said to reach layers x w tokens back; a token is one of the w that it sees, in every layer."""
    model, window = tiny_model("llama"), 4
    found = limited_history(model, IDS, window, method="banded")
    assert found.context_max == 3 * (window - 1) + 1 == 10
    changed = IDS.copy()
    changed[3] = 399 - changed[3]
    other = limited_history(model, changed, window, method="banded").scores
    # position i sees i-3..i in each of 3 layers: token 3 is in reach of predictions up to position 3 + 9
    assert np.allclose(found.scores.entropy[14:], other.entropy[14:], rtol=1e-5, atol=1e-6)
    assert abs(found.scores.entropy[13] - other.entropy[13]) > 1e-4  # the 10th token back


@pytest.mark.parametrize("ids", [IDS[:0], IDS[:1], IDS[:2]])
@pytest.mark.parametrize("method", ["exact", "strided", "banded"])
def test_short_texts(ids, method):
    found = limited_history(tiny_model("llama"), ids, 4, method=method)
    assert len(found.scores) == len(ids)


def test_impossible_windows_are_refused():
    with pytest.raises(MicroStepError, match="at least 1"):
        limited_history(tiny_model("llama"), IDS, 0)
    with pytest.raises(MicroStepError, match="8 tokens"):
        limited_history(tiny_model("gemma3_text"), IDS, 9, method="banded")
