"""The queue of runs: who goes first, who pauses, who is told what, and who leaves."""

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field

from app.scheduling.run_queue import RunLimits, RunQueue, RunRefused


class Left(BaseException):
    """As Streamlit's own signal that a visitor is gone."""


@dataclass
class Visit:
    """A run in a thread of its own: it waits, has the machine until it is told to end, and reports all that time."""

    queue: RunQueue
    visitor: str
    question: str
    order: list[str]  # of the runs that got the machine
    answers: set[str] = field(default_factory=set)
    said: list[str] = field(default_factory=list)
    reports: int = 0  # while it has the machine

    def __post_init__(self):
        self.end, self.gone, self.has, self.error = threading.Event(), threading.Event(), threading.Event(), None
        self.thread = threading.Thread(target=self._visit)
        self.thread.start()
        eventually(lambda: self.said or self.has.is_set() or self.error)

    def _tell(self, message):
        self.said.append(message)
        if self.gone.is_set():
            raise Left

    def _report(self, share):
        self.reports += 1
        if self.gone.is_set():
            raise Left

    def _visit(self):
        try:
            with self.queue.turn(self.visitor, self.question, lambda: self.question in self.answers, self._tell) as run:
                if run is None:
                    return
                run.doing = self.question
                self.order.append(self.visitor)
                self.has.set()
                report = self.queue.watched(run, self._report, self._tell)
                while not self.end.wait(0.01):
                    report(0.5)
                self.answers.add(self.question)
        except (Left, RunRefused) as error:
            self.error = error


def eventually(condition, seconds=20.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


@contextmanager
def visits(limits):
    """Starts visits by name and question, and ends them all."""
    started, order, answers, queue = [], [], set(), RunQueue(limits)

    def start(visitor, question):
        started.append(Visit(queue, visitor, question, order, answers))
        return started[-1]

    try:
        yield start, order
    finally:
        for each in started:
            each.end.set()
        for each in started:
            each.thread.join(20)
            assert not each.thread.is_alive()


LONG = RunLimits(light=1e9, patience=1e9)  # nothing becomes heavy


def test_visitors_take_turns_and_know_their_place():
    with visits(LONG) as (start, order):
        first = start("a", "1")
        others = [start("a", "2"), start("a", "3"), start("b", "4")]
        assert "(1), at place 1 of 3" in start_of(others[2])  # b has had no turn yet
        assert "place 2 of" in start_of(others[0])
        for each in (first, others[2], others[0], others[1]):
            eventually(each.has.is_set)
            each.end.set()
        eventually(lambda: len(order) == 4)
        assert order == ["a", "b", "a", "a"]


def start_of(visit):
    """What a waiting run was told last."""
    count = len(visit.said)
    eventually(lambda: len(visit.said) > count + 1)
    return visit.said[-1]


def test_a_heavy_run_pauses_for_a_light_one_and_goes_on():
    with visits(RunLimits(light=0.1, patience=1e9, slice=0.0)) as (start, _):
        heavy = start("a", "heavy")
        time.sleep(0.2)
        light = start("b", "light")
        eventually(light.has.is_set)
        assert not heavy.end.is_set() and "paused" in start_of(heavy)
        light.end.set()
        light.thread.join(20)
        before = heavy.reports
        eventually(lambda: heavy.reports > before)
        heavy.end.set()


def test_a_paused_run_goes_on_before_others_once_it_has_waited_for_long():
    with visits(RunLimits(light=0.1, patience=0.5, slice=0.1)) as (start, _):
        runs = [start("a", "1"), start("b", "2")]  # both run for long
        for run in (*runs, *runs):  # each is paused again and again, and has the machine between
            before = run.reports
            eventually(lambda run=run, before=before: run.reports > before + 1)
        assert all(any("paused" in each for each in run.said) for run in runs)


def test_equal_questions_are_run_once():
    with visits(LONG) as (start, order):
        first, other, same = start("a", "1"), start("c", "2"), start("b", "1")
        assert "place 2 of 2" in start_of(same)
        first.end.set()
        same.thread.join(20)
        eventually(other.has.is_set)
        assert order == ["a", "c"] and same.error is None


def test_who_leaves_gives_the_machine_or_the_place_back():
    with visits(LONG) as (start, order):
        first, waiting, last = start("a", "1"), start("b", "2"), start("c", "3")
        waiting.gone.set()
        waiting.thread.join(20)
        first.gone.set()
        eventually(last.has.is_set)
        assert isinstance(waiting.error, Left) and isinstance(first.error, Left) and order == ["a", "c"]


def test_too_many_and_too_long_runs_are_refused():
    with visits(RunLimits(waiting=1, seconds=0.3)) as (start, _):
        first = start("a", "1")
        start("b", "2")
        third = start("c", "3")
        assert isinstance(third.error, RunRefused) and "try again" in str(third.error)
        first.thread.join(20)
        assert isinstance(first.error, RunRefused) and "limit" in str(first.error)
