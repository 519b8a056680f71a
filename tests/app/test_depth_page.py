"""The depth page through Streamlit's own test runner: what it shows, what it asks, and when it runs a model."""

import json
import shutil

import numpy as np
import pytest

from analysis.depth.figures import TOKENS
from analysis.depth.request import LayersQuery
from analysis.segmentation.single import scored_inputs
from analysis.segmentation.strategy import Segmenter, Strategy
from app.token_strip import BarRow, LineRow, TokenRow
from model.hub.loading import ModelSpec, load
from model.segmentation.features import FeatureOptions
from model.text.document import TextInput
from tests.support import pages
from tests.support.pages import asked_of, charts, kinds, shown

pytestmark = pytest.mark.slow

TEXT = "the cat sat on the mat, and the dog sat down on the mat"


@pytest.fixture
def runs(monkeypatch):
    """The questions that were put to models."""
    return asked_of(monkeypatch, LayersQuery)


def opened(models, /, text=TEXT, **query):
    return pages.opened(models, text, "depth", **query)


def tokens(strip):
    return {row.key: row for row in strip.rows if isinstance(row, TokenRow)}


def test_the_strip_shows_where_each_model_decides_beside_its_entropy_and_segments(models, runs, monkeypatch):
    found = LayersQuery("A", ModelSpec(str(models["base"])), TextInput.plain(TEXT)).run(load)
    strategy = f"entropy:threshold={np.nanmedian(found.scored.scores.entropy):.5f}"
    drawn = pages.strips(monkeypatch)
    at = opened(models, beside=strategy)
    assert not at.exception and not at.error and kinds(runs[1:]) == ["LayersQuery"] * 2
    strip = drawn["depth"]
    curve, row = strip.rows[0], tokens(strip)["A"]
    np.testing.assert_allclose(row.value, found.decided / found.count, rtol=1e-6)
    assert isinstance(curve, LineRow) and np.isnan(curve.value).tolist() == np.isnan(row.value).tolist()
    np.testing.assert_allclose(curve.value * 8, found.scored.scores.entropy / np.log(2), rtol=1e-4)
    inputs, _ = scored_inputs(found.scored, FeatureOptions())
    starts = Segmenter(Strategy.parse(strategy)).segment(inputs).starts
    assert row.boundary.tolist() == starts.tolist() and 1 < starts.sum() < len(starts)
    last = row.notes[-1]
    assert last.label == f"after layer {found.count}"
    assert last.words[last.index[-1]] == found.strings[int(found.scored.scores.topk_ids[-1, 0])]
    bars = next(each for each in strip.rows if isinstance(each, BarRow))
    both = tokens(strip)["B"].value - row.value
    np.testing.assert_allclose(bars.value, np.clip(2 * both[~np.isnan(both)], -1, 1), atol=1e-6)
    assert "of 3 layers (" in shown(at).replace("\\", "")


def test_another_quantity_lens_pin_or_strategy_runs_no_model(models, runs, monkeypatch):
    drawn = pages.strips(monkeypatch)
    at = opened(models)
    before = len(runs)
    (figure,) = charts(at)
    assert sum(trace["type"] == "heatmap" for trace in figure["data"]) == 2
    for quantity in ("confidence", "kl", "js", "final_rank"):
        at.selectbox(key="layer_score").set_value(quantity).run()
        assert not at.exception and not at.error
    assert "rank of the final word" in shown(at).lower()
    at.segmented_control(key="lens").set_value("change").run()
    (figure,) = charts(at)
    assert sum(trace["type"] == "heatmap" for trace in figure["data"]) == 1
    rows = tokens(drawn["depth"])
    assert [rows[key].hidden for key in ("A", "B", "B−A")] == [True, True, False]
    at.selectbox(key="beside").set_value("word").run()
    assert tokens(drawn["depth"])["A"].boundary is not None and len(runs) == before
    at = pages.opened(models, TEXT, "depth", fresh=False, at="9", open=["layers", "decided", "agreement"])
    assert not at.exception and len(charts(at)) == 4 and len(runs) == before
    assert charts(at)[0]["layout"]["shapes"]  # the pinned token


def test_a_worked_example_opens_from_what_is_stored_as_the_models_compute_it(monkeypatch):
    from app.cache import model_pool

    drawn = pages.strips(monkeypatch)
    tiny, pair = {name: name for name in ("tiny-base", "tiny-sft")}, {"a": "tiny-base", "b": "tiny-sft"}
    at = pages.opened(tiny, "", "depth", **pair, source="example")
    assert not model_pool().computed() and not at.exception and not at.error
    stored = tokens(drawn["depth"])
    at.button(key="compute_anew").click().run()
    assert [type(query) for query, _ in model_pool().computed()] == [LayersQuery] * 2
    for key, row in tokens(drawn["depth"]).items():
        assert (row.start == stored[key].start).all()
        assert np.isclose(row.value, stored[key].value, equal_nan=True, atol=1e-6).mean() > 0.99


def test_a_long_text_is_shown_in_windows_and_a_pin_turns_to_its_own(models, runs):
    at = opened(models, text=f"{TEXT}. " * 30)
    assert not at.exception and not at.error
    assert max(len(chart.proto.spec) for chart in at.get("plotly_chart")) < 1e6
    assert "0 to 159 of" in json.dumps(charts(at)[0]["layout"]["annotations"])
    at.button(key="layers_from_next").click().run()
    assert at.query_params["layers_from"] == str(TOKENS)
    assert "160 to 319 of" in json.dumps(charts(at)[0]["layout"]["annotations"])


def test_states_without_an_answer(models, runs, monkeypatch):
    assert "There is no text yet" in shown(opened(models, text=""))
    for strategy, why in (("<img src=x>", "no segmentation rule"), ("router", "more than the scores")):
        at = opened(models, beside=strategy)
        assert why in " ".join(each.value for each in at.warning) and not at.error and not at.exception
    at = opened(models, tuned_b="/nowhere")
    assert len(at.error) == 1 and "tuned lens" in at.error[0].value and not at.exception
    at = opened(models, b="other", lens="change")
    assert not at.exception and not at.error
    monkeypatch.setattr("app.run_query.HEAVY", 1e-9)
    before = len(runs)
    at = opened(models)
    assert "by an estimate" in shown(at) and len(runs) == before
    next(button for button in at.button if button.label == "Run it").click().run()
    assert len(runs) == before + 2


@pytest.mark.parametrize("text", ["![x](http://e/p.png) <b>b</b> **b** $x$ \x00\x1b[31m \u202e שלום 你好 🦆", "a"])
def test_hostile_texts_are_inert(models, runs, text):
    at = opened(models, text=text, at="1")
    assert not at.exception
    assert "<b>b" not in json.dumps([chart.proto.spec for chart in at.get("plotly_chart")]) and "http" not in shown(at)


def test_models_of_different_depth_are_compared_by_relative_depth(models, runs, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM

    drawn = pages.strips(monkeypatch)
    shallow = AutoModelForCausalLM.from_pretrained(models["sft"])
    shallow.model.layers = shallow.model.layers[:2]
    shallow.config.num_hidden_layers = 2
    shallow.config.layer_types = None
    shutil.copytree(models["sft"], tmp_path / "shallow")
    shallow.save_pretrained(tmp_path / "shallow")
    at = opened({**models, "shallow": tmp_path / "shallow"}, b="shallow", lens="change")
    assert not at.exception and not at.error and "A and B have 3 and 2 layers" in at.info[0].value
    rows = tokens(drawn["depth"])
    assert not rows["A"].hidden and set(rows["B"].value[1:].tolist()) <= {0.0, 0.5, 1.0}
