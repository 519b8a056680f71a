"""`python -m benchmarks families`: test every family of transformers in its own process; write a Markdown table."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.errors import ExportError, MicroStepError
from model.terminal import progress_bar

if TYPE_CHECKING:
    from benchmarks.families import Family

commands = typer.Typer()

_LONGEST = 300  # seconds for one family
_TITLES = {
    "score": "score",
    "continue": "continue",
    "merged": "generate, merged",
    "lossless": "generate, lossless",
    "attention": "attention maps",
    "attribution": "attribution",
    "banded": "history by a mask",
}


@commands.command()
def families(
    family: Annotated[list[str] | None, typer.Option(help="Only these families, as transformers' model_type.")] = None,
    out: Annotated[Path | None, typer.Option(help="A .md file to write the table to.")] = None,
    kept: Annotated[
        Path | None, typer.Option(help="A .jsonl file with earlier measurements to reuse; new ones are added.")
    ] = None,
) -> None:
    """Test every feature on tiny random models of all families; write a table of what works (takes minutes)."""
    from benchmarks.family_models import FAMILIES

    if out is not None and (out.suffix.lower() != ".md" or not out.parent.is_dir()):
        raise ExportError(f"{out} cannot be written: give a .md file in an existing folder")
    unknown = [name for name in family or () if name not in FAMILIES]
    if unknown:
        raise MicroStepError(f"transformers has no causal language model of family {unknown[0]!r}")
    chosen = family or list(FAMILIES)
    there = _read(kept)
    missing = [name for name in chosen if name not in there]
    with progress_bar() as tell:
        for i, each in enumerate(_measured(missing)):
            there[each.name] = each
            if kept is not None:
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(each)) + "\n")
            tell(each.name, (i + 1) / len(missing))
    found = [there[name] for name in chosen]
    text = page(found)
    if out is None:
        typer.echo(text)
    else:
        part = out.with_name(out.name + ".part")
        part.write_text(text, encoding="utf-8")
        part.replace(out)
        typer.echo(str(out))
    faults = [f"{each.name} ({', '.join(each.faults)})" for each in found if each.faults]
    if faults:
        raise MicroStepError(
            f"{len(faults)} families have features that are neither correct nor refused: {faults[0]} ..."
        )


def _read(kept: Path | None) -> dict[str, Family]:
    from benchmarks.families import Family

    if kept is None or not kept.is_file():
        return {}
    try:
        said = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
        return {each["name"]: Family(**{**each, "faults": tuple(each["faults"])}) for each in said}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MicroStepError(f"{kept} is not a file of family measurements: {error}") from None


def _measured(names: Sequence[str]) -> Iterator[Family]:
    """Measure the families in turn, in a process that is restarted when a family ends it."""
    from benchmarks.families import Family

    pool = None
    for name in names:
        pool = pool or ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
        try:
            yield pool.submit(_measure, name).result(timeout=_LONGEST)
        except (BrokenProcessPool, TimeoutError) as error:
            pool.shutdown(wait=False, cancel_futures=True)
            pool = None
            yield Family(name, "", {"score": f"FAULT: {type(error).__name__}"}, ("score",))
    if pool is not None:
        pool.shutdown()


def _measure(name: str) -> Family:
    import torch
    import transformers

    from benchmarks.families import measure

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="family-") as folder:
        return measure(name, Path(folder) / name)


def page(found: Sequence[Family]) -> str:
    """Build the table, with its reasons numbered below it."""
    import transformers

    reasons: dict[str, int] = {}

    def cell(each: Family, feature: str) -> str:
        said = each.cells.get(feature)
        if said is None:
            return ""
        if said.startswith("yes"):
            return said
        reason = said.replace(f"{each.name}_text", each.name).replace(each.name, "the family").replace("|", "/")
        return f"no [{reasons.setdefault(reason, len(reasons) + 1)}]"

    rows = [[each.name, *(cell(each, feature) for feature in _TITLES)] for each in found]
    lines = ["| " + " | ".join(row) + " |" for row in ([["family", *_TITLES.values()], ["---"] * 8, *rows])]
    scored = sum(each.cells.get("score") == "yes" for each in found)
    return "\n".join(
        [
            "# Families of models",
            "",
            f"transformers {transformers.__version__} has a causal language model for {len(found)} families; {scored}"
            " of them can be scored. For each family a tiny random model was made from the configuration class, saved,"
            " loaded and run through every feature:",
            "",
            "```",
            "python -m benchmarks families --out docs/models.md",
            "```",
            "",
            "*yes* means that the numbers equal a reference.",
            "",
            "- **score, continue**: entropy, confidence, surprisal and rank of every token equal those of the family's"
            " own whole `forward`, in float64 where the family runs in it.",
            "- **generate**: greedy output is what that `forward` gives, and a row alone gives the same output as in a"
            " padded batch.",
            "- **attention maps**: the cell names the layers that have them.",
            "- **attribution**: F is the entropy of the scores, and it has a gradient.",
            "- **history by a mask** (`banded`): a wide band changes nothing, and tokens outside the reach of a narrow"
            " band have no effect. `exact` and `strided` need no mask and work wherever scoring does.",
            "",
            *lines,
            "",
            "Reasons:",
            "",
            *(f"{number}. {reason}" for reason, number in reasons.items()),
            "",
        ]
    )
