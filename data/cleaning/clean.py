"""Clean a mix: read its sources, drop and mend examples by the mix's rules, and count what each rule did.

Sources are streamed; the examples that are kept stay in memory, as their order is shuffled: about the size of their
texts and 1 kB each, and what seen.py says of duplicates and evaluation sets.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from data.cleaning.dedup import ContaminationIndex, Duplicates, NearDuplicates
from data.cleaning.filters import languages, literal_line_breaks, real_line_breaks
from data.cleaning.report import REPORT, CleaningReport, FilterCounts
from data.example import Example
from data.examples import write_examples, writing_to
from data.mixes import Cleaning, Mix, Opening, Use
from data.sources.reading import readings
from data.sources.records import at_hand
from data.sources.registry import source
from model.atomic_files import atomic_write
from model.errors import ExportError, TextError
from model.progress import Tell, silent
from model.text.document import Message


def clean(
    mix: Mix,
    local: Path | None,
    out: Path,
    limit: int | None = None,
    tell: Tell = silent,
    interval: float = 1.0,
) -> CleaningReport:
    """Clean a mix into examples.parquet and report.json, both there at the end or not at all.

    The same mix and files give the same examples in the same order; a prefix of them is a fair sample of all. The order
    follows from seed, source and number alone, so that two mixes that keep the same examples hold them in one order.

    Args:
        mix: what to read, and by which rules.
        local: folder of the sources' files; None: the hub.
        out: folder, made if it is not there.
        limit: keep the first so many examples.
        tell: told about the progress, at most every `interval` seconds but for each source once.
        interval: seconds.

    Raises:
        TextError: a source cannot be had, or nothing is left.
        ExportError: the folder cannot be written.
    """
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} is a file; give a folder")
    for use in mix.sources:
        at_hand(use.what, local)
    rules = _Rules(mix.cleaning, _contamination(mix.cleaning, local, tell))
    tallies: dict[str, FilterCounts] = {}
    kept: list[Example] = []
    for place, use in enumerate(mix.sources):
        tally = tallies[use.name] = FilterCounts()
        own = list(_cleaned(use, local, rules, tally, partial(_told, tell, place / len(mix.sources)), interval))
        own.sort(key=lambda each: _order(mix.seed, each))
        n = mix.held_out
        kept += [replace(each, held_out=n is not None and i % n == n - 1) for i, each in enumerate(own)]
    kept.sort(key=lambda each: _order(mix.seed, each))
    kept = kept[:limit]
    if not kept:
        raise TextError(f"nothing is left of the mix {mix.name}: {_why(tallies)}")
    report = _report(mix, tallies, kept, rules)
    with writing_to(out):
        atomic_write(out / REPORT, report.to_json())
    write_examples(out, kept)
    return report


def _told(tell: Tell, share: float, message: str) -> None:
    tell(message, share)


def _cleaned(
    use: Use, local: Path | None, rules: _Rules, tally: FilterCounts, tell: Callable[[str], None], interval: float
) -> Iterator[Example]:
    """The examples of one source that are kept."""
    kept, told = 0, time.monotonic()
    tell(f"cleaning {use.name}")
    for each in readings(use.what, local):
        tally.read += 1
        if time.monotonic() - told > interval:
            told = time.monotonic()
            tell(f"cleaning {use.name}: {tally.read:,} read, {kept:,} kept")
        if each.messages is None:
            tally.drop(str(each.reason), each.sample)
            continue
        messages = each.messages if use.opening is None else _opened(each.messages, use.opening)
        if messages is None:
            tally.drop("opening", each.messages[0].content)
            continue
        example = rules.cleaned(Example(use.name, each.number, messages, each.ended, repeat=use.repeat), tally)
        if example is not None:
            yield example
            kept += 1
            if kept == use.limit:
                return


def _opened(messages: tuple[Message, ...], opening: Opening) -> tuple[Message, ...] | None:
    """A plain text as its beginning and what follows; None where nothing follows. Conversations stay."""
    if len(messages) > 1 or messages[0].role == "user":
        return messages
    text, at = messages[0].content, opening.characters
    if len(text) <= at:
        return None
    ends = [text.rfind(end, at // 2, at) + 1 for end in (". ", "! ", "? ", "\n")]
    cut = max(ends) or text.rfind(" ", 0, at) + 1 or at
    begun, follows = text[:cut].rstrip(), text[cut:].strip("\n" if text[cut - 1] == "\n" else None).rstrip()
    if not follows:
        return None
    return Message("user", f"{opening.ask}\n\n{begun}"), Message("assistant", follows)


def _order(seed: int, example: Example) -> bytes:
    key = f"{seed}/{example.source}/{example.number}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=16).digest()


def _report(mix: Mix, tallies: dict[str, FilterCounts], kept: list[Example], rules: _Rules) -> CleaningReport:
    def count(name: str, only_held_out: bool) -> int:
        return sum(each.source == name and (each.held_out or not only_held_out) for each in kept)

    found = tuple(
        tallies[use.name].report(use.name, use.what.licence, count(use.name, False), count(use.name, True), use.repeat)
        for use in mix.sources
    )
    unguarded = rules.contamination.unguarded if rules.contamination is not None else {}
    return CleaningReport(mix.name, found, unguarded, rules.near.missed if rules.near is not None else None)


def _why(tallies: dict[str, FilterCounts]) -> str:
    read = sum(each.read for each in tallies.values())
    dropped = [f"{n:,} dropped by {rule}" for each in tallies.values() for rule, n in each.dropped.most_common()]
    return f"{read:,} examples were read, {', '.join(dropped) or 'none dropped'}"


def _contamination(rules: Cleaning, local: Path | None, tell: Tell) -> ContaminationIndex | None:
    if rules.decontaminate is None:
        return None
    held = ContaminationIndex(rules.decontaminate.words)
    for name in rules.decontaminate.against:
        tell(f"reading {name}, to keep it out", None)
        for each in readings(source(name), local):
            if each.messages is not None:
                example = Example(name, each.number, each.messages)
                held.add(name, example.prompt or example.response, example.response if example.prompt else "")
    return held


class _Rules:
    """The rules of a mix in their order, with what has been seen so far."""

    def __init__(self, rules: Cleaning, contamination: ContaminationIndex | None) -> None:
        self.contamination = contamination
        self.near = None if rules.near_duplicates is None else NearDuplicates(rules.near_duplicates)
        self._rules = rules
        self._seen = Duplicates()

    def cleaned(self, example: Example, tally: FilterCounts) -> Example | None:
        """The example, mended where that was due; None where a rule drops it."""
        rules = self._rules
        if rules.line_breaks == "real":
            before, example = example, _mapped(example, real_line_breaks)
            if example != before:
                tally.mend("line_breaks", _whole(before))
        if (reason := self._reason(example, tally)) is not None:
            tally.drop(*reason)
            return None
        if rules.line_breaks == "literal":
            before, example = example, _mapped(example, literal_line_breaks)
            if example != before:
                tally.mend("line_breaks", _whole(example))
        return example

    def _reason(self, example: Example, tally: FilterCounts) -> tuple[str, str] | None:
        """The first rule that drops an example, and a sample of what it saw."""
        rules, whole = self._rules, _whole(example)
        if rules.code_languages is not None:
            blocks = [label for message in example.messages for label in languages(message.content)]
            tally.unlabelled += blocks.count("")
            if other := [label for label in blocks if label and label not in rules.code_languages]:
                return "code_languages", f"{other[0]}: {whole}"
        if rules.prompt_characters is not None and len(example.prompt) > rules.prompt_characters:
            return "prompt_characters", whole
        if rules.response_characters is not None and len(example.response) > rules.response_characters:
            return "response_characters", whole
        if example.response and len(example.response) < rules.least_characters:
            return "least_characters", whole
        if self.contamination is not None and (shared := self.contamination.found(whole)) is not None:
            return "decontaminate", shared
        if rules.exact_duplicates and self._seen.again(whole):
            return "exact_duplicates", whole
        if self.near is not None and self.near.again(whole):
            return "near_duplicates", whole
        return None


def _whole(example: Example) -> str:
    return "\n".join(message.content for message in example.messages)


def _mapped(example: Example, change: Callable[[str], str]) -> Example:
    messages = tuple(replace(message, content=change(message.content)) for message in example.messages)
    return replace(example, messages=messages)
