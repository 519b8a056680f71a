"""The app under many visitors at once: how long they wait, the server's memory, and whether each is shown his own.

A visitor opens a link, reads for a while, leaves, and opens the next. Most texts are his own; some are everybody's, as
the text of a lecture is. Afterwards the links are opened once more, one at a time: a visitor who was shown anything
else then was shown another's answer.
"""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.app import ROOT, ServedApp, serving
from benchmarks.load.visit import Link, Visited, visit
from benchmarks.options import VisitorsOptions
from benchmarks.timing import environment
from data.samples import samples
from model.errors import MicroStepError
from model.progress import Tell

DEMO = ROOT / "data" / "demo"
SHARED = 0.25  # of the links: everybody's texts
ATTRIBUTION = 0.25  # of the links; the others are of the page Uncertainty
WORDS = 40, 120  # of a text
PATIENCE = 600.0  # seconds that a visitor waits
PAGES = ("uncertainty", "attribution")
ASKS = "This takes about"  # of a heavy run, before it is started; such a visit has no figures
MARK = re.compile(r"visitor\d+")


@dataclass(frozen=True)
class MemorySample:
    seconds: float  # since the first visitor
    size: int  # bytes of the server and the processes that it started


def measure(given: VisitorsOptions, tell: Tell) -> list[dict[str, Any]]:
    """A report for each checkout.

    Raises:
        MicroStepError: a checkout does not start, or a pair is not two names.
    """
    folders = {"there": given.against.resolve()} if given.against is not None else {}
    reports = []
    with tempfile.TemporaryDirectory() as copies:
        pairs = [*copied(Path(copies), given.pairs), *(_named(pair) for pair in given.pair or ())]
        for name, folder in {**folders, "here": ROOT}.items():
            with serving(folder) as server:
                reports.append({"checkout": name, **under_load(server, pairs, given, tell)})
    return reports


def under_load(
    server: ServedApp, pairs: Sequence[tuple[str, str]], given: VisitorsOptions, tell: Tell
) -> dict[str, Any]:
    """A report of a server that is running."""
    load = _Load(server, pairs, given, tell)
    asyncio.run(load.run())
    alone = asyncio.run(load.alone())
    seen = load.visited
    asked = [each for each in seen if any(ASKS in words for words in each.words)]
    errors = [each for each in seen if not _answered(each) and each not in asked]
    answered = [each for each in seen if _answered(each)]
    mixed = [each for each in seen if _strange(each) or (_answered(each) and _differs(each, alone))]
    return {
        "measured": "the app under many visitors",
        "visitors": given.visitors,
        "pairs": [f"{Path(a).name}, {Path(b).name}" for a, b in pairs],
        "minutes": given.minutes,
        "reads_s": given.think,
        **environment("streamlit", "torch"),
        "load_average": [round(each, 1) for each in psutil.getloadavg()],
        "errors": len(errors),
        "first_error": next((each.error or "no numbers" for each in errors), None),
        "asked_first": len(asked),
        "compared": len(alone),
        "mix_ups": len(mixed),
        "cpu_s_per_visit": load.cpu_seconds / len(seen),
        **_memory(load.memory, given.minutes * 60),
        "rows": [_row(page, [each for each in answered if each.link.page == page]) for page in PAGES],
    }


