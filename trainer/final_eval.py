"""Measurements of a finished run beyond its log: loss per source, bits per byte, and decoding."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from data.prepared import Prepared
from data.run_folder import Run
from data.training_rows import TokenRows
from model.causal_lm.chunked_cross_entropy import chunked_lm_head_loss
from model.causal_lm.finite import check_finite, not_finite
from model.causal_lm.forward import body
from model.causal_lm.padding import left_padded
from model.decoding.generation_config import ends_of
from model.hub.loading import ModelSpec, load
from model.hub.spec import resolve_device
from model.hub.wrap_base import wrap
from model.micro_step.modeling import MicroStepForCausalLM
from model.quiet import quiet
from trainer.batches.dataset import rows_of, training_rows
from trainer.batches.sampler import batch, held_out_batches
from trainer.metrics import MetricSums
from trainer.objectives import objective_over_rows, positions_of
from trainer.recipe import Recipe


def trained_model(done: Run, recipe: Recipe, device: str) -> PreTrainedModel:
    """Return the saved model of a run in float32. A BLT, which reads patches, opens here only."""
    if recipe.base.config is None or recipe.base.config.get("model_type") != "blt":
        return load(ModelSpec(str(done.model), dtype="float32", device=device)).model
    with quiet():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(done.model, dtype=torch.float32)
    return model.to(resolve_device(device)).eval().requires_grad_(False)


@torch.inference_mode()
def nll_by_source(done: Run, recipe: Recipe, prepared: Prepared, device: str) -> dict[str, float]:
    """Return nats per learned token on each source's held-out rows, trained on or not, under the saved model.

    For each source, as many of its first rows are read as a validation reads in all. It is left out for a draft, whose
    loss is on stored states, and for a single source, which the log has.
    """
    if recipe.objective == "draft" or len(prepared.sources) < 2:
        return {}
    rows, origin = rows_of(prepared, recipe).held_out, prepared.origin
    model = trained_model(done, recipe, device)
    objective, most = objective_over_rows(model), positions_of(model)
    nll = {}
    for index, name in enumerate(prepared.sources):
        source_rows = rows.take(np.flatnonzero(origin[rows.example] == index))
        if not len(source_rows):
            continue
        tally = MetricSums.zeros(most, model.device)
        for chosen in held_out_batches(source_rows, recipe.batch.tokens, recipe.validation.tokens):
            tally = tally + objective(batch(source_rows, chosen).to(model.device), (1, 1))[1]
        nll[name] = tally.token_loss
        if math.isnan(nll[name]):
            raise not_finite(model, f"the held-out rows of {name} have losses")
    return nll


def bits_per_byte(done: Run, recipe: Recipe, prepared: Prepared) -> float:
    """Return the nll in bits per UTF-8 byte of the held-out answers that the last validation read.

    The token that closes an answer counts in the nll, but has no byte. A literal line break counts as the one byte that
    it stands for.
    """
    last = done.validated
    assert last is not None, "a run that held nothing out has nothing to measure"
    rows = rows_of(prepared, recipe).held_out
    read = held_out_batches(rows, recipe.batch.tokens, recipe.validation.tokens)
    total = sum(_answer_bytes(prepared, rows, int(row)) for chosen in read for row in chosen)
    return float(last.token_loss * last.tokens / np.log(2) / max(1, total))


def _answer_bytes(prepared: Prepared, rows: TokenRows, row: int) -> int:
    """Return the number of UTF-8 bytes in the characters of a row's learned tokens."""
    scored = prepared.source.tokens.rows
    (index,) = np.flatnonzero(scored.document == rows.example[row])
    first, size = (
        int(scored.offsets[index]),
        int(rows.lengths[row]) - rows.prefix,
    )  # a row may end before its example does
    start, end = scored.start[first : first + size], scored.end[first : first + size]
    inside = rows.loss_mask[rows.offsets[row] + rows.prefix : rows.offsets[row + 1]] & (start >= 0)
    if not inside.any():
        return 0
    before = int(scored.text_start[index])
    text = scored.text[index][int(start[inside].min()) - before : int(end[inside].max()) - before]
    return len(text.replace("\\n", "\n").encode())


def decoding(
    done: Run,
    recipe: Recipe,
    prepared: Prepared,
    device: str,
    max_prompts: int,
    confidence: float,
    max_new_tokens: int,
) -> dict[str, float]:
    """Return tokens per macro step of greedy answers to held-out prompts, and their nll under the base over its own."""
    rows = training_rows(prepared, None).held_out
    wrapped = wrap(load(ModelSpec(str(done.model), dtype="float32", device=device)))
    base = load(ModelSpec(recipe.base.name, recipe.base.revision, dtype="float32", device=device))
    model = wrapped.model
    ends = ends_of(model)  # for both: the base's answers end where the model's do
    prompts = [rows.prompt(i) for i in range(min(max_prompts, len(rows)))]
    ids, mask = left_padded(prompts, ends["pad_token_id"])
    ids, mask = ids.to(base.model.device), mask.to(base.model.device)
    theirs = MicroStepForCausalLM.from_base(base.model).generate_segments(
        ids, mask, rule="confidence", confidence=1.1, max_new_tokens=max_new_tokens, **ends
    )
    ours = model.generate_segments(
        ids, mask, rule="confidence", confidence=confidence, max_new_tokens=max_new_tokens, **ends
    )
    nll = [_nll(base.model, prompts, [row.ids for row in generation.rows]) for generation in (ours, theirs)]
    return {"tokens a macro step": ours.tokens_per_macro_step, "nll under the base over its own": nll[0] / nll[1]}


@torch.inference_mode()
def _nll(base: PreTrainedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> float:
    """Return the mean nats per token of answers under the base."""
    total, count = 0.0, 0
    for prompt, answer in zip(prompts, answers, strict=True):
        whole = torch.tensor([[*prompt, *answer]], device=base.device)
        states = body(base)(input_ids=whole, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
        weight = torch.ones(len(answer), device=base.device)
        nll = chunked_lm_head_loss(base, states, whole[0, len(prompt) :], weight).nll
        check_finite(base, nll.isnan())
        total, count = total + float(nll.sum()), count + len(answer)
    return total / max(1, count)
