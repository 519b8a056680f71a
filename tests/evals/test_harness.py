"""Models under the harness: likelihoods and texts beside its own class, the model's own segments beside plain loops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from evals.harness import MicroStepLM, RecordedLM, fitting
from evals.loglikelihood import by_base, by_own_segments
from evals.stop_strings import AnswerCriterion, StopStrings, prefix_free_groups
from model.causal_lm.padding import left_padded
from model.decoding.shared_prefix import shared_first
from model.errors import MicroStepError, NumericalError
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from tests.support.micro_steps import micro_step, scramble
from tests.support.tiny import CORPUS, save_tiny, tiny_tokenizer

pytestmark = pytest.mark.slow

CONTEXTS = ("The quick brown fox", "She sold 48 clips in April; in May", "def fibonacci(n):\n", "café ", "")
CONTINUATIONS = (
    " jumps over the lazy dog",
    " she",
    "    if n < 2:\n        return n\n",
    "naïveté 你好",
    "It was the best",
)
FAMILIES = ("llama", "gpt2", "gemma3_text")


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request, tmp_path_factory):
    """A tiny plain model; gemma's kind with BOS and another tokenizer."""
    gemma = request.param == "gemma3_text"
    folder = tmp_path_factory.mktemp(request.param)
    save_tiny(folder, request.param, add_bos=gemma, kind="sentencepiece" if gemma else "bytelevel", chat=True)
    return load(ModelSpec(str(folder), dtype="float32", device="cpu"))


def around(loaded, **config):
    """A micro_step model around a loaded one, its new weights moved away from their start."""
    torch.manual_seed(0)
    model = MicroStepForCausalLM.from_base(loaded.model, loaded.tokenizer, **config)
    scramble(model)
    return replace(loaded, model=model.eval())


def requests(kind, *arguments):
    return [Instance(kind, {}, each, i) for i, each in enumerate(arguments)]


def own_class(loaded, batch_size=1):
    """The harness's own, untouched."""
    return HFLM(loaded.model, "causal", tokenizer=loaded.tokenizer, batch_size=batch_size)


def likelihoods(lm):
    return lm.loglikelihood(requests("loglikelihood", *zip(CONTEXTS, CONTINUATIONS, strict=True)), disable_tqdm=True)


def texts(lm, until, most=24, prompts=CONTEXTS[:4]):
    settings = {"until": list(until), "max_gen_toks": most, "do_sample": False}
    return lm.generate_until(requests("generate_until", *((p, dict(settings)) for p in prompts)), disable_tqdm=True)


# --- log-likelihood


@pytest.mark.parametrize("likelihood", ["own", "base"])
def test_above_one_log_likelihoods_are_the_harnesss(loaded, likelihood):
    expected = likelihoods(own_class(loaded, 2))
    found = likelihoods(MicroStepLM(around(loaded), confidence=1.1, likelihood=likelihood, batch_size=2))
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    np.testing.assert_allclose([x for x, _ in found], [x for x, _ in expected], atol=1e-3, rtol=0)


def test_the_base_alone_is_asked_whatever_tau_is(loaded):
    expected = likelihoods(own_class(loaded, 3))
    found = likelihoods(MicroStepLM(around(loaded), confidence=0.0, likelihood="base", batch_size=3))
    np.testing.assert_allclose([x for x, _ in found], [x for x, _ in expected], atol=1e-3, rtol=0)


def test_a_lossless_model_has_its_bases_likelihood(loaded):
    expected = likelihoods(own_class(loaded, 3))
    found = likelihoods(MicroStepLM(around(loaded, decoding="lossless"), confidence=0.0, batch_size=3))
    np.testing.assert_allclose([x for x, _ in found], [x for x, _ in expected], atol=1e-3, rtol=0)


def test_a_rolling_likelihood_is_the_harnesss_over_several_windows(loaded):
    text = "It was the best of times, it was the worst of times. " * 30
    asked = requests("loglikelihood_rolling", (text,), ("café",))
    plain = RecordedLM(loaded, batch_size=2)
    expected = plain.loglikelihood_rolling(asked, disable_tqdm=True)
    lm = MicroStepLM(around(loaded), confidence=1.1, batch_size=2)
    found = lm.loglikelihood_rolling(asked, disable_tqdm=True)
    assert len(lm.likelihoods) > 2  # windows
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert sum(each.tokens for each in lm.likelihoods) == sum(each.tokens for each in plain.likelihoods)


def by_hand(model, context, said, tau):
    """Definition (b), token by token, every pass from the beginning: nll, place in the segment."""
    most, starts = model.config.max_segment_length, [True] * len(context)
    nll, slots = [], []
    for t, token in enumerate(said):
        ids = torch.tensor([[*context, *said[: t + 1]]])
        joins = False
        if t and slots[-1] + 1 < most:
            whole = model(ids, segment_starts=torch.tensor([[*starts, False]])).logits[0, len(starts) - 1].double()
            joins = bool(whole.softmax(-1).max() >= tau)
        if not joins:
            whole = model(ids[:, :-1], segment_starts=torch.tensor([starts])).logits[0, -1].double()
        nll.append(-float(whole.log_softmax(-1)[token]))
        slots.append(slots[-1] + 1 if joins else 0)
        starts.append(not joins)
    return nll, slots


