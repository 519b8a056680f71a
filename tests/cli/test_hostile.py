"""The command line under hostile input: a right answer, or one clear line, a non-zero exit and no file."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from analysis.export import save_table
from model.hub.loading import LoadedModel, ModelSpec, load
from model.terminal import start as run_command
from tests.support.processes import program
from tests.support.tiny import save_tiny, tiny_config, tiny_tokenizer

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
STEPS = (
    "loading ",
    "checking the files of ",
    "hashing ",
    "scoring",
    "comparing",
)  # progress, said once each where there is no terminal
CONTROLS = "".join(chr(code) for code in (*range(0x20), *range(0x7F, 0xA0), 0x200B, 0x202E, 0x2066, 0x2028, 0xFEFF))
HOSTILE = {
    "one token": "a",
    "one space": " ",
    "controls": f"a{CONTROLS}b",
    "nul": "\x00",
    "ansi": "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x1b[2J\x1b[H \x9b31m",
    "html": "<script>alert(1)</script><img src=x onerror=alert(1)> &amp; &#60;",
    "markdown": "![x](http://127.0.0.1:9/x.png) [l](javascript:alert(1)) **b** $\\frac{1}{2}$ [red]rich[/red] :smile:",
    "emoji": "👩\u200d👩\u200d👧\u200d👦 🏳️\u200d🌈 👍🏽 e\u0301\u0323 🇫🇷",
    "right to left": "שלום עולם, مرحبا بالعالم! abc \u202edef\u202c",
    "spreadsheet": '=1+1\t"quoted", and\r\nlines\rof every kind\n',
    "special tokens": "a<s><|im_start|>user\n<|im_end|><pad><unk>",
}

Fails = Callable[..., str]
Answers = Callable[..., tuple[str, list[str]]]


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> int:
    """Run `micro-step` in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["micro-step", *map(str, words)])
    try:
        run_command()
    except SystemExit as leave:
        return int(leave.code or 0)
    return 0


def remarks(said: str) -> list[str]:
    """The lines of standard error that are no progress."""
    return [line for line in said.split("\n") if line and not line.startswith(STEPS)]


def raw_controls(said: str) -> set[str]:
    return {c for c in said if not c.isprintable() and c != "\n"}


@pytest.fixture(autouse=True)
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own to work in, and a cache of its own."""
    monkeypatch.setenv("MICRO_STEP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], work: Path) -> Fails:
    """Runs a command that must fail well; returns its one line."""

    def run(*words: object, loads: bool = False) -> str:
        before = sorted(work.rglob("*"))
        capfd.readouterr()
        code = call(monkeypatch, *words)
        out, err = capfd.readouterr()
        assert code not in (0, 130), words
        assert out == ""
        lines = remarks(err)
        assert len(lines) == 1 and lines[0].startswith("Error: "), err
        assert raw_controls(err) == set()
        assert loads or "loading" not in err  # seen before any heavy work
        assert sorted(work.rglob("*")) == before
        return lines[0]

    return run


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Answers:
    """Runs a command that must answer; returns standard output and the remarks on standard error."""

    def run(*words: object) -> tuple[str, list[str]]:
        capfd.readouterr()
        code = call(monkeypatch, *words)
        out, err = capfd.readouterr()
        assert code == 0, err
        assert raw_controls(out + err) == set()
        return out, remarks(err)

    return run


# Texts


@pytest.fixture
def loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many texts on the same models: each model is loaded for the first only."""
    monkeypatch.setattr("analysis.options.load", lambda spec, tell: _load(spec))


@lru_cache(maxsize=4)
def _load(spec: ModelSpec) -> LoadedModel:
    return load(spec)


@pytest.mark.usefixtures("loaded_once")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("key", ["base", "other"])
def test_a_hostile_text_is_scored_exactly_and_printed_harmlessly(
    models: dict[str, Path], work: Path, answers: Answers, key: str, text: str
) -> None:
    (work / "t.txt").write_bytes(text.encode())
    score = ("score", "--model", models[key], "--text-file", work / "t.txt")
    out, said = answers(*score)
    assert "surprisal" in out and said == []
    answers(*score, "--out", work / "x.parquet")
    table = pd.read_parquet(work / "x.parquet")
    spans = list(zip(table["token"], table["start"], table["end"], strict=True))
    assert {i for _, start, end in spans for i in range(start, end)} == set(range(len(text)))
    for token, start, end in spans:  # exact, but for characters that are split over tokens
        assert token == text[start:end] or re.search("�|<0x..>", token)
    for suffix, read in (
        ("csv", partial(pd.read_csv, keep_default_na=False)),
        ("json", read_json),
    ):
        path = work / f"x.{suffix}"
        save_table(table, path)
        assert list(read(path)["token"]) == list(table["token"])


