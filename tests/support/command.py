"""The command line in this process, for the tests."""

import shlex
import sys

from model.terminal import start


def call(monkeypatch, *words, program=""):
    """Run `micro-step`, or `python -m PROGRAM` as it was before, in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", [program or "micro-step", *map(str, words)])
    try:
        start(program)
    except SystemExit as leave:
        return leave.code or 0
    return 0


def repeat(monkeypatch, command):
    """Run a command as a bundle gives it, in this process; returns its exit code."""
    first, *words = shlex.split(command)
    if first == "python":  # of before `micro-step`: python -m PROGRAM
        _, program, *words = words
        return call(monkeypatch, *words, program=program)
    assert first == "micro-step"
    return call(monkeypatch, *words)