@pytest.mark.parametrize("family", [*FAMILIES, "gemma2", "qwen3"])
def test_own_segments_are_those_of_a_plain_loop(family):
    model = micro_step(family)
    draw = torch.Generator().manual_seed(3)
    contexts = [torch.randint(5, 400, (n,), generator=draw).tolist() for n in (9, 1, 4)]
    said = [torch.randint(5, 400, (n,), generator=draw).tolist() for n in (11, 7, 1)]
    joined = []
    for tau in (0.0, 0.12, 0.3, 0.6):
        with torch.inference_mode():
            expected = [by_hand(model, context, each, tau) for context, each in zip(contexts, said, strict=True)]
        for found, (nll, slots) in zip(by_own_segments(model, contexts, said, tau), expected, strict=True):
            assert found.slot.tolist() == slots
            np.testing.assert_allclose(found.nll, nll, atol=2e-3)
            assert found.macro_steps == slots.count(0)
        joined.append(sum(slot > 0 for _, slots in expected for slot in slots))
        if tau == 0:
            assert expected[0][1] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]
    assert any(0 < count < joined[0] for count in joined)  # not only none or all


@pytest.mark.parametrize("tau", [0.0, 0.2, 1.1])
def test_the_probabilities_of_all_next_tokens_sum_to_one(tau):
    model = micro_step("llama")
    prefix = [17, 300, 45]
    before = by_own_segments(model, [[11, 12]], [prefix], tau)[0].total
    every = [[*prefix, token] for token in range(400)]
    after = by_own_segments(model, [[11, 12]] * 400, every, tau)
    assert np.logaddexp.reduce([each.total for each in after]) == pytest.approx(before, abs=1e-4)


def test_greedy_texts_are_greedy_under_their_own_likelihood():
    """What the model writes at tau, it finds likeliest, token by token, in the same segments."""
    model = micro_step("llama")
    prompt = torch.tensor([[7, 8, 9, 10]])
    (row,) = model.generate_segments(prompt, confidence=0.12, max_new_tokens=20, do_sample=False).rows
    (found,) = by_own_segments(model, [prompt[0].tolist()], [row.ids], 0.12)
    assert found.greedy
    assert np.flatnonzero(found.slot == 0).tolist() == row.starts
    assert 1 < len(row.starts) < 20
    np.testing.assert_allclose(np.exp(-found.nll), row.probability, atol=1e-5)
    changed = [*row.ids[:-1], (row.ids[-1] + 1) % 400]
    assert not by_own_segments(model, [prompt[0].tolist()], [changed], 0.12)[0].greedy


def test_a_row_alone_scores_as_in_a_batch():
    model = micro_step("qwen2")
    contexts, said = [[5, 6, 7, 8, 9], [10], [11, 12]], [[20, 21], [22, 23, 24, 25, 26, 27], [28]]
    for score in (lambda a, b: by_own_segments(model, a, b, 0.1), lambda a, b: by_base(model, a, b)):
        for i, together in enumerate(score(contexts, said)):
            (alone,) = score(contexts[i : i + 1], said[i : i + 1])
            np.testing.assert_allclose(together.nll, alone.nll, atol=1e-4)
            assert together.slot.tolist() == alone.slot.tolist()


def test_what_is_too_long_loses_its_beginning():
    assert fitting([1, 2, 3], [4, 5], 4) == ([1, 2, 3], [4, 5])  # the last token is read by nobody
    assert fitting([1, 2, 3], [4, 5], 3) == ([2, 3], [4, 5])
    with pytest.raises(MicroStepError, match="2 tokens, .*context holds 1"):
        fitting([1], [4, 5], 1)


# --- generation


def test_above_one_texts_are_the_harnesss(loaded):
    plain = RecordedLM(loaded, batch_size=2)
    expected = texts(own_class(loaded, 2), ["\n\n"])
    assert texts(plain, ["\n\n"]) == expected
    for micro in (around(loaded), around(loaded, decoding="lossless")):
        lm = MicroStepLM(micro, confidence=1.1, batch_size=2)
        assert texts(lm, ["\n\n"]) == expected
        assert [each.ids for each in lm.answers] == [each.ids for each in plain.answers]
        assert all(each.macro_steps == len(each.ids) for each in lm.answers)
    assert any(expected)


def test_worked_examples_before_every_question_change_no_text(loaded):
    """They are read once for a batch, where the model's layers let them."""
    prompts = [" ".join(CORPUS[:5]) + each for each in ("", " She", " def f(n):\n", " It was the best of times")]
    expected = texts(own_class(loaded, 4), [], prompts=prompts)
    plain, micro = RecordedLM(loaded, batch_size=4), MicroStepLM(around(loaded), confidence=1.1, batch_size=4)
    assert texts(plain, [], prompts=prompts) == texts(micro, [], prompts=prompts) == expected
    ids = [plain.tok_encode(prompt) for prompt in prompts]
    assert shared_first(*left_padded(ids), loaded.model).shared >= (
        0 if loaded.model.config.model_type == "gemma3_text" else 32
    )