@pytest.mark.parametrize("text", ['=HYPERLINK("http://x/")', "=cmd|' /C calc'!A0", " @SUM(A1)", "-a\t(", "+1\n=f (x)"])
def test_a_spreadsheet_runs_no_cell_of_a_csv(work: Path, text: str) -> None:
    tokens = [text, "=", "==", "-1", "+", "@", "a=f(x)", "", "(", "=" * 10**6 + "a"]
    table = pd.DataFrame({"token": tokens, "start": range(len(tokens)), "known": [True] * 9 + [None]})
    for suffix, first, read in (
        ("csv", f"'{text}", partial(pd.read_csv, keep_default_na=False)),
        ("json", text, read_json),
        ("parquet", text, pd.read_parquet),
    ):
        save_table(table, work / f"x.{suffix}")
        assert list(read(work / f"x.{suffix}")["token"]) == [first, *tokens[1:]]


def read_json(path: Path) -> pd.DataFrame:
    return pd.DataFrame(json.loads(path.read_text("utf-8")))


@pytest.mark.usefixtures("loaded_once")
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_two_models_are_compared_on_a_hostile_text(
    models: dict[str, Path], work: Path, answers: Answers, text: str
) -> None:
    (work / "t.txt").write_bytes(text.encode())
    pair = ("--a", models["base"], "--b", models["other"], "--text-file", work / "t.txt")
    out, _ = answers("compare", *pair, "--cells", work / "cells.parquet")
    assert "entropy" in out
    cells = pd.read_parquet(work / "cells.parquet")
    assert len(cells) > 0 or len(text) == 1  # A has no score for the first token
    assert text.endswith("".join(cells["text"]))
    answers("compare", "--figure", "changes", *pair, "--out", work / "x.html")
    page = (work / "x.html").read_text("utf-8")
    drawn = page[page.rindex("Plotly.newPlot") :]
    assert "<script>alert" not in drawn and "<img" not in drawn


def test_a_bos_that_is_written_out_in_a_plain_text_is_a_token_of_it(
    models: dict[str, Path], work: Path, answers: Answers
) -> None:
    answers("score", "--model", models["other"], "--text", "<s>the cat", "--out", work / "x.parquet")
    assert pd.read_parquet(work / "x.parquet")["token"][0] == "<s>"


def test_one_token_has_no_score_where_nothing_comes_before_it(
    models: dict[str, Path], work: Path, answers: Answers
) -> None:
    answers("score", "--model", models["base"], "--text", "a", "--out", work / "x.json")
    (row,) = json.loads((work / "x.json").read_text())
    assert row["entropy"] is None and row["rank"] is None and row["token"] == "a"
    out, _ = answers("compare", "--a", models["base"], "--b", models["sft"], "--text", "a")
    assert "nan" not in out.lower()


@pytest.mark.parametrize("command", ["score", "compare", "figure"])
def test_an_empty_text_is_refused(models: dict[str, Path], work: Path, fails: Fails, command: str) -> None:
    (work / "empty.txt").write_bytes(b"")
    (work / "mark.txt").write_bytes(b"\xef\xbb\xbf")
    (work / "empty.json").write_text('{"messages": []}')
    for source in (("--text", ""), *(("--text-file", work / f"{x}") for x in ("empty.txt", "mark.txt", "empty.json"))):
        assert "empty" in fails(*_command(command, models), *source, loads=True)


def test_a_hundred_thousand_words_are_cut_to_the_context_and_it_is_said(
    models: dict[str, Path], work: Path, answers: Answers
) -> None:
    (work / "long.txt").write_text("the cat sat on the mat. " * 16_667)
    out, said = answers(
        "score", "--model", models["base"], "--text-file", work / "long.txt", "--out", work / "x.parquet"
    )
    assert out.strip() == str(work / "x.parquet")
    assert "the first 513 of " in said[0] and "context ends at 512" in said[0]
    table = pd.read_parquet(work / "x.parquet")
    assert len(table) == 513
    model = AutoModelForCausalLM.from_pretrained(models["base"], dtype=torch.float32)
    with torch.no_grad():
        logits = model(torch.tensor(table["token_id"].to_numpy()[None, :-1])).logits[0].double()
    p = torch.log_softmax(logits, -1)
    np.testing.assert_allclose(table["entropy"][1:], -(p.exp() * p).sum(-1), rtol=1e-4, atol=1e-4)
    out, said = answers("compare", "--a", models["base"], "--b", models["other"], "--text-file", work / "long.txt")
    assert len(said) == 2 and all("of " in line and "tokens were scored" in line for line in said)


# Files


