"""Where a figure of evaluations comes from: the files of samples that it needs, and the command that makes it again.

An export holds what was read, as it was: a run that goes on does not change what is made again. Prompts and answers
are in it only where the figure shows them.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from analysis.export import Files
from analysis.provenance import Provenance, drawing_lines
from data.corpus.store import MANIFEST
from evals.report.score_rows import Evaluated, ScoreRow, bare
from evals.report.side_by_side import SampleSide, Show, SideBySide, invalid
from evals.report.tables import notes
from evals.samples import Sample, SampleFile, file_name, to_lines
from model.atomic_files import as_json
from model.command_options import command_line

FOLDER = "evaluations"  # of an export


def report_origin(found: Mapping[str, Evaluated], rows: Sequence[ScoreRow], benchmark: str | None = None) -> Provenance:
    """Of a report on evaluations, by their names: its rows, of all benchmarks or of one."""
    words = ["eval", "report", *(f"{FOLDER}/{name}" for name in found), *(["--tasks", benchmark] if benchmark else [])]
    make: dict[str, Callable[[], bytes]] = {}
    places = list(dict.fromkeys(str(row.path.resolve().parent) for row in rows))
    only = "" if benchmark is None else f", tasks={benchmark!r}"
    for name, each in found.items():
        make[f"{FOLDER}/{name}/{MANIFEST}"] = partial(as_json, each.manifest)
        for file in each.files:
            make[f"{FOLDER}/{name}/{file_name(file.head.benchmark, file.head.tau)}"] = partial(_bare, file)
    return Provenance(
        lambda figure, out: command_line(*words, "--out", out),
        {"evaluations": {name: dict(each.manifest) for name, each in found.items()}},
        {"benchmark": benchmark},
        {},
        {"report": tuple(notes(rows))},
        Files(make),
        python=drawing_lines([], f"report({places!r}{only})", {}),
    )


def document_origin(beside: SideBySide, show: Show) -> Provenance:
    return _origin(beside.sides, lambda side: _bare(side.file), {"score": beside.score, "show": show})


def sample_origin(beside: SideBySide, document: int, answer: int) -> Provenance:
    view = {"score": beside.score, "document": document, "answer": answer}
    return _origin(beside.sides, lambda side: _only(side, lambda sample: sample.document == document), view)


def invalid_origin(side: SampleSide, way: str) -> Provenance:
    return _origin([side], lambda side: _only(side, lambda sample: bool(invalid(sample, way))), {"score": way})


def _bare(file: SampleFile) -> bytes:
    """The samples without prompts and answers."""
    return to_lines([file.head, *bare(file).samples])


def _only(side: SampleSide, kept: Callable[[Sample], bool]) -> bytes:
    """Some of the samples, whole."""
    return to_lines([side.file.head, *filter(kept, side.file.samples)])


def _origin(
    sides: Sequence[SampleSide], content: Callable[[SampleSide], bytes], view: Mapping[str, object]
) -> Provenance:
    paths = [f"{FOLDER}/{key}/{side.path.name}" for key, side in zip("AB", sides, strict=False)]
    places = [str(side.path.resolve()) for side in sides]
    given = "".join(f", {name}={value!r}" for name, value in view.items())
    options = [f"--{name}={value}" for name, value in view.items()]  # whatever a score is called
    return Provenance(
        lambda figure, out: command_line("eval", "samples", *paths, "--table", figure, *options, "--out", out),
        {"runs": {path: side.name for path, side in zip(paths, sides, strict=True)}},
        view,
        {},
        files=Files({path: partial(content, side) for path, side in zip(paths, sides, strict=True)}),
        python=drawing_lines([], f"samples({places!r}{given})", {}),
    )
