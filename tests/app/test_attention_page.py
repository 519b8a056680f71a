"""The attention page through Streamlit's own test runner: what it shows, what it asks, and when it runs a model."""

import json

import numpy as np
import pytest

from tests.support import pages
from tests.support.pages import ROOT, asked_of, charts, kinds, shown

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat, and the dog sat down on the mat"


@pytest.fixture
def runs(monkeypatch):
    """The questions that were put to models."""
    from analysis.attention.request import LayerQuery, OverviewQuery, PositionsQuery, RolloutQuery

    return asked_of(monkeypatch, PositionsQuery, OverviewQuery, LayerQuery, RolloutQuery)


def opened(models, /, text=TEXT, **query):
    return pages.opened(models, text, "attention", **{"open": ["large_map", "all_heads", "attention_summary"], **query})


def test_the_first_visit_is_a_worked_example(models, runs):
    at = opened(models)
    assert not at.exception and not at.error
    assert [metric.label for metric in at.metric] == ["on the sink", "evenness", "distance", "strongest induction head"]
    assert kinds(runs) == ["PositionsQuery", "OverviewQuery", "LayerQuery"]
    layer, head = at.number_input(key="layer").value, at.number_input(key="head").value
    assert at.metric[3].value == f"layer {layer}, head {head}"
    assert (at.number_input(key="layer").max, at.number_input(key="head").max) == (2, 3)
    assert len(charts(at)) == 2


def test_a_worked_example_opens_from_what_is_stored_as_the_model_computes_it(models, runs, monkeypatch):
    drawn = pages.strips(monkeypatch)
    tiny, pair = {name: name for name in ("tiny-base", "tiny-sft")}, {"a": "tiny-base", "b": "tiny-sft"}
    at = pages.opened(tiny, "", "attention", **pair, source="example", open=["attention_summary"])
    assert not runs and not at.exception and not at.error
    (old,), metrics = drawn["attended"].rows, [metric.value for metric in at.metric]
    at.number_input(key="head").set_value(1 - min(1, at.number_input(key="head").value)).run()
    assert kinds(runs) == ["LayerQuery"] and not at.exception
    at = pages.opened(tiny, "", "attention", **pair, source="example", open=["attention_summary"])
    del runs[:]
    at.button(key="compute_anew").click().run()
    assert kinds(runs) == ["PositionsQuery", "OverviewQuery", "LayerQuery"] and not at.exception
    (new,) = drawn["attended"].rows
    np.testing.assert_allclose(old.value, new.value, atol=1e-5)
    assert old.start.tolist() == new.start.tolist() and metrics == [metric.value for metric in at.metric]


def test_a_deep_link_names_view_statistic_layer_head_level_window_and_pin(models, runs):
    at = opened(models, of="B", shown="distance", layer="1", head="2", level="segments", n="5", q="3", k="1", at="9")
    assert not at.exception and not at.error
    view = at.session_state["layer"], at.session_state["head"], at.session_state["level"]
    assert view == (1, 2, "segments") and runs[0].side == "B"
    large, _ = charts(at)
    assert "Distance of all layers and heads" in shown(at)
    assert large["layout"]["xaxis"]["range"] == [0.5, 5.5] and large["layout"]["yaxis"]["range"] == [7.5, 2.5]
    assert "“·sat” attends most to" in shown(at).replace("\\", "")


def test_what_is_outside_of_a_model_falls_back_to_its_last(models, runs):
    at = opened(models, layer="99", head="99", n="9999", shown="nothing", level="nowhere")
    assert not at.exception and not at.error
    assert (at.number_input(key="layer").value, at.number_input(key="head").value) <= (2, 3)


def test_another_head_zoom_or_pin_runs_no_model_and_another_layer_only_as_far_as_it(models, runs):
    at = opened(models, layer="1", head="0")
    before = len(runs)
    at.number_input(key="head").set_value(3).run()
    at.number_input(key="n").set_value(4).run()
    at.segmented_control(key="level").set_value("segments").run()
    at.segmented_control(key="map").set_value("mean").run()
    assert len(runs) == before and not at.exception
    at.number_input(key="layer").set_value(2).run()
    assert kinds(runs[before:]) == ["LayerQuery"]
    at.segmented_control(key="map").set_value("rollout").run()
    assert kinds(runs[before:]) == ["LayerQuery", "RolloutQuery"] and not at.exception


def test_the_difference_of_two_models(models, runs):
    at = opened(models, of="B − A")
    assert not at.exception and not at.error
    assert at.metric[0].label == "B − A, on the sink" and [each.side for each in runs[:2]] == ["A", "B"]
    at = opened(models, b="other", of="B − A")
    assert "same tokenizer" in shown(at) and not at.exception


def test_a_strategy_that_needs_scores_and_one_that_is_typed(models, runs):
    at = opened(models, cut_by="entropy:threshold=3.0")
    assert not at.exception and not at.error and "entropy:threshold=3.0" in shown(at).replace("\\", "")
    at = opened(models, cut_by="<img src=x>")
    assert not at.error and not at.exception
    assert "cut_by" in at.warning[0].value.replace("\\", "") and "no segmentation rule" in at.warning[1].value


def test_a_micro_step_model_is_read_segment_by_segment(models, runs):
    at = opened({**models, "micro": "micro-step-tiny"}, a="micro", cut_by="fixed:k=2.0")
    assert not at.exception and not at.error
    assert "macro steps" in at.metric[2].value and at.segmented_control(key="level").disabled
    assert "merged segments" in shown(at)


def test_nothing_that_is_drawn_takes_two_megabytes(models, runs):
    at = opened(models, text=TEXT * 24)
    assert not at.exception and not at.error
    sizes = [len(chart.proto.spec) for chart in at.get("plotly_chart")]
    assert len(sizes) == 2 and max(sizes) < 2e6


def test_states_without_an_answer(models, runs, monkeypatch):
    assert "There is no text yet" in shown(opened(models, text=""))
    at = opened({**models, "hollow": ROOT / "docs"}, a="hollow")
    assert len(at.error) == 1 and not at.exception
    monkeypatch.setattr("app.run_query.HEAVY", 1e-9)
    before = len(runs)
    at = opened(models)
    assert "by an estimate" in shown(at) and kinds(runs[before:]) == ["PositionsQuery"]
    next(button for button in at.button if button.label == "Run it").click().run()
    assert "OverviewQuery" in kinds(runs[before:])


@pytest.mark.parametrize("text", ["![x](http://e/p.png) <b>b</b> **b** $x$ \x00\x1b[31m \u202e שלום 你好 🦆", "a"])
def test_hostile_texts_are_inert(models, runs, text):
    at = opened(models, text=text, at="1")
    assert not at.exception
    assert "<b>" not in json.dumps([chart.proto.spec for chart in at.get("plotly_chart")]) and "http" not in shown(at)
