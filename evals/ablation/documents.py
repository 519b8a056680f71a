"""The documents of a grid's runs: bits per byte with intervals over documents, and differences from the first variant.

Each run keeps RUN/documents-MIX.npz. Seeds are summed per document, so an interval is over documents for these seeds.
The columns `half_over_seeds` are half of an interval over seeds, for these documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analysis.export import table_bytes
from analysis.intervals import Units, quotient
from analysis.score_registry import significant
from data.run_folder import Run, read_run
from evals.ablation.grid import AblationGrid, runs_of
from evals.ablation.table import interval
from model.atomic_files import atomic_open, atomic_write
from model.errors import MicroStepError, TextError
from model.reading.declared_sizes import read_npz
from model.reading.regular_files import open_regular
from model.tables import markdown_table
from trainer.batches.dataset import solved
from trainer.document_eval import DocumentBits, document_bits
from trainer.recipe import Recipe
from trainer.run import RunPaths, prepared_data

_FIELDS = ("example", "bits", "size", "macro_steps", "operations")


def measured_documents(done: Run, recipe: Recipe, mix: str, local: Path | None, device: str) -> DocumentBits:
    """Return the documents of a mix under a finished run, measured now if needed."""
    file = done.path / f"documents-{Path(mix).stem}.npz"
    if file.is_file():
        try:
            with open_regular(file) as content:
                stored = read_npz(content)
            return DocumentBits(**{name: stored[name] for name in _FIELDS})
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise TextError(f"{file} is damaged ({error}); remove it, and the documents are measured again") from None
    places, quiet = RunPaths(done.path, local), lambda message, fraction: None
    read = recipe
    if mix != recipe.data.mix:
        own = prepared_data(recipe, places, device, quiet)
        read = recipe.model_copy(
            update={
                "data": recipe.data.model_copy(update={"mix": mix}),
                "segmentation": solved(own, recipe.segmentation),
            }
        )
    found = document_bits(done, read, prepared_data(read, places, device, quiet), device)
    with atomic_open(file) as out:
        np.savez_compressed(out, allow_pickle=False, **{name: getattr(found, name) for name in _FIELDS})
    return found


def document_table(variants: Mapping[str, Sequence[DocumentBits]]) -> pd.DataFrame:
    """Return a row per variant; the first is what the others are compared with, document by document."""
    first = next(iter(variants.values()))
    lines = []
    for name, seeds in variants.items():
        if any(not np.array_equal(each.example, first[0].example) for each in seeds):
            raise MicroStepError(f"{name} was measured on other documents than the first variant")
        ours, base = (_per_document(each) for each in (seeds, first))
        units = Units.of(np.arange(len(ours)))
        left = units.left_out(units.sums(np.concatenate([ours, base], axis=1)))
        own, other = quotient(left[:, 0], left[:, 1]), quotient(left[:, 2], left[:, 3])
        weight = units.sums(ours[:, 1])
        value, less = units.estimates(own, weight).at(), units.estimates(own - other, weight).at()
        by_seed = [each.bits_per_byte for each in seeds]
        beside = [each.bits_per_byte - theirs.bits_per_byte for each, theirs in zip(seeds, first, strict=True)]
        lines.append(
            {
                "variant": name,
                "documents": len(ours),
                **value.columns("bits_per_byte"),
                "half_over_seeds": interval(by_seed).half,
                **(less.columns("difference") if seeds is not first else {}),
                **({"difference_half_over_seeds": interval(beside).half} if seeds is not first else {}),
                "bytes_per_macro_step": float(np.mean([each.bytes_per_macro_step for each in seeds])),
                "training_operations_per_byte": float(np.mean([each.operations_per_byte for each in seeds])),
            }
        )
    return pd.DataFrame(lines)


def place_table(variants: Mapping[str, Sequence[DocumentBits]]) -> pd.DataFrame:
    """Return bits per byte by place in the segment: a row per variant and place, in the variant's own units."""
    lines = []
    for name, seeds in variants.items():
        bits, size = (sum(getattr(each, field).sum(0) for each in seeds) for field in ("bits", "size"))
        lines += [
            {"variant": name, "place": place, "bytes": int(size[place] / len(seeds)), "bits_per_byte": value}
            for place, value in enumerate(quotient(bits, size).tolist())
            if size[place]
        ]
    return pd.DataFrame(lines)


def _per_document(seeds: Sequence[DocumentBits]) -> NDArray[np.float64]:
    """[D, 2] bits and bytes, summed over seeds."""
    return np.stack([sum(each.bits.sum(1) for each in seeds), sum(each.size.sum(1) for each in seeds)], axis=1)


@dataclass(frozen=True)
class GridDocuments:
    """The held-out documents of all runs of a grid."""

    grid: str
    found: Mapping[str, Mapping[str, Sequence[DocumentBits]]]  # by mix and variant, a seed each

    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name: documents and places of each mix."""
        out = {}
        for mix, variants in self.found.items():
            for name, table in (("documents", document_table(variants)), ("places", place_table(variants))):
                out[f"{self.grid}-{name}-{Path(mix).stem}"] = table
        return out

    def write(self, out: Path) -> str:
        """Write the tables as NAME.csv into a folder, and return them as Markdown."""
        parts = []
        for name, table in self.tables().items():
            atomic_write(out / f"{name}.csv", table_bytes(table, "csv"))
            lines = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
            parts.append("\n".join([f"{name}:", "", *markdown_table(list(table.columns), lines)]))
        return "\n\n".join(parts)


def measured_grid(grid: AblationGrid, out: Path, local: Path | None, device: str) -> GridDocuments:
    """Measure the documents of a grid whose runs are finished."""
    found: dict[str, dict[str, list[DocumentBits]]] = {}
    for mix in grid.documents:
        variants = found[mix] = {variant: [] for variant in grid.variants}
        for run in runs_of(grid):
            done = read_run(out / run.recipe.name)
            variants[run.variant].append(measured_documents(done, run.recipe, mix, local, device))
    return GridDocuments(grid.name, found)


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    return "-" if np.isnan(value) else significant(value)
