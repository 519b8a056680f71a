"""The command that puts our answers beside the harness's own: equal where they must be, different where they are."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.harness import compare
from evals.benchmark import find_benchmark
from micro_step import cli
from model.hub.loading import load
from tests.support.evaluations import OPTIONS, plain_model, write_local

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    return write_local(tmp_path_factory.mktemp("local"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plain_model(tmp_path_factory.mktemp("plain"))


def around(loaded):
    from model.micro_step.modeling import MicroStepForCausalLM

    return replace(loaded, model=MicroStepForCausalLM.from_base(loaded.model, loaded.tokenizer).eval())


def test_all_ways_say_the_same(plain, local):
    chosen = [(find_benchmark("arc_challenge"), None), (find_benchmark("gsm8k_cot"), 4)]
    rows = compare(plain, around(plain), chosen, local, replace(OPTIONS, chat=True), lambda *_: None)
    assert [row["documents"] for row in rows] == [6] * 2 + [4] * 3
    for row in rows:
        assert row["equal"] == row["requests"] >= row["documents"]
        assert row["speedup"][0] > 0 and (row["difference"] or 0) < 1e-3
    assert rows[0]["speedup"][0] == rows[2]["speedup"][0] == 1


def test_another_model_is_told_apart(plain, local):
    other = load(plain.spec)
    with torch.no_grad():
        for weight in other.model.parameters():
            weight += torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)) * 0.2
    chosen = [(find_benchmark("arc_challenge"), 4), (find_benchmark("gsm8k_cot_zeroshot"), 4)]
    _, likely, _, written, own = compare(plain, around(other), chosen, local, OPTIONS, lambda *_: None)
    assert likely["difference"] > 1e-2 and written["equal"] < 4 == own["equal"]


def test_a_wrong_limit_is_one_line(local):
    words = ["bench", "harness", "--tasks", "arc_challenge:none", "--local", str(local)]
    done = CliRunner().invoke(cli.command(words), words)
    assert "NAME:N" in str(done.exception)
