"""The address of a page names all that it shows, smallest values too: a fresh session that follows it shows that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from app.submission import Submission
from tests.analysis.ranking.random_stores import add_column, save_store
from tests.support import pages
from tests.support.evaluations import save_evaluation
from tests.support.pages import ROOT
from tests.support.training_logs import lines, save_run

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat, and the dog sat down"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "uncertainty": ("uncertainty", {"open": ["line", "changes"]}),
    "own continuations": ("uncertainty", {"mode": "own", "new_tokens": "3"}),
    "segmentation": ("segmentation", {"open": ["threshold", "agreeing", "unstable_boundaries"]}),
    "a store": ("segmentation", {"what": "store", "store": "nowhere"}),
    "generation": ("generation", {"film": "Your run"}),
    "attention": ("attention", {"open": ["large_map", "all_heads"]}),
    "inside segments": ("attention", {"view": "Micro", "micro_cut": "strategy", "open": ["weights"]}),
    "as it writes": ("attention", {"view": "Micro", "micro_cut": "written", "micro_new": "3", "open": ["weights"]}),
    "depth": ("depth", {"open": ["layers", "agreement"]}),
    "attribution": ("attribution", {"open": ["units"]}),
    "corpus": ("corpus", {}),
    "runs": ("runs", {}),
    "evaluation": ("evaluation", {}),
}
KEPT = {
    "quantity",
    "what",
    "mode",
    "view",
    "film",
    "micro_cut",
    "folder",
    "evaluations",
    "stores",
    "store_b",
    "a",
    "b",
    "device",
    "dtype",
}
KEPT |= {"quantization"}  # no other value can be used everywhere
NOT_LINKED = {"Run code that comes with the models"}
WIDGETS = ("number_input", "slider", "toggle", "checkbox", "selectbox", "button_group", "multiselect", "text_input")
SPOKEN = {"taus": "0.5 1", "epsilons": "1 0.5", "layers": "0", "heads": "0", "template": "x=0", "attention": "eager"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two runs, two evaluations, and two stores of which the first has a column of domains."""
    root = tmp_path_factory.mktemp("folders")
    save_run(root / "runs" / "one", finished=True, checkpoints=2)
    save_run(root / "runs" / "two", lines(260, 1.6), finished=True, seed=1)
    save_evaluation(root / "evaluated" / "plain", "tiny-sft", [None])
    save_evaluation(root / "evaluated" / "micro", "micro-step-tiny", [0.5, 1.1])
    for seed, name in enumerate(("one", "two")):
        save_store(root / "stores" / name, 60, 10, seed)
        add_column(root / "stores" / name, "domain", ["news", "code"] * 30)
    return {
        name: str(root / kind)
        for name, kind in (("folder", "runs"), ("evaluations", "evaluated"), ("stores", "stores"))
    }


def widgets(at: AppTest) -> dict[tuple[str, str], Any]:
    """All that a reader can set, by kind and label, with its value."""
    found = [(each.type, each.label, each.value) for kind in WIDGETS for each in at.get(kind)]
    return {(kind, label): value for kind, label, value in found if label not in NOT_LINKED}


def linked(at: AppTest) -> dict[str, Any]:
    """The values that stand in the address, by their names there."""
    return {name: at.session_state["link_known"][key] for name, (key, _) in at.session_state["link_shown"].items()}


def mine(at: AppTest) -> list[Any]:
    """The controls that a test may set."""
    every = [each for kind in WIDGETS for each in at.get(kind)]
    return [each for each in every if each.key in linked(at) and each.key not in KEPT and not each.disabled]


def last_options(at: AppTest) -> dict[str, str]:
    """The last option of every control that has options, as a link may say it."""
    named = [each for each in mine(at) if each.type in ("button_group", "selectbox")]
    return {each.key: each.options[-1] for each in named if not isinstance(each.value, list)}


def set_others(at: AppTest) -> AppTest:
    """Set numbers to the smallest, lists to none, and what is true to false."""
    for each in mine(at):
        if each.type in ("number_input", "slider"):
            each.set_value(each.min)
        elif each.type in ("toggle", "checkbox"):
            each.set_value(not each.value)
        elif each.type == "text_input":
            each.set_value(SPOKEN.get(each.key, ""))
        elif isinstance(each.value, list):
            each.set_value([])
    return at.run()


