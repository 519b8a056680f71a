"""What the export buttons of every page make: bundles whose commands make the same data again, for what is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

import analysis.attribution.figures
import analysis.depth.figures
import analysis.segmentation.figures
import analysis.uncertainty.figures
from analysis.generation.tables import is_timed
from tests.support import pages
from tests.support.evaluations import save_evaluation
from tests.support.pages import ROOT, made_again
from tests.support.training_logs import lines, save_run

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat, and the dog sat down on the mat"

MAPS, MICRO = ["large_map", "all_heads"], ["weights", "micro_evenness", "micro_shares"]  # folded

# name: (page, what the link says, what the manifests must say of it)
CASES: dict[str, tuple[str | None, dict[str, Any], dict[str, Any]]] = {
    "uncertainty": (
        None,
        {
            "unit": "nats",
            "score": "excess_surprisal",
            "at": 5,
            "open": ["line", "scatter", "distribution", "changes", "next"],
        },
        {"view": {"unit": "nats", "score": "excess_surprisal", "pinned": 5}},
    ),
    "change": (
        None,
        {"lens": "change", "measure": "kl_ab", "open": ["changes"]},
        {"view": {"lens": "change", "measure": "kl_ab"}},
    ),
    "continuations": (
        None,
        {"mode": "own continuations", "new_tokens": 9, "lens": "b", "open": ["line", "distribution"]},
        {"request": {"new_tokens": 9}},
    ),
    "segmentation": (
        "segmentation",
        {
            "cut": ["entropy:threshold=2.5", "word", "router:layer=1"],
            "at": 9,
            "unit": "nats",
            "history": "true",
            "window": 6,
            "precision": "true",
            "open": ["statistics", "threshold", "agreeing", "lengths", "curves", "unstable_boundaries"],
        },
        {"view": {"pinned": 9}},
    ),
    "attention": (
        "attention",
        {
            "of": "B",
            "layer": 2,
            "head": 1,
            "level": "segments",
            "n": 5,
            "q": 3,
            "k": 1,
            "at": 9,
            "shown": "distance",
            "open": ["large_map", "all_heads"],
        },
        {"view": {"pinned": 9}},
    ),
    "attention of two": ("attention", {"of": "B − A", "open": MAPS}, {}),
    "micro attention": (
        "attention",
        {"view": "Micro", "segment": 2, "open": ["weights", "micro_evenness", "micro_shares"]},
        {},
    ),
    "depth": (
        "depth",
        {"layer_score": "kl", "beside": "word", "at": 8, "open": ["layers", "decided", "agreement"]},
        {"view": {"pinned": 8, "segments": "word"}},
    ),
    "attribution": (
        "attribution",
        {"method": "gradient × input", "sum_over": "words", "at": 8, "open": ["units", "curves"]},
        {"view": {"group_by": "words"}, "request": {"quantity": "entropy"}},
    ),
    "attribution of two": (
        "attribution",
        {"quantity": "kl", "method": "ablation", "open": ["units", "curves"]},
        {},
    ),
    "generation": (
        "generation",
        {"new_tokens": 12, "decoding": "lossless", "tau": 0.1, "token": 3, "film": "Your run"}
        | {"open": ["answer", "steps", "endings"]},
        {},
    ),
    "relaxed generation": (
        "generation",
        {"new_tokens": 12, "decoding": "lossless", "eps": 0.05, "tau": 0.0, "film": "Your run", "open": ["answer"]},
        {},
    ),
}

# All that these pages can draw.
FIGURES: dict[str, dict[str, Any]] = {
    "uncertainty": analysis.uncertainty.figures.FIGURES,
    "segmentation": analysis.segmentation.figures.FIGURES,
    "attribution": analysis.attribution.figures.FIGURES,
    "depth": analysis.depth.figures.FIGURES,
}


def press(made: dict[str, Any], folder: Path, monkeypatch: pytest.MonkeyPatch, **close: Any) -> dict[str, Any]:
    """Press every button for a bundle, and hold each to its command; gives the manifests by figure."""
    bundles = {
        key.removeprefix("export_").removesuffix("_zip"): make for key, make in made.items() if key.endswith("_zip")
    }
    assert bundles
    return {name: made_again(make(), folder / name, monkeypatch, **close) for name, make in bundles.items()}


@pytest.mark.parametrize("case", CASES)
def test_every_bundle_of_a_page_makes_its_data_again(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    page, query, expected = CASES[case]
    made = pages.downloads(monkeypatch)
    at = pages.opened(
        models, TEXT, page, **{key: value if isinstance(value, list) else str(value) for key, value in query.items()}
    )
    if page == "generation":
        at.button(key="run_generation").click().run()
    assert not at.exception and not at.error
    manifests = press(made, tmp_path, monkeypatch, rtol=1e-3, atol=1e-5, left_out=is_timed)
    if case == "relaxed generation":
        assert all(manifest["request"]["how"]["eps"] == 0.05 for manifest in manifests.values())
    for name, manifest in manifests.items():
        for part, values in expected.items():
            assert values.items() <= manifest[part].items(), name
    assert manifests.keys() >= FIGURES.get(case, {}).keys()
    if case in ("attention of two", "attribution of two"):
        assert all(set(manifest["models"]) == {"a", "b"} for manifest in manifests.values())


@pytest.mark.parametrize("page", ["runs", "evaluation"])
def test_every_bundle_of_what_was_logged_makes_its_data_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: str
) -> None:
    made = pages.downloads(monkeypatch)
    at = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120)
    if page == "runs":
        save_run(tmp_path / "logs" / "one", finished=True)
        save_run(tmp_path / "logs" / "two", lines(260, 1.6), seed=1)
        query = {"folder": tmp_path / "logs", "live": "false", "x": "tokens", "smoothing": "0.99"}
    else:
        save_evaluation(tmp_path / "logs" / "plain", "tiny-sft", [None])
        save_evaluation(tmp_path / "logs" / "micro", "micro-step-tiny", [0.5, 1.1])
        query = {"evaluations": tmp_path / "logs", "benchmark": "gsm8k_cot_zeroshot"}
        query |= {"run_a": "micro-step-tiny (0.5)", "run_b": "micro-step-tiny (1.1)", "sample": "2"}
        query |= {"invalid_run": "micro-step-tiny (0.5)"}
    for key, value in query.items():
        at.query_params[key] = str(value)
    pages.turned_to(at, page)
    assert not at.exception and not at.error
    figures = press(made, tmp_path / "bundles", monkeypatch).keys()
    assert page == "runs" or figures >= {"report", "documents", "tokens", "facts", "invalid"}
