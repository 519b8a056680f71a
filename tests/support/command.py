"""The command line in this process, for the tests."""

import sys

from analysis.cli import main


def call(monkeypatch, *words):
    """Run `python -m analysis` in this process; returns its exit code."""
    monkeypatch.setattr(sys, "argv", ["analysis", *map(str, words)])
    try:
        main()
    except SystemExit as leave:
        return leave.code or 0
    return 0
