"""What cleaning did: examples in, out, and dropped or mended by each rule, source by source, with a few of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field

from model.atomic_files import as_json

REPORT = "report.json"
LIMIT = "limit"  # as a rule: what a limit on the whole mix left out
SAMPLES, SAMPLE_CHARACTERS = 3, 160


@dataclass(frozen=True)
class SourceReport:
    """What became of one source. read = kept + the sum of dropped."""

    source: str
    licence: str
    read: int
    """Records, or pieces of long texts."""
    kept: int
    """Examples in the result, those held out included."""
    held_out: int
    repeat: int
    dropped: dict[str, int]
    """By rule; an example counts for the first rule that drops it."""
    mended: dict[str, int]
    """Examples that a rule changed, whether or not they were kept."""
    samples: dict[str, tuple[str, ...]]
    """By rule, the beginnings of the first few that it dropped or changed."""
    unlabelled_code: int
    """Fenced blocks without a language, where languages were looked at."""


@dataclass(frozen=True)
class CleaningReport:
    """What became of a mix."""

    mix: str
    sources: tuple[SourceReport, ...]
    unguarded: dict[str, int]
    """By evaluation set: questions that are too short to be kept out."""
    missed_near_duplicates: float | None
    """The chance that a pair just at the threshold was overlooked."""

    @property
    def read(self) -> int:
        """Records."""
        return sum(each.read for each in self.sources)

    @property
    def kept(self) -> int:
        """Examples."""
        return sum(each.kept for each in self.sources)

    @property
    def held_out(self) -> int:
        """Of the examples that were kept."""
        return sum(each.held_out for each in self.sources)

    def to_json(self) -> bytes:
        """The content of report.json."""
        totals = {"read": self.read, "kept": self.kept, "held_out": self.held_out}
        return as_json({"mix": self.mix, **totals, **asdict(self)})


@dataclass
class FilterCounts:
    """Counts of one source while it is read."""

    read: int = 0
    unlabelled: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, rule: str, sample: str) -> None:
        """Count an example that is dropped."""
        self.dropped[rule] += 1
        self._keep(rule, sample)

    def mend(self, rule: str, sample: str) -> None:
        """Count an example that is changed."""
        self.mended[rule] += 1
        self._keep(rule, sample)

    def _keep(self, rule: str, sample: str) -> None:
        held = self.samples.setdefault(rule, [])
        if len(held) < SAMPLES:
            held.append(sample[:SAMPLE_CHARACTERS])

    def report(self, source: str, licence: str, kept: int, held_out: int, repeat: int) -> SourceReport:
        """As it is told at the end."""
        left_out = self.read - self.dropped.total() - kept
        return SourceReport(
            source=source,
            licence=licence,
            read=self.read,
            kept=kept,
            held_out=held_out,
            repeat=repeat,
            dropped=dict(self.dropped) | ({LIMIT: left_out} if left_out else {}),
            mended=dict(self.mended),
            samples={rule: tuple(texts) for rule, texts in self.samples.items()},
            unlabelled_code=self.unlabelled,
        )
