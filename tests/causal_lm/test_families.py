"""Families beyond the usual ones: their scores are those of their own whole `forward`, and what cannot be is said."""

import copy

import numpy as np
import pytest
import torch

from benchmarks.families.cli import page
from benchmarks.families.features import measure, tiny_tokenizer
from benchmarks.families.tiny_models import FAMILIES, tiny_family
from evals.harness import RecordedLM
from model.causal_lm.attention_layers import readable, whole_maps
from model.causal_lm.padding import left_padded, padding_is_bound
from model.causal_lm.past import Past
from model.errors import ModelError
from model.hub.loading import ModelSpec, load
from model.scoring.continuation import continue_text
from model.scoring.limited_history import limited_history
from model.scoring.token_scores import score
from model.segmentation.attention_features import attention_shares

pytestmark = pytest.mark.slow

SOME = (
    "opt",  # projects its states, and calls the decoder inside its body
    "bart",
    "whisper",
    "llama4_text",  # its body has another name than its class says
    "falcon_h1",  # multiplies its logits by what its body knows
    "gemma3n_text",
    "gemma3",  # a text model inside a multimodal one
    "mamba",
    "mamba2",
    "rwkv",
    "recurrent_gemma",
    "bamba",
    "lfm2",
    "qwen3_next",
    "granitemoehybrid",
    "mixtral",
    "deepseek_v3",
    "bloom",
    "gptj",
    "minimax",
)
RECURRENT = ("mamba2", "recurrent_gemma", "bamba", "lfm2", "qwen3_next", "granitemoehybrid", "falcon_h1", "rwkv")
ROWS = [np.random.default_rng(n).integers(5, 300, n) for n in (24, 13)]


def whole_logits(model, ids):
    """[N, V] float64, in float64 throughout where the family's kernels know it."""
    with torch.no_grad():
        try:
            return copy.deepcopy(model).double()(input_ids=torch.as_tensor(ids)[None], use_cache=False).logits[0]
        except RuntimeError:
            return model(input_ids=torch.as_tensor(ids)[None], use_cache=False).logits[0].double()


def assert_scores(scores, model, ids):
    """Entropy, confidence, surprisal and rank are those of the whole forward, but for the first token."""
    log_p = whole_logits(model, ids)[:-1].log_softmax(-1)
    true = log_p.gather(1, torch.as_tensor(ids[1:])[:, None])
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(scores.entropy[1:], -(log_p.exp() * log_p).sum(-1), **close)
    np.testing.assert_allclose(scores.confidence[1:], log_p.exp().amax(-1), **close)
    np.testing.assert_allclose(scores.surprisal[1:], -true[:, 0], **close)
    np.testing.assert_array_equal(scores.rank[1:], 1 + (log_p > true).sum(-1))


@pytest.mark.parametrize("family", SOME)
def test_scores_and_continuations_are_those_of_the_familys_own_forward(family):
    """OPT, Falcon-H1, Llama 4 and BART crashed; Mamba and RWKV scored each new token from the last one alone."""
    model = tiny_family(family)
    for row, scores in zip(ROWS, score(model, ROWS), strict=True):
        assert_scores(scores, model, row)
    found = continue_text(model, ROWS[1], 6)
    assert_scores(found.scores, model, np.concatenate([ROWS[1], found.ids]))
    assert Past(model).is_incremental == (family != "minimax")  # whose own cache is not exact: it reads all again


@pytest.mark.parametrize("family", RECURRENT)
def test_a_band_is_not_claimed_where_no_mask_binds(family):
    """It was said to limit what a token knows, although recurrent layers and convolutions saw everything."""
    with pytest.raises(ModelError, match=f"^{family} (has layers that ignore the|accepts no) attention mask"):
        limited_history(tiny_family(family), ROWS[0], 4, "banded")


@pytest.mark.parametrize("family", ["bert", "xlnet", "prophetnet"])
def test_what_reads_both_ways_is_refused(family, tmp_path, monkeypatch):
    """Its scores had seen the token that they are of."""
    monkeypatch.setattr("benchmarks.families.tiny_models.DECODER", "no_such_option")  # as an encoder is saved
    tiny_family(family).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=f"{family} changes its prediction"):
        load(ModelSpec(str(tmp_path)))


@pytest.mark.parametrize(
    ("family", "refused"),
    [
        ("falcon", {}),  # its attention, in code of its own, was said to be missing
        (
            "bamba",
            {"lossless": "bamba keeps", "banded": "bamba has layers that ignore", "depth": "bamba cannot be run with"},
        ),
        (
            "mamba",
            {
                "lossless": "mamba keeps states",
                "attention": "mamba has no readable attention",
                "banded": "mamba accepts no attention mask",
            },
        ),
    ],
)
def test_every_feature_is_right_or_refused_by_name(family, refused, tmp_path):
    """Writing crashed for Bamba and Mamba, attention too. Rows of a padded batch write what they write alone."""
    found = measure(family, tmp_path)
    assert not found.faults
    for feature, said in found.cells.items():
        assert said.startswith(refused.get(feature, "yes")), (feature, said)
    assert f"| {family} | yes | yes | yes |" in page([found])


def test_hybrids_have_maps_of_their_attention_layers_only():
    """The first layer was said to have none, whichever were asked for, and no way out was named."""
    model = tiny_family("qwen3_next")
    assert readable(model).layers == (1,)
    assert attention_shares(model, ROWS[1]).layers == (1,)
    with pytest.raises(ModelError, match="layer 0 of qwen3_next .* choose from 1$"):
        attention_shares(model, ROWS[1], layers=[0, 1])


@pytest.mark.parametrize("family", ["falcon", "gptj", "bloom"])
def test_maps_of_families_with_code_of_their_own_are_theirs(family):
    model = tiny_family(family)
    ids = torch.as_tensor(ROWS[1])[None]
    with torch.no_grad():
        ours, theirs = whole_maps(model, ids), copy.deepcopy(model)
        theirs.set_attn_implementation("eager")
        told = theirs(ids, output_attentions=True).attentions
    for mine, other in zip(ours, told, strict=True):
        torch.testing.assert_close(mine.rows(3, 9, [2]), other[0, [2], 3:9, :9])
        assert torch.equal(mine.visible(3, 9), torch.ones(6, 9).tril(3).bool())


@pytest.mark.parametrize("family", ["recurrent_gemma", "bamba"])
def test_answers_of_a_batch_are_those_of_each_prompt_alone(family, tmp_path):
    """Padding on the left flowed into the states of RecurrentGemma: its answers hung on what stood in the batch."""
    tiny_family(family).save_pretrained(tmp_path)
    tiny_tokenizer().save_pretrained(tmp_path)
    loaded = load(ModelSpec(str(tmp_path), device="cpu"))
    assert padding_is_bound(loaded.model) == (family == "bamba")
    prompts = [row.tolist() for row in (ROWS[1], ROWS[0][:6], ROWS[1][:6])]
    lm = RecordedLM(loaded, batch_size=3)

    def answers(rows):
        ids, mask = left_padded(rows)
        lm.answers = []
        lm._model_generate(ids, ids.shape[1] + 5, ["\n\n\n"], attention_mask=mask, do_sample=False)
        return [answer.ids for answer in lm.answers]

    assert answers(prompts) == [answers([prompt])[0] for prompt in prompts]


def test_all_families_of_transformers_are_known():
    assert len(FAMILIES) > 150 and set(SOME) <= set(FAMILIES)
