"""What a draft would save, from one pass of its base over known answers: which tokens it has right, and passes saved.

Lossless greedy decoding writes the base's own answer, so that where a pass ends up follows from the answer alone: no
token is generated, and sixty answers take minutes where writing them takes an hour.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.options import DraftsOptions
from benchmarks.ratio import ratio
from data.prepared import read_prepared
from data.training_rows import TokenRows
from model.causal_lm.forward import logits_of
from model.errors import ModelError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.wrap_base import wrap
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Tell
from trainer.batches.dataset import training_rows
from trainer.draft_objective import DraftObjective


def measure(options: DraftsOptions, tell: Tell) -> list[dict[str, Any]]:
    answers = training_rows(read_prepared(options.prepared), None).held_out
    answers = answers.take(np.arange(len(answers))[: options.read])
    specs = [ModelSpec(name, dtype=options.dtype, device=options.device) for name in options.model]
    return [drafts(load(spec, tell), answers, options.confidence, tell) for spec in specs]


def drafts(loaded: LoadedModel, answers: TokenRows, taus: Sequence[float], tell: Tell) -> dict[str, Any]:
    """Accuracy at places 2 .. M after each token of answers, and tokens a pass at each tau; intervals over answers."""
    model = wrap(loaded).model
    if model.config.decoding != "lossless":
        raise ModelError(f"{loaded.facts.name} merges segments and drafts nothing; give a model for the lossless mode")
    objective = DraftObjective(model)
    right_sums, counts = [], []  # [M - 1] of each answer
    walks: dict[float, list[tuple[int, int, int, int]]] = {tau: [] for tau in taus}
    for i in range(len(answers)):
        tell(f"{loaded.facts.name}: answer {i + 1} of {len(answers)}", i / len(answers))
        right, sure, inside = _drafted(model, objective, answers.take(np.array([i])))
        right_sums.append(right.sum(0))
        counts.append(inside.sum(0))
        for tau in taus:
            walks[tau].append(walk(right, sure >= tau))
    right_sum, count = (np.array(each, dtype=np.float64) for each in (right_sums, counts))
    places = [
        {"place": j + 2, "tokens": int(count[:, j].sum()), "accuracy": ratio((right_sum[:, j], count[:, j]))}
        for j in range(right_sum.shape[1])
    ]
    rows = []
    for tau, each in walks.items():
        tokens, passes, drafted, kept = np.array(each, dtype=np.float64).T
        figures = {"tokens_per_pass": ratio((tokens, passes)), "kept_of_drafted": ratio((kept, drafted))}
        rows.append({"tau": tau, "tokens": int(tokens.sum()), **figures})
    return {
        "model": loaded.facts.name,
        "dtype": loaded.facts.dtype,
        "answers": len(answers),
        "intervals": "95% over answers",
        "places": places,
        "walks": rows,
    }


def walk(right: NDArray[np.bool_], sure: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """Tokens, passes, drafted and kept tokens of one answer.

    Args:
        right: [T, M - 1] whether the draft after token t has each of the next ones right.
        sure: [T, M - 1] whether it is sure enough of it to draft it, if it drafted those before.
    """
    at = passes = drafted = kept = 0
    while at < len(right):
        passes += 1  # gives the token at `at`, and checked what was drafted before it
        n = _leading(sure[at, : len(right) - at - 1])
        good = _leading(right[at, :n])
        drafted, kept, at = drafted + n, kept + good, at + 1 + good
        if at == len(right) and good:
            passes += 1  # the answer ends with drafted tokens, which a pass has checked
    return len(right), passes, drafted, kept


def _leading(flags: NDArray[np.bool_]) -> int:
    return int(np.argmin(np.append(flags, False)))


@torch.inference_mode()
def _drafted(
    model: MicroStepForCausalLM, objective: DraftObjective, row: TokenRows
) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.bool_]]:
    """[T, M - 1] of each token of an answer: are the next ones right, how sure is the draft, are there any."""
    ids = torch.from_numpy(row.ids)[None].to(model.device)
    answer = np.flatnonzero(row.loss_mask)
    longest = int(model.config.max_segment_length)
    embed, n = model.get_input_embeddings(), ids.shape[1]
    position = torch.arange(n, device=ids.device)[None]
    context = model.macro(embed(ids), torch.ones_like(ids), position).context[0, answer - 1]  # [T, K, d]
    ahead = answer[:, None] + np.arange(longest)
    inside = ahead[:, 1:] < n
    tokens = ids[0, torch.from_numpy(np.minimum(ahead, n - 1)).to(ids.device)]  # [T, M]
    states, _ = model.micro(context, embed(tokens[:, :-1]))
    scores = logits_of(objective.head, states.flatten(0, 1)).float().softmax(-1)
    best = scores.max(-1)
    shape = inside.shape
    right = (best.indices.view(shape) == objective.place(tokens[:, 1:])).cpu().numpy() & inside
    return right, best.values.view(shape).cpu().numpy(), inside
