"""A micro decoder that reads one context state: how evenly it uses them is not defined, and said to be."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.attention.evenness.statistics import UNDEFINED, verdict
from analysis.attention.evenness.study import EvennessQuery, study
from analysis.attention.evenness.tables import findings, study_text
from analysis.attention.evenness.texts import read_texts
from analysis.attention.micro.figures import draw
from analysis.attention.micro.options import MicroView
from analysis.attention.micro.request import MicroRequest
from analysis.attention.micro.tables import figure_table, finding, segment_figures, segment_table
from analysis.segmentation.strategy import Strategy
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.text.document import TextInput
from tests.support.tiny import save_tiny

TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on."


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model around a tiny base, whose micro decoder reads the last layer's state alone."""
    base = load(ModelSpec(str(save_tiny(tmp_path_factory.mktemp("base") / "base", "llama"))))
    last = base.model.config.num_hidden_layers
    model = MicroStepForCausalLM.from_base(base.model, base.tokenizer, context_layers=[last])
    out = tmp_path_factory.mktemp("model") / "one"
    model.save_pretrained(out)
    base.tokenizer.save_pretrained(out)
    return str(out)


def test_evenness_of_one_state_is_not_defined(folder):
    """It said "1.00 of 1: the claim holds here", and gave segments an evenness of 0."""
    found = MicroRequest(ModelSpec(folder), TextInput.plain(TEXT)).run(load)
    assert found.states == 1
    even, effective = segment_figures(found)
    assert np.isnan(even).all() and effective == pytest.approx(1)
    assert segment_table(found)["evenness"].isna().all()
    table = figure_table(found.sums)
    assert table.loc[table["figure"] == "evenness", ["mean", "low", "high"]].isna().all(axis=None)
    assert verdict(found.sums.effective, 1) == "undefined"
    assert finding(found.sums) == f"{UNDEFINED}."
    for name in ("micro_segments", "micro_evenness"):
        drawn = draw(name, found, MicroView())
        assert "evenness is not defined" in drawn.caption and drawn.figure.data


def test_a_study_says_so_too(folder, tmp_path):
    (tmp_path / "texts.jsonl").write_text('{"text": "the cat sat on the mat, and the dog sleeps on."}\n' * 2)
    asked = EvennessQuery(read_texts(str(tmp_path / "texts.jsonl")), Strategy.of("fixed", {"k": 3}), untrained=False)
    found = study([ModelSpec(folder)], asked, load)
    assert "undefined" in study_text(found, "command") and "undefined" in findings(found.shown)[0]