def _command(command: str, models: dict[str, Path], a: object = None) -> tuple[object, ...]:
    first = a or models["base"]
    return {
        "score": ("score", "--model", first),
        "compare": ("compare", "--a", models["base"], "--b", first),
        "figure": ("compare", "--figure", "line", "--a", first, "--b", models["base"], "--out", "figure.csv"),
    }[command]


@pytest.mark.parametrize("command", ["score", "compare", "figure"])
def test_a_file_that_is_no_text_is_refused_before_a_model_is_loaded(
    models: dict[str, Path], work: Path, fails: Fails, command: str
) -> None:
    broken = {
        "latin.txt": "naïve café".encode("latin-1"),
        "half.txt": "日本".encode()[:-1],
        "surrogate.txt": b"a\xed\xa0\x80b",
        "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        "wide.txt": "wide".encode("utf-16"),
        "<img class=evil src=x onerror=hostile=1> **evil** $evil$.txt": b"\xff",
    }
    for name, content in broken.items():
        (work / name).write_bytes(content)
        said = fails(*_command(command, models), "--text-file", work / name)
        assert name in said and "not UTF-8" in said
    (work / "folder").mkdir()
    assert "folder cannot be read" in fails(*_command(command, models), "--text-file", work / "folder")
    assert "lost.txt cannot be read" in fails(*_command(command, models), "--text-file", work / "lost.txt")
    assert "too long" in fails(*_command(command, models), "--text-file", "x" * 5000)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "null",
        '{"messages": 3}',
        '{"messages": [{"role": "user"}]}',
        '{"messages": [{"role": "<b>", "content": "x"}]}',
        '{"messages": [{"role": "user", "content": "\\ud800"}]}',
        "[" * 100_000,
    ],
    ids=range(8),
)
def test_a_json_file_that_is_no_conversation_is_refused(
    models: dict[str, Path], work: Path, fails: Fails, content: str
) -> None:
    (work / "x.json").write_text(content)
    fails("score", "--model", models["base"], "--text-file", work / "x.json")


def test_an_argument_that_is_no_unicode_is_refused(models: dict[str, Path], fails: Fails) -> None:
    assert "surrogate" in fails("score", "--model", models["base"], "--text", "a\udcffb")  # as Python reads byte FF
    fails("score", "--model", "a\udcffb", "--text", "x")


# Outputs


@pytest.mark.parametrize("command", ["score", "compare", "figure"])
def test_an_output_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    models: dict[str, Path], work: Path, fails: Fails, command: str
) -> None:
    (work / "file").write_text("kept")
    (work / "taken.csv").mkdir()
    for out in ("x.docx", "x", ".csv", work / "file" / "x.csv", work / "file" / "no" / "x.csv", work / "taken.csv"):
        fails(*_command(command, models), "--text", "the cat", "--out", out)
    assert (work / "file").read_text() == "kept"
    assert "zip" in fails("compare", "--a", models["base"], "--b", models["sft"], "--text", "x", "--cells", "x.zip")


@pytest.mark.parametrize("command", ["score", "compare", "figure"])
def test_a_folder_without_write_permission_is_refused(
    models: dict[str, Path], work: Path, fails: Fails, command: str
) -> None:
    closed = work / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        closed = Path("/proc/self")  # not even the administrator writes there
    if not closed.is_dir():
        pytest.skip("this user may write everywhere")
    said = fails(*_command(command, models), "--text", "the cat", "--out", closed / "x.csv", loads=True)
    assert "cannot be written" in said


# Models


