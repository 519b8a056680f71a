"""A report's rows as tables: on screen, as Markdown, HTML and LaTeX for papers, and as CSV with every score.

Names are external data and are escaped for each format.
"""

import html
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from analysis.export import table_bytes
from evals.aggregate import Average
from evals.report.score_rows import ScoreRow
from model.atomic_files import atomic_write
from model.tables import console, markdown_table, print_table
from model.terminal import one_line

TITLES = (
    "benchmark", "model", "tau", "score", "value", "invalid", "samples", "tokens / macro step", "tokens / s", "x base",
)  # fmt: skip
TEXT_COLUMNS = 4  # number of text columns; the others are numbers
_SHARES = 100  # scores that are shares are shown as percentages
_LATEX = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "<": r"$<$", ">": r"$>$",
})  # fmt: skip


def lines(rows: Sequence[ScoreRow]) -> list[tuple[str, ...]]:
    """Return the rows for readers: one line per displayed score."""
    return [_cells(row, name) for row in rows for name in row.shown]


def _cells(row: ScoreRow, name: str) -> tuple[str, ...]:
    score, invalid = row.scores[name], row.invalid(name)
    whole = row.samples == row.documents
    return (
        row.benchmark.name,
        one_line(row.model),
        "-" if row.tau is None else f"{row.tau:g}",
        name,
        with_error(score, row.benchmark.higher_is_better),
        "-" if invalid is None else f"{_SHARES * invalid.value:.1f}%",
        f"{row.samples}" if whole else f"{row.samples} of {row.documents}",
        f"{row.tokens_per_macro_step:.2f}",
        f"{row.tokens_per_second:.1f}" if row.benchmark.generates else "-",
        "-" if row.speedup is None else f"{row.speedup:.2f}",
    )


def with_error(score: Average, share: bool) -> str:
    """Return a score with its standard error, or with its bound if none or all are right; shares in percent."""
    if math.isnan(score.value):
        return "-"
    if share and score.bound is not None:
        return f"{_SHARES * score.value:.0f}% ({'<' if score.value == 0 else '>'} {_SHARES * score.bound:.1f}%)"
    scale, digits, unit = (_SHARES, 1, "%") if share else (1, 3, "")
    error = "" if math.isnan(score.stderr) else f" ± {scale * score.stderr:.{digits}f}"
    return f"{scale * score.value:.{digits}f}{error}{unit}"


def notes(rows: Sequence[ScoreRow]) -> list[str]:
    out = ["± is one standard error, over samples. tau above 1: the base alone generates, with the same code."]
    if any(row.benchmark.higher_is_better and row.scores[name].bound is not None for row in rows for name in row.shown):
        out.append("In brackets, if none or all are right: the upper or lower 95% bound of the share.")
    if over := sorted({row.over for row in rows if row.over is not None}):
        out.append(f"x base: tokens per second over those of {', '.join(map(one_line, over))}.")
    for row in rows:
        if row.cut:
            out.append(
                f"{row.benchmark.name}, {one_line(row.name)}: {row.cut} prompts were truncated to fit the context."
            )
        if row.samples < row.documents:
            out.append(
                f"{row.benchmark.name}, {one_line(row.name)}: the run is not complete; samples so far are the longest."
            )
    return out


def show(rows: Sequence[ScoreRow]) -> None:
    print_table(TITLES, lines(rows), TEXT_COLUMNS)
    for note in notes(rows):
        console().print(note, markup=False, highlight=False)


def markdown(rows: Sequence[ScoreRow]) -> str:
    table = markdown_table(TITLES, [list(map(_markdown, line)) for line in lines(rows)], TEXT_COLUMNS)
    return "\n\n".join(["\n".join(table), *map(_markdown, notes(rows))]) + "\n"


def _markdown(text: str) -> str:
    return "".join(f"\\{c}" if c in "\\`*_[]|#~!$" else c for c in html.escape(text, quote=False))


def page(rows: Sequence[ScoreRow]) -> str:
    head = "".join(f"<th>{html.escape(title)}</th>" for title in TITLES)
    body = "\n".join(f"<tr>{''.join(f'<td>{html.escape(cell)}</td>' for cell in line)}</tr>" for line in lines(rows))
    note_lines = "".join(f"<p>{html.escape(note)}</p>" for note in notes(rows))
    style = "table{border-collapse:collapse;font:14px sans-serif}td,th{padding:2px 10px;text-align:right}" + "".join(
        f"td:nth-child({i + 1}),th:nth-child({i + 1}){{text-align:left}}" for i in range(TEXT_COLUMNS)
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Benchmarks</title><style>{style}</style>'
        f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>{note_lines}</html>\n"
    )


def latex(rows: Sequence[ScoreRow]) -> str:
    """Return the table as LaTeX, with the rules of booktabs."""
    table_lines = [r"\begin{tabular}{" + "l" * TEXT_COLUMNS + "r" * (len(TITLES) - TEXT_COLUMNS) + "}", r"\toprule"]
    table_lines += [" & ".join(map(_latex, TITLES)) + r" \\", r"\midrule"]
    before = None
    for line in lines(rows):
        if before not in (None, line[0]):
            table_lines.append(r"\midrule")
        before = line[0]
        table_lines.append(" & ".join(map(_latex, line)) + r" \\")
    table_lines += [r"\bottomrule", r"\end{tabular}"]
    return "\n".join([*table_lines, *(f"% {one_line(note)}" for note in notes(rows))]) + "\n"


def _latex(text: str) -> str:
    return text.translate(_LATEX)


def score_table(rows: Sequence[ScoreRow]) -> pd.DataFrame:
    """Return one line per score of each row, unrounded."""
    costs = ("documents", "tokens", "macro_steps", "seconds", "tokens_per_macro_step", "tokens_per_second")
    table = []
    for row in rows:
        for name, score in row.scores.items():
            run = {"benchmark": row.benchmark.name, "model": row.model, "tau": _number(row.tau), "score": name}
            run |= {"value": score.value, "stderr": score.stderr, "samples": score.samples}
            run |= {cost: getattr(row, cost) for cost in costs}
            table.append(run | {"speedup": _number(row.speedup), "speedup_over": row.over, "cut_prompts": row.cut})
    return pd.DataFrame(table)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def every_score(rows: Sequence[ScoreRow]) -> str:
    """Return CSV: one line per score of each row, unrounded."""
    return table_bytes(score_table(rows), "csv").decode("utf-8")


TABLES: dict[str, Callable[[Sequence[ScoreRow]], str]] = {
    ".md": markdown,
    ".csv": every_score,
    ".html": page,
    ".tex": latex,
}


def write_table(rows: Sequence[ScoreRow], out: Path) -> None:
    """Write the table in the format of the file's suffix."""
    atomic_write(out, TABLES[out.suffix](rows).encode("utf-8", "replace"))
