"""The tables and the figure of a grid's documents, from bits and bytes that are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from evals.ablation.document_figure import figure_of, save
from evals.ablation.documents import GridDocuments, document_table, place_table
from evals.ablation.grid import AblationGrid, read_grid
from evals.ablation.run import trained_part
from model.errors import MicroStepError
from trainer.document_eval import DocumentBits

RNG = np.random.default_rng(5)
SIZE = RNG.integers(20, 90, (40, 2)).astype(float)


def bits(at_0: float, at_1: float, noise: float = 0.05) -> DocumentBits:
    """40 documents with about these bits per byte at two places; a macro step per 8 bytes."""
    rates = np.array([at_0, at_1]) + RNG.normal(0, noise, SIZE.shape)
    return DocumentBits(np.arange(40), rates * SIZE, SIZE, SIZE.sum(1) / 8, 3e6 * SIZE.sum(1))


def found() -> GridDocuments:
    variants = {"plain": [bits(2.0, 3.0), bits(2.1, 3.1)], "<b>wide</b>": [bits(1.5, 2.5), bits(1.6, 2.6)]}
    return GridDocuments("small", {"clean": variants, "dir/noisy.yaml": variants})


def test_documents_are_summed_over_seeds_and_compared_with_the_first_variant() -> None:
    variants = found().found["clean"]
    table = document_table(variants).set_index("variant")
    for name, seeds in variants.items():
        total = sum(each.bits.sum() for each in seeds) / sum(each.size.sum() for each in seeds)
        assert table.loc[name, "bits_per_byte"] == pytest.approx(total, rel=1e-12)
        assert table.loc[name, "bits_per_byte_low"] < total < table.loc[name, "bits_per_byte_high"]
        assert table.loc[name, ["bytes_per_macro_step", "training_operations_per_byte"]].tolist() == [8, 3e6]
        rates = [each.bits_per_byte for each in seeds]
        half = 12.7062 * abs(rates[0] - rates[1]) / 2  # Student's t for one degree of freedom
        assert table.loc[name, "half_over_seeds"] == pytest.approx(half, rel=1e-4)
    assert np.isnan(table.loc["plain", "difference"]) and np.isnan(table.loc["plain", "difference_half_over_seeds"])
    assert table.loc["<b>wide</b>", "difference_low"] < -0.5 < table.loc["<b>wide</b>", "difference_high"] < -0.4
    places = place_table(variants).set_index(["variant", "place"])
    assert places.loc[("plain", 1), "bytes"] == SIZE[:, 1].sum()
    assert places.loc[("plain", 1), "bits_per_byte"] == pytest.approx(3.05, abs=0.02)


def test_variants_of_other_documents_are_not_compared() -> None:
    seeds = found().found["clean"]["plain"]
    other = DocumentBits(np.arange(1, 41), seeds[0].bits, SIZE, seeds[0].macro_steps, seeds[0].operations)
    with pytest.raises(MicroStepError, match="other documents"):
        document_table({"plain": seeds, "other": [other, seeds[1]]})


def test_the_figure_and_its_data(tmp_path: Path) -> None:
    documents = found()
    data = figure_of(documents).data
    assert data["mix"].unique().tolist() == ["clean", "noisy"]
    assert len(data) == 2 * (2 + 2 * 2)  # of each mix: a row a variant, and one a place
    save(documents, tmp_path / "documents.html")
    page = (tmp_path / "documents.html").read_text("utf-8")
    assert "<b>wide" not in page and "eval ablate" not in page.split("<script")[0]
    assert sorted(documents.tables()) == [
        f"small-{name}-{mix}" for name in ("documents", "places") for mix in ("clean", "noisy")
    ]
    assert "| plain |" in documents.write(tmp_path) and (tmp_path / "small-places-noisy.csv").is_file()


def test_a_report_needs_the_first_variant(tmp_path: Path) -> None:
    grid: AblationGrid = read_grid("blt")
    with pytest.raises(MicroStepError, match="token model"):
        trained_part(grid, tmp_path)
