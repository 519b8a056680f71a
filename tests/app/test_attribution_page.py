"""The attribution page through Streamlit's own test runner: what it shows, what it asks, and when it runs a model."""

import json

import pytest

from tests.support import pages
from tests.support.pages import ROOT, asked_of, charts, kinds, shown

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat,\nand the dog sat down"
QUICK = {"method": "gradient × input"}  # a link holds what is shown


@pytest.fixture
def runs(monkeypatch):
    """The questions that were put to models."""
    from analysis.attribution.request import AttributionRequest, SegmentsQuery
    from analysis.segmentation.request import ScoresQuery

    return asked_of(monkeypatch, ScoresQuery, SegmentsQuery, AttributionRequest)


def opened(models, /, text=TEXT, **query):
    return pages.opened(models, text, "attribution", **{"open": ["attribution_summary", "units", "curves"], **query})


def test_the_first_visit_is_a_worked_example(models, runs):
    at = opened(models)
    assert not at.exception and not at.error
    assert [metric.label for metric in at.metric] == [
        "entropy", "on the baseline", "sum of attributions", "faithfulness",
    ]  # fmt: skip
    assert all(metric.proto.help for metric in at.metric)
    assert kinds(runs) == ["ScoresQuery", "SegmentsQuery", "AttributionRequest"]
    assert runs[-1].method == "feature_ablation" and runs[-1].models[0][0] == "B" and runs[-1].at > 0
    bars, curves = charts(at)
    assert len(curves["data"]) == 8 and bars["data"][0]["orientation"] == "h"


def test_a_deep_link_names_quantity_method_baseline_unit_and_token(models, runs):
    at = opened(models, quantity="surprisal", method="ablation", baseline="zero", sum_over="words", of="A", at="9")
    assert not at.exception and not at.error
    asked = runs[-1]
    assert (asked.quantity, asked.method, asked.baseline) == ("surprisal", "feature_ablation", "zero")
    assert asked.models[0][0] == "A"
    said = shown(at).replace("\\", "")
    assert "Surprisal of base" in said and "by ablation" in said and "Summed over words" in said
    assert at.metric[2].label == "sum of attributions"


def test_integrated_gradients_show_their_convergence(models, runs):
    at = opened(models, method="integrated gradients")
    assert not at.exception and not at.error and runs[-1].method == "integrated_gradients"
    assert at.metric[2].label == "convergence delta" and "steps" in shown(at)


def test_another_unit_runs_no_model_and_another_token_one(models, runs):
    at = opened(models, **QUICK)
    before = len(runs)
    for unit in ("words", "segments", "lines", "tokens"):
        at.segmented_control(key="group_by").set_value(unit).run()
        assert not at.exception and not at.error and f"Summed over {unit}" in shown(at)
    at.segmented_control(key="unit").set_value("nats").run()
    assert len(runs) == before and "nats" in at.metric[0].value
    at.session_state["at"] = 8
    at.run()
    assert kinds(runs[before:]) == ["AttributionRequest"] and not at.exception
    at.segmented_control(key="baseline").set_value("zero").run()
    assert kinds(runs[before:]) == ["AttributionRequest"] * 2


def test_another_strategy_asks_for_segments_alone(models, runs):
    at = opened(models, **QUICK)
    before = len(runs)
    at.selectbox(key="cut_by").select_index(1).run()
    assert kinds(runs[before:]) == ["SegmentsQuery"] and not at.exception and not at.error


def test_words_that_moved_together_are_not_split(models, runs):
    at = opened(models, method="Shapley sampling", sum_over="tokens", text="the cat sat on the mat")
    assert not at.exception and not at.error
    assert at.segmented_control(key="group_by").options[0] == "words"
    assert "tokens" not in at.segmented_control(key="group_by").options
    assert at.metric[2].label == "standard error"
    at = opened(models, method="ablation", moves_feature_ablation="words")
    assert runs[-1].features == "words" and "tokens" not in at.segmented_control(key="group_by").options


def test_the_kl_of_both_models(models, runs):
    at = opened(models, quantity="KL(A||B)", **QUICK)
    assert not at.exception and not at.error
    assert [key for key, _ in runs[-1].models] == ["A", "B"] and at.segmented_control(key="explained").disabled
    assert at.metric[0].label.replace("\\", "") == "KL(A||B)"
    at = opened(models, b="other", quantity="KL(A||B)", **QUICK)
    assert "same tokenizer" in shown(at) and not at.exception


def test_a_micro_step_models_own_quantities(models, runs):
    shipped = {**models, "micro": "micro-step-tiny"}
    at = opened(shipped, b="micro", quantity="micro confidence", cut_by="fixed:k=2.0", **QUICK)
    assert not at.exception and not at.error and runs[-1].segmenter.strategy.name == "fixed"
    assert "probability" in at.metric[0].value and "read in the segments of fixed" in shown(at).replace("\\", "")
    at = opened(models, quantity="decision to end", **QUICK)
    assert "needs a micro" in shown(at) and len(at.error) == 1 and not at.exception


def test_a_token_at_which_nothing_can_be_said_is_one_line(models, runs):
    at = opened(models, at="0", **QUICK)
    assert len(at.error) == 1 and "no token before" in at.error[0].value and not at.exception
    at = opened(models, text="a", **QUICK)
    assert len(at.error) == 1 and not at.exception
    at = opened(models, cut_by="<img src=x>", **QUICK)
    assert not at.error and not at.exception
    assert "cut_by" in at.warning[0].value.replace("\\", "") and "no segmentation rule" in at.warning[1].value


def test_states_without_an_answer(models, runs, monkeypatch):
    assert "There is no text yet" in shown(opened(models, text=""))
    at = opened({**models, "hollow": ROOT / "docs"}, b="hollow")
    assert len(at.error) == 1 and not at.exception
    monkeypatch.setattr("app.run_query.HEAVY", 1e7)
    monkeypatch.setattr("app.cache.ModelPool.speed", lambda self: 1.0)
    before = len(runs)
    at = opened(models, method="integrated gradients")
    assert "by an estimate" in shown(at) and kinds(runs[before:]) == ["ScoresQuery", "SegmentsQuery"]
    next(button for button in at.button if button.label == "Run it").click().run()
    assert kinds(runs[before:])[-1] == "AttributionRequest" and len(at.metric) == 4


@pytest.mark.parametrize("text", ["![x](http://e/p.png) <b>b</b> **b** $x$ \x00\x1b[31m \u202e שלום 你好 🦆"])
def test_hostile_texts_are_inert(models, runs, text):
    at = opened(models, text=text, **QUICK)
    assert not at.exception
    assert "<b>" not in json.dumps([chart.proto.spec for chart in at.get("plotly_chart")]) and "http" not in shown(at)