def test_a_stop_string_ends_both_at_the_same_place(loaded):
    """Each prompt's own text gives a stop string, from the middle of tokens."""
    whole = texts(RecordedLM(loaded), [], most=30)
    for i, text in enumerate(whole):
        if len(text) < 12:
            continue
        stop = text[7:10]
        plain, lm = RecordedLM(loaded), MicroStepLM(around(loaded), confidence=1.1)
        expected = texts(plain, [stop], most=30, prompts=CONTEXTS[i : i + 1])
        assert texts(lm, [stop], most=30, prompts=CONTEXTS[i : i + 1]) == expected == [text.split(stop)[0]]
        assert lm.answers[0].ended
        assert plain.answers[0].ended
        assert lm.answers[0].ids == plain.answers[0].ids
        assert len(lm.answers[0].ids) < 30


def test_segments_are_kept_with_what_they_cost(loaded):
    lm = MicroStepLM(around(loaded), confidence=0.0, batch_size=4)
    texts(lm, [], most=10)
    assert len(lm.answers) == 4
    for each in lm.answers:
        assert each.macro_steps == len(each.starts) == -(-len(each.ids) // 4)
        assert each.probability is not None
        assert len(each.probability) == len(each.ids) == 10
        assert not each.ended
        assert each.seconds > 0


def test_a_prompts_last_words_and_an_answers_first_make_no_stop_string():
    tokenizer = tiny_tokenizer()
    prompt = tokenizer.encode("def fibonacci(n):\n", add_special_tokens=False)
    answer = tokenizer.encode("def other", add_special_tokens=False)
    stops = StopStrings(tokenizer, ["\ndef"])
    criterion = AnswerCriterion(stops, [prompt])
    assert not bool(criterion(torch.tensor([prompt + answer]), None))
    longer = answer + tokenizer.encode("\ndef", add_special_tokens=False)
    assert bool(criterion(torch.tensor([prompt + longer]), None))
    assert stops.truncate([*longer, 9, 9], set()) == (longer, True)
    assert stops.truncate([*answer, 2, 9], {2}) == ([*answer, 2], True)
    assert stops.truncate(answer, set()) == (answer, False)


def test_a_stop_string_split_over_tokens_is_found():
    tokenizer = tiny_tokenizer()
    stops = StopStrings(tokenizer, ["你好"])
    ids = tokenizer.encode("and 你好", add_special_tokens=False)
    assert len(ids) > 4
    assert [stops.met(ids[:n]) for n in range(1, len(ids) + 1)] == [False] * (len(ids) - 1) + [True]
    assert not StopStrings(tokenizer, ["", ""]).met(ids)


def test_no_prompt_of_a_group_begins_another():
    assert prefix_free_groups([[1, 2], [1, 2, 3], [1, 2], [4]]) == [[0, 2, 3], [1]]
    assert prefix_free_groups([[1], [1, 2], [1, 2, 3]]) == [[0], [1], [2]]


def test_prompts_that_begin_each_other_are_answered_as_alone(loaded):
    prompts = ("The quick", "The quick brown fox", "The quick brown")
    lm = MicroStepLM(around(loaded), confidence=1.1, batch_size=3)
    assert texts(lm, ["e"], prompts=prompts) == [texts(lm, ["e"], prompts=(each,))[0] for each in prompts]


def test_the_chat_template_is_the_tokenizers(loaded):
    lm = MicroStepLM(around(loaded), confidence=1.1)
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello!"}]
    expected = loaded.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert lm.apply_chat_template(turns) == expected


def test_the_harness_finds_the_model_by_its_name():
    from lm_eval.api.registry import get_model

    assert get_model("micro_step") is MicroStepLM


def test_a_plain_model_is_refused_by_name(loaded):
    with pytest.raises(MicroStepError, match=r"not a micro_step model"):
        MicroStepLM(loaded)


@pytest.mark.parametrize("own", [False, True])
def test_numbers_that_are_not_finite_are_no_answers_and_no_likelihoods(own, tmp_path):
    """A plain model's NaN used to be judged as the text that its padding makes, and as a likelihood of NaN."""
    folder = save_tiny(tmp_path / "tiny", "llama", chat=True)
    broken = load(ModelSpec(str(folder), dtype="float32", device="cpu"))
    broken.model.model.norm.weight.fill_(torch.nan)
    lm = MicroStepLM(around(broken), 0.5, batch_size=2) if own else RecordedLM(broken, 2)
    per_token = RecordedLM(broken, 2, per_token=True)
    said = r"not finite in float32; its weights are not finite either \(first: .*norm\.weight\)"
    for run in (
        lambda: texts(lm, ["\n"], 4),
        lambda: lm.generate_until(requests("generate_until", ("a", {"do_sample": True, "temperature": 1.0}))),
        lambda: likelihoods(lm),
        lambda: likelihoods(per_token),
    ):
        with pytest.raises(NumericalError, match=said):
            run()
