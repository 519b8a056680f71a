"""A base's answers are its own, whatever stands beside them, and are gone on with after a kill."""

import copy
import dataclasses
import json
import random
import signal
import sys
import time
from contextvars import ContextVar
from pathlib import Path

import pytest
import torch

import data
from data.distill.answers import shard_name
from data.distill.examples import distill_examples, prompt_of
from data.distill.run import DistillOptions, Prompt, count_distilled, distill, read_distilled
from data.distill.writing import AnswerWriter
from data.examples import TABLE, Example, read_examples, write_examples
from model.errors import ExportError, MicroStepError, TextError, TooLarge
from model.hub.loading import ModelSpec, load
from model.terminal import start
from model.text.document import Message
from tests.support.processes import Forked
from tests.support.templates import DATED
from tests.support.tiny import CORPUS, save_tiny

pytestmark = pytest.mark.slow

DEMO = Path(data.__file__).parent / "demo" / "tiny-sft"
OPTIONS = DistillOptions(max_new_tokens=12, batch_rows=3, shard_prompts=5)


def asked(texts, source="them"):
    return [Prompt(source, i, (Message("user", text),)) for i, text in enumerate(texts)]


TEXTS = [text[:n] for n, text in zip((9, 50, 3, 30, 1, 40, 20, 60), CORPUS, strict=True)] + ["So", "And then?"]
PROMPTS = asked(TEXTS)


@pytest.fixture(scope="module")
def sft(models):
    return load(ModelSpec(str(models["sft"])))


@pytest.fixture(scope="module")
def demo():
    return load(ModelSpec(str(DEMO)))


