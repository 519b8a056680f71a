"""`python -m evals`: a killed run and its resumption, tables and figures, mistakes of a user."""

from __future__ import annotations

import csv
import io
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from app import escape as shown
from data.ray_pool import RayOptions
from evals import run
from evals.aggregate import Average
from evals.benchmark import benchmarks, read_limits
from evals.harness import MicroStepLM
from evals.report import tables
from evals.report.figures import figure, score, write_figures
from evals.report.score_rows import read_folder, report_rows
from evals.run import evaluate
from evals.samples import Head, SampleWriter, file_name, read_samples
from model.errors import ExportError, MicroStepError, TextError
from tests.data.ray_work import shared_here
from tests.support import command
from tests.support.evaluations import OPTIONS, SUMS, chosen, lines
from tests.support.processes import program

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def done(micro, local, tmp_path_factory):
    """A run of two benchmarks at two values of tau."""
    out = tmp_path_factory.mktemp("runs") / "micro"
    evaluate(lambda: micro, chosen("arc_challenge", "gsm8k_cot_zeroshot"), [0.1, 1.1], out, local, OPTIONS)
    return out


# --- resumption


def content(folder):
    """Samples without the clock."""
    return {
        path.name: [replace(sample, seconds=0.0) for sample in read_samples(path)[0].samples]
        for path in sorted(folder.glob("*.jsonl"))
    }


NAMES = ("arc_challenge", "gsm8k_cot_zeroshot")


@pytest.fixture(scope="module")
def undisturbed(micro, local, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "out"
    evaluate(lambda: micro, chosen(*NAMES), [0.1, 0.5], out, local, OPTIONS)
    return content(out)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_that_is_killed_goes_on_to_equal_samples(micro, local, undisturbed, tmp_path):
    out = tmp_path / "out"
    words = ["--model", micro.spec.name, "--tasks", ",".join(NAMES), "--confidence", "0.1,0.5", "--local", local]
    words += ["--batch-rows", 3, "--max-new-tokens", 12, "--out", out, "--dtype", "float32", "--device", "cpu"]
    process = program("evals", "run", *words)
    first = out / file_name("arc_challenge", 0.1)
    process.until(lambda: first.exists() and first.read_bytes().count(b"\n") > 1)
    assert process.killed() == -signal.SIGKILL
    there = sum(map(len, content(out).values()))
    assert 0 < there < sum(map(len, undisturbed.values()))
    with first.open("ab") as file:
        file.write(b'{"document": 1, "prom')  # torn in the middle of a line
    evaluate(lambda: micro, chosen(*NAMES), [0.1, 0.5], out, local, OPTIONS)
    assert content(out) == undisturbed


def test_actors_compute_the_samples_of_one_process(micro, local, undisturbed, tmp_path, monkeypatch):
    """Two actors that finish everything in the opposite order; in a run that was stopped, only what is missing."""
    monkeypatch.setattr(run, "require_ray", lambda: None)
    monkeypatch.setattr(run, "work_on_ray", shared_here)
    out, asked = tmp_path / "out", (chosen(*NAMES), [0.1, 0.5], tmp_path / "out", local, OPTIONS)
    evaluate(lambda: micro, *asked, cluster=RayOptions(True))
    assert content(out) == undisturbed
    path = out / file_name("gsm8k_cot_zeroshot", 0.1)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:3]))
    evaluate(lambda: micro, *asked, cluster=RayOptions(True))
    assert content(out) == undisturbed


