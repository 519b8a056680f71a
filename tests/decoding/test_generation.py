"""Writing segment by segment: equal to the base, to the forward pass, and to the row alone, wherever it must be."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from model.decoding.stopping import RULES
from model.errors import MicroStepError, TextError, TooLarge
from tests.support.micro_steps import BASES, MERGERS, forced, micro_step, ragged
from tests.support.tiny import EOS, PAD, save_tiny, tiny_model

pytestmark = pytest.mark.slow

PROMPTS = [9, 3, 17, 1, 12, 6, 20, 2, 5, 8, 4, 15, 7, 11, 10, 13]


def plain(model, ids, mask, **options) -> Tensor:
    """The base's own greedy answers."""
    options = {"max_new_tokens": 20, "do_sample": False, **options}
    return model.base.generate(ids, attention_mask=mask, **options)


@pytest.mark.parametrize("family", BASES)
def test_above_one_the_base_alone_writes(family):
    model = micro_step(family)
    ids, mask = ragged([9, 3, 17, 1])
    for rule in RULES:
        found = model.generate_segments(ids, mask, rule=rule, confidence=1.01, max_new_tokens=20)
        expected = plain(model, ids, mask)
        assert torch.equal(found.sequences[:, : expected.shape[1]], expected)
        assert all(row.macro_steps == len(row.ids) for row in found.rows)


@pytest.mark.parametrize("merger", MERGERS)
@pytest.mark.parametrize("family", BASES)
def test_step_by_step_equals_teacher_forced(family, merger):
    model = micro_step(family, merger=merger)
    ids, mask = ragged([9, 3, 17, 1])
    rule = forced(lambda s: [1, 4, 2, 3, 1, 2][s % 6])
    found = model.generate_segments(ids, mask, rule=rule, max_new_tokens=21, eos_token_id=None)
    width = ids.shape[1]
    starts = torch.cat([torch.ones_like(ids).bool(), found.segment_starts], 1)
    whole = torch.cat([mask, torch.ones_like(found.segment_starts).long()], 1)
    with torch.no_grad():
        logits = model(found.sequences, whole, starts).logits[:, width - 1 : -1]
    p = logits.softmax(-1)
    new = found.sequences[:, width:]
    assert torch.equal(logits.argmax(-1), new)
    assert torch.allclose(p.gather(2, new[..., None])[..., 0], found.probability, atol=1e-4)
    lengths = [len(segment) for segment in found.rows[0].segments]
    assert lengths == [1, 4, 2, 3, 1, 2, 1, 4, 2, 1]


@pytest.mark.parametrize(("family", "rule"), zip(["llama", "gemma3_text", "gpt2"], RULES, strict=True))
@pytest.mark.parametrize("verify", [False, True])
def test_rows_of_a_batch_of_sixteen_equal_single_runs(family, rule, verify):
    model = micro_step(family)
    ids, mask = ragged(PROMPTS)
    tau = {"confidence": 0.15, "product": 0.05, "stop_head": 0.5}[rule]
    options = {"rule": rule, "confidence": tau, "max_new_tokens": 24, "verify": verify}
    batch = model.generate_segments(ids, mask, **options)
    for i, n in list(enumerate(PROMPTS))[::3]:
        alone = model.generate_segments(ids[i : i + 1, -n:], **options)
        ours, theirs = batch.rows[i], alone.rows[0]
        assert ours.ids == theirs.ids and ours.starts == theirs.starts and ours.why == theirs.why
        assert (ours.macro_steps, ours.micro_steps) == (theirs.macro_steps, theirs.micro_steps)
        assert ours.probability == pytest.approx(theirs.probability, abs=1e-4)
    if not verify:
        lengths = {len(segment) for row in batch.rows for segment in row.segments}
        assert len(lengths) > 1, "every segment has one length: the test shows nothing"


def fitted(family: str, steps: int = 60):
    """A tiny model whose micro decoder has learnt something of its base's own answers."""
    model = micro_step(family, scrambled=False, decoding="lossless")
    ids, mask = ragged([6] * 32, seed=5)
    answers = plain(model, ids, mask, max_new_tokens=24, eos_token_id=None)
    chosen = [*model.micro.parameters()]
    for parameter in chosen:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(chosen, lr=3e-3)
    with torch.no_grad():
        states = model.macro(model.get_input_embeddings()(answers), torch.ones_like(answers), positions(answers))
    for _ in range(steps):
        at = torch.randint(5, answers.shape[1] - 4, (len(answers),))
        batch = torch.arange(len(answers))
        read = torch.stack([answers[batch, at + j] for j in (1, 2, 3)], 1)
        target = torch.stack([answers[batch, at + j] for j in (2, 3, 4)], 1)
        state, _ = model.micro(states.context[batch, at], model.get_input_embeddings()(read))
        logits = model.base.get_output_embeddings()(state)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), target.clamp(max=399).flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def positions(ids: Tensor) -> Tensor:
    return torch.arange(ids.shape[1]).expand_as(ids)