def files(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def generated(loaded, text, new):
    """Ids that transformers' own `generate` writes for one prompt alone, until an end."""
    tokenizer, model = loaded.tokenizer, loaded.model
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": text}]
        text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(text)["input_ids"]
    with torch.inference_mode():
        out = model.generate(torch.tensor([ids]), max_new_tokens=new, do_sample=False, repetition_penalty=1.0)
    return out[0, len(ids) :].tolist()


# --- answers


@pytest.mark.parametrize("name", ["sft", "other", "demo"])
def test_greedy_answers_are_those_of_generate_for_each_prompt_alone(models, tmp_path, name):
    loaded = load(ModelSpec(str(DEMO if name == "demo" else models[name])))
    new = 40 if name == "demo" else 12
    options = DistillOptions(max_new_tokens=new, batch_rows=4, shard_prompts=7)
    found = distill(lambda: loaded, PROMPTS, tmp_path / "out", options)
    answers = list(read_distilled(tmp_path / "out"))
    assert [(each.number, each.messages[:-1]) for each in answers] == [(p.number, p.messages) for p in PROMPTS]
    ends = loaded.model.generation_config.eos_token_id
    ends = ends if isinstance(ends, list) else [ends]
    for text, answer in zip(TEXTS, answers, strict=True):
        ids = generated(loaded, text, new)
        assert answer.ended == (ids[-1] in ends)
        ids = ids[:-1] if answer.ended else ids
        assert answer.tokens == len(ids)
        assert answer.text == loaded.tokenizer.decode(ids, skip_special_tokens=False).rstrip("\ufffd")
        assert answer.messages[-1].role == "assistant"
    assert found.complete and found.answers == len(PROMPTS) and found.refused == 0
    assert found.tokens == sum(each.tokens for each in answers) and found.ended == sum(each.ended for each in answers)
    if name == "demo":
        assert found.ended > 0


def test_an_answer_that_was_cut_off_is_not_ended_and_one_more_token_would_not_change_its_start(demo, tmp_path):
    (short,) = _answers(demo, tmp_path / "short", PROMPTS[:1], 3)
    (longer,) = _answers(demo, tmp_path / "longer", PROMPTS[:1], 4)
    assert not short.ended and short.tokens == 3 and longer.text.startswith(short.text)


def _answers(loaded, out, prompts, new=12, **options):
    distill(lambda: loaded, prompts, out, DistillOptions(max_new_tokens=new, **options))
    return list(read_distilled(out))


def test_what_cannot_be_answered_is_kept_empty_with_its_reason(sft, tmp_path):
    long = "word " * 600
    prompts = asked(["a", long, "b"])
    answers = _answers(sft, tmp_path / "out", prompts)
    assert [each.problem is None for each in answers] == [True, False, True]
    assert "do not fit the model's context of 512" in answers[1].problem
    assert answers[1].empty and answers[1].tokens == 0 and not answers[1].ended
    found = count_distilled(tmp_path / "out")
    assert (found.refused, found.answers) == (1, 3) and found.refusal == answers[1].problem


def test_a_model_without_a_template_reads_the_raw_prompt_and_an_empty_one_is_refused(models, tmp_path):
    loaded = load(ModelSpec(str(models["base"])))
    answers = _answers(loaded, tmp_path / "out", asked(["", "The quick"]))
    assert answers[0].problem == "the prompt is empty" and answers[1].tokens > 0


def test_a_micro_step_models_base_answers(sft, tmp_path):
    from dataclasses import replace

    from model.micro_step.modeling import MicroStepForCausalLM

    around = MicroStepForCausalLM.from_base(sft.model, sft.tokenizer).eval()
    a = _answers(sft, tmp_path / "a", PROMPTS)
    b = _answers(replace(sft, model=around), tmp_path / "b", PROMPTS)
    assert a == b


def test_sampling_follows_the_seed(sft, tmp_path):
    def texts(name, **options):
        return [each.text for each in _answers(sft, tmp_path / name, PROMPTS, temperature=1.5, batch_rows=3, **options)]

    state = torch.random.get_rng_state()
    assert texts("a") == texts("b") != texts("c", seed=1)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_batches_hold_prompts_of_like_lengths(sft):
    writer = AnswerWriter(sft, DistillOptions(max_new_tokens=10, batch_rows=3))
    lengths = [5, 200, 7, 30, 6, 90, 100, 28]
    asked = [type("Asked", (), {"place": i, "ids": (1,) * n})() for i, n in enumerate(lengths)]
    batches = [[len(each.ids) for each in batch] for batch in writer._batches(asked)]
    assert batches == [[200, 100], [90], [30, 28], [7, 6, 5]]
    for batch in batches:
        assert all(2 * (n + 10) >= batch[0] + 10 for n in batch) and len(batch) <= 3


def test_rows_of_a_batch_follow_the_memory(sft, monkeypatch, tmp_path):
    most = AnswerWriter(sft, DistillOptions()).options.batch_rows
    room = AnswerWriter(sft, DistillOptions())._room(most, 1024)
    monkeypatch.setattr("data.distill.writing.available_memory", lambda device: room)
    assert AnswerWriter(sft, DistillOptions()).options.batch_rows < most
    monkeypatch.setattr("data.distill.writing.available_memory", lambda device: 1000)
    with pytest.raises(TooLarge, match="answers at once need .* give fewer rows a batch"):
        distill(lambda: sft, PROMPTS, tmp_path / "out", OPTIONS)


# --- the folder


def test_a_finished_folder_stays_as_it_is_and_another_run_is_refused_by_name(sft, models, tmp_path):
    out = tmp_path / "out"
    distill(lambda: sft, PROMPTS, out, OPTIONS)
    before = files(out)
    distill(lambda: sft, PROMPTS, out, OPTIONS)
    assert files(out) == before
    other = load(ModelSpec(str(models["base"])))
    for load_model, prompts, options, odd in (
        (lambda: other, PROMPTS, OPTIONS, r"revision .*chat_template_hash"),
        (lambda: sft, PROMPTS[1:], OPTIONS, r"prompts sha256 .*prompts count \(10 there, 9 now\)"),
        (lambda: sft, PROMPTS, DistillOptions(max_new_tokens=13, batch_rows=3, shard_prompts=5), "max_new_tokens"),
        (lambda: sft, PROMPTS, DistillOptions(max_new_tokens=12, batch_rows=4, shard_prompts=5), "batch_rows"),
    ):
        with pytest.raises(ExportError, match=f"begun with something else: {odd}"):
            distill(load_model, prompts, out, options)
    assert files(out) == before
    distill(lambda: sft, PROMPTS, out, DistillOptions(max_new_tokens=12, shard_prompts=5))  # rows as they were begun


def test_a_damaged_shard_is_said_and_made_anew(sft, tmp_path):
    out = tmp_path / "out"
    distill(lambda: sft, PROMPTS, out, OPTIONS)
    before = files(out)
    shard = out / shard_name(1)
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(TextError, match=r"answers-00001.jsonl is damaged"):
        list(read_distilled(out))
    distill(lambda: sft, PROMPTS, out, OPTIONS)
    assert files(out) == before
    shard.unlink()
    with pytest.raises(TextError, match="is missing"):
        list(read_distilled(out))
    part = list(read_distilled(out, allow_incomplete=True))
    assert len(part) == 5 and not count_distilled(out).complete


@pytest.mark.parametrize("content", [None, "not json", '{"format": "another"}', '{"format": "micro_step answers 1"}'])
def test_a_folder_of_something_else_is_refused(sft, tmp_path, content):
    out = tmp_path / "out"
    out.mkdir()
    (out / ("manifest.json" if content else "letter.txt")).write_text(content or "x")
    with pytest.raises(MicroStepError):
        list(read_distilled(out))
    if content != "not json":
        with pytest.raises(MicroStepError):
            distill(lambda: sft, PROMPTS, out, OPTIONS)


@pytest.mark.parametrize(
    "options", [{"max_new_tokens": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"batch_rows": 0}, {"shard_prompts": 0}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(MicroStepError, match=next(iter(options))):
        DistillOptions(**options)


def test_progress_tells_answers_tokens_rate_and_time(sft, tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr("model.progress.INTERVAL", ContextVar("at once", default=0.0))
    distill(lambda: sft, PROMPTS, tmp_path / "out", OPTIONS, lambda *each: told.append(each))
    message, share = told[-1]
    assert message.startswith("10 of 10 answers, ") and "tokens/s, about 0:00:00 left" in message and share == 1.0
    assert all(a <= b for (_, a), (_, b) in zip(told, told[1:], strict=False))


# --- killed


def _start(model, out):
    """The body of a started process."""
    torch.set_num_threads(1)
    distill(lambda: load(ModelSpec(str(model))), KILLED, out, SAMPLED)


KILLED = asked([f"{text[:15]} {i}" for i in range(12) for text in CORPUS])
SAMPLED = DistillOptions(max_new_tokens=24, temperature=1.0, top_p=0.9, batch_rows=3, shard_prompts=4)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_killed_and_started_again_equals_an_undisturbed_run(models, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    _start(models["sft"], whole)
    draw, seen = random.Random(3), 0
    for _ in range(4):
        process = Forked(_start, models["sft"], killed)
        process.until(lambda seen=seen: len(list(killed.glob("answers-*.jsonl"))) > seen)
        time.sleep(draw.uniform(0, 0.2))
        assert process.killed() == -signal.SIGKILL, "the run had ended before it was killed"
        seen = len(list(killed.glob("answers-*.jsonl")))
        part = list(read_distilled(killed, allow_incomplete=True))
        assert part == list(read_distilled(whole))[: len(part)]
    assert 4 <= seen < len(KILLED) // 4
    _start(models["sft"], killed)
    assert files(killed) == files(whole)


# --- examples


def examples():
    def example(number, *turns, **more):
        return Example("them", number, tuple(Message(*turn) for turn in turns), **more)

    return [
        example(0, ("user", "What is 2 + 2?"), ("assistant", "4"), held_out=True),
        example(4, ("text", "A plain text.")),
        example(5, ("system", "Be short."), ("user", "Hello"), repeat=3),
        example(6, ("user", "One"), ("assistant", "two"), ("user", "three"), ("assistant", "four"), ended=False),
    ]


def test_responses_are_replaced_and_all_else_stays(demo, tmp_path):
    given = examples()
    write_examples(tmp_path, given)
    found = distill_examples(lambda: demo, tmp_path, tmp_path / "out", DistillOptions(max_new_tokens=16))
    made = list(read_examples(tmp_path / "out"))
    assert found.prompts == 3 and len(made) == 4
    assert made[1] == given[1]
    for old, new, answer in zip(
        [given[0], given[2], given[3]], [made[0], *made[2:]], read_distilled(tmp_path / "out"), strict=True
    ):
        assert new.messages[:-1] == prompt_of(old).messages == answer.messages[:-1]
        assert new.response == answer.text and new.ended == answer.ended
        assert (new.source, new.number, new.held_out, new.repeat) == (old.source, old.number, old.held_out, old.repeat)


def test_nothing_to_answer_is_one_clear_line(demo, tmp_path):
    write_examples(tmp_path, examples()[1:2])
    with pytest.raises(TextError, match="plain texts without prompts"):
        distill_examples(lambda: demo, tmp_path, tmp_path / "out")


@pytest.fixture
def call(monkeypatch, capfd):
    """Run `micro-step data distill` here; gives its exit code, standard output and the lines of standard error."""

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["micro-step", "data", "distill", *map(str, words)])
        code = 0
        try:
            start()
        except SystemExit as leave:
            code = leave.code or 0
        said = capfd.readouterr()
        return code, said.out, said.err.strip().splitlines()

    return run


def test_the_command_answers_examples_and_says_what_it_did(call, tmp_path):
    write_examples(tmp_path, examples())
    out = tmp_path / "out"
    words = (tmp_path, "--model", DEMO, "--out", out, "--max-new-tokens", 16, "--limit", 3)
    code, said, errors = call(*words)
    assert code == 0 and said.strip() == str(out) and errors[-1].startswith("2 answers, ")
    assert len(list(read_examples(out))) == 3
    assert json.loads((out / "manifest.json").read_text())["options"]["max_new_tokens"] == 16
    before = files(out)
    assert call(*words)[0] == 0 and files(out) == before
    code, _, errors = call(*words, "--seed", 2)
    assert code == 1 and errors[-1].startswith("Error: ") and "seed (0 there, 2 now)" in errors[-1]


@pytest.mark.parametrize(
    "words",
    [
        ("nowhere", "--model", DEMO, "--out", "{}/out"),
        ("{}", "--model", "no such model", "--out", "{}/a/b"),
        ("{}", "--model", DEMO, "--out", "{}/out", "--top-p", "2"),
        ("{}", "--model", DEMO, "--out", "{}/examples.parquet"),
    ],
)
def test_wrong_input_is_one_line_and_leaves_nothing(call, tmp_path, words):
    write_examples(tmp_path, examples())
    before = (tmp_path / TABLE).read_bytes()
    code, _, errors = call(*(str(word).format(tmp_path) for word in words))
    assert code and [line for line in errors if line.startswith("Error: ")] == errors[-1:]
    assert [path.name for path in tmp_path.iterdir()] == [TABLE] and (tmp_path / TABLE).read_bytes() == before


def test_a_tiny_models_special_tokens_stay_in_the_text(tmp_path):
    folder = save_tiny(tmp_path / "model", "llama", seed=5, chat=True)
    loaded = load(ModelSpec(str(folder)))
    for answer in _answers(loaded, tmp_path / "out", PROMPTS, 24):
        assert "\ufffd" not in answer.text[-1:] or answer.ended


def test_all_prompts_of_a_folder_are_of_the_day_that_it_was_begun(sft):
    """A run over midnight, or one that went on later, asked with two dates."""
    tokenizer = copy.deepcopy(sft.tokenizer)
    tokenizer.chat_template = DATED
    dated = dataclasses.replace(sft, tokenizer=tokenizer)
    writer = AnswerWriter(dated, DistillOptions(batch_rows=1), {"template_date": "2024-02-29"})
    assert writer.options.template_date == "2024-02-29"
    ids = writer._read(Prompt("s", 0, (Message("user", "hi"),)))
    assert tokenizer.decode(ids).startswith("Today: 29 Feb 2024")
    assert AnswerWriter(sft, DistillOptions(batch_rows=1)).options.template_date is None
