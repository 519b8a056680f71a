"""Clean a mix: read its sources, drop or correct examples by the mix's rules, and count what each rule did.

Sources are streamed; the kept examples stay in memory, since their order is shuffled. They take about the size of their
texts plus 1 kB each, and dedup.py says how much duplicates and evaluation sets take.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from data.cleaning.dedup import ContaminationIndex, Duplicates, NearDuplicates
from data.cleaning.filters import languages, literal_line_breaks, mistyped, real_line_breaks
from data.cleaning.report import REPORT, CleaningReport, FilterCounts
from data.examples import Example, write_examples, writing_to
from data.mixes import Cleaning, Mix, Opening, Use
from data.sources.reading import readings
from data.sources.records import require_source
from data.sources.registry import source
from model.atomic_files import atomic_write
from model.errors import ExportError, TextError
from model.progress import Meter, Tell, silent
from model.text.document import Message


def clean(mix: Mix, local: Path | None, out: Path, limit: int | None = None, tell: Tell = silent) -> CleaningReport:
    """Clean a mix into examples.parquet and report.json, written completely or not at all.

    The same mix and files give the same examples in the same order; a prefix of them is a fair sample of all. The order
    depends only on seed, source and number, so two mixes that keep the same examples have them in the same order.
    """
    if out.exists() and not out.is_dir():
        raise ExportError(f"{out} is a file; give a folder")
    for use in mix.sources:
        require_source(use.definition, local)
    rules = _Rules(mix.cleaning, _contamination(mix.cleaning, local, tell))
    tallies: dict[str, FilterCounts] = {}
    kept: list[Example] = []
    for place, use in enumerate(mix.sources):
        tally = tallies[use.name] = FilterCounts()
        examples = list(_cleaned(use, local, rules, tally, tell, place / len(mix.sources)))
        examples.sort(key=lambda example: _order(mix.seed, example))
        n = mix.held_out
        kept += [replace(example, held_out=n is not None and i % n == n - 1) for i, example in enumerate(examples)]
    kept.sort(key=lambda example: _order(mix.seed, example))
    kept = kept[:limit]
    if not kept:
        raise TextError(f"nothing is left of the mix {mix.name}: {_why(tallies)}")
    report = _report(mix, tallies, kept, rules)
    with writing_to(out):
        atomic_write(out / REPORT, report.to_json())
    write_examples(out, kept)
    return report


def _cleaned(
    use: Use, local: Path | None, rules: _Rules, tally: FilterCounts, tell: Tell, share: float
) -> Iterator[Example]:
    kept, meter = 0, Meter()
    tell(f"cleaning {use.name}", share)
    for reading in readings(use.definition, local):
        tally.read += 1
        if meter.due():
            tell(f"cleaning {use.name}: {tally.read:,} read, {kept:,} kept", share)
        if reading.messages is None:
            tally.drop(str(reading.reason), reading.sample)
            continue
        messages = reading.messages if use.opening is None else _opened(reading.messages, use.opening)
        if messages is None:
            tally.drop("opening", reading.messages[0].content)
            continue
        example = rules.cleaned(Example(use.name, reading.number, messages, reading.ended, repeat=use.repeat), tally)
        if example is not None:
            yield example
            kept += 1
            if kept == use.limit:
                return


def _opened(messages: tuple[Message, ...], opening: Opening) -> tuple[Message, ...] | None:
    """Split a plain text into its beginning and the rest; None if there is no rest. Conversations stay unchanged."""
    if len(messages) > 1 or messages[0].role == "user":
        return messages
    text, limit = messages[0].content, opening.characters
    if len(text) <= limit:
        return None
    ends = [text.rfind(end, limit // 2, limit) + 1 for end in (". ", "! ", "? ", "\n")]
    end_of_beginning = max(ends) or text.rfind(" ", 0, limit) + 1 or limit
    beginning, rest = (
        text[:end_of_beginning].rstrip(),
        text[end_of_beginning:].strip("\n" if text[end_of_beginning - 1] == "\n" else None).rstrip(),
    )
    if not rest:
        return None
    return Message("user", f"{opening.ask}\n\n{beginning}"), Message("assistant", rest)


def _order(seed: int, example: Example) -> bytes:
    key = f"{seed}/{example.source}/{example.number}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(key, digest_size=16).digest()


def _report(mix: Mix, tallies: dict[str, FilterCounts], kept: list[Example], rules: _Rules) -> CleaningReport:
    def count(name: str, only_held_out: bool) -> int:
        return sum(example.source == name and (example.held_out or not only_held_out) for example in kept)

    sources = tuple(
        tallies[use.name].report(
            use.name, use.definition.licence, count(use.name, False), count(use.name, True), use.repeat
        )
        for use in mix.sources
    )
    unguarded = rules.contamination.unguarded if rules.contamination is not None else {}
    return CleaningReport(mix.name, sources, unguarded, rules.near.missed if rules.near is not None else None)


def _why(tallies: dict[str, FilterCounts]) -> str:
    read = sum(counts.read for counts in tallies.values())
    dropped = [f"{n:,} dropped by {rule}" for counts in tallies.values() for rule, n in counts.dropped.most_common()]
    return f"{read:,} examples were read, {', '.join(dropped) or 'none dropped'}"


def _contamination(rules: Cleaning, local: Path | None, tell: Tell) -> ContaminationIndex | None:
    if rules.decontaminate is None:
        return None
    index = ContaminationIndex(rules.decontaminate.words)
    for name in rules.decontaminate.against:
        tell(f"reading {name}, which must be kept out", None)
        for example_read in readings(source(name), local):
            if example_read.messages is not None:
                example = Example(name, example_read.number, example_read.messages)
                index.add(name, example.prompt or example.response, example.response if example.prompt else "")
    return index


class _Rules:
    """The rules of a mix in their order, with the examples seen so far."""

    def __init__(self, rules: Cleaning, contamination: ContaminationIndex | None) -> None:
        self.contamination = contamination
        self.near = None if rules.near_duplicates is None else NearDuplicates(rules.near_duplicates)
        self._rules = rules
        self._seen = Duplicates()

    def cleaned(self, example: Example, tally: FilterCounts) -> Example | None:
        """Return the example, corrected if needed; None if a rule drops it."""
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
        if rules.typing_noise is not None:
            key = f"{example.source}/{example.number}"
            example = _mapped(example, partial(mistyped, share=rules.typing_noise, key=key))
            tally.mend("typing_noise", _whole(example))
        return example

    def _reason(self, example: Example, tally: FilterCounts) -> tuple[str, str] | None:
        """Return the first rule that drops an example, and a sample of what it found."""
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
        if self.contamination is not None and (shared := self.contamination.find(whole)) is not None:
            return "decontaminate", shared
        if rules.exact_duplicates and self._seen.seen_before(whole):
            return "exact_duplicates", whole
        if self.near is not None and self.near.seen_before(whole):
            return "near_duplicates", whole
        return None


def _whole(example: Example) -> str:
    return "\n".join(message.content for message in example.messages)


def _mapped(example: Example, change: Callable[[str], str]) -> Example:
    messages = tuple(replace(message, content=change(message.content)) for message in example.messages)
    return replace(example, messages=messages)
