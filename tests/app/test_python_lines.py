"""The lines of Python that an Export menu offers give the same data as the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from analysis.generation.tables import is_timed
from tests.support import pages
from tests.support.evaluations import save_evaluation
from tests.support.training_logs import lines, save_run

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat, and the dog sat down on the mat"
CUT = ["threshold", "statistics", "agreeing", "lengths", "curves", "unstable_boundaries"]
CASES: dict[str, tuple[tuple[str, ...], str | None, dict[str, Any]]] = {  # functions of the face, page, link
    "compare": (
        ("compare",),
        None,
        {"score": "surprisal", "at": "5", "open": ["line", "scatter", "distribution", "changes"]},
    ),
    "attribute": (
        ("attribute",),
        "attribution",
        {"method": "gradient × input", "group_by": "words", "open": ["units", "curves"]},
    ),
    "depth": (("depth",), "depth", {"lens": "change", "at": "9", "open": ["layers", "decided", "agreement"]}),
    "attention": (
        ("attention",),
        "attention",
        {"of": "B − A", "level": "segments", "at": "9", "open": ["large_map", "all_heads"]},
    ),
    "micro attention": (
        ("micro_attention",),
        "attention",
        {"view": "Micro", "segment": "2", "open": ["weights", "micro_evenness", "micro_shares"]},
    ),
    "written": (
        ("micro_attention",),
        "attention",
        {"view": "Micro", "micro_cut": "written", "micro_new": "9", "micro_tau": "0", "open": ["micro_shares"]},
    ),
    "strategies": (("segment",), "segmentation", {"history": "true", "window": "3", "metric": "pk", "open": CUT}),
    "one strategy": (
        ("segment",),
        "segmentation",
        {"cut": "attention_mass", "layers": "0", "heads": "1", "models": "A", "most": "3", "open": CUT[:2]},
    ),
    "generate": (("generate",), "generation", {"film": "Your run", "new_tokens": "6", "open": ["answer", "endings"]}),
    "runs": (("runs",), "runs", {"curves": ["loss", "accuracy"], "x": "tokens", "log_scale": "true"}),
    "corpus": (
        ("rank_documents",),
        "corpus",
        {"rank_by": "surprisal", "sort_by": "b", "roles": "assistant", "open": ["column_means", "document_changes"]},
    ),
    "evaluation": (("report", "samples"), "evaluation", {"benchmark": "gsm8k_cot_zeroshot", "show": "differing"}),
}


# What has no unit: counts, places, shares, probabilities, lengths in tokens, and scores of benchmarks.
PLAIN = re.compile(
    "(tokens?|segments?|samples|documents?|bytes|steps?|planned|seen|base_passes|macro_steps?|singletons|cut_prompts"
    "|position|place|micro_position|start|end|first_token|last_token|group|query|key|cell|row|layer|head|answer|k"
    "|id|token_id|refused_id|share|at_cap|weight|tau|probability|least_probability|refused_probability|length"
    "|mean_length|f1|precision|recall|window_diff|pk|word_.*|evenness|effective|sink|current|previous|boundaries"
    "|induction|mean|value|stderr|score|speedup)(_low|_high|_[abAB])?|low|high|.*(seconds|tokens_per_.*|_keys|_positions)"
)


def has_units(table: pd.DataFrame) -> bool:
    """Whether the numbers of a table are in units that it names, or have none."""
    numbers = [name for name in table if is_numeric_dtype(table[name]) and not is_bool_dtype(table[name])]
    return "unit" in table or all(PLAIN.fullmatch(name) for name in numbers)


@pytest.mark.parametrize("case", CASES)
def test_the_lines_give_the_data_of_the_page(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, case: str
) -> None:
    from app import cards
    from app.generation import cards as generation_cards

    functions, page, query = CASES[case]
    if page == "runs":
        save_run(tmp_path / "one", finished=True)
        query = {**query, "folder": str(save_run(tmp_path / "two", lines(260, 1.6), finished=True, seed=1).parent)}
    if page == "evaluation":
        save_evaluation(tmp_path / "plain", "tiny-sft", [None])
        query = {**query, "evaluations": str(save_evaluation(tmp_path / "micro", "micro-step-tiny", [0.5, 1.1]).parent)}
    drawn: list[Any] = []
    for module in (cards, generation_cards):
        monkeypatch.setattr(module, "export_menu", lambda figure, origin: drawn.append((figure, origin)))
    at = pages.opened(models, TEXT, page, **query)
    if page == "generation":
        at.button(key="run_generation").click().run()
    assert not at.exception and not at.error and len(drawn) >= 2
    answers: dict[str, Any] = {}  # by the lines that ask: a model runs once for several figures
    used = set()
    for figure, origin in drawn:
        *asking, drawing = origin.python(figure.name).split("\n")
        used.add(next(name for name in functions if f"ms.{name}(" in asking[-1]))
        if "\n".join(asking) not in answers:
            exec("\n".join(asking), names := dict[str, Any]())  # noqa: S102 - the lines are what is tested
            answers["\n".join(asking)] = names["result"]
        assert drawing.startswith("result.figure(")
        data = eval(drawing.replace(".figure(", ".data("), {"result": answers["\n".join(asking)]})  # noqa: S307
        assert has_units(figure.data), figure.name
        kept = [name for name in figure.data if not is_timed(name)]
        pd.testing.assert_frame_equal(data[kept], figure.data[kept], rtol=1e-3, atol=1e-5)
    assert used == set(functions)
