"""The command line in this process, for the tests."""

import importlib
import shlex
import sys

from analysis.cli import main


def call(monkeypatch, *words, program="analysis", main=main):
    """Run `python -m analysis`, or another of the programs, in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [program, *map(str, words)])
    try:
        main()
    except SystemExit as leave:
        return leave.code or 0
    return 0


def repeat(monkeypatch, command):
    """Run a command as a bundle gives it, `python -m PROGRAM ...`, in this process; returns its exit code."""
    python, dash_m, program, *words = shlex.split(command)
    assert (python, dash_m) == ("python", "-m")
    return call(monkeypatch, *words, program=program, main=importlib.import_module(f"{program}.cli").main)
