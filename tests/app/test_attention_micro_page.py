"""The micro view through Streamlit's own test runner: what it shows, what it asks, and when it runs a model."""

import json

import pytest

from model.hub.loading import ModelSpec, load
from model.hub.wrap_base import wrap
from tests.support import pages
from tests.support.micro_steps import scramble
from tests.support.pages import shown

pytestmark = pytest.mark.slow

FOLDED = ["micro_summary", "weights", "micro_evenness", "micro_shares"]

TEXT = "the cat sat on the mat, and the dog sleeps on. The quick brown fox jumps over it."


@pytest.fixture
def runs(monkeypatch):
    """Counts the runs."""
    from analysis.attention.micro.request import MicroRequest

    count, original = [], MicroRequest.run
    monkeypatch.setattr(MicroRequest, "run", lambda self, *rest: (count.append(self), original(self, *rest))[1])
    return count


@pytest.fixture(scope="module")
def trained(models, tmp_path_factory):
    """A saved model that is not as it started."""
    folder = tmp_path_factory.mktemp("micro") / "trained"
    model = wrap(load(ModelSpec(str(models["sft"])))).model
    scramble(model)
    model.config.max_segment_length = 4
    model.merger.position.data = model.merger.position.data[:4]
    model.save_modules(folder, str(models["sft"]))
    return folder


def opened(models, a="base", b="sft", text=TEXT, **query):
    """The view with two models and a typed text, as a deep link opens it."""
    return pages.opened(models, text, "attention", a=a, b=b, view="Micro", open=FOLDED, **query)


def figures(at):
    return [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]


def heat(at):
    return next(figure for figure in figures(at) if figure["data"][0]["type"] == "heatmap")


def test_untrained_modules_are_shown_and_labelled(models, runs):
    at = opened(models)
    assert not at.exception and not at.error and len(runs) == 1
    assert [metric.label for metric in at.metric] == [
        "effective context states", "evenness", "attention on the context", "largest share of a state",
    ]  # fmt: skip
    assert "Untrained." in shown(at) and shown(at).count("Untrained modules") == 4
    assert "fairly even would be" in shown(at) and "9 segments are too few" in shown(at) and len(figures(at)) == 3


def test_a_trained_model_is_chosen_first_and_its_segments_can_be_stepped_through(models, runs, trained):
    at = opened({**models, "trained": trained}, a="trained", b="sft", segment="2")
    assert not at.exception and runs[0].model.name == str(trained) and "Untrained" not in shown(at)
    mean_panels = len(heat(at)["data"])
    assert "segment 2 of" in shown(at) and at.button(key="micro_previous").disabled is False
    at.button(key="micro_next").click().run()
    assert list(at.query_params["segment"]) == ["3"] and "segment 3 of" in shown(at)
    at.button(key="micro_previous").click().run()
    at.button(key="micro_previous").click().run()
    assert "segment 1 of" in shown(at) and at.button(key="micro_previous").disabled
    at.segmented_control(key="micro_show_one").set_value("mean over the text").run()
    assert "segment" not in at.query_params and "mean over" in shown(at) and len(heat(at)["data"]) >= mean_panels
    at.segmented_control(key="micro_show_mean").set_value("one segment").run()
    assert list(at.query_params["segment"]) == ["1"] and not at.exception
    before = heat(at)["data"][0]["z"]
    at.segmented_control(key="layer_of_micro").set_value(1).run()
    assert heat(at)["data"][0]["z"] != before and len(runs) == 1


def test_segments_come_from_a_strategy_or_from_what_is_written(models, runs):
    at = opened(models)
    at.segmented_control(key="micro_cut").set_value("strategy").run()
    at.selectbox(key="micro_rule").set_value("fixed").run()
    at.number_input(key="micro_fixed_k").set_value(3).run()
    assert not at.exception and str(runs[-1].strategy) == "fixed:k=3"
    at.number_input(key="micro_most").set_value(3).run()
    assert runs[-1].max_length == 3
    at.segmented_control(key="micro_cut").set_value("written").run()
    at.slider(key="micro_tau").set_value(0.0).run()
    assert not at.exception and not at.error and runs[-1].written.tau == 0 and "written by the model" in shown(at)


def test_a_click_in_the_strip_chooses_its_segment(models, runs, monkeypatch):
    from app.attention import micro

    pinned = []
    monkeypatch.setattr(micro, "pin", lambda at, key: pinned.append((at, key)))
    opened(models)
    found = runs[0].run(load)
    micro._picked(found, int(found.encoded.start[found.first[2]]))
    micro._picked(found, 0)
    micro._picked(found, None)
    assert pinned == [(3, "segment"), (None, "segment"), (None, "segment")]


def test_states_without_an_answer(models, runs):
    assert "There is no text yet" in shown(opened(models, text=""))
    at = opened({**models, "lost": "no/such-model"}, b="lost")
    assert "is not on this machine yet" in shown(at) and not runs
    at = opened(models, text="a")
    assert len(at.error) == 1 and not at.exception and not at.metric
    assert not opened(models, segment="999").exception


def test_heavy_runs_are_asked_for_first(models, runs, monkeypatch):
    monkeypatch.setattr("app.run_query.HEAVY", 1e-9)
    at = opened(models, text=f"{TEXT} a heavy one")
    assert "by an estimate" in shown(at) and not runs
    next(button for button in at.button if button.label == "Run it").click().run()
    assert len(runs) == 1 and at.metric


def test_hostile_text_stays_text(models, runs):
    at = opened(models, text="<img src=x onerror=alert(1)> ![x](http://e/p.png) **b** <b>two</b>", segment="1")
    drawn = "".join(json.dumps(figure) for figure in figures(at))
    assert not at.exception and "<img" not in drawn and "<b>" not in drawn and "![x](" not in shown(at)
