"""Visitors of a real server, over its connection: each is shown his own, and a run ends when its visitor leaves."""

import re
import time
from concurrent.futures import ThreadPoolExecutor

import psutil

from benchmarks.app import ROOT, serving
from benchmarks.load.measure import copied, under_load
from benchmarks.load.visit import Link, visit
from benchmarks.options import VisitorsOptions
from model.progress import silent
from tests.support.processes import run_coroutine


def seconds_used(process, seconds):
    """Seconds of processors that a process uses in so many seconds."""
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return sum(process.cpu_times()[:2]) - before


def test_visitors_are_shown_their_own_and_a_run_ends_when_its_visitor_leaves(tmp_path):
    pairs = copied(tmp_path, 2)
    options = VisitorsOptions(visitors=3, minutes=0.05, think=0.5, compared=2)
    with serving(ROOT) as server, ThreadPoolExecutor(1) as thread:  # this thread has the event loop of browser tests
        report = thread.submit(under_load, server, pairs, options, silent).result()
        assert report["errors"] == report["mix_ups"] == 0 < report["compared"], report["first_error"]
        assert sum(row["visits"] for row in report["rows"]) >= 3
        long = Link("uncertainty", *pairs[0], "A long answer follows.", (("mode", "own"), ("new_tokens", "1000")))
        left = run_coroutine(visit(server.address, long, 120, stay=4))
        assert re.search(rb"scoring, \d+%", left.received), "the run had not begun"
        time.sleep(0.5)
        assert seconds_used(psutil.Process(server.pid), 1.5) < 0.4