@pytest.mark.parametrize(
    ("family", "trained"),
    [("llama", True), ("gemma3_text", True), ("gpt2", False), ("mistral", False)],
)
def test_lossless_output_is_the_bases_on_two_hundred_prompts(family, trained):
    torch.manual_seed(0)
    model = fitted(family) if trained else micro_step(family)
    lengths = [1 + i % 12 for i in range(200)]
    ids, mask = ragged(lengths, seed=5 if trained else 3)
    expected = plain(model, ids, mask, max_new_tokens=16)
    found = model.generate_segments(ids, mask, confidence=0.0, max_new_tokens=16, verify=True)
    assert torch.equal(found.sequences[:, : expected.shape[1]], expected)
    if trained:
        assert sum(row.accepted for row in found.rows) > 30, "no draft was right: the test shows little"


def test_slots_of_refused_tokens_change_nothing_whenever_they_go(monkeypatch):
    model = fitted("llama")
    ids, mask = ragged([1 + i % 12 for i in range(40)], seed=5)
    expected = plain(model, ids, mask, max_new_tokens=24)
    slots = []
    for idle in (0.0, 0.1, 1.0):
        monkeypatch.setattr("model.decoding.lossless.MAX_IDLE", idle)
        found = model.generate_segments(ids, mask, confidence=0.0, max_new_tokens=24, verify=True)
        assert torch.equal(found.sequences[:, : expected.shape[1]], expected)
        slots.append(found.cache_slots)
    assert slots == sorted(slots) and slots[0] < slots[2]


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_lossless_with_penalties_and_a_draft_vocabulary_is_still_the_bases(family):
    model = micro_step(family, draft_vocabulary=list(range(5, 60)))
    ids, mask = ragged([9, 3, 17, 1])
    options = {"repetition_penalty": 1.3, "max_new_tokens": 20}
    found = model.generate_segments(ids, mask, confidence=0.0, verify=True, **options)
    for i, n in enumerate([9, 3, 17, 1]):
        expected = plain(model, ids[i : i + 1, -n:], None, **options)[0, n:].tolist()
        assert found.rows[i].ids == expected


def test_sampled_lossless_answers_have_the_bases_distribution():
    torch.manual_seed(0)
    model, count, top = fitted("llama"), 6000, 6
    prompt = ragged([6], seed=5)[0]
    options = {"do_sample": True, "temperature": 0.7, "top_k": top, "max_new_tokens": 3, "eos_token_id": None}
    found = model.generate_segments(prompt.expand(count, -1), verify=True, confidence=0.0, seed=1, **options)
    drafted, accepted = (sum(getattr(row, name) for row in found.rows) for name in ("drafted", "accepted"))
    assert accepted > 300 and drafted - accepted > 300, "the test shows little"

    def exact(ids: Tensor) -> dict[int, float]:
        best = (model.base(ids).logits[0, -1] / 0.7).topk(top)
        return dict(zip(best.indices.tolist(), best.values.double().softmax(0).tolist(), strict=True))

    with torch.no_grad():
        expected = {
            (a, b): p * q
            for a, p in exact(prompt).items()
            for b, q in exact(torch.cat([prompt, torch.tensor([[a]])], 1)).items()
        }
    pairs = Counter(map(tuple, found.sequences[:, 6:8].tolist()))
    assert set(pairs) <= set(expected)
    often = {pair for pair, p in expected.items() if p * count >= 5}
    chi2 = sum((pairs[pair] - count * expected[pair]) ** 2 / (count * expected[pair]) for pair in often)
    assert len(often) > 15
    assert chi2 < len(often) + 4 * math.sqrt(2 * len(often))  # four standard deviations above its mean


