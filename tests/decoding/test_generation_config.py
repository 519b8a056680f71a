"""Transformers' generation settings: each means the same here, alone and in a padded batch, or is refused by name."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from transformers import EosTokenCriteria, MaxLengthCriteria, StoppingCriteriaList
from transformers.generation import GenerationConfig, GenerationMixin

from model.decoding import generation_config
from model.errors import MicroStepError
from tests.support.micro_steps import micro_step, ragged

pytestmark = pytest.mark.slow

LENGTHS = [9, 3, 17, 1]
THIRDS = list(range(0, 400, 3))


def allowed(row: int, ids: torch.Tensor) -> list[int]:
    """Five words that depend on the last two; it must never be asked of words that were not allowed."""
    return [5 + (7 * int(ids[-1]) + 3 * k) % 300 for k in range(5)]


HONOURED: dict[str, dict[str, Any]] = {
    "max_length": {"max_length": 22},
    "max_time": {"max_time": 0.0},
    "min_length": {"min_length": 15, "eos_token_id": THIRDS},
    "min_new_tokens": {"min_new_tokens": 6, "eos_token_id": THIRDS},
    "repetition_penalty": {"repetition_penalty": 1.4},
    "encoder_repetition_penalty": {"encoder_repetition_penalty": 1.5},
    "no_repeat_ngram_size": {"no_repeat_ngram_size": 1},
    "encoder_no_repeat_ngram_size": {"encoder_no_repeat_ngram_size": 1},
    "bad_words_ids": {"bad_words_ids": [[i] for i in range(0, 400, 2)]},
    "renormalize_logits": {"renormalize_logits": True},
    "forced_bos_token_id": {"forced_bos_token_id": 9},
    "forced_eos_token_id": {"forced_eos_token_id": 11, "max_length": 22},
    "remove_invalid_values": {"remove_invalid_values": True},
    "exponential_decay_length_penalty": {"exponential_decay_length_penalty": (3, 1.6), "eos_token_id": [7, 50]},
    "suppress_tokens": {"suppress_tokens": list(range(0, 400, 2))},
    "begin_suppress_tokens": {"begin_suppress_tokens": list(range(0, 400, 2))},
    "sequence_bias": {"sequence_bias": [[[7], 5.0], [[8, 9], -3.0]]},
    "watermarking_config": {"watermarking_config": {"bias": 5.0, "seeding_scheme": "lefthash"}},
    "prefix_allowed_tokens_fn": {"prefix_allowed_tokens_fn": allowed},
    "eos_token_id": {"eos_token_id": list(range(0, 400, 7))},
    "stopping_criteria": {"stopping_criteria": StoppingCriteriaList([MaxLengthCriteria(20)])},
    "an end of the caller's own": {"stopping_criteria": StoppingCriteriaList([EosTokenCriteria(THIRDS)])},
}
SAME = {"renormalize_logits", "remove_invalid_values"}  # change nothing of a greedy answer


@pytest.fixture(scope="module")
def model():
    return micro_step("llama")


def told(options: dict[str, Any]) -> dict[str, Any]:
    length = {} if "max_length" in options else {"max_new_tokens": 14}
    return {"do_sample": False, "pad_token_id": 3, **length, **options}


def base_alone(model: Any, ids: torch.Tensor, options: dict[str, Any]) -> list[list[int]]:
    """The base's own answer to each prompt by itself."""
    rows = [ids[i : i + 1, -n:] for i, n in enumerate(LENGTHS)]
    return [model.base.generate(row, **options)[0, row.shape[1] :].tolist() for row in rows]


@pytest.fixture(scope="module")
def unset(model):
    """The base's answers where nothing is set."""
    return base_alone(model, ragged(LENGTHS)[0], told({}))


@pytest.mark.parametrize("name", HONOURED)
def test_a_setting_means_here_what_it_means_in_transformers(model, unset, name):
    """`max_length` and `prefix_allowed_tokens_fn` were ignored; minimal lengths and forced ends counted padding."""
    ids, mask = ragged(LENGTHS)
    options = told(HONOURED[name])
    expected = base_alone(model, ids, options)
    assert name in SAME or expected != unset, "the test shows nothing"
    for how in ({"confidence": 1.1}, {"confidence": 0.0, "verify": True}):
        batch = model.generate_segments(ids, mask, **how, **options)
        assert [row.ids for row in batch.rows] == expected
        alone = model.generate_segments(ids[2:3], **how, **options)  # the longest: it has no padding
        assert alone.rows[0].ids == expected[2]


@pytest.mark.parametrize("verify", [False, True])
def test_stop_strings_of_the_settings(tmp_path, model, verify):
    from transformers import AutoTokenizer

    from tests.support.tiny import save_tiny

    tokenizer = AutoTokenizer.from_pretrained(save_tiny(tmp_path / "m", "llama"))
    ids, mask = ragged(LENGTHS)
    options = told({"eos_token_id": None, "max_new_tokens": 8})
    words = [w for row in base_alone(model, ids, options) if (w := tokenizer.decode(row[3])).isascii()]
    options |= {"stop_strings": words, "tokenizer": tokenizer}
    expected = base_alone(model, ids, options)
    assert min(map(len, expected)) < 8
    found = model.generate_segments(ids, mask, confidence=0.0 if verify else 1.1, verify=verify, **options)
    assert [row.ids for row in found.rows] == expected


