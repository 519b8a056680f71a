"""Sampling, penalties and logprobs in the real vLLM: run it where vLLM is installed (docs/serving.md)."""

from __future__ import annotations

import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from tests.serving.vllm_served import expected, prompts_of, same, service_of, vllm_folder_of, written

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")]
DRAWS, TOKENS, ROWS = 960, 4, 32
TAU = 0.05
HOW = {"temperature": 0.6, "top_p": 0.9, "max_tokens": TOKENS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    return tmp_path_factory.mktemp("vllm")


@pytest.fixture(scope="module")
def model(folder):
    return vllm_folder_of("micro-step-tiny", folder)


def started(folder, lossless):
    service = service_of(folder, TAU, lossless, max_rows=ROWS)
    service.engine.start()
    return service


@pytest.fixture(scope="module")
def lossless(folder, model):
    yield (service := started(folder, True))
    service.engine.close()


@pytest.fixture(scope="module")
def merged(folder, model, lossless):
    yield (service := started(folder, False))
    service.engine.close()


@pytest.fixture(scope="module")
def plain(folder, model, tmp_path_factory):
    """The base in a vLLM without the plugin's proposers."""
    place = tmp_path_factory.mktemp("plain")
    for path in folder.iterdir():
        if path.name != "micro_step":
            (place / path.name).symlink_to(path)
    yield (service := started(place, None))
    service.engine.close()


def draws(service, first_seed, **how):
    prompt, out = prompts_of(service)[4], []  # drafts after it are kept, and rejected
    for start in range(first_seed, first_seed + DRAWS, ROWS):
        rows = written_with_seeds(service, prompt, range(start, start + ROWS), **how)
        out += [tuple(row.ids) for row in rows]
    return out


def written_with_seeds(service, prompt, seeds, **how):
    return written(service, [prompt] * len(seeds), True, each=[{"seed": seed} for seed in seeds], **{**HOW, **how})


def total_variation(a, b):
    """Between the frequencies of two arrays [N] of ids."""
    size = int(max(a.max(), b.max())) + 1
    return np.abs(np.bincount(a, minlength=size) / len(a) - np.bincount(b, minlength=size) / len(b)).sum() / 2


def check_same_distribution(ours, theirs):
    """The total variation at each place is what two samples of one distribution have, but for one chance in 1,000."""
    rng = np.random.default_rng(0)
    for place in range(TOKENS):
        a, b = (np.array([ids[place] if len(ids) > place else 0 for ids in each]) for each in (ours, theirs))
        found, both = total_variation(a, b), np.concatenate([a, b])
        by_chance = []
        for _ in range(1000):
            rng.shuffle(both)
            by_chance.append(total_variation(both[: len(a)], both[len(a) :]))
        print(f"place {place + 1}: {found:.3f}; by chance {np.mean(by_chance):.3f}, at most {max(by_chance):.3f}")
        assert found <= max(by_chance)


def test_lossless_sampling_has_the_distribution_of_plain_vllm(lossless, plain):
    check_same_distribution(draws(lossless, 0), draws(plain, 10_000))
    rows = written_with_seeds(lossless, prompts_of(lossless)[4], range(ROWS))
    assert sum(row.drafted for row in rows) > sum(row.accepted for row in rows) > 0  # drafts are kept, and rejected


def test_merged_sampling_has_the_distribution_of_generate_segments(merged, model):
    torch.manual_seed(1)
    ids = torch.tensor([prompts_of(merged)[4]] * 4 * DRAWS)
    how = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 0}
    theirs = model.generate_segments(ids, max_new_tokens=TOKENS, confidence=TAU, verify=False, **how)
    check_same_distribution(draws(merged, 20_000), [row.ids for row in theirs.rows])
    assert sum(row.macro_steps for row in theirs.rows) < 0.8 * TOKENS * 4 * DRAWS  # segments have several tokens


@pytest.mark.parametrize("name", ["lossless", "merged"])
def test_a_seed_gives_one_answer_whoever_is_written_beside_it(name, request, plain):
    service = request.getfixturevalue(name)
    prompt = prompts_of(service)[1]
    together = written_with_seeds(service, prompt, [5, 6, 7, 5], max_tokens=16)
    (alone,) = written_with_seeds(service, prompt, [5], max_tokens=16)
    assert together[0].ids == together[3].ids == alone.ids and together[1].ids != alone.ids
    first = [[row.ids[0] for row in written_with_seeds(each, prompt, range(ROWS))] for each in (service, plain)]
    assert first[0] == first[1]  # nothing has been drafted yet, and vLLM draws from the base


