"""Scores of every token inside vLLM: a pooler that turns the states of vLLM's model into five numbers a token.

The words' logits [C, V] exist for a chunk of positions at a time, as in this project's own scoring, whose function
reduces them. Where vLLM shards a model over devices, its head gathers the logits of a chunk from all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from model.scoring.token_scores import chunk_positions, reduce_logits

SCORER = "MicroStepScorer"  # before the name of an architecture: vLLM's class of it, with our pooler
HEADS = ("ForCausalLM", "LMHeadModel")  # the ends of the names of architectures that have a scorer
LAST = "micro_step_last"  # in a request's extra_kwargs: the text's last token, which is scored but never read
SCORES = ("entropy", "confidence", "margin", "surprisal", "rank")
TASK = "token_classify"  # what vLLM calls a pooler with numbers for each token


def scores_of(states: Tensor, targets: Tensor, logits_of: Callable[[Tensor], Tensor | None], chunk: int) -> Tensor:
    """Return the scores [N, 5] of next tokens, float32 on the processor, in the order of `SCORES`.

    Args:
        states: [N, d] the model's last states.
        targets: [N] the token after each.
        logits_of: the model's head, from [C, d] to [C, V]; to None on a device that does not answer.
        chunk: C, positions at a time.
    """
    parts = [torch.zeros(0, len(SCORES))]
    for some, after in zip(torch.split(states, chunk), torch.split(targets, chunk), strict=True):
        logits = logits_of(some)
        if logits is None:
            parts.append(torch.zeros(len(some), len(SCORES)))
            continue
        scores = reduce_logits(logits.float().contiguous(), after.to(logits.device), 1)
        columns = [torch.from_numpy(getattr(scores, name)).float() for name in SCORES]  # ranks below 2^24 are exact
        parts.append(torch.stack(columns, 1))
    return torch.cat(parts)


def next_tokens(ids: Tensor, end: int, count: int, last: int) -> Tensor:
    """Return the tokens [count] after each of those that a pass read, which ended before `end`.

    Args:
        ids: [L] what the model reads of a text: all but its last token.
        end: how many of them have been read, this pass included.
        count: how many of them this pass read.
        last: the text's last token.
    """
    tokens = torch.cat([ids.long(), torch.tensor([last])])[end - count + 1 : end + 1]
    return torch.nn.functional.pad(tokens, (0, count - len(tokens)))  # vLLM's trial pass has too few ids


class PassScores:
    """The scores of the tokens of a pass, for vLLM's pooler.

    Args:
        logits_of: the model's head.
        chunk: positions that it is given at a time.
    """

    def __init__(self, logits_of: Callable[[Tensor], Tensor | None], chunk: int) -> None:
        self._logits_of, self._chunk = logits_of, chunk

    def __call__(self, states: Tensor, metadata: Any) -> list[Tensor | None]:
        """Return the scores [L, 5] of the texts that have been read to their ends; None for those still under way.

        Args:
            states: [N, d] of all tokens of the pass, text after text.
            metadata: vLLM's, of the texts.
        """
        cursor = metadata.pooling_cursor
        counts, ends = cursor.num_scheduled_tokens_cpu.tolist(), cursor.seq_lens_cpu.tolist()
        lengths = metadata.prompt_lens.tolist()
        targets = [torch.zeros(0, dtype=torch.long)]
        for i, params in enumerate(metadata.pooling_params):
            last = (params.extra_kwargs or {}).get(LAST, 0)  # vLLM's trial pass has none
            targets.append(next_tokens(metadata.prompt_token_ids_cpu[i, : lengths[i]], ends[i], counts[i], last))
        scored = scores_of(states, torch.cat(targets), self._logits_of, self._chunk)
        answers: list[Tensor | None] = []
        for part, state, end, count, length in zip(
            torch.split(scored, counts), metadata.pooling_states, ends, counts, lengths, strict=True
        ):
            if end == count:
                state.clean()  # a text that vLLM had put off is read from its beginning again
            state.hidden_states_cache.append(part)
            answers.append(torch.cat(state.hidden_states_cache) if end == length else None)
            if end == length:
                state.clean()
        return answers


def __getattr__(name: str) -> type:
    """Return the scorer of an architecture, which vLLM looks up here by the architecture's name."""
    if not name.endswith(HEADS):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _scorer(name)


def register_scorers() -> None:
    """Name to vLLM a scorer for each of its language models; none of them is imported yet."""
    from vllm import ModelRegistry
    from vllm.model_executor.models.config import MODELS_CONFIG_MAP

    for architecture in [each for each in ModelRegistry.get_supported_archs() if each.endswith(HEADS)]:
        ModelRegistry.register_model(SCORER + architecture, f"{__name__}:{architecture}")
        if architecture in MODELS_CONFIG_MAP:  # what vLLM sets for it beside its class
            MODELS_CONFIG_MAP[SCORER + architecture] = MODELS_CONFIG_MAP[architecture]


@cache
def _scorer(architecture: str) -> type:
    """Make vLLM's class of an architecture a pooling model."""
    from vllm import ModelRegistry
    from vllm.model_executor.layers.pooler import DispatchPooler, Pooler, PoolingParamsUpdate

    class TokenScorePooler(Pooler):  # type: ignore[misc]
        def __init__(self, score: PassScores) -> None:
            super().__init__()
            self._score = score

        def get_supported_tasks(self) -> set[str]:
            return {TASK}

        def get_pooling_updates(self, task: str) -> Any:
            return PoolingParamsUpdate(requires_token_ids=True)

        def forward(self, hidden_states: Tensor, pooling_metadata: Any) -> list[Tensor | None]:
            return self._score(hidden_states, pooling_metadata)

    base = ModelRegistry.models[architecture].load_model_cls()

    class ScoringModel(base):  # type: ignore[misc, valid-type]
        is_pooling_model = True

        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            super().__init__(vllm_config=vllm_config, prefix=prefix)
            chunk = chunk_positions(vllm_config.model_config.get_vocab_size())
            pooler = TokenScorePooler(PassScores(self.compute_logits, chunk))
            self.pooler = DispatchPooler({TASK: pooler})

    ScoringModel.__name__ = ScoringModel.__qualname__ = SCORER + architecture
    return ScoringModel