def test_an_answer_ends_with_its_end_token_exactly():
    model = micro_step()
    ids, mask = ragged([9, 3, 17, 1, 5, 8])
    free = model.generate_segments(ids, mask, confidence=0.0, max_new_tokens=30, eos_token_id=None)
    ends = [free.rows[0].ids[5], free.rows[1].ids[2], free.rows[2].ids[6]]
    for verify in (False, True):
        rows = model.generate_segments(
            ids, mask, confidence=0.0, max_new_tokens=30, eos_token_id=ends, pad_token_id=PAD, verify=verify
        )
        assert any(row.ended for row in rows.rows)
        for i, row in enumerate(rows.rows):
            assert not any(token in ends for token in row.ids[:-1])
            assert row.ended == (row.ids[-1] in ends)
            assert row.why[-1] == ("end" if row.ended else "limit")
            assert rows.sequences[i, ids.shape[1] + len(row.ids) :].eq(PAD).all()
            if not verify:
                assert row.ids == free.rows[i].ids[: len(row.ids)]


def test_never_more_tokens_than_asked_for():
    model = micro_step()
    ids, mask = ragged([4, 9])
    for new in (1, 2, 5, 7):
        for verify in (False, True):
            found = model.generate_segments(
                ids, mask, confidence=0.0, max_new_tokens=new, verify=verify, eos_token_id=None
            )
            assert [len(row.ids) for row in found.rows] == [new, new]
            assert found.sequences.shape == (2, 9 + new)


def test_processors_of_transformers_mean_the_same_here():
    model = micro_step()
    ids, _ = ragged([9])
    for options in (
        {"repetition_penalty": 1.4},
        {"no_repeat_ngram_size": 2},
        {"bad_words_ids": [[7], [300]]},
        {"min_new_tokens": 12, "eos_token_id": 50},
    ):
        expected = plain(model, ids, torch.ones_like(ids), **options)
        found = model.generate_segments(ids, confidence=1.1, max_new_tokens=20, **options)
        assert torch.equal(found.sequences, expected)


def test_sampling_repeats_with_its_seed_and_follows_the_distribution():
    model = micro_step()
    ids = ragged([5])[0].expand(4000, -1)
    options = {"do_sample": True, "temperature": 0.8, "top_p": 0.9, "max_new_tokens": 1}
    first = model.generate_segments(ids, seed=3, **options)
    assert torch.equal(first.sequences, model.generate_segments(ids, seed=3, **options).sequences)
    theirs = model.base.generate(ids, **options)
    a, b = (torch.bincount(s[:, -1], minlength=400) / 4000 for s in (first.sequences, theirs))
    assert (a - b).abs().sum() / 2 < 0.05


def test_the_rules_mean_what_they_say():
    model = micro_step()
    ids, mask = ragged(PROMPTS)
    for rule in ("confidence", "product"):
        found = model.generate_segments(ids, mask, rule=rule, confidence=0.1, max_new_tokens=24)
        for row in found.rows:
            bounds = [*row.starts, len(row.ids)]
            for s, (a, b) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
                inside = row.probability[a + 1 : b]
                product = math.prod(row.probability[a:b])
                assert all(p >= 0.1 for p in inside) if rule == "confidence" else (b - a == 1 or product >= 0.1)
                if row.why[s] == "unsure":
                    p = row.refused[s][1]
                    assert (p if rule == "confidence" else product * p) < 0.1
                elif row.why[s] == "cap":
                    assert b - a == 4


def test_a_shorter_cap_and_the_counts():
    model = micro_step()
    ids, mask = ragged([4, 9, 2])
    found = model.generate_segments(
        ids, mask, confidence=0.0, max_segment_length=3, max_new_tokens=12, eos_token_id=None
    )
    assert all([len(s) for s in row.segments] == [3, 3, 3, 3] and row.micro_steps == 8 for row in found.rows)
    assert found.macro_steps == 12 and found.new_tokens == 36 and found.tokens_per_macro_step == 3
    assert found.cache_slots == 9 + 3  # the last segment never enters it
    assert found.segment_starts.sum() == 12 and found.verified is False


def test_the_macro_cache_has_one_slot_a_segment_at_the_last_tokens_position(monkeypatch):
    model = micro_step()
    model.generate_segments(*ragged([4, 9]), max_new_tokens=1)  # what is tried once has been tried
    seen = []
    whole = type(model).macro
    monkeypatch.setattr(
        type(model),
        "macro",
        lambda self, e, mask, position, *rest: seen.append(position) or whole(self, e, mask, position, *rest),
    )
    ids, mask = ragged([4, 9])
    model.generate_segments(ids, mask, rule=forced(lambda s: [2, 3, 1][s % 3]), max_new_tokens=12, eos_token_id=None)
    assert torch.stack(seen[1:], 1)[0, :, 0].tolist() == [5, 8, 9, 11, 14]
    assert torch.stack(seen[1:], 1)[1, :, 0].tolist() == [10, 13, 14, 16, 19]


