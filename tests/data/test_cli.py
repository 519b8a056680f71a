"""`micro-step data sources`, `mixes` and `clean` in a process of their own."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from data.cleaning.report import REPORT
from data.examples import TABLE, Example, read_examples, write_examples
from model.text.document import Message
from tests.support.command import call
from tests.support.processes import program

Run = Callable[..., tuple[int, str, list[str]]]

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Run:
    """Run `micro-step data`; gives its exit code, standard output and the lines of standard error."""

    def started(*words: object) -> tuple[int, str, list[str]]:
        capfd.readouterr()
        code = call(monkeypatch, "data", *words)
        out, err = capfd.readouterr()
        return code, out, err.strip().splitlines()

    return started


def test_sources_and_mixes_are_listed(run: Run) -> None:
    code, out, err = run("sources")
    assert code == 0 and not err
    assert "nampdn-ai/tiny-codes (terms)" in out and "evaluation only" in out
    code, out, err = run("mixes")
    assert code == 0 and not err and "gsm8k x3" in out


def test_clean_writes_examples_and_shows_what_each_rule_did(run: Run, tmp_path: Path) -> None:
    records = [{"q": f"question {i % 6}", "a": f"answer {i % 6}"} for i in range(8)]
    (tmp_path / "a[b].jsonl").write_text("".join(json.dumps(each) + "\n" for each in records), "utf-8")
    mix = tmp_path / "m.yaml"
    mix.write_text("name: m\nsources: [{file: 'a[b].jsonl', columns: {prompt: q, response: a}}]\n", "utf-8")
    code, out, err = run("clean", mix, "--out", tmp_path / "out")
    assert code == 0 and err == ["cleaning a[b].jsonl"]
    head, row, path = out.strip().splitlines()
    assert head.split() == ["source", "licence", "read", "exact_duplicates", "kept", "held", "out", "repeat"]
    assert row.split() == ["a[b].jsonl", "not", "given", "8", "-2", "6", "0", "1"]
    assert path == str(tmp_path / "out") and len(list(read_examples(tmp_path / "out"))) == 6
    assert json.loads((tmp_path / "out" / REPORT).read_text("utf-8"))["kept"] == 6
    assert run("clean", mix, "--out", tmp_path / "few", "--limit", 2)[0] == 0
    assert len(list(read_examples(tmp_path / "few"))) == 2


def test_held_out_examples_become_a_corpus(run: Run, tmp_path: Path) -> None:
    examples = [
        Example("made", i, (Message("user", f"q{i}"), Message("assistant", f"a {i}")), held_out=i % 3 == 2)
        for i in range(7)
    ]
    write_examples(tmp_path / "p" / "examples", examples)
    written = [replace(each, messages=(each.messages[0], Message("assistant", "written"))) for each in examples]
    write_examples(tmp_path / "p" / "answers", written)
    for flags, answers in (((), ["written"] * 2), (("--references",), ["a 2", "a 5"])):
        out = tmp_path / f"held{len(flags)}.jsonl"
        code, said, err = run("held-out", tmp_path / "p", "--out", out, *flags)
        assert (code, said.strip(), err) == (0, str(out), [])
        rows = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
        assert [(row["number"], row["messages"][1]["content"]) for row in rows] == list(
            zip((2, 5), answers, strict=True)
        )
    write_examples(tmp_path / "none", examples[:2])
    code, _, err = run("held-out", tmp_path / "none", "--out", tmp_path / "x.jsonl")
    assert code == 1 and "holds no example back" in err[-1] and not (tmp_path / "x.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["clean", "nots"], 1, "did you mean 'notes'?"),
        (["clean", "notes"], 1, "cannot be read from the hub"),
        (["clean", "code"], 1, "'thealgorithms_python' is not on the hub; give the folder that holds code/"),
        (["clean", "code", "--local", "nowhere"], 1, "no file code/thealgorithms_python.jsonl.gz in nowhere"),
        (["clean", "tiny", "--limit", "0"], 2, "limit"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_nothing(
    run: Run, tmp_path: Path, words: list[str], code: int, said: str
) -> None:
    got, out, err = run(*words, "--out", tmp_path / "out")
    assert got == code and not out
    assert said in err[-1] and not any("Traceback" in line for line in err)
    assert sum(line.startswith("Error") for line in err) == 1
    assert not (tmp_path / "out").exists()


def test_ctrl_c_leaves_nothing_half_written(tmp_path: Path) -> None:
    mix = tmp_path / "m.yaml"
    mix.write_text("name: m\nsources: [{file: big.jsonl, columns: {text: t}}]\n", "utf-8")
    with (tmp_path / "big.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps({"t": f"text {i} " * 20}) + "\n" for i in range(100_000))
    running = program("data", "clean", mix, "--out", tmp_path / "out")
    running.until(lambda: "cleaning" in running.err)
    time.sleep(0.2)
    running.send(signal.SIGINT)
    assert running.ended() == 130
    assert "Stopped; nothing was left half-written." in running.err and "Traceback" not in running.err
    assert not (tmp_path / "out" / TABLE).exists()
