"""What a generation says of itself, counted and computed again in the slowest way: passes, probabilities, ends."""

from __future__ import annotations

import pytest
import torch

from analysis.generation.request import GenerationRequest
from analysis.generation.result import Decoding
from benchmarks.speed.compare import compare
from benchmarks.speed.decoders import load_models
from benchmarks.speed.options import ComparedModelOptions, DecodeOptions
from benchmarks.speed.prompts import prompt_ids
from data.distill.run import DistillOptions, Prompt
from data.distill.writing import AnswerWriter
from model.decoding.generation_config import end_ids
from model.decoding.sampling import probability_of
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.text.document import Message, TextInput
from tests.decoding.test_generation import fitted, plain
from tests.support.micro_steps import micro_step, ragged
from tests.support.tiny import save_tiny

pytestmark = pytest.mark.slow

LENGTHS = [9, 3, 17, 1, 6]
SAMPLED = {"do_sample": True, "temperature": 0.9, "top_k": 0}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return fitted("llama")


def counted(model, monkeypatch, ids, mask, **options):
    """A generation, and how many rows were in each pass of the base."""
    rows, whole = [], type(model).macro
    monkeypatch.setattr(type(model), "macro", lambda self, e, *rest: rows.append(len(e)) or whole(self, e, *rest))
    found = model.generate_segments(ids, mask, **options)
    monkeypatch.undo()
    return found, rows


@pytest.mark.parametrize("verify", [False, True])
@pytest.mark.parametrize("settings", [{}, SAMPLED, {"repetition_penalty": 1.3}])
def test_passes_are_those_that_were_run(model, monkeypatch, verify, settings):
    """Of lossless decoding the last pass was left out where an end token stood within its draft: 7/5 for 7/6."""
    ids, mask = ragged([6] * 8, seed=5)
    how = {"verify": verify, "confidence": 0.0, "seed": 0, "max_new_tokens": 16, **settings}
    within = 0
    for i in range(len(ids)):
        one = slice(i, i + 1)
        (free,) = model.generate_segments(ids[one], mask[one], eos_token_id=None, **how).rows
        # words that the micro decoder wrote, and that were not there before
        late = [at for at, token in enumerate(free.ids) if at not in free.starts and token not in free.ids[:at]]
        for at in late[:1]:
            found, rows = counted(model, monkeypatch, ids[one], mask[one], eos_token_id=free.ids[at], **how)
            (row,) = found.rows
            inside = verify and row.why[-1] == "end" and len(row.ids) - row.starts[-1] > 1
            assert row.macro_steps == found.macro_steps == sum(rows) == len(row.starts) + inside
            assert row.ended == (row.ids[-1] == free.ids[at])
            within += inside
    found, rows = counted(model, monkeypatch, ids, mask, eos_token_id=list(range(50)), **how)
    assert found.macro_steps == sum(rows)
    assert within > 1 or not verify, "no draft held an end: the test shows nothing"


@pytest.mark.parametrize("words", [(), tuple(range(5, 205))])
@pytest.mark.parametrize("settings", [{}, SAMPLED, {"repetition_penalty": 1.6}])
def test_a_refused_word_has_its_own_probability(settings, words):
    """It was the likeliest word's: .307 for .081 of the word that was drawn."""
    model = micro_step("llama", draft_vocabulary=list(words))
    ids, mask = ragged(LENGTHS, seed=5)
    found = model.generate_segments(
        ids, mask, verify=True, confidence=0.06, seed=1, max_new_tokens=20, eos_token_id=None, **settings
    )
    seen = {"unsure": 0, "disagreed": 0}
    for row in found.rows:
        for s, start in enumerate(row.starts):
            if row.refused[s] is None:
                continue
            token, told = row.refused[s]
            end = row.starts[s + 1] if s + 1 < len(row.starts) else len(row.ids)
            if row.why[s] == "disagreed":
                exact = base_probability(model, row.prompt + row.ids[:end], token)
            else:
                exact = draft_probability(model, row.prompt + row.ids[:start], row.ids[start:end], token)
            assert told == pytest.approx(exact, rel=1e-3, abs=1e-6)
            seen[row.why[s]] += 1
    assert all(seen.values()), seen


def base_probability(model, before, token):
    """Of the base, reading everything again."""
    with torch.no_grad():
        return float(model.base(torch.tensor([before])).logits[0, -1].double().softmax(-1)[token])


def draft_probability(model, before, segment, token):
    """Of the micro decoder over the words that it may draft, reading everything again, without a cache."""
    embed = model.get_input_embeddings()
    with torch.no_grad():
        whole = torch.tensor([before])
        macro = model.macro(embed(whole), torch.ones_like(whole), torch.arange(len(before))[None])
        states, _ = model.micro(macro.context[:, -1], embed(torch.tensor([segment])))
        logits = model.base.get_output_embeddings()(states[:, -1]).double()
        words = model.config.draft_vocabulary or list(range(logits.shape[-1]))
        small = torch.full_like(logits, float("-inf"))
        small[:, words] = logits[:, words]
        return float(probability_of(small, torch.tensor([token])))


