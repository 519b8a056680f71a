"""The benchmarks: their documents, prompts and scores beside the harness's own, and what a run of them keeps."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from evals import scoring
from evals.aggregate import averages
from evals.answers.programs import NO_PROGRAM
from evals.answers.result import ONLY_REASONING
from evals.benchmark import benchmarks, documents, find_benchmark, stock_config, task_of
from evals.options import EvalOptions
from evals.report import tables
from evals.report.score_rows import read_folder, report_rows
from evals.run import evaluate
from evals.samples import file_name, read_samples
from evals.sandbox.calls import examine, serve
from evals.sandbox.runner import Sandbox, Verdict
from evals.scoring import JUDGES, Response, ScoringContext
from model.errors import MicroStepError, ModelError, TextError, TooLarge
from tests.support.answer_forms import PROGRAMS
from tests.support.evaluations import OPTIONS, SUMS, chosen
from tests.support.tiny import tiny_tokenizer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def done(micro, local, tmp_path_factory):
    """A run of everything that runs no programs, at two values of tau."""
    out = tmp_path_factory.mktemp("runs") / "micro"
    names = [name for name, each in benchmarks().items() if not each.runs_code]
    evaluate(lambda: micro, chosen(*names), [0.1, 1.1], out, local, OPTIONS)
    return out


# --- benchmarks and documents


@pytest.mark.parametrize("name", list(benchmarks()))
def test_each_benchmark_reads_and_asks(name, local):
    benchmark = find_benchmark(name)
    found = documents(benchmark, local, None)
    task = task_of(benchmark, found, None)
    task.build_all_requests()
    assert len({instance.doc_id for instance in task.instances}) == len(found)
    for instance in task.instances:
        assert "\\n" not in instance.args[0]  # line breaks are real ones
    assert benchmark.judge in JUDGES


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, each in benchmarks().items()
        if each.stock and not {"doc_to_text", "gen_prefix"} & each.config.keys()  # whose words are ours
    ],
)
def test_prompts_are_the_harnesss(name, local):
    """Beside its own task, whose file is read anew, on the same documents."""
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    benchmark = find_benchmark(name)
    found = documents(benchmark, local, None)
    config = stock_config(benchmark.stock)
    if "fewshot_config" in benchmark.config:  # where it is code
        config["fewshot_config"] = {"sampler": "first_n", "samples": _few_shots()}
    config |= {"task": name, "test_split": "test", "custom_dataset": lambda **_: {"test": Dataset.from_list(found)}}
    stock = ConfigurableTask(config=config)
    if stock.config.num_fewshot is None:
        stock.set_config("num_fewshot", 0)
    ours = task_of(benchmark, found, None)
    for task in (stock, ours):
        task.build_all_requests()
    assert [each.args[0] for each in ours.instances] == [each.args[0] for each in stock.instances]
    if benchmark.judge != "gsm8k":
        return
    assert [each.args[1] for each in ours.instances] == [each.args[1] for each in stock.instances]


def _few_shots():
    """MBPP's three examples out of the harness's source, which cannot be imported with no network."""
    import ast

    import lm_eval.tasks

    tree = ast.parse((Path(lm_eval.tasks.__file__).parent / "mbpp/utils.py").read_text("utf-8"))
    (function,) = (node for node in tree.body if getattr(node, "name", None) == "list_fewshot_samples")
    return ast.literal_eval(function.body[0].value)


def test_a_forced_prefix_stands_where_it_is_asked_for_alone(local):
    for name, there in (("arc_challenge_prefix", True), ("arc_challenge_free", False)):
        benchmark = find_benchmark(name)
        task = task_of(benchmark, documents(benchmark, local, 1), None)
        task.build_all_requests()
        assert task.instances[0].args[0].endswith("The best answer is") == there


def test_a_whole_function_is_asked_for_as_a_begun_one_without_its_beginning(local):
    asked = []
    for name in ("humaneval_instruct", "humaneval_whole"):
        benchmark = find_benchmark(name)
        (document,) = documents(benchmark, local, 1)
        task = task_of(benchmark, [document], None)
        task.build_all_requests()
        asked.append(task.instances[0].args[0])
    begun, whole = asked
    assert whole.endswith("```python\n") and begun == whole + document["prompt"] + "\n"


def test_only_the_test_split_of_mbpp_is_asked(local):
    assert [each["task_id"] for each in documents(find_benchmark("mbpp"), local, None)] == [11, 510]


def test_data_of_another_kind_is_named(tmp_path):
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k/test.jsonl").write_text('{"text": "no sum"}\n')
    with pytest.raises(TextError, match="gsm8k_cot: a record is not one of openai/gsm8k.*it has text"):
        documents(find_benchmark("gsm8k_cot"), tmp_path, None)
    with pytest.raises(TextError, match="arc_challenge"):
        documents(find_benchmark("arc_challenge"), tmp_path, None)


# --- scores


def test_scores_are_the_harnesss_own(micro, local, tmp_path):
    """Its evaluator over its own task and our model, beside our samples; the prompts are numbers apart, not words."""
    import lm_eval
    from datasets import Dataset
    from lm_eval.api.task import ConfigurableTask

    from evals.harness import MicroStepLM

    found = documents(find_benchmark("arc_challenge"), local, None)
    config = {**stock_config("arc/arc_challenge.yaml"), "task": "arc", "test_split": "test"}
    config["metric_list"] = [
        {"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")
    ]
    task = ConfigurableTask(config={**config, "custom_dataset": lambda **_: {"test": Dataset.from_list(found)}})
    task.set_config("num_fewshot", 0)
    theirs = lm_eval.evaluate(MicroStepLM(micro, 0.1), {"arc": task}, bootstrap_iters=2)["results"]["arc"]
    (file,) = evaluate(lambda: micro, chosen("arc_challenge"), [0.1], tmp_path / "out", local)
    ours = averages([sample.scores for sample in file.samples])
    for name in ("acc", "acc_norm"):
        assert ours[name].value == pytest.approx(theirs[f"{name},none"])
        assert ours[name].stderr == pytest.approx(theirs[f"{name}_stderr,none"])
    assert 0 < ours["acc"].value < 1


def test_every_sample_is_there_with_what_it_cost(done):
    for benchmark, count in (
        ("gsm8k_cot", 5),
        ("arc_challenge", 6),
        ("arc_challenge_free", 6),
        ("ifeval", 1),
        ("wikitext", 2),
    ):
        for tau in (0.1, 1.1):
            file, _ = read_samples(done / file_name(benchmark, tau))
            assert file.complete
            assert sorted(sample.document for sample in file.samples) == list(range(count))
            for sample in file.samples:
                assert sample.tokens >= sample.macro_steps > 0
                assert sample.seconds > 0
                for answer in sample.answers:
                    assert len(answer.tokens) == len(answer.ids) == len(answer.probability) <= 12
                    assert answer.starts[0] == 0
            steps = sum(each.tokens for each in file.samples) / sum(each.macro_steps for each in file.samples)
            assert steps == 1 if tau > 1 else steps > 1.05


def test_tokens_are_counted_by_their_place_in_the_segment(done):
    file, _ = read_samples(done / file_name("gsm8k_tokens", 0.1))
    for sample in file.samples:
        places = [value for name, value in sample.scores.items() if name.startswith("accuracy at")]
        assert sum(right for right, _ in places) == sample.scores["accuracy"][0]
        assert sum(count for _, count in places) == sample.scores["accuracy"][1] == sample.tokens
        assert sample.scores["accuracy at 0"][1] == sample.macro_steps
    assert "<<" not in file.samples[0].prompt


def test_bits_count_the_bytes_of_the_text(done, plain, local, tmp_path):
    file, _ = read_samples(done / file_name("wikitext", 1.1))
    by_document = {sample.document: sample.scores for sample in file.samples}
    assert by_document[1]["bits_per_byte"][1] == len("naïveté".encode())
    (theirs,) = evaluate(lambda: plain, chosen("wikitext"), [], tmp_path / "out", local)
    for sample in theirs.samples:  # the base, by the harness's own class
        assert sample.scores["bits_per_byte"] == pytest.approx(by_document[sample.document]["bits_per_byte"], rel=1e-5)
        assert sample.scores["perplexity"] == pytest.approx(by_document[sample.document]["perplexity"], rel=1e-5)


def test_a_prompt_that_is_cut_is_counted(done):
    file, _ = read_samples(done / file_name("gsm8k_cot", 1.1))
    assert all(sample.cut > 0 for sample in file.samples)  # eight examples in 512 tokens
    assert "prompts were truncated to fit" in tables.markdown(report_rows([read_folder(done)]))


def test_gsm8k_is_read_three_ways(local):
    said = [Response("The answer is 7"), Response("So 3 + 4 = 7 eggs in"), Response("I do not know.")]
    judged = JUDGES["gsm8k"](SUMS[0], said, ScoringContext())
    assert judged.scores["ours"] == pytest.approx(2 / 3)
    assert judged.scores["strict"] == 0  # "The answer is 7" at the end of a text has no character after it
    assert judged.scores["strict invalid"] == 1
    assert judged.scores["flexible"] == pytest.approx(2 / 3)
    assert judged.detail["invalid"]["ours"] == [None, None, "it contains no number"]
    cut = JUDGES["gsm8k"](SUMS[0], [Response("So 3 + 4 = 7 eggs in", ended=False)], ScoringContext())
    assert (cut.scores["ours"], cut.scores["ours invalid"], cut.scores["flexible"]) == (0.0, 1.0, 1.0)


class Recorder:
    """In the sandbox's place."""

    isolation = "full"

    def __init__(self):
        self.programs = []

    def run(self, program, tests, function):
        self.programs.append(program)
        (asked, ask), (replies, reply) = os.pipe(), os.pipe()
        with os.fdopen(asked, "rb") as requests, os.fdopen(reply, "wb") as answers:
            serving = Thread(target=serve, args=(program, requests, answers))
            serving.start()
            with os.fdopen(ask, "wb") as writer, os.fdopen(replies, "rb") as reader:
                found = examine(tests, function, writer, reader)
            serving.join()
        return Verdict("passed" if found["passed"] else "failed", found["reason"])


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("humaneval", "    return a + b\n", "    return a - b\n"),
        ("humaneval_instruct", "    return a + b\n```\nThis adds.", "def add(a, b):\n    return 5 +\n"),
        ("humaneval_whole", "def add(a, b):\n    return a + b\n```\nThis adds.", "return a + b\n"),
        ("mbpp", "def add(a, b):\r\n    return a + b\n", "def add(a, b):\n    return 0\n"),
        ("mbpp_instruct", "def add(a, b):\n    return a + b\n", "Here you are!"),
    ],
)
def test_programs_are_put_together(name, right, wrong, local):
    benchmark, sandbox = find_benchmark(name), Recorder()
    document = documents(benchmark, local, 1)[0]
    judged = JUDGES[benchmark.judge](document, [Response(right), Response(wrong)], ScoringContext(sandbox=sandbox))
    assert judged.scores["pass@1"] == 0.5
    assert judged.detail["outcome"] == ["passed", "failed"]


