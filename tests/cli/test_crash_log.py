"""The outer net: what nobody foresaw ends in one sentence, never in a traceback, and its details in a log file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from importlib import import_module
from pathlib import Path

import pytest
import typer

from micro_step import cli
from model.crash_log import DAYS, fault, log_folder
from model.terminal import guarded, start
from tests.support.browser import ROOT
from tests.support.command import call

PROMPT = "a secret prompt"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MICRO_STEP_CACHE", str(tmp_path))
    return tmp_path


def command(error: BaseException) -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)

    @app.command()
    def broken() -> None:
        raise error

    return app


def test_a_planted_fault_is_one_sentence_and_a_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    """It used to end in a page of traceback. The log has no prompt, the sentence no line break."""

    def broken(*_: object) -> None:
        local = PROMPT
        raise KeyError(len(local))

    monkeypatch.setattr("analysis.uncertainty.scoring.encode_for", broken)
    assert call(monkeypatch, "score", "--model", "tiny-base", f"--text={PROMPT}", "--unit", "bits") == 70
    out, err = capsys.readouterr()
    (log,) = (cache / "log").iterdir()
    last = err.strip().splitlines()[-1]
    assert out == "" and "Traceback" not in err and last.startswith("Error: something unexpected went wrong in")
    assert "KeyError: 15" in last and str(log) in last
    written = log.read_text("utf-8")
    assert "Traceback" in written and "in broken" in written and "score --model --text --unit" in written
    assert PROMPT not in written and "tiny-base" not in written


def test_an_import_that_fails_is_told_the_same_way(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        guarded(lambda: import_module("tests.no_such_module"))
    assert left.value.code == 70 and "ModuleNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["model", "data", "trainer", "analysis", "evals", "benchmarks", ""])
def test_every_command_line_has_the_net(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli, "command", lambda words: command(ZeroDivisionError("no\nsuch")))
    monkeypatch.setattr(cli, "translated", lambda *given: [])
    monkeypatch.setattr(sys, "argv", [package])
    with pytest.raises(SystemExit) as left:
        start(package)
    assert left.value.code == 70
    assert "ZeroDivisionError: no such" in capsys.readouterr().err
    main = (ROOT / (package or "micro_step") / "__main__.py").read_text("utf-8")
    assert (f'start("{package}")' if package else "start()") in main


def test_a_fault_in_a_thread_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    app = typer.Typer()

    @app.command()
    def works() -> None:
        thread = threading.Thread(target=lambda: {}["x"])
        thread.start()
        thread.join()

    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "argv", ["works"])
    guarded(lambda: app(standalone_mode=False))
    err = capsys.readouterr().err
    assert "KeyError" in err and "Traceback" not in err


def test_ctrl_c_stays_clean(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path) -> None:
    monkeypatch.setattr(sys, "argv", ["works"])
    with pytest.raises(SystemExit) as left:
        guarded(lambda: command(KeyboardInterrupt())(standalone_mode=False))
    assert left.value.code == 130 and not (cache / "log").exists()
    assert capsys.readouterr().err.strip() == "Stopped; nothing was left half-written."


def test_a_reader_who_leaves_is_no_fault(cache: Path) -> None:
    """`micro-step model list | head -1`."""
    code = "import sys; sys.argv = ['x', 'model', 'list', '--json']; from model.terminal import start; start()"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ}
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode not in (0, 70) and not (cache / "log").exists()


def test_a_log_that_cannot_be_written_is_said(cache: Path) -> None:
    (cache / "log").write_text("", "utf-8")
    assert "could not be written to" in fault(ValueError("x" * 999), "a test")
    assert len(fault(ValueError("x" * 999), "a test")) < 500


def test_old_logs_go(cache: Path) -> None:
    folder = log_folder()
    folder.mkdir()
    for day in range(1, 31):
        (folder / f"2020-01-{day:02d}.log").write_text("", "utf-8")
    fault(ValueError("new"), "a test")
    assert len(list(folder.iterdir())) == DAYS