@pytest.mark.parametrize("lines_kept", [0, 1, 2, 5])
def test_a_file_that_was_cut_anywhere_is_filled(micro, local, undisturbed, tmp_path, lines_kept):
    out = tmp_path / "out"
    options = OPTIONS
    evaluate(lambda: micro, chosen("gsm8k_cot_zeroshot"), [0.1], out, local, options)
    path = out / file_name("gsm8k_cot_zeroshot", 0.1)
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:lines_kept]) + kept[lines_kept][: len(kept[lines_kept]) // 2])
    evaluate(lambda: micro, chosen("gsm8k_cot_zeroshot"), [0.1], out, local, options)
    assert content(out)[path.name] == undisturbed[path.name]


def test_a_complete_run_computes_nothing(micro, local, done, monkeypatch):
    before = {path.name: path.read_bytes() for path in done.iterdir() if path.name != ".lock"}
    from evals.harness import MicroStepLM

    monkeypatch.setattr(MicroStepLM, "generate_until", None)
    evaluate(lambda: micro, chosen("gsm8k_cot_zeroshot"), [0.1, 1.1], done, local, OPTIONS)
    assert {path.name: path.read_bytes() for path in done.iterdir() if path.name != ".lock"} == before


def test_a_folder_of_something_else_is_left_alone(micro, plain, local, done, tmp_path):
    with pytest.raises(ExportError, match=r"begun with something else: .*batch_rows \(3 there, 4 now\)"):
        evaluate(lambda: micro, chosen("gsm8k_cot_zeroshot"), [0.1], done, local, replace(OPTIONS, batch_rows=4))
    with pytest.raises(ExportError, match="revision"):
        evaluate(lambda: plain, chosen("gsm8k_cot_zeroshot"), [], done, local, OPTIONS)
    other = tmp_path / "local"
    (other / "gsm8k").mkdir(parents=True)
    (other / "gsm8k/test.jsonl").write_text(lines(*SUMS[:3]), "utf-8")
    with pytest.raises(ExportError, match="other documents \\(5"):
        evaluate(lambda: micro, chosen("gsm8k_cot_zeroshot"), [0.1], done, other, OPTIONS)
    stranger = tmp_path / "stranger"
    stranger.mkdir()
    (stranger / "thesis.tex").write_text("mine")
    with pytest.raises(ExportError, match="holds other files"):
        evaluate(lambda: micro, chosen("gsm8k_cot_zeroshot"), [0.1], stranger, local, OPTIONS)


def test_drafts_by_cost_change_no_answer(micro, local, tmp_path, monkeypatch):
    monkeypatch.setenv("MICRO_STEP_CACHE", str(tmp_path / "cache"))
    answers = []
    for by_cost in (False, True):
        options, out = replace(OPTIONS, verify=True, by_cost=by_cost), tmp_path / str(by_cost)
        (file,) = evaluate(lambda: micro, chosen("gsm8k_cot_zeroshot"), [0.0], out, local, options)
        answers.append([[answer.ids for answer in sample.answers] for sample in file.samples])
    assert answers[0] == answers[1]
    assert list((tmp_path / "cache/times").iterdir())
    assert "by cost" in report_rows([read_folder(out)])[0].model


def test_a_relaxed_check_is_asked_for_and_named(micro, plain, local, tmp_path):
    steps = {}
    for eps in (1.0, 1e-6):
        options = replace(OPTIONS, verify=True, eps=eps)
        out = tmp_path / str(eps)
        (file,) = evaluate(lambda: micro, chosen("gsm8k_cot_zeroshot"), [0.0], out, local, options)
        steps[eps] = sum(sample.macro_steps for sample in file.samples)
    assert steps[1e-6] < steps[1.0]
    names = [row.model for row in report_rows([read_folder(tmp_path / str(eps)) for eps in steps])]
    assert sum("relaxed to eps 1e-06" in name for name in names) == sum("lossless" in name for name in names) == 1
    with pytest.raises(MicroStepError, match="plain model"):
        evaluate(lambda: plain, chosen("gsm8k_cot_zeroshot"), [], tmp_path / "plain", local, options)
    with pytest.raises(MicroStepError, match="greedy"):
        replace(options, by_cost=True)
    with pytest.raises(MicroStepError, match="without verify"):
        MicroStepLM(micro, 0.0, verify=False, by_cost=True)
    with pytest.raises(MicroStepError, match="above 0"):
        replace(OPTIONS, eps=0.0)


def test_each_benchmark_may_have_its_own_number_of_documents(plain, local, tmp_path):
    both = chosen("gsm8k_cot_zeroshot", "arc_challenge")
    found = evaluate(lambda: plain, both, [], tmp_path / "out", local, OPTIONS, limits={"gsm8k_cot_zeroshot": 2})
    assert [len(file.samples) for file in found] == [2, 6]
    with pytest.raises(ExportError, match="other documents \\(2"):
        evaluate(lambda: plain, both, [], tmp_path / "out", local, OPTIONS, limits={"gsm8k_cot_zeroshot": 3})
    assert read_limits("a, b:20") == {"a": None, "b": 20}
    for wrong in ("a:", "a:0", "a:x", "a:-1"):
        with pytest.raises(MicroStepError, match="NAME:N"):
            read_limits(wrong)


def test_damage_in_the_middle_is_named(tmp_path):
    path = tmp_path / "x@0.5.jsonl"
    SampleWriter(path, Head("gsm8k_cot", 0.5, 3, "0"))
    path.write_bytes(path.read_bytes() + b"{torn}\n{}\n")
    with pytest.raises(TextError, match="damaged"):
        read_samples(path)
    with pytest.raises(TextError, match="holds no evaluation"):
        read_folder(tmp_path)


# --- reports


@pytest.fixture(scope="module")
def rows(done, plain, local, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "plain"
    evaluate(lambda: plain, chosen("gsm8k_cot_zeroshot", "arc_challenge"), [], out, local, OPTIONS)
    return report_rows([read_folder(done), read_folder(out)])


def test_rows_are_counted_from_samples(rows, done):
    (row,) = (row for row in rows if row.benchmark.name == "gsm8k_cot_zeroshot" and row.tau == 0.1)
    file, _ = read_samples(done / file_name("gsm8k_cot_zeroshot", 0.1))
    assert row.tokens_per_macro_step == sum(s.tokens for s in file.samples) / sum(s.macro_steps for s in file.samples)
    assert row.score.value == sum(s.scores["ours"] for s in file.samples) / 5
    assert row.shown == ["ours", "strict", "flexible"]
    assert row.invalid("strict").value == sum(s.scores["strict invalid"] for s in file.samples) / 5
    (base,) = (row for row in rows if row.benchmark.name == "gsm8k_cot_zeroshot" and row.tau == 1.1)
    assert row.speedup == pytest.approx(row.tokens_per_second / base.tokens_per_second)
    assert row.over == "micro (1.1)"
    assert base.speedup is None
    assert all(each.speedup is None for each in rows if not each.benchmark.generates)


def test_tables_hold_every_row_and_no_markup(rows):
    hostile = [replace(row, model="=<b>|_x_ & $50%") for row in rows[:2]]
    assert "<b>" not in tables.page(hostile)
    assert "<b>" not in tables.markdown(hostile)
    assert r"\|" in tables.markdown(hostile)
    assert r"=$<$b$>$|\_x\_ \& \$50\%" in tables.latex(hostile)
    parsed = list(csv.DictReader(io.StringIO(tables.every_score(hostile))))
    assert {line["model"] for line in parsed} == {"'=<b>|_x_ & $50%"}
    assert len(parsed) == sum(len(row.scores) for row in hostile)
    shown = sum(len(row.shown) for row in rows)
    assert tables.page(rows).count("<tr>") == shown + 1
    assert tables.latex(rows).count(r" \\") == shown + 1
    assert tables.markdown(rows).count("\n| ") == shown + 1


def test_values_are_read_back_from_the_csv(rows):
    for line in csv.DictReader(io.StringIO(tables.every_score(rows))):
        (row,) = (r for r in rows if (r.benchmark.name, r.model) == (line["benchmark"], line["model"])
                  and str(r.tau if r.tau is not None else "") == line["tau"])  # fmt: skip
        assert float(line["value"]) == pytest.approx(row.scores[line["score"]].value, nan_ok=True)


def test_figures_have_a_line_through_tau_and_the_base_across(rows):
    drawn = figure([row for row in rows if row.benchmark.name == "arc_challenge"])
    (line,) = drawn.data
    assert list(line.text) == ["τ 1.1", "τ 0.1"]
    assert line.x[0] == 1
    assert line.x[1] > 1
    (row,) = (row for row in rows if row.benchmark.name == "arc_challenge" and row.tau == 0.1)
    assert line.y[1] == pytest.approx(100 * row.score.value)
    low, high = row.score.whiskers
    assert line.error_y.array[1] == pytest.approx(100 * (high - row.score.value))
    assert line.error_y.arrayminus[1] == pytest.approx(100 * (row.score.value - low))
    (base,) = (row for row in rows if row.benchmark.name == "arc_challenge" and row.tau is None)
    across = [shape for shape in drawn.layout.shapes if shape.type == "line"]
    assert [shape.y0 for shape in across] == [pytest.approx(100 * base.score.value)]
    hostile = figure([replace(row, model="<img src=x>") for row in rows if row.benchmark.name == "arc_challenge"])
    assert "<img" not in hostile.to_json()


def test_figures_are_written(rows, tmp_path):
    written = write_figures(rows, tmp_path / "figures", "html")
    assert {path.stem for path in written} == {row.benchmark.name for row in rows}
    assert "tokens per macro step" in written[0].read_text("utf-8")
    one = next(row for row in rows if row.benchmark.name == "arc_challenge")
    for samples, value, told in (
        ((7, 7), 0.25, '7 samples; whiskers and bands: one standard error"'),
        ((7, 1200), 0.0, "7 to 1,200 samples; whiskers and bands: one standard error, or the 95% bound where"),
    ):
        some = [replace(one, samples=n, scores={"acc_norm": Average(value, value / 2, n)}) for n in samples]
        (path,) = write_figures(some, tmp_path / "told", "html")
        assert f'"subtitle":{{"text":"{told}' in path.read_text("utf-8")


def test_an_axis_says_what_is_counted(rows):
    axes = {row.benchmark.name: figure([row]).layout.yaxis.title.text for row in rows}
    assert axes["gsm8k_cot_zeroshot"] == "right answers (ours), %"
    assert axes["arc_challenge"] == "right choices (acc_norm), %"
    for each in benchmarks().values():
        drawn = score([replace(rows[0], benchmark=each, scores={each.metric: Average(0.0, 0.0, 9)})])
        assert (f" ({each.metric}), %" in drawn.figure.layout.yaxis.title.text) == each.higher_is_better
        assert "the 95% bound" in drawn.caption
        assert not shown.escape_markdown(drawn.caption).endswith("…")


# --- the command line


call = partial(command.call, program="evals")


def test_the_command_line_runs_and_reports(monkeypatch, capfd, micro, local, tmp_path):
    out = tmp_path / "out"
    words = ["--tasks", "arc_challenge,ifeval", "--confidence", ".1, 2", "--limit", 2, "--local", local]
    words += ["--max-new-tokens", 8, "--out", out, "--batch-rows", 4]
    assert call(monkeypatch, "run", "--model", micro.spec.name, *words) == 0
    said = capfd.readouterr()
    assert "arc_challenge at 0.1: 2 of 2" in said.err
    assert "tokens per macro step" in said.err
    assert "acc_norm" in said.out
    for suffix in (".md", ".csv", ".html", ".tex"):
        assert call(monkeypatch, "report", out, "--out", tmp_path / f"table{suffix}") == 0
        assert "arc" in (tmp_path / f"table{suffix}").read_text("utf-8")
    assert call(monkeypatch, "report", out, "--figures", tmp_path / "f", "--figure-format", "html") == 0
    assert (tmp_path / "f/arc_challenge.html").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--model", "tiny-sft", "--tasks", "gsm"], "no benchmark 'gsm'"),
        (["run", "--model", "tiny-sft", "--tasks", "gsm8k_cot", "--confidence", "a"], "--confidence takes numbers"),
        (["run", "--model", "tiny-sft", "--tasks", "gsm8k_cot", "--confidence", "nan"], "--confidence takes numbers"),
        (["run", "--model", "tiny-sft", "--tasks", "mbpp"], "--allow-code-execution"),
        (["run", "--model", "no-such-model-anywhere", "--tasks", "gsm8k_cot"], "no-such-model-anywhere"),
        (["report", "nowhere"], "holds no evaluation"),
        (["report", "nowhere", "--out", "table.docx"], "--out must end in one of .md, .csv, .html, .tex"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capfd, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    if words[0] == "run":
        words = [*words, "--out", "out", "--local", "."]
    assert call(monkeypatch, *words) not in (0, None)
    error = capfd.readouterr().err.strip().splitlines()
    assert said in error[-1]
    assert error[-1].startswith("Error: ")
    assert not list(tmp_path.iterdir())


def test_the_list_names_every_benchmark(monkeypatch, capfd):
    assert call(monkeypatch, "list") == 0
    said = capfd.readouterr().out
    assert all(name in said for name in benchmarks())


def test_the_command_line_starts_without_torch():
    code = "import sys, evals.cli; sys.exit(bool({'torch', 'transformers', 'lm_eval'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
