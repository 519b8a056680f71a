"""A micro_step model around a real base: lossless decoding writes what the base writes."""

import pytest
import torch

from model.hub.fetch import is_cached
from model.hub.loading import ModelSpec, load
from model.micro_step.modeling import MicroStepForCausalLM

pytestmark = pytest.mark.slow

NAME = "smollm2-135m-instruct"
QUESTIONS = (
    "A shop sells pencils at 3 for 2 dollars. How much do 12 pencils cost?",
    "Tom reads 14 pages a day and has 98 pages left. After how many days is he done?",
)


@pytest.mark.real
def test_a_real_base_writes_the_same_with_and_without_a_draft():
    if not is_cached(NAME):
        pytest.skip(f"{NAME} is not on this machine: micro-step model fetch {NAME}")
    base = load(ModelSpec(NAME, dtype="float32"))
    model = MicroStepForCausalLM.from_base(base.model, base.tokenizer, draft_vocabulary=range(0, 8000))
    tokenizer = base.tokenizer
    tokenizer.padding_side = "left"
    turns = [[{"role": "user", "content": question}] for question in QUESTIONS]
    fed = tokenizer.apply_chat_template(
        turns, add_generation_prompt=True, padding=True, return_tensors="pt", return_dict=True
    )
    expected = base.model.generate(**fed, max_new_tokens=16, do_sample=False)
    drafted = model.generate_segments(**fed, verify=True, confidence=0.05, max_new_tokens=16)
    assert torch.equal(drafted.sequences, expected)
    assert sum(row.drafted for row in drafted.rows) > 10
