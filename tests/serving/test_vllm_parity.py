"""The real vLLM: run it where vLLM is installed, with `pytest tests/serving/test_vllm_parity.py` (docs/serving.md)."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest

from tests.serving.vllm_served import expected, prompts_of, same, served_by_vllm, written

pytestmark = [pytest.mark.vllm, pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    name = os.environ.get("MICRO_STEP_VLLM_MODEL", "micro-step-tiny")
    yield from served_by_vllm(name, tmp_path_factory.mktemp("vllm"))


@pytest.mark.parametrize("together", [False, True])
def test_six_prompts_alone_and_together(served, together):
    service, model = served
    prompts = prompts_of(service)
    rows = written(service, prompts, together, max_tokens=32)
    theirs = [expected(model, prompt, 32, 0.2) for prompt in prompts]
    assert [row.ids for row in rows] == [row.ids for row in theirs]
    assert all(map(same, rows, theirs)) and sum(row.accepted for row in rows) > 10
