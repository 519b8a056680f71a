"""`micro-step bench families`: every family of transformers in a process apart, and the table in Markdown."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from benchmarks.report import check_file, write
from model.atomic_files import append
from model.errors import MicroStepError
from model.one_writer import one_writer
from model.tables import markdown_table
from model.terminal import progress_bar

if TYPE_CHECKING:
    from benchmarks.families.features import Family

_LONGEST = 300  # seconds for one family
_TITLES = {
    "score": "score",
    "continue": "continue",
    "merged": "generate, merged",
    "lossless": "generate, lossless",
    "attention": "attention maps",
    "attribution": "attribution",
    "depth": "logit lens",
    "banded": "history by a mask",
}


def families_command(
    family: Annotated[list[str] | None, typer.Option(help="Only these, as transformers' model_type.")] = None,
    out: Annotated[Path | None, typer.Option(help="A .md file to write the table to.")] = None,
    kept: Annotated[
        Path | None, typer.Option(help="A .jsonl file of what was measured: added to, and not measured again.")
    ] = None,
) -> None:
    """What works with which family of models: tiny random models of all, put through every feature (some minutes)."""
    from benchmarks.families.tiny_models import FAMILIES

    check_file(out, "md")
    unknown = [name for name in family or () if name not in FAMILIES]
    if unknown:
        raise MicroStepError(f"transformers has no causal language model of family {unknown[0]!r}")
    chosen = family or list(FAMILIES)
    with nullcontext() if kept is None else one_writer(kept, is_file=True):
        measured = _read(kept)
        missing = [name for name in chosen if name not in measured]
        with progress_bar() as tell:
            for i, each in enumerate(_measured(missing)):
                measured[each.name] = each
                if kept is not None:
                    append(kept, (json.dumps(asdict(each)) + "\n").encode(), None, "what was measured before stays")
                tell(each.name, (i + 1) / len(missing))
    families = [measured[name] for name in chosen]
    text = page(families)
    if out is None:
        typer.echo(text)
    write(text, out)
    faults = [f"{each.name} ({', '.join(each.faults)})" for each in families if each.faults]
    if faults:
        raise MicroStepError(
            f"{len(faults)} families have features that are neither right nor refused: {faults[0]} ..."
        )


def _read(kept: Path | None) -> dict[str, Family]:
    from benchmarks.families.features import Family

    if kept is None or not kept.is_file():
        return {}
    try:
        records = [json.loads(line) for line in kept.read_text(encoding="utf-8").splitlines()]
        return {each["name"]: Family(**{**each, "faults": tuple(each["faults"])}) for each in records}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MicroStepError(f"{kept} is no file of families that were measured: {error}") from None


def _measured(names: Sequence[str]) -> Iterator[Family]:
    """Each family in turn, in a process that is started anew where one ends it."""
    from benchmarks.families.features import Family

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

    from benchmarks.families.features import measure

    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory(prefix="family-") as folder:
        return measure(name, Path(folder) / name)


def page(families: Sequence[Family]) -> str:
    """The table, and its reasons numbered below it."""
    import transformers

    reasons: dict[str, int] = {}

    def cell(family: Family, feature: str) -> str:
        outcome = family.cells.get(feature, "")
        if not outcome or outcome.startswith("yes"):
            return outcome
        reason = outcome.replace(f"{family.name}_text", family.name).replace(family.name, "the family")
        return f"no [{reasons.setdefault(reason.replace('|', '/'), len(reasons) + 1)}]"

    rows = [[family.name, *(cell(family, feature) for feature in _TITLES)] for family in families]
    scored = sum(family.cells.get("score") == "yes" for family in families)
    return "\n".join(
        [
            "# Families of models",
            "",
            f"All {len(families)} families for which transformers {transformers.__version__} has a causal language"
            f" model, of which {scored} are scored. A tiny random model of each was made from its configuration class,"
            " saved, loaded and put through every feature by",
            "",
            "```",
            "micro-step bench families --out docs/models.md",
            "```",
            "",
            "*yes*: its numbers equal a reference. Scores and continuations: entropy, confidence, surprisal and rank of"
            " every token, against the family's own whole `forward`, in float64 where it can be run so. Generation:"
            " greedy output is what that `forward` writes, and a row alone writes what it writes in a padded batch."
            " Attention maps: of which layers. Attribution: F is the entropy that is scored, and has a gradient."
            " Logit lens: after the first layer it sees what a model of that one layer predicts."
            " History by a mask (`banded`): a wide band changes nothing, and what is out of a narrow one's reach has no"
            " effect; `exact` and `strided` need no mask and work wherever scoring does.",
            "",
            *markdown_table(["family", *_TITLES.values()], rows),
            "",
            "Why not:",
            "",
            *(f"{number}. {reason}" for reason, number in reasons.items()),
            "",
        ]
    )