@pytest.mark.parametrize("settings", [{}, SAMPLED])
@pytest.mark.parametrize("verify", [False, True])
def test_the_probability_of_each_word_is_what_wrote_it(model, verify, settings):
    """In lossless decoding all are the base's; merged, by reading all segments again."""
    ids, mask = ragged(LENGTHS, seed=5)
    found = model.generate_segments(
        ids, mask, verify=verify, confidence=0.0, seed=3, max_new_tokens=12, eos_token_id=None, **settings
    )
    for i, row in enumerate(found.rows):
        n = len(row.prompt)
        whole = torch.tensor([row.prompt + row.ids])
        starts = torch.zeros_like(whole, dtype=torch.bool)
        starts[:, :n] = True
        starts[0, torch.tensor(row.starts) + n] = True
        if verify:
            starts[:] = True
        with torch.no_grad():
            p = model(whole, None, starts).logits[0, n - 1 : -1].softmax(-1)
        exact = p[torch.arange(len(row.ids)), torch.tensor(row.ids)]
        assert torch.tensor(row.probability).allclose(exact, rtol=1e-3, atol=1e-6)
        assert found.segment_starts[i].nonzero()[:, 0].tolist() == row.starts


def test_why_a_draft_has_no_more_words_is_said(model):
    """The stop head's refusals, and answers of one token a segment above tau 1, were told as segments of M tokens."""
    ids, mask = ragged(LENGTHS, seed=5)
    options = {"max_new_tokens": 9, "eos_token_id": None}
    for verify in (False, True):
        for rule in ("confidence", "stop_head"):
            found = model.generate_segments(ids, mask, rule=rule, confidence=1.1, verify=verify, **options)
            whys = [why for row in found.rows for why in row.why]
            assert set(whys[:-1]) <= {"unsure", "limit"} and all(row.why[-1] == "limit" for row in found.rows)
            assert found.macro_steps == 9 * len(LENGTHS)
        capped = model.generate_segments(ids, mask, confidence=0.0, verify=verify, max_segment_length=1, **options)
        assert {why for row in capped.rows for why in row.why[:-1]} == {"cap"}
    for row in model.generate_segments(ids, mask, rule="stop_head", confidence=0.55, verify=True, **options).rows:
        lengths = [len(segment) for segment in row.segments]
        assert all(n == 4 for n, why in zip(lengths, row.why, strict=True) if why == "cap")


def test_a_model_saved_whole_ends_where_it_ended(tmp_path):
    """The base inside it ended by its configuration, and wrote past the end that the model knows."""
    model = micro_step("llama")
    model.base.config.eos_token_id = 399
    model.config.base_config.eos_token_id = 399
    ids, mask = ragged(LENGTHS)
    free = plain(model, ids, mask, max_new_tokens=12, eos_token_id=None)
    ends = [int(free[0, ids.shape[1] + 4]), int(free[1, ids.shape[1] + 6])]
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = ends, 3
    model.save_pretrained(tmp_path)
    again = MicroStepForCausalLM.from_pretrained(tmp_path)
    assert end_ids(again) == end_ids(again.base) == ends
    expected = again.base.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=12)
    found = again.generate_segments(ids, mask, confidence=1.1, max_new_tokens=12)
    assert torch.equal(found.sequences, expected) and any(row.ended for row in found.rows)


@pytest.fixture
def beside(tmp_path):
    """A model whose modules are saved beside a reference to its base, and which ends elsewhere than the base does."""
    base = save_tiny(tmp_path / "base", "llama", chat=True)
    loaded = load(ModelSpec(str(base)))
    model = MicroStepForCausalLM.from_base(loaded.model, loaded.tokenizer)
    model.generation_config.eos_token_id = list(range(0, 400, 3))
    model.save_modules(tmp_path / "model", str(base))
    return str(tmp_path / "model")


def test_the_base_beside_a_model_ends_where_the_model_does(beside):
    """Wherever a base answers: on the page, in benchmarks, and when answers are made to train on."""
    loaded = load(ModelSpec(beside))
    assert end_ids(loaded.model) != end_ids(loaded.model.base)
    asked = GenerationRequest(ModelSpec(beside), TextInput.plain("the cat"), how=Decoding(tau=1.1, max_new_tokens=24))
    found = asked.run(lambda spec: loaded)
    assert found.agreement.equal and len(found.micro) < 24
    models = load_models(ComparedModelOptions(model=[beside]))
    prompts = {"made": [prompt_ids(text, models.tokenizer) for text in ("the cat", "a dog")]}
    report = compare(models, prompts, DecodeOptions(confidence=(1.1,), max_new_tokens=24, repeats=1))
    assert report["agreement"] == report["nll_ratio"] == report["rows"][1]["identical"][0] == 1
    writer = AnswerWriter(loaded, DistillOptions(max_new_tokens=24))
    (answer,) = writer.answer([Prompt("s", 0, (Message("user", "the cat"),))], 0, lambda tokens, answers: None)
    assert answer.ended and end_ids(writer._model) == end_ids(loaded.model)