@pytest.mark.parametrize(("how", "text", "kind"), PROGRAMS)
@pytest.mark.parametrize("name", ["humaneval", "humaneval_instruct", "humaneval_whole", "mbpp", "mbpp_instruct"])
def test_a_program_is_found_as_a_person_would(name, how, text, kind, local):
    """A program in a fence of its own, or after prose, counted as no program, and the reason did not say so."""
    benchmark = find_benchmark(name)
    if benchmark.judge == "mbpp" and kind == "body":
        text = "def add(a, b):\n" + text
    judged = JUDGES[benchmark.judge](
        documents(benchmark, local, 1)[0], [Response(text)], ScoringContext(sandbox=Recorder())
    )
    assert judged.detail["outcome"] == ["passed"], (how, judged.detail)


def test_an_answer_without_a_program_says_so(local):
    said = [Response("I am sorry, I cannot."), Response("<think>def add(a, b)")]
    for name in ("humaneval_whole", "mbpp_instruct"):
        benchmark = find_benchmark(name)
        judged = JUDGES[benchmark.judge](documents(benchmark, local, 1)[0], said, ScoringContext(sandbox=Recorder()))
        assert judged.detail["outcome"] == ["failed", "failed"]
        assert [why.split(" (")[0] for why in judged.detail["reason"]] == [NO_PROGRAM, ONLY_REASONING]