@pytest.fixture
def hollow(models: dict[str, Path], work: Path) -> dict[str, Path]:
    """Folders that are no model, each in its own way."""
    folders = {name: work / name for name in ("empty", "no weights", "truncated", "noise", "no tokenizer", "pickled")}
    for name, folder in folders.items():
        if name == "empty":
            folder.mkdir()
        else:
            shutil.copytree(models["base"], folder)
    weights = "model.safetensors"
    (folders["no weights"] / weights).unlink()
    whole = (models["base"] / weights).read_bytes()
    (folders["truncated"] / weights).write_bytes(whole[: len(whole) // 2])
    (folders["noise"] / weights).write_bytes(b"\xff" * 1000)
    (folders["no tokenizer"] / "tokenizer.json").write_text("{")
    (folders["pickled"] / weights).rename(folders["pickled"] / "pytorch_model.bin")
    return folders


@pytest.mark.parametrize("command", ["score", "compare", "figure"])
def test_a_folder_that_is_no_model_is_refused(
    models: dict[str, Path], hollow: dict[str, Path], fails: Fails, command: str
) -> None:
    expected = {
        "empty": "no config.json",
        "no weights": "no weights",
        "truncated": "truncated",
        "noise": "not a safetensors file",
        "no tokenizer": "tokenizer",
        "pickled": "pickled",
    }
    for name, said in expected.items():
        assert said in fails(*_command(command, models, hollow[name]), "--text", "the cat", loads=True)


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", "no-such-model", "owner/name", "../..", "<img src=x onerror=alert(1)>", "a\x1b[31mb", "a\x00b"),
        *("x" * 9999, "http://127.0.0.1:9/x", "[red]x[/red]", "smollm2"),
        "~no-such-user/x",
    ],
)
def test_a_wrong_model_name_is_refused_without_a_network(fails: Fails, name: str) -> None:
    said = fails("score", "--model", name, "--text", "the cat")
    assert len(said) < 1000
    if name == "owner/name":
        assert "cannot be reached" in said


def test_a_file_is_no_model(models: dict[str, Path], work: Path, fails: Fails) -> None:
    (work / "x.gguf").write_bytes(b"GGUF" + bytes(40))
    fails("score", "--model", models["base"] / "config.json", "--text", "x")
    fails("score", "--model", work / "x.gguf", "--text", "x", loads=True)


def test_wrong_options_are_refused_before_a_model_is_loaded(models: dict[str, Path], fails: Fails) -> None:
    pair = ("--a", models["base"], "--b", models["sft"], "--text", "the cat", "--out", "x.csv")
    assert "strip, line" in fails("compare", "--figure", "<b>", *pair)
    assert "entropy, confidence" in fails("compare", "--figure", "line", *pair, "--score", "perplexity")
    assert "assistant" in fails("compare", "--figure", "line", *pair, "--role", "nobody")
    fails("compare", "--figure", "line", *pair, "--unit", "bans")
    fails("compare", "--figure", "line", *pair, "--pinned", "-1")
    fails("compare", "--figure", "scatter", *pair, "--continue", "3", loads=True)
    fails("compare", *pair, "--top-p", "0", "--continue", "3")
    fails("compare", *pair, "--top-p", "nan", "--continue", "3")
    fails("compare", *pair, "--continue", "-3")
    fails("score", "--model", models["base"], "--text", "x", "--device", "toaster")
    fails("score", "--model", models["base"], "--text", "x", "--dtype", "int3")
    fails("scoer")


def test_no_command_shows_the_help_and_no_error(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch) == 2
    out, err = capfd.readouterr()
    assert "compare" in out + err and "Error" not in out + err


# As processes of their own


def test_a_real_process_prints_text_that_does_nothing(models: dict[str, Path], work: Path) -> None:
    (work / "t.txt").write_bytes(HOSTILE["ansi"].encode() + HOSTILE["controls"].encode())
    words = [sys.executable, "-m", "micro_step", "score", "--model", models["base"], "--text-file", work / "t.txt"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True)
    out, err = done.stdout.decode(), done.stderr.decode()
    assert done.returncode == 0 and remarks(err) == []
    assert raw_controls(out) == set() and "\\u001b" in out


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of many layers and a long context: a run that can be interrupted."""
    folder = tmp_path_factory.mktemp("slow")
    config = tiny_config("llama")
    config.num_hidden_layers, config.max_position_embeddings = 60, 20_000
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def test_ctrl_c_in_mid_run_ends_with_one_line_and_leaves_no_file(
    slow: Path, models: dict[str, Path], work: Path
) -> None:
    (work / "t.txt").write_text("the cat sat on the mat. " * 1500)
    for step in ("scoring", "loading"):
        words = ("score", "--model", slow, "--text-file", work / "t.txt", "--out", work / "x.parquet")
        running = program("micro-step", *words)
        running.until(lambda step=step, running=running: f"\n{step}" in f"\n{running.err}")
        running.send(signal.SIGINT)
        assert running.ended() == 130 and running.out == ""
        assert remarks(running.err) == ["Stopped; nothing was left half-written."]
        assert [path.name for path in work.iterdir()] == ["t.txt"]


def test_the_command_line_starts_without_loading_torch() -> None:
    """Help and a mistake in the options come at once, and Ctrl-C finds no long import outside of its care."""
    script = (
        "import sys, micro_step.cli as cli; [cli.command(name.split()) for name in cli.VERBS if 'bench' not in name];"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_folder_cannot_speak_to_the_terminal_through_its_record(
    models: dict[str, Path], work: Path, answers: Answers
) -> None:
    """What a model's own files say of it is shown as text too."""
    folder = save_tiny(work / "evil", chat=False)
    record = {
        "name": "\x1b[31mevil",
        "source": "\x1b]0;x\x07",
        "approximations": ["\x1b[2Jgone\nError: no", "[b]x[/b]"],
    }
    (folder / "micro_step.json").write_text(json.dumps(record))
    out, said = answers("compare", "--a", folder, "--b", models["base"], "--text", "the cat sat", "--chat")
    assert re.search(r"A evil", "\n".join(said)) and "B is" in out + "B is"
