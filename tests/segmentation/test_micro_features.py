"""The refined rule's input against one prefix at a time, and the rule on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM

from model.causal_lm.forward import body, logits_of
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM
from model.segmentation.micro_features import refined_confidences
from model.segmentation.segment import SegmentInputs, segment
from tests.support.command import call
from tests.support.micro_steps import micro_step, scramble
from tests.support.tiny import save_tiny

IDS = np.random.default_rng(0).integers(5, 400, 17)


@pytest.mark.parametrize("prefix", [(), (1,), (1, 7)])
@pytest.mark.parametrize("family", ["llama", "gemma3_text", "gpt2"])
def test_confidences_equal_one_prefix_at_a_time(monkeypatch, family, prefix):
    monkeypatch.setattr("model.segmentation.micro_features._CHUNK_BYTES", 4 * 400 * 3 * 5)  # five starts a chunk
    model = micro_step(family)
    found = refined_confidences(model, IDS, prefix)
    fed = [*prefix, *IDS.tolist()]
    shift = len(prefix)
    embed = model.get_input_embeddings()
    expected = np.full((len(IDS), 3), np.nan, dtype=np.float32)
    with torch.no_grad():
        states = body(model.base)(input_ids=torch.tensor([fed]), output_hidden_states=True)
        every = [*states.hidden_states[:-1], states.last_hidden_state]
        for t in range(len(IDS)):
            for j in (1, 2, 3):
                before = t - j - 1 + shift  # the position that is read last before the segment
                if before < 0 or t - j < 0:
                    continue
                context = torch.stack([every[layer][0, before] for layer in model.config.context_layers])
                state, _ = model.micro(context[None], embed(torch.tensor([IDS[t - j : t].tolist()])))
                expected[t, j - 1] = logits_of(model.base, state[0, -1:]).softmax(-1).max()
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_the_rule_joins_what_the_micro_decoder_is_sure_of():
    model = micro_step()
    confidence = refined_confidences(model, IDS)
    found = segment("refined", SegmentInputs(micro_confidence=confidence), tau=0.2)
    start = 0
    for t in range(1, len(IDS)):
        joins = t - start < 4 and confidence[t, t - start - 1] >= 0.2
        assert found.starts[t] == (not joins)
        start = start if joins else t
    assert 1 < len(found.lengths) < len(IDS)


def test_nothing_and_a_single_token():
    model = micro_step()
    assert refined_confidences(model, IDS[:0]).shape == (0, 3)
    assert np.isnan(refined_confidences(model, IDS[:1])).all()
    assert refined_confidences(micro_step(max_segment_length=1), IDS).shape == (17, 0)


def test_the_command_cuts_with_a_saved_model_and_refuses_others(tmp_path, monkeypatch, capsys):
    where = save_tiny(tmp_path / "base", "llama")
    model = MicroStepForCausalLM.from_base(AutoModelForCausalLM.from_pretrained(where))
    scramble(model)
    model.save_modules(tmp_path / "trained", str(where))
    text = ["--text", "Once upon a time there was a small ship", "--strategy", "refined", "--set", "tau=0.05"]

    def run(name: Path, *more: str) -> int:
        return call(monkeypatch, "segment", "--model", name, *text, *more)

    assert run(tmp_path / "trained", "--out", str(tmp_path / "cut.csv")) == 0
    table = pd.read_csv(tmp_path / "cut.csv")
    loaded = load(ModelSpec(str(tmp_path / "trained")))
    expected = refined_confidences(loaded.model, table["token_id"].to_numpy())
    found = segment("refined", SegmentInputs(micro_confidence=expected), tau=0.05)
    assert table["starts_segment"].tolist() == found.starts.tolist()
    assert run(where) == 1 and "trained micro_step model" in capsys.readouterr().err