@pytest.mark.parametrize("case", CASES)
def test_a_link_names_every_control(models: dict[str, Path], folders: dict[str, str], case: str) -> None:
    page, query = CASES[case]

    def opened(**more: str) -> AppTest:
        known = {**models, "micro": "micro-step-tiny"}
        return pages.opened(known, TEXT, page, b="micro", fresh=False, **folders, **query, **more)

    at = set_others(opened(**last_options(opened())))
    fresh = AppTest.from_file(str(ROOT / "app" / "main.py"), default_timeout=120)
    for name in at.query_params:
        fresh.query_params[name] = at.query_params[name]
    pages.turned_to(fresh, page)
    assert not at.exception and not fresh.exception and not fresh.warning
    assert widgets(fresh) == widgets(at) and linked(fresh) == linked(at)
    assert {name for name, value in linked(at).items() if value not in (None, "", [])} <= set(at.query_params)


WRONG = dict.fromkeys(("unit", "bos", "dtype", "quantization", "score", "lens", "cut_by", "of", "pool", "map"), "xyz")
WRONG |= {"layer_score": "xyz", "beside": "0"}
WRONG |= dict.fromkeys(("method", "baseline", "quantity", "explained", "models", "prompt", "metric", "change"), "<b>")
WRONG |= dict.fromkeys(("writer", "decoding", "rule", "x", "live", "per_position", "run_a", "judged_by", "show"), "0")
WRONG |= dict.fromkeys(("layer", "head", "tau", "smoothing", "most", "longest", "temperature", "sample"), "nan")
WRONG |= dict.fromkeys(("store_a", "rank_by", "sort_by", "changed", "reversed", "column", "rank_page"), "xyz")
WRONG |= {"cap": "-1", "window": "9" * 400, "stride": "1e400", "new_tokens": "-inf", "penalty": "99", "at": "-5"}
WRONG |= {"attention": "an-owner/a-kernel"}  # transformers would fetch its code


@pytest.mark.parametrize("page", sorted({page for page, _ in CASES.values()}))
def test_what_a_link_cannot_mean_falls_back_and_is_named(models: dict[str, Path], page: str) -> None:
    at = pages.opened(models, TEXT, page, fresh=False, film="Your run", **WRONG)
    assert not at.exception and not at.error
    said = at.warning[0].value.replace("\\", "")
    meant = [name for name in at.session_state["link_shown"] if name in WRONG]
    assert len(meant) > 6 and all(f"{name}={WRONG[name][:40]}" in said for name in meant)
    again = at.run()
    assert all(WRONG[name] not in again.query_params.get(name, "") for name in meant)


def test_the_options_of_models_are_in_the_link_but_not_the_leave_to_run_their_code(models: dict[str, Path]) -> None:
    at = pages.opened(models, TEXT, fresh=False, dtype="bfloat16", device="cpu", attention="eager", trust="true")
    assert not at.error and at.selectbox(key="dtype").value == "bfloat16"
    assert not at.checkbox(key="trust").value
    facts = at.session_state["inputs"].a
    assert (facts.dtype, facts.device, facts.attn_implementation) == ("bfloat16", "cpu", "eager")
    at.text_input(key="adapter_b").set_value("an-owner/an-adapter").run()
    assert "an-owner/an-adapter" in at.query_params["adapter_b"]
    assert at.button(key="fetch_B") and "adapter" in at.info[0].value  # nothing is fetched before a click


def test_two_pages_have_their_own_open_cards_and_values(models: dict[str, Path]) -> None:
    at = pages.opened(models, TEXT, "attribution", fresh=False, open=["curves"])

    def turned_to(page: str) -> Any:
        at.query_params.clear()  # as a browser does
        assert not pages.turned_to(at, page).exception and not at.error
        return at.query_params

    assert "open" not in turned_to("segmentation") and "1" in at.query_params["values_of"]
    assert "loss" in turned_to("runs")["curves"]
    assert "curves" in turned_to("attribution")["open"]


def test_names_of_earlier_links_are_read(models: dict[str, Path]) -> None:
    at = pages.opened(models, TEXT, "runs", fresh=False, curve=["accuracy"], measure="NLL")
    assert "accuracy" in at.query_params["curves"] and "NLL" in at.query_params["per_position"]
    assert "curve" not in at.query_params and "measure" not in at.query_params


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"text": TEXT}, ""),
        ({"example": "tide"}, ""),
        ({"text": "x" * 3000}, "2,000 characters"),
        ({"text": TEXT, "answer": "x" * 3000}, "2,000 characters"),
        ({"file": "essay.txt", "content": b"x"}, "essay.txt"),
    ],
)
def test_what_a_link_leaves_out_is_said(fields: dict[str, Any], word: str) -> None:
    submitted = Submission("tiny-base", "tiny-sft", **fields)
    assert word in submitted.not_in_link() and bool(word) == bool(submitted.not_in_link())
    assert ("text" in submitted.link()) == (fields == {"text": TEXT})