SAMPLED = {
    "temperature": 0.5,
    "top_k": 4,
    "top_p": 0.3,
    "min_p": 0.5,
    "top_h": 0.4,
    "typical_p": 0.2,
    "epsilon_cutoff": 0.01,
    "eta_cutoff": 0.02,
}


@pytest.mark.parametrize("name", SAMPLED)
def test_a_setting_of_sampling_makes_the_bases_distribution(model, name):
    """Word for word: the words that may be drawn, and how often each is."""
    ids, count = ragged([5])[0], 500
    options = {"do_sample": True, "max_new_tokens": 1, "top_k": 0, "eos_token_id": None, name: SAMPLED[name]}
    scores = model.base.generate(
        ids, **options, output_scores=True, return_dict_in_generate=True, pad_token_id=3
    ).scores[0]
    exact = scores[0].softmax(-1)
    found = model.generate_segments(ids.expand(count, -1), seed=1, **options)
    share = torch.bincount(found.sequences[:, -1], minlength=400) / count
    assert not share[exact == 0].any()
    assert (share - exact).abs().max() < 5 * (exact.max() / count) ** 0.5
    assert name == "temperature" or bool((exact == 0).any()), "the test shows nothing"


def test_several_answers_a_prompt(model):
    ids, mask = ragged(LENGTHS)
    found = model.generate_segments(ids, mask, do_sample=True, num_return_sequences=3, max_new_tokens=4, seed=0)
    assert found.sequences.shape == (12, 21) and len(found.rows) == 12
    assert torch.equal(found.sequences[:, :17], ids.repeat_interleave(3, 0))


REFUSED: dict[str, Any] = {
    "num_beams": 2,
    "constraints": [1],
    "force_words_ids": [[[5]]],
    "penalty_alpha": 0.6,
    "dola_layers": "low",
    "guidance_scale": 1.5,
    "token_healing": True,
    "is_assistant": True,
    "use_mtp": True,
    "prompt_lookup_num_tokens": 3,
    "assistant_early_exit": 1,
    "speculation_type": "dflash",
    "assistant_ensemble_weight": 0.5,
    "cache_implementation": "static",
    "cache_config": {"backend": "quanto"},
    "max_cache_len": 64,
    "prefill_chunk_size": 4,
    "continuous_batching_config": 1,
    "output_attentions": True,
    "output_hidden_states": True,
    "output_scores": True,
    "output_logits": True,
    "return_dict_in_generate": True,
    "num_return_sequences": 2,
    "watermarking_config": {"ngram_len": 5, "keys": [1, 2]},
    "assistant_model": object(),
    "negative_prompt_ids": [[1]],
    "negative_prompt_attention_mask": [[1]],
    "custom_generate": "somebody/decoding",
    "synced_gpus": True,
    "segment_starts": [[True]],
    "past_key_values": object(),
    "a_setting": 1,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_had_is_refused_by_name(model, name):
    """`guidance_scale` raised a TypeError; others were ignored without a word."""
    value = REFUSED[name]
    if name == "watermarking_config":
        from transformers.generation import SynthIDTextWatermarkingConfig

        value = SynthIDTextWatermarkingConfig(**value)
    for entry in (model.generate_segments, model.generate):
        with pytest.raises(MicroStepError, match=name):
            entry(ragged([5])[0], **{name: value})


def test_every_field_and_argument_of_transformers_is_known():
    """A field that a later transformers brings fails here, and is refused where it is set, rather than ignored."""
    tables = [
        generation_config.CHOICE,
        generation_config.SAMPLED,
        generation_config.OWN,
        generation_config.REFUSED,
        generation_config.NO_EFFECT,
    ]
    known = [name for table in tables for name in table]
    fields = {name for name in vars(GenerationConfig()) if not name.startswith("_")}
    assert len(known) == len(set(known)) and set(known) == fields
    arguments = set(inspect.signature(GenerationMixin.generate).parameters) - {"self", "kwargs"}
    assert arguments <= {*generation_config.ARGUMENTS, *generation_config.REFUSED_ARGUMENTS}
    tested = {*HONOURED, *SAMPLED, "stop_strings", "num_return_sequences"}
    assert {*generation_config.CHOICE, *generation_config.SAMPLED} <= tested
    assert set(generation_config.REFUSED) - {"compile_config"} <= set(REFUSED)  # that one needs a class of its own


def test_a_field_that_is_not_known_is_refused_where_it_is_set(model, monkeypatch):
    monkeypatch.delitem(generation_config.CHOICE, "suppress_tokens")
    with pytest.raises(MicroStepError, match="suppress_tokens"):
        model.generate_segments(ragged([5])[0], suppress_tokens=[7])


def test_values_that_transformers_refuses_are_one_sentence(model):
    for options in ({"do_sample": True, "temperature": -1.0}, {"cache_implementation": "no such"}):
        with pytest.raises(MicroStepError, match="transformers rejects"):
            model.generate_segments(ragged([5])[0], **options)
    with pytest.raises(MicroStepError, match="max_length"):
        model.generate_segments(*ragged([5, 3]), max_length=4)


def test_padding_without_a_mask_is_read_as_transformers_reads_it(model):
    """`generate` took the padding for words of the prompt."""
    ids, mask = ragged(LENGTHS)
    options = told({"max_new_tokens": 6, "eos_token_id": 50})
    ids = torch.where(mask.bool(), ids.masked_fill(ids == 3, 4), 3)
    expected = model.base.generate(ids, **options)
    assert torch.equal(model.generate(ids, confidence=1.1, **options), expected)
