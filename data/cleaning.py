"""Clean a mix: read its sources, drop and mend examples by the mix's rules, and count what each rule did.

All examples of a mix are held in memory: their order is shuffled, so that any prefix is a fair sample.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from data.corpus.store_write import as_json, put
from data.example import Example
from data.examples import write_examples
from data.mixes import Cleaning, Mix, Use
from data.reading import examples_of, read, records_of
from data.rules import Contamination, NearDuplicates, code_language, fingerprint, line_breaks
from data.sources import source
from model.errors import ExportError, TextError
from model.terminal import Tell

REPORT = "report.json"
_SAMPLES = 3


@dataclass(frozen=True)
class SourceReport:
    """What became of one source."""

    source: str
    licence: str
    read: int
    kept: int
    held_out: int
    repeat: int
    dropped: dict[str, int]
    """By rule."""
    mended: dict[str, int]


@dataclass(frozen=True)
class CleaningReport:
    """What became of a mix."""

    mix: str
    sources: tuple[SourceReport, ...]
    samples: dict[str, tuple[str, ...]]
    """Of each rule, the beginnings of some that it dropped or mended."""

    @property
    def kept(self) -> int:
        """Examples."""
        return sum(each.kept for each in self.sources)


@dataclass
class _Counts:
    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    kept: list[Example] = field(default_factory=list)


def clean(
    mix: Mix, local: Path | None, out: Path, limit: int | None = None, tell: Tell = lambda message, fraction: None
) -> CleaningReport:
    """Clean a mix into examples.parquet and report.json.

    Args:
        mix: what to read, and by which rules.
        local: folder of the sources' files; None: the hub.
        out: folder, made if it is not there.
        limit: keep the first so many examples of the shuffled mix.
        tell: told about the progress.

    Raises:
        TextError: a source cannot be had, or nothing is left.
        ExportError: the folder cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ExportError(f"{out} cannot be made: {error.strerror}") from None
    samples: dict[str, list[str]] = {}
    shared = _Shared(mix.cleaning, _contamination(mix.cleaning, local, tell))
    found: dict[str, _Counts] = {}
    for use in mix.sources:
        if use.name in found:
            raise TextError(f"the mix {mix.name} names {use.name} twice; use repeat")
        counts = found[use.name] = _Counts()
        tell(f"cleaning {use.name}", None)
        examples = _examples(use, local)
        for example in examples:
            counts.read += 1
            kept = shared.cleaned(example, use.what.code_language, counts, samples)
            if kept is not None:
                counts.kept.append(replace(kept, repeat=use.repeat))
                if use.limit is not None and len(counts.kept) >= use.limit:
                    break
            if counts.read % 1000 == 0:
                tell(f"cleaning {use.name}: {counts.read:,} read, {len(counts.kept):,} kept", None)
    examples_ = _in_order(mix, found, limit)
    if not examples_:
        raise TextError(f"nothing is left of the mix {mix.name}: {_why(found)}")
    taken = Counter(each.source for each in examples_)
    aside = Counter(each.source for each in examples_ if each.held_out)
    report = CleaningReport(
        mix.name,
        tuple(
            SourceReport(
                use.name, use.what.licence, counts.read, taken[use.name], aside[use.name], use.repeat,
                dict(counts.dropped) | _left(counts, taken[use.name]), dict(counts.mended),
            )
            for use in mix.sources
            for counts in [found[use.name]]
        ),
        {rule: tuple(texts) for rule, texts in samples.items()},
    )  # fmt: skip
    put(out / REPORT, as_json(asdict(report)))
    write_examples(out, examples_)
    return report


def _examples(use: Use, local: Path | None) -> Iterator[Example]:
    if use.file is None:
        return read(use.name, use.what, local)
    assert use.columns is not None
    return examples_of(use.name, records_of(Path(use.file).expanduser(), use.columns.text or "text"), use.columns)


def _left(counts: _Counts, taken: int) -> dict[str, int]:
    left = len(counts.kept) - taken
    return {"limit": left} if left else {}


def _why(found: dict[str, _Counts]) -> str:
    read_, dropped = sum(each.read for each in found.values()), Counter[str]()
    for each in found.values():
        dropped += each.dropped
    return f"{read_:,} examples were read, " + (
        ", ".join(f"{n:,} dropped by {rule}" for rule, n in dropped.most_common()) or "none dropped"
    )


def _in_order(mix: Mix, found: dict[str, _Counts], limit: int | None) -> list[Example]:
    """Shuffled; of each source every so manieth held out."""
    every: list[Example] = []
    for name, counts in found.items():
        kept = counts.kept
        random.Random(f"{mix.seed}/{name}").shuffle(kept)
        n = mix.held_out
        every += [replace(each, held_out=n is not None and i % n == n - 1) for i, each in enumerate(kept)]
    random.Random(mix.seed).shuffle(every)
    return every[:limit]


def _contamination(rules: Cleaning, local: Path | None, tell: Tell) -> Contamination | None:
    if not rules.decontaminate:
        return None
    sets = Contamination(rules.overlap)
    for name in rules.decontaminate:
        tell(f"reading {name}, to keep it out", None)
        for example in read(name, source(name), local):
            sets.add(example.prompt)
            sets.add(example.response)
    return sets


class _Shared:
    """The rules in their order, with what has been seen so far."""

    def __init__(self, rules: Cleaning, contamination: Contamination | None) -> None:
        self._rules, self._contamination = rules, contamination
        self._seen: set[bytes] = set()
        self._near = NearDuplicates(rules.near_duplicates) if rules.near_duplicates is not None else None

    def cleaned(
        self, example: Example, language: str | None, counts: _Counts, samples: dict[str, list[str]]
    ) -> Example | None:
        """The example, mended where that was due; None where a rule drops it."""

        def note(rule: str, tally: Counter[str], text: str) -> None:
            tally[rule] += 1
            if len(samples.setdefault(rule, [])) < _SAMPLES:
                samples[rule].append(text[:160])

        rules = self._rules
        if rules.line_breaks != "keep":
            turned = _mapped(example, lambda text: line_breaks(text, rules.line_breaks == "literal"))
            if turned != example:
                note("line_breaks", counts.mended, example.response)
                example = turned
        drops: list[tuple[str, Callable[[], bool]]] = [
            ("code_language", lambda: rules.code_language and language is not None and code_language(example, language)),
            ("too short", lambda: bool(example.response) and len(example.response) < rules.least_characters),
            ("response_characters", lambda: len(example.response) > (rules.response_characters or 1 << 62)),
            ("prompt_characters", lambda: len(example.prompt) > (rules.prompt_characters or 1 << 62)),
            ("exact_duplicates", lambda: rules.exact_duplicates and self._again(example)),
            ("decontaminate", lambda: self._contamination is not None and self._contamination.holds(_whole(example))),
            ("near_duplicates", lambda: self._near is not None and self._near.again(_whole(example))),
        ]
        for rule, drop in drops:
            if drop():
                note(rule, counts.dropped, _whole(example))
                return None
        return example

    def _again(self, example: Example) -> bool:
        print_ = fingerprint(_whole(example))
        known = print_ in self._seen
        self._seen.add(print_)
        return known


def _whole(example: Example) -> str:
    return "\n".join(message.content for message in example.messages)


def _mapped(example: Example, change: Callable[[str], str]) -> Example:
    messages = tuple(replace(message, content=change(message.content)) for message in example.messages)
    return replace(example, messages=messages)
