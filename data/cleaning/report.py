"""The report on cleaning: examples in and out, dropped or corrected by each rule, per source, with samples."""

from collections import Counter
from dataclasses import asdict, dataclass, field

from model.atomic_files import as_json

REPORT = "report.json"
LIMIT = "limit"  # named as a rule: what a limit on the whole mix left out
SAMPLES, SAMPLE_CHARACTERS = 3, 160


@dataclass(frozen=True)
class SourceReport:
    """The result for one source; read = kept + the sum of dropped."""

    source: str
    licence: str
    read: int  # number of records, or of pieces of long texts
    kept: int  # number of examples in the result, including those held out
    held_out: int
    repeat: int
    dropped: dict[str, int]  # counts by rule; an example counts for the first rule that drops it
    mended: dict[str, int]  # examples that a rule changed, whether or not they were kept
    samples: dict[str, tuple[str, ...]]  # by rule, the beginnings of the first few examples that it dropped or changed
    unlabelled_code: int  # fenced blocks without a language, if languages were checked


@dataclass(frozen=True)
class CleaningReport:
    mix: str
    sources: tuple[SourceReport, ...]
    unguarded: dict[str, int]  # by evaluation set: questions that are too short to be kept out
    missed_near_duplicates: float | None  # probability that a pair just at the threshold was overlooked

    @property
    def read(self) -> int:
        return sum(source.read for source in self.sources)

    @property
    def kept(self) -> int:
        return sum(source.kept for source in self.sources)

    @property
    def held_out(self) -> int:
        return sum(source.held_out for source in self.sources)

    def to_json(self) -> bytes:
        totals = {"read": self.read, "kept": self.kept, "held_out": self.held_out}
        return as_json({"mix": self.mix, **totals, **asdict(self)})


@dataclass
class FilterCounts:
    read: int = 0
    unlabelled: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    mended: Counter[str] = field(default_factory=Counter)
    samples: dict[str, list[str]] = field(default_factory=dict)

    def drop(self, rule: str, sample: str) -> None:
        self.dropped[rule] += 1
        self._keep(rule, sample)

    def mend(self, rule: str, sample: str) -> None:
        self.mended[rule] += 1
        self._keep(rule, sample)

    def _keep(self, rule: str, sample: str) -> None:
        held = self.samples.setdefault(rule, [])
        if len(held) < SAMPLES:
            held.append(sample[:SAMPLE_CHARACTERS])

    def report(self, source: str, licence: str, kept: int, held_out: int, repeat: int) -> SourceReport:
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
