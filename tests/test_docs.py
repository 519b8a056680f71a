"""README and docs: links lead to files, and commands parse."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from micro_step import cli
from micro_step.old_commands import translated

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "benchmarks/README.md", *sorted((ROOT / "docs").glob("*.md"))]
FILE = r"`((?:model|data|trainer|analysis|evals|serving|app|pages|tests|benchmarks|micro_step)/[a-z0-9_/]+\.[a-z]+)`"
COMMAND = r"(?:python -m|micro-step) "


def test_links_and_files_exist():
    """Links, the headings that they name, files in backticks, and names such as "`RULES` of [rules.py](...)"."""
    missing = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", text):
            path, _, heading = target.partition("#")
            file = page.parent / path if path else page
            if not file.exists() or (heading and heading not in headings(file)):
                missing.append(f"{page.name}: {target}")
        for name, path in re.findall(r"`(\w+)` (?:in|of) \[[^]]*\]\(([^)]+\.py)\)", text):
            if not re.search(rf"^ *(def |class )?{name}\b", (page.parent / path).read_text("utf-8"), re.M):
                missing.append(f"{page.name}: {name} in {path}")
        missing += [f"{page.name}: {name}" for name in re.findall(FILE, text) if not (ROOT / name).exists()]
    assert not missing


def headings(page):
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands():
    """Commands of the pages, and whether they are whole: in code blocks and tables they are, in running text not."""
    found = set()
    for page in PAGES:
        parts = re.split(r"^```.*$", page.read_text("utf-8").replace("\\\n", " "), flags=re.M)
        for line in "\n".join(parts[1::2]).splitlines():
            for command in re.split(r" && ", re.sub(r" +#.*", "", line)):
                if re.match(COMMAND, command):
                    found.add((command.partition("$(")[0].strip(), "$(" not in command))
        for cell, command in re.findall(rf"^(\|?).*?`({COMMAND}[^`]*)`", "\n".join(parts[::2]), re.M):
            found.add((" ".join(command.split()), bool(cell)))
    return sorted(found)


@pytest.mark.parametrize(("line", "whole"), commands())
def test_command_parses(line, whole):
    """Names of programs, commands and options, required options, and types of values; nothing is run."""
    words = shlex.split(re.sub(r"[][]| \.\.\.", "", line))
    program, rest = (words[2], words[3:]) if words[0] == "python" else ("micro_step", words[1:])
    rest = translated(program, rest)
    command, context = typer.main.get_command(cli.command(rest)), None
    while rest and hasattr(command, "resolve_command"):
        context = command.context_class(command, info_name=program, parent=context)
        _, command, rest = command.resolve_command(context, rest)
    if whole:
        command.make_context(program, list(rest), parent=context)


def test_every_name_of_a_quantity_stands_in_the_glossary():
    """Curves of runs, columns of evaluations, scores, and measures of agreement: each name has one definition."""
    from analysis.depth.scores import LAYER_SCORES
    from analysis.runs.curves import CURVES
    from analysis.score_registry import SCORES
    from analysis.segmentation.view import METRICS
    from evals.report.tables import TEXT_COLUMNS, TITLES

    text = (ROOT / "docs/glossary.md").read_text("utf-8")
    defined = {name.lower() for name in re.findall(r"\*\*([^*]+)\*\*", text)}
    names = [*(each.title for each in CURVES.values()), *(score.title for score in SCORES.values())]
    names += [score.title for score in LAYER_SCORES.values()]
    names += [title for title, _ in METRICS.values()] + list(TITLES[TEXT_COLUMNS:])
    spelled = {"tokens / macro step": "tokens per macro step", "tokens / s": "tokens per second"}
    names = [name for name in names if name not in ("value", "samples")]
    assert not {spelled.get(name, name).lower() for name in names} - defined