class _Load:
    """All visitors of a server, and the server's memory meanwhile."""

    def __init__(self, server: ServedApp, pairs: Sequence[tuple[str, str]], given: VisitorsOptions, tell: Tell) -> None:
        self.address, self.process = server.address, psutil.Process(server.pid)
        self.pairs, self.given, self.tell = pairs, given, tell
        self.visited: list[Visited] = []
        self.memory: list[MemorySample] = []
        self.cpu_seconds = 0.0  # of processors, by the server

    async def run(self) -> None:
        """Open each page once; then let visitors come until the time is over, and wait for the last ones."""
        for page in PAGES:  # the server imports what a page needs at its first visit
            self.tell(f"opening {page}", None)
            await visit(self.address, Link(page, *self.pairs[0], "Nobody asks for this text."), PATIENCE)
        self.begun = time.perf_counter()
        self.until = self.begun + self.given.minutes * 60
        before = _cpu_seconds(self.process)
        watching = asyncio.create_task(self._watch())
        await asyncio.gather(*(self._visitor(number) for number in range(self.given.visitors)))
        watching.cancel()
        self.cpu_seconds = _cpu_seconds(self.process) - before

    async def _visitor(self, number: int) -> None:
        chance = random.Random(f"{self.given.seed} {number}")
        await asyncio.sleep(chance.uniform(0, self.given.think))
        coming = True
        while coming:
            link = self._link(chance, number)
            self.visited.append(await visit(self.address, link, PATIENCE))
            await asyncio.sleep(chance.uniform(0.5, 1.5) * self.given.think)
            coming = time.perf_counter() < self.until

    def _link(self, chance: random.Random, number: int) -> Link:
        shared = chance.random() < SHARED
        source = random.Random(chance.randrange(len(self.pairs))) if shared else chance
        a, b = source.choice(self.pairs)
        text = _text(source, "everybody" if shared else f"visitor{number}")
        return Link("attribution" if chance.random() < ATTRIBUTION else "uncertainty", a, b, text)

    async def _watch(self) -> None:
        while True:
            share = min(1.0, (time.perf_counter() - self.begun) / (self.given.minutes * 60))
            self.tell(f"{len(self.visited)} visits", share)
            self.memory.append(MemorySample(time.perf_counter() - self.begun, _size(self.process)))
            await asyncio.sleep(1)

    async def alone(self) -> dict[Link, tuple[str, ...]]:
        """What is shown to a visitor alone, of the last links of the load."""
        links = list(dict.fromkeys(each.link for each in reversed(self.visited)))[: self.given.compared]
        shown = {}
        for place, link in enumerate(links):
            self.tell("comparing with visits alone", place / len(links))
            shown[link] = (await visit(self.address, link, PATIENCE)).words
        return shown


def _answered(seen: Visited) -> bool:
    """Whether the page shows the numbers that it is for: B − A, or what changes a number most."""
    sign = "B − A **" if seen.link.page == "uncertainty" else "changes it most"
    return seen.error is None and any(sign in words for words in seen.words)


def _strange(seen: Visited) -> bool:
    """Whether the page holds another visitor's text."""
    own = set(MARK.findall(seen.link.text))
    return not set(MARK.findall(seen.received.decode("utf-8", "replace"))) <= own


def _differs(seen: Visited, alone: Mapping[Link, tuple[str, ...]]) -> bool:
    """Whether the page said anything else than to a visitor alone."""
    return seen.link in alone and seen.words != alone[seen.link]


def _row(page: str, seen: Sequence[Visited]) -> dict[str, Any]:
    seconds = [each.seconds for each in seen] or [float("nan")]
    quantiles = {f"p{q}_s": float(np.quantile(seconds, q / 100)) if seen else None for q in (50, 95, 100)}
    return {"page": page, "visits": len(seen), **quantiles}


def _memory(samples: Sequence[MemorySample], seconds: float) -> dict[str, Any]:
    """Medians of the second and the last fifth of the time: flat if they are alike."""
    fifths = [[each.size for each in samples if int(5 * each.seconds / seconds) == part] for part in range(5)]
    early, late = (float(np.median(fifths[part])) / 1e9 if fifths[part] else None for part in (1, 4))
    return {"memory_early_gb": early, "memory_late_gb": late, "memory_peak_gb": max(s.size for s in samples) / 1e9}


def _size(process: psutil.Process) -> int:
    try:
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _text(chance: random.Random, mark: str) -> str:
    words = " ".join(sample.text for sample in samples()).split()
    length = chance.randint(*WORDS)
    begin = chance.randrange(len(words) - length)
    return f"{mark} writes: {' '.join(words[begin : begin + length])}"


def _named(pair: str) -> tuple[str, str]:
    a, comma, b = pair.partition(",")
    if not (a.strip() and b.strip() and comma):
        raise MicroStepError(f"{pair!r} is no pair; write A,B")
    return a.strip(), b.strip()


def copied(folder: Path, count: int) -> list[tuple[str, str]]:
    """So many pairs of the project's own tiny models, each a copy in files of its own."""
    pairs = []
    for number in range(1, count + 1):
        pair = [folder / f"{name}-{number}" for name in ("tiny-base", "tiny-sft")]
        for path in pair:
            shutil.copytree(DEMO / path.name.rpartition("-")[0], path)
        pairs.append((str(pair[0]), str(pair[1])))
    return pairs