def test_words_kept_for_the_reader_are_the_likeliest():
    model = micro_step()
    found = model.generate_segments(ragged([5])[0], confidence=0.0, max_new_tokens=8, topk=5)
    for token, p, (ids, ps) in zip(found.rows[0].ids, found.rows[0].probability, found.rows[0].topk, strict=True):
        assert ids[0] == token and ps[0] == pytest.approx(p, abs=1e-5) and ps == sorted(ps, reverse=True)


class Kept(BaseStreamer):
    def __init__(self):
        self.tokens, self.over = [], False

    def put(self, value):
        self.tokens += value.flatten().tolist()

    def end(self):
        self.over = True


@pytest.mark.parametrize("verify", [False, True])
def test_a_streamer_and_a_callback_hear_every_token_once(verify):
    model = micro_step()
    ids, heard, streamer = ragged([5])[0], [], Kept()
    found = model.generate_segments(
        ids,
        confidence=0.0,
        max_new_tokens=13,
        verify=verify,
        streamer=streamer,
        on_segment=lambda i, row: heard.append(list(row.ids)),
    )
    assert streamer.tokens == found.sequences[0].tolist() and streamer.over
    assert heard[-1] == found.rows[0].ids


def test_a_callback_that_raises_stops_the_run():
    def stop(i, row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        micro_step().generate_segments(ragged([5])[0], on_segment=stop)


@pytest.mark.parametrize("verify", [False, True])
def test_stop_strings(tmp_path, verify):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(save_tiny(tmp_path / "m", "llama"))
    model = micro_step()
    ids = ragged([5])[0]
    options = {"confidence": 0.0, "max_new_tokens": 20, "verify": verify, "eos_token_id": None}
    free = model.generate_segments(ids, **options)
    word = next(w for w in map(tokenizer.decode, free.rows[0].ids[1:]) if w.isascii())
    found = model.generate_segments(ids, **options, stop_strings=[word], tokenizer=tokenizer)
    row = found.rows[0]
    assert word in tokenizer.decode(row.ids) and word not in tokenizer.decode(row.ids[:-1])
    assert row.ids == free.rows[0].ids[: len(row.ids)]
    assert row.ended and row.why[-1] == "end"
    with pytest.raises(MicroStepError, match="stop strings need the tokenizer"):
        model.generate_segments(ids, stop_strings=["a"])


def test_generate_is_transformers_own_in_form():
    model = micro_step()
    ids, mask = ragged([4, 9])
    sequences = model.generate(ids, attention_mask=mask, max_new_tokens=7, confidence=0.2)
    assert torch.equal(sequences, model.generate_segments(ids, mask, max_new_tokens=7, confidence=0.2).sequences)


def test_what_cannot_be_written_is_refused():
    model = micro_step(stop_head=False)
    ids, mask = ragged([4, 9])
    with pytest.raises(MicroStepError, match="no stopping rule 'sure'; choose from confidence"):
        model.generate_segments(ids, mask, rule="sure")
    with pytest.raises(MicroStepError, match="needs a stop head"):
        model.generate_segments(ids, mask, rule="stop_head")
    with pytest.raises(MicroStepError, match="1 to 4 tokens, got 5"):
        model.generate_segments(ids, mask, max_segment_length=5)
    with pytest.raises(MicroStepError, match="padded on the left"):
        model.generate_segments(ids.flip(1), mask.flip(1))
    with pytest.raises(MicroStepError, match="num_beams is 2"):
        model.generate_segments(ids, mask, num_beams=2)
    with pytest.raises(MicroStepError, match="a streamer takes one prompt"):
        model.generate_segments(ids, mask, streamer=Kept())
    with pytest.raises(TextError, match="no text to continue"):
        model.generate_segments(ids[:, :0])
    with pytest.raises(TooLarge, match="the model's context holds 512"):
        model.generate_segments(ids, mask, max_new_tokens=600)


def test_an_answer_may_end_at_once():
    base = tiny_model("llama")
    model = micro_step()
    ids, mask = ragged([4, 9])
    first = model.generate_segments(ids, mask, max_new_tokens=1).rows
    ends = [row.ids[0] for row in first]
    for verify in (False, True):
        found = model.generate_segments(ids, mask, eos_token_id=ends, verify=verify)
        assert [row.ids for row in found.rows] == [[e] for e in ends]
        assert [row.why for row in found.rows] == [["end"], ["end"]] and found.macro_steps == 2
    assert base.config.eos_token_id == EOS
