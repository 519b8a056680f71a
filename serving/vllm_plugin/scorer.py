"""Scores texts with vLLM, so that a corpus can be scored by an engine that shards a model over devices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model.causal_lm.forward import fed_ids
from model.errors import MicroStepError, ModelError, NumericalError, first_line
from model.hub.loading import load_outline
from model.hub.spec import ModelSpec
from model.progress import Tell, silent
from model.reading.json_text import parse_json
from model.reading.regular_files import read_text
from model.scoring.engine import EngineModel
from model.scoring.scores import TokenScores
from serving.vllm_plugin.folder import vllm_folder
from serving.vllm_plugin.guard import installed_version
from serving.vllm_plugin.launch import AT_ONCE, prepare_vllm
from serving.vllm_plugin.pooler import HEADS, LAST, SCORER, SCORES, TASK


@dataclass(frozen=True)
class VllmOptions:
    """How vLLM runs a model that scores texts."""

    batch_tokens: int | None = None  # tokens that are read in one step; None: `AT_ONCE`
    tensor_parallel_size: int = 1  # devices over which the model is sharded
    threads: int | None = None  # of a processor; None: vLLM's own choice


def load_in_vllm(spec: ModelSpec, options: VllmOptions, tell: Tell = silent) -> EngineModel:
    """Return a model for `score_corpus` that vLLM loads when the store begins.

    Raises:
        MicroStepError: vLLM's version is not supported, or it has no such model.
    """
    prepare_vllm(options.threads)
    from vllm.platforms import current_platform

    device = torch.device("cpu" if current_platform.is_cpu() else f"{current_platform.device_type}:0")
    outline = load_outline(spec, device, tell)
    folder = vllm_folder(spec, True, tell)  # the base scores, so its decoding does not matter
    engine = VllmScorer(folder, outline.facts.name, outline.facts.dtype, options, tell)
    facts = replace(outline.facts, attn_implementation="vllm")
    return EngineModel(outline.spec, facts, outline.model, outline.tokenizer, engine=engine)


class VllmScorer:
    """A model in vLLM that scores texts; see `ScoringEngine`.

    Args:
        folder: a plain base.
        model: its name, for messages.
        dtype: of the weights.
        options: how it runs.
        tell: called with what is being done.

    Raises:
        ModelError: vLLM has no such model.
    """

    def __init__(self, folder: Path, model: str, dtype: str, options: VllmOptions, tell: Tell = silent) -> None:
        self._folder, self._model, self._dtype, self._options, self._tell = folder, model, dtype, options, tell
        self._architecture = architecture_of(folder, model)
        self._llm: Any = None
        self._next = 0

    @property
    def name(self) -> str:
        """The installed package of vLLM and its version."""
        return " ".join(installed_version() or ("vllm",))

    @property
    def batch_tokens(self) -> int:
        """Tokens that are read in one step."""
        return self._options.batch_tokens or AT_ONCE

    def start(self, longest: int) -> None:
        """Let vLLM load the model, for texts of which at most this many tokens are read."""
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform

        on_cpu = {"enforce_eager": True, "gpu_memory_utilization": 0.3} if current_platform.is_cpu() else {}
        self._tell(f"vLLM loads {self._model}", None)
        try:
            args = EngineArgs(
                model=str(self._folder),
                runner="pooling",
                hf_overrides={"architectures": [SCORER + self._architecture]},
                skip_tokenizer_init=True,
                dtype=self._dtype,
                max_model_len=longest,
                max_num_batched_tokens=self.batch_tokens,
                enable_chunked_prefill=True,
                enable_prefix_caching=False,  # its states are not kept, so they could not be scored
                tensor_parallel_size=self._options.tensor_parallel_size,
                disable_log_stats=True,
                **on_cpu,
            )
            self._llm = LLMEngine.from_engine_args(args)
        except (RuntimeError, ValueError, NotImplementedError, AssertionError, OSError, ImportError) as error:
            raise ModelError(
                f"vLLM cannot score texts of {longest:,} tokens with {self._model}: {_reason(error)}"
            ) from error

    def score(
        self, rows: Sequence[NDArray[np.int64]], prefix: Sequence[int], done: Callable[[int], None]
    ) -> list[TokenScores]:
        """Score texts; see `ScoringEngine.score`."""
        from vllm import PoolingParams

        first, places = self._next, {}
        scored: list[NDArray[np.float32]] = [np.zeros((0, len(SCORES)), np.float32)] * len(rows)
        for i, row in enumerate(rows):
            read = fed_ids(row, prefix)
            if len(read):
                name = str(first + i)
                params = PoolingParams(task=TASK, extra_kwargs={LAST: int(row[-1])})
                self._llm.add_request(name, {"prompt_token_ids": read.tolist()}, params)
                places[name] = i
        self._next += len(rows)
        try:
            while self._llm.has_unfinished_requests():
                for output in self._llm.step():
                    i = places.pop(output.request_id)
                    scored[i] = output.outputs.data.float().cpu().numpy()
                    done(len(rows[i]))
        except RuntimeError as error:
            raise MicroStepError(f"vLLM stopped ({_reason(error)}); run the same command again to resume") from error
        finally:
            if places:
                self._llm.abort_request(list(places))
        return [self._scores(i, row, scored[i][max(0, len(prefix) - 1) :]) for i, row in enumerate(rows)]

    def _scores(self, index: int, row: NDArray[np.int64], values: NDArray[np.float32]) -> TokenScores:
        """Put the values [n, 5] of a text's last n tokens after tokens that have none.

        Raises:
            NumericalError: logits are not finite.
        """
        entropy, confidence, margin, surprisal, rank = values.T
        ids, probability = np.zeros((len(values), 0), np.int64), np.zeros((len(values), 0), np.float32)
        part = TokenScores(entropy, confidence, margin, surprisal, rank.astype(np.int64), ids, probability)
        if bad := int(part.not_finite.sum()):
            error = NumericalError(
                f"{self._model}: {bad:,} of {len(values):,} tokens have logits that are not finite in {self._dtype};"
                + (" look at them without --engine" if self._dtype == "float32" else " load it as float32")
            )
            error.row = index
            raise error
        return TokenScores.join([TokenScores.missing_scores(len(row) - len(part), 0), part])


def architecture_of(folder: Path, model: str) -> str:
    """Return the architecture of a folder's model.

    Raises:
        ModelError: vLLM has none of that name, or no language model.
    """
    from vllm import ModelRegistry

    named = parse_json(read_text(folder / "config.json")).get("architectures") or [""]
    if not str(named[0]).endswith(HEADS) or SCORER + named[0] not in ModelRegistry.get_supported_archs():
        raise ModelError(f"vLLM cannot score with {model}: it has no language model {named[0] or 'without a name'!r}")
    return str(named[0])


def _reason(error: BaseException) -> str:
    """The first line that says something of an error or what caused it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)