@pytest.mark.parametrize("name", ["humaneval_whole", "humaneval_instruct", "mbpp_instruct"])
def test_a_fence_that_an_answer_opens_does_not_end_it(name):
    """Three backticks anywhere ended an answer, so that one with a fence of its own was empty."""
    config = find_benchmark(name).config
    assert not any(stop in "Sure:\n```python\nx = 1\n" for stop in config["generation_kwargs"]["until"])
    assert any(stop in "x = 1\n```\nThis" for stop in config["generation_kwargs"]["until"])


def test_no_program_runs_unless_it_is_allowed(micro, local, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(MicroStepError, match="humaneval: .*--allow-code-execution"):
        evaluate(lambda: micro, chosen("humaneval"), [0.5], out, local, OPTIONS)
    assert not out.exists()
    with pytest.raises(MicroStepError, match="--allow-code-execution"):
        JUDGES["mbpp"](documents(find_benchmark("mbpp"), local, 1)[0], [Response("pass")], ScoringContext())


def test_programs_of_a_model_are_run_and_sampled(micro, local, tmp_path, monkeypatch):
    try:
        Sandbox().check()
    except MicroStepError as error:
        pytest.skip(str(error))
    options = replace(OPTIONS, isolation="full", repeats=10, temperature=1.0, seed=4)
    runs = [evaluate(lambda: micro, chosen("humaneval"), [0.1], tmp_path / "a", local, options)]
    monkeypatch.setattr(Sandbox, "run", lambda *_: Verdict("passed", ""))
    runs += [evaluate(lambda: micro, chosen("humaneval"), [0.1], tmp_path / "b", local, options)]
    (sample,) = runs[0][0].samples
    assert set(sample.scores) == {"pass@1", "pass@10", "timed out"}
    assert len({answer.text for answer in sample.answers}) > 1
    assert [answer.ids for answer in sample.answers] == [answer.ids for answer in runs[1][0].samples[0].answers]
    assert sample.detail["isolation"] == "full"


IFEVAL = [
    (["punctuation:no_comma"], [{}], "no comma here", "one, two"),
    (["length_constraints:number_words"], [{"relation": "at least", "num_words": 4}], "a b c d", "a b"),
    (["startend:quotation"], [{}], '"quoted"', "bare"),
    (["detectable_format:json_format"], [{}], '{"a": 1}', "no json"),
]


@pytest.mark.parametrize(("names", "kwargs", "right", "wrong"), IFEVAL)
def test_instructions_are_checked_by_the_harnesss_scorer(names, kwargs, right, wrong):
    document = {"key": 1, "prompt": "x", "instruction_id_list": names, "kwargs": kwargs}
    judged = JUDGES["ifeval"](document, [Response(right)], ScoringContext())
    assert judged.scores == {
        "prompt_strict": 1.0, "instruction_strict": (1.0, 1.0), "prompt_loose": 1.0, "instruction_loose": (1.0, 1.0),
    }  # fmt: skip
    both = {
        **document,
        "instruction_id_list": [*names, "keywords:existence"],
        "kwargs": [*kwargs, {"keywords": ["zebra"]}],
    }
    half = JUDGES["ifeval"](both, [Response(right)], ScoringContext())
    assert (half.scores["prompt_strict"], half.scores["instruction_strict"]) == (0.0, (1.0, 2.0))
    assert JUDGES["ifeval"](document, [Response(wrong)], ScoringContext()).scores["prompt_strict"] == 0


def test_a_scorer_that_lacks_its_data_says_what_to_do(monkeypatch):
    from lm_eval.tasks.ifeval import utils

    def missing(*_):
        raise LookupError("punkt")

    monkeypatch.setattr(utils, "process_results", missing)
    with pytest.raises(MicroStepError, match="nltk.downloader punkt_tab"):
        scoring.JUDGES["ifeval"]({}, [Response("x")], ScoringContext())


# --- asking


def test_a_conversation_is_asked_through_the_template(plain, local, tmp_path):
    options = replace(OPTIONS, chat=True, system="Be brief.", multiturn=True)
    (file,) = evaluate(lambda: plain, chosen("gsm8k_cot"), [], tmp_path / "out", local, options)
    prompt = file.samples[0].prompt
    assert prompt.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nQ: There are 15 trees")
    assert prompt.count("<|im_start|>assistant\n") == 9
    assert prompt.endswith("A:<|im_end|>\n<|im_start|>assistant\n")


def _strict(plain):
    """With a template such as gemma's."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    return replace(plain, tokenizer=tokenizer)


def _forgetful(plain):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ messages[-1].content }}"
    return replace(plain, tokenizer=tokenizer)


def test_what_does_not_go_together_is_said(plain, micro, local, tmp_path):
    tokenizer = tiny_tokenizer()
    untaught = replace(plain, tokenizer=tokenizer)
    for loaded, options, error, match in (
        (untaught, replace(OPTIONS, chat=True), MicroStepError, "no chat template; leave out --chat"),
        (plain, replace(OPTIONS, system="x"), MicroStepError, "give --chat, too"),
        (
            _strict(plain),
            replace(OPTIONS, chat=True, system="x"),
            ModelError,
            "refuses a system prompt: no sys",
        ),
        (_forgetful(plain), replace(OPTIONS, chat=True, system="x"), ModelError, "drops a system prompt"),
        (plain, replace(OPTIONS, max_new_tokens=512), TooLarge, "512 tokens, .*context holds 512"),
    ):
        with pytest.raises(error, match=match):
            evaluate(lambda loaded=loaded: loaded, chosen("gsm8k_cot"), [0.5], tmp_path / "out", local, options)
        assert not (tmp_path / "out").exists()
    with pytest.raises(MicroStepError, match="--temperature"):
        EvalOptions(repeats=2)
    with pytest.raises(MicroStepError, match="no benchmark 'gsm'; choose from arc_challenge"):
        find_benchmark("gsm")