def test_merged_logprobs_and_penalties_are_those_of_generate_segments(merged, model):
    prompt = prompts_of(merged)[1]
    (row,) = written(merged, [prompt], False, max_tokens=24, logprobs=3)
    theirs = expected(model, prompt, 24, TAU, verify=False, topk=3)
    assert [ids for ids, _ in row.topk] == [ids for ids, _ in theirs.topk]
    for (_, ours), (_, other) in zip(row.topk, theirs.topk, strict=True):
        assert ours == pytest.approx(other, abs=1e-3)
    ours = direct(merged, prompt, repetition_penalty=1.5)
    assert ours == expected(model, prompt, 24, TAU, verify=False, repetition_penalty=1.5).ids != theirs.ids


def test_lossless_penalties_are_those_of_plain_vllm(lossless, plain):
    for how in ({"repetition_penalty": 1.5}, {"frequency_penalty": 1.0, "presence_penalty": 0.5}, {"min_tokens": 20}):
        for prompt in prompts_of(plain)[:3]:
            assert direct(lossless, prompt, **how) == direct(plain, prompt, **how)


@pytest.mark.parametrize("name", ["lossless", "merged"])
def test_requests_written_together_have_their_own_rules_and_ends(name, request, model):
    service, verify = request.getfixturevalue(name), name == "lossless"
    prompts = [prompts_of(service)[i] for i in (0, 0, 1, 1, 3)]
    how = [{"confidence": 0.5}, {"confidence": 1.5}, {"rule": "product"}, {"max_segment_length": 2}, {}]
    limits = [30, 9, 30, 7, 1]
    each = [{"micro_step": asked, "max_tokens": most} for asked, most in zip(how, limits, strict=True)]
    rows = written(service, prompts, True, each=each)
    theirs = [
        expected(model, prompt, most, **{"confidence": TAU, "verify": verify, **asked})
        for prompt, most, asked in zip(prompts, limits, how, strict=True)
    ]
    assert all(map(same, rows, theirs))
    if not verify:
        assert rows[0].ended and len(rows[0].segments[-1]) > 1  # the answer's end stands inside a segment


@pytest.mark.parametrize("name", ["lossless", "merged"])
def test_a_stop_string_of_vllm_ends_an_answer_inside_a_segment(name, request, model):
    service = request.getfixturevalue(name)
    found = [(prompt, expected(model, prompt, 24, TAU, verify=name == "lossless")) for prompt in prompts_of(service)]
    prompt, row = next((prompt, row) for prompt, row in found if any(len(ids) > 1 for ids in row.segments[1:]))
    starts = np.cumsum([0, *map(len, row.segments)]).tolist()
    place = next(a for a, b in zip(starts[1:], starts[2:], strict=False) if b - a > 1)  # where a longer segment begins
    decode = service.tokenizer.decode
    stop = decode(row.ids[: place + 1])[len(decode(row.ids[: place - 1])) :]
    ids = direct(service, prompt, stop=[stop])
    assert ids == row.ids[: len(ids)] and len(ids) <= place + 1 and stop in decode(ids)
    assert direct(service, prompt) == row.ids


@pytest.mark.parametrize("name", ["lossless", "merged"])
def test_what_is_not_supported_is_refused_before_the_engine_sees_it(name, request):
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import StructuredOutputsParams

    service = request.getfixturevalue(name)
    prompt = prompts_of(service)[0]
    refused = [
        {"min_p": 0.1, "temperature": 1}, {"logit_bias": {5: 1.0}}, {"logprobs": -1}, {"logprob_token_ids": [5]},
        {"structured_outputs": StructuredOutputsParams(regex="a+")}, {"extra_args": {"micro_step_tau": 1}},
        {"extra_args": {"micro_step_confidence": "high"}}, *([{"min_tokens": 3}] if name == "merged" else []),
    ]  # fmt: skip
    for how in refused:
        with pytest.raises((ValueError, VLLMValidationError), match=r"support|unknown|confidence|max_logprobs"):
            direct(service, prompt, **how)
    assert direct(service, prompt, logprobs=2, prompt_logprobs=1, bad_words=["the"])


def direct(service, prompt, **how):
    """The tokens that vLLM writes for its own settings."""
    from vllm import SamplingParams

    llm, ids = service.engine._llm, []
    ends = {"stop_token_ids": sorted(service._ends), "ignore_eos": True}
    params = SamplingParams(**{"temperature": 0, "max_tokens": 24, **ends, **how})
    llm.add_request("direct", {"prompt_token_ids": prompt}, params)
    while llm.has_unfinished_requests():
        for output in llm.step():
            ids = list(output.outputs[0].token_ids)
    return ids
