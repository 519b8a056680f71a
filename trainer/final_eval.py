"""What a finished run is worth beyond its own log: each source's held-out answers, bits per byte, and how it writes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedModel

from data.prepared import Prepared
from data.run_folder import Run
from data.training_rows import TokenRows
from model.causal_lm.finite import check_finite, not_finite
from model.causal_lm.forward import body, logits_of
from model.causal_lm.padding import left_padded
from model.decoding.generation_config import ends_of
from model.hub.loading import ModelSpec, load
from model.hub.wrap_base import wrap
from model.micro_step.modeling import MicroStepForCausalLM
from trainer.batches.dataset import rows_of, training_rows
from trainer.batches.sampler import batch, held_out_batches
from trainer.metrics import MetricSums
from trainer.objectives import LanguageModelObjective, MicroStepObjective
from trainer.recipe import Recipe


@torch.inference_mode()
def nll_by_source(done: Run, recipe: Recipe, prepared: Prepared, device: str) -> dict[str, float]:
    """Nats a learnt token of each source's held-out rows, trained on or not, under the model as it was saved.

    Of each source the first rows are read, as many as a validation reads of all. A draft's loss is of stored states,
    and is not taken here; neither is that of one source alone, which the log has.
    """
    if recipe.objective == "draft" or len(prepared.sources) < 2:
        return {}
    rows, origin = rows_of(prepared, recipe).held_out, prepared.origin
    model = load(ModelSpec(str(done.model), dtype="float32", device=device)).model
    plain = not isinstance(model, MicroStepForCausalLM)
    objective = LanguageModelObjective(model) if plain else MicroStepObjective(model)
    most = 1 if plain else int(model.config.max_segment_length)
    found = {}
    for place, name in enumerate(prepared.sources):
        mine = rows.take(np.flatnonzero(origin[rows.example] == place))
        if not len(mine):
            continue
        tally = MetricSums.nothing(most, model.device)
        for chosen in held_out_batches(mine, recipe.batch.tokens, recipe.validation.tokens):
            tally = tally + objective(batch(mine, chosen).to(model.device), (1, 1))[1]
        found[name] = tally.token_loss
        if math.isnan(found[name]):
            raise not_finite(model, f"the held-out rows of {name} have losses")
    return found


def bits_per_byte(done: Run, recipe: Recipe, prepared: Prepared) -> float:
    """Of the held-out answers that the last validation read: their nll in bits over their bytes of UTF-8.

    The token that closes an answer is in the nll and no byte. Literal line breaks count as the one byte they stand for.
    """
    last = done.validated
    assert last is not None, "a run that held nothing out has nothing to measure"
    rows = rows_of(prepared, recipe).held_out
    read = held_out_batches(rows, recipe.batch.tokens, recipe.validation.tokens)
    total = sum(_answer_bytes(prepared, rows, int(row)) for chosen in read for row in chosen)
    return float(last.token_loss * last.tokens / np.log(2) / max(1, total))


def _answer_bytes(prepared: Prepared, rows: TokenRows, row: int) -> int:
    """UTF-8 bytes of the characters that a row's learnt tokens stand for."""
    scored = prepared.source.tokens.rows
    (there,) = np.flatnonzero(scored.document == rows.example[row])
    first, size = int(scored.offsets[there]), int(rows.lengths[row])  # a row may end before its example does
    start, end = scored.start[first : first + size], scored.end[first : first + size]
    inside = rows.learnt[rows.offsets[row] : rows.offsets[row + 1]] & (start >= 0)
    if not inside.any():
        return 0
    before = int(scored.text_start[there])
    text = scored.text[there][int(start[inside].min()) - before : int(end[inside].max()) - before]
    return len(text.replace("\\n", "\n").encode())


def decoding(
    done: Run,
    recipe: Recipe,
    prepared: Prepared,
    device: str,
    most_prompts: int,
    confidence: float,
    max_new_tokens: int,
) -> dict[str, float]:
    """Tokens a macro step of greedy answers to held-out prompts, and their nll under the base beside the base's own."""
    rows = training_rows(prepared, None).held_out
    found = wrap(load(ModelSpec(str(done.model), dtype="float32", device=device)))
    base = load(ModelSpec(recipe.base.name, recipe.base.revision, dtype="float32", device=device))
    model = found.model
    ends = ends_of(model)  # of both: the base's answers end where the model's do
    prompts = [rows.prompt(i) for i in range(min(most_prompts, len(rows)))]
    ids, mask = left_padded(prompts, ends["pad_token_id"])
    ids, mask = ids.to(base.model.device), mask.to(base.model.device)
    theirs = MicroStepForCausalLM.from_base(base.model).generate_segments(
        ids, mask, rule="confidence", confidence=1.1, max_new_tokens=max_new_tokens, **ends
    )
    ours = model.generate_segments(
        ids, mask, rule="confidence", confidence=confidence, max_new_tokens=max_new_tokens, **ends
    )
    nll = [_nll(base.model, prompts, [row.ids for row in said.rows]) for said in (ours, theirs)]
    return {"tokens a macro step": ours.tokens_per_macro_step, "nll under the base over its own": nll[0] / nll[1]}


@torch.inference_mode()
def _nll(base: PreTrainedModel, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> float:
    """Mean nats a token of answers under the base."""
    total, count = 0.0, 0
    for prompt, answer in zip(prompts, answers, strict=True):
        said = torch.tensor(list(answer))
        whole = torch.tensor([[*prompt, *answer]], device=base.device)
        states = body(base)(input_ids=whole, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]
        log_p = logits_of(base, states).log_softmax(-1)
        check_finite(base, log_p[:, 0].isnan())
        total -= float(log_p.gather(1, said[:, None].to(log_p.device)).sum())
        count += len(said)
    return total / max(1, count)
