"""A model in vLLM that answers requests of this project's API."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import LogitsProcessorList

from model.decoding.output import RowOutput
from model.decoding.row import LiveRow, SegmentSettings, TokenSettings
from model.decoding.stopping import RULES
from model.errors import MicroStepError, ModelError, TextError
from model.hub.spec import Dtype, ModelSpec
from model.hub.transformers_io import read_tokenizer
from serving.answer_text import StopStringCriterion
from serving.model_service import MIN_TEMPERATURE, NO_CONTEXT, ModelService, ServedModel
from serving.options import LimitOptions, SegmentOptions
from serving.protocol import ApiRequest, SegmentRequest
from serving.vllm_plugin.drafter import MicroStepDrafter
from serving.vllm_plugin.engine import VllmEngine
from serving.vllm_plugin.launch import AT_ONCE, prepare_vllm
from serving.vllm_plugin.merged import MergedWriter, refuse_merge_layer
from serving.vllm_plugin.modules import read_config
from serving.vllm_plugin.rows import EngineRow, MergedRow
from serving.vllm_plugin.settings import FIELDS, PREFIX, EngineSettings


class VllmService(ModelService):
    """A model that vLLM runs.

    Args:
        folder: a plain base, with the modules of a micro_step model in `micro_step/` if it has any.
        name: under which requests name it.
        segments: how segments end unless a request says otherwise.
        limits: what requests may ask for.
        dtype: of the weights.
        threads: of a processor; None: vLLM's own choice.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        segments: SegmentOptions,
        limits: LimitOptions,
        dtype: Dtype = "auto",
        threads: int | None = None,
    ) -> None:
        modules = folder / "micro_step"
        self._config = read_config(modules) if modules.is_dir() else None
        self._ends, context, self._vocabulary = _read_base(folder)
        trained = "lossless" if self._config is None else self._config.decoding
        self._merged = not (trained == "lossless" if segments.lossless is None else segments.lossless)
        _refuse(None, segments.eps, self._merged)
        if self._merged and self._config is not None:
            refuse_merge_layer(self._config.merge_layer)
        served = ServedModel(
            name,
            read_tokenizer(ModelSpec(str(folder)), folder),
            context or NO_CONTEXT,
            self._config is None,
            1 if self._config is None else self._config.max_segment_length,
            not self._merged,
        )
        super().__init__(served, segments, limits)
        self._settings = EngineSettings(modules, segments.rule, segments.confidence, segments.max_segment_length)
        if self._config is not None:
            self._settings.segments(self._config)
        self.engine = VllmEngine(self._start_vllm(folder, dtype, threads), limits.max_rows, limits.max_waiting)

    def _start_vllm(self, folder: Path, dtype: Dtype, threads: int | None) -> Any:
        """Let vLLM load the model."""
        prepare_vllm(threads)
        from vllm import EngineArgs, LLMEngine
        from vllm.platforms import current_platform

        options: dict[str, Any] = {}
        if self._config is not None and self._config.max_segment_length > 1:
            options = {
                "speculative_config": {
                    "method": "custom_class",
                    "model": f"micro_step.vllm_plugin.{(MergedWriter if self._merged else MicroStepDrafter).__name__}",
                    "num_speculative_tokens": self._config.max_segment_length - 1,
                },
                "additional_config": self._settings.as_config,
            }
        if self._merged:
            options |= {"enforce_eager": True, "enable_prefix_caching": False}
        if current_platform.is_cpu():  # a generator of a processor cannot be rewound after a part of a prompt
            whole = {"enable_chunked_prefill": False, "max_num_batched_tokens": max(self.context, AT_ONCE)}
            options |= {"enforce_eager": True, "gpu_memory_utilization": 0.3, **whole}
        args = EngineArgs(
            model=str(folder),
            dtype="float32" if dtype == "auto" and current_platform.is_cpu() else dtype,
            max_model_len=self.context,
            max_num_seqs=self.limits.max_rows,
            disable_log_stats=True,
            generation_config="vllm",  # the answers have the settings of their requests, and no other
            **options,
        )
        return LLMEngine.from_engine_args(args)

    def _row(self, request: ApiRequest, prompt: list[int], new_tokens: int, seed: int) -> LiveRow:
        if max(prompt) >= self._vocabulary:
            raise TextError(f"the text contains the special token {max(prompt)}, which this model does not know")
        temperature = 1.0 if request.temperature is None else request.temperature
        sampled = temperature >= MIN_TEMPERATURE
        asked = self._segments(request.micro_step or SegmentRequest())
        extra: dict[str, Any] = {}
        how = SegmentSettings(RULES["confidence"], 2.0, 1)
        if self._config is not None:
            _refuse(asked["verify"], asked["eps"], self._merged)
            extra = {PREFIX + field: asked[field] for field in FIELDS if asked[field] is not None}
            how = self._settings.asked(extra).segments(self._config)
        sampling = {
            "temperature": temperature if sampled else 0.0,
            "top_p": (request.top_p or 1.0) if sampled else 1.0,
            "seed": seed if sampled else None,
            "max_tokens": new_tokens,
            "stop_token_ids": sorted(self._ends),
            "ignore_eos": True,  # the ends above are all
            "logprobs": request.topk or 0,
            "extra_args": extra,
        }
        others = (StopStringCriterion(self.tokens, request.stops),) if request.stops else ()
        tokens = TokenSettings(
            LogitsProcessorList(), new_tokens, self._ends, (), others, sampled, None, request.topk or 0
        )
        return (MergedRow if self._merged else EngineRow)(
            RowOutput(prompt), how, tokens, lambda _: None, sampling=sampling, seconds=float(self.limits.timeout)
        )


def _read_base(folder: Path) -> tuple[frozenset[int], int | None, int]:
    """The ids that end answers of a base, its context, and its vocabulary."""
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True).get_text_config()
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder.name} cannot be served: it has no config.json that transformers can read") from error
    settings = folder / "generation_config.json"
    ends = GenerationConfig.from_pretrained(folder).eos_token_id if settings.is_file() else None
    ends = config.eos_token_id if ends is None else ends
    several = [] if ends is None else ends if isinstance(ends, list) else [ends]
    return frozenset(map(int, several)), getattr(config, "max_position_embeddings", None), int(config.vocab_size)


def _refuse(verify: bool | None, eps: float, merged: bool) -> None:
    """Refuse decoding that vLLM cannot do here.

    Raises:
        MicroStepError: it is another than the server was started with, or relaxed.
    """
    if verify is not None and verify == merged:
        one, other = ("merged", "--lossless") if merged else ("lossless", "--merged")
        raise MicroStepError(
            f"this server decodes {one} inside vLLM: leave verify out, or start another server with {other}"
        )
    if eps < 1:
        raise MicroStepError("vLLM's check of drafts cannot be relaxed: leave eps out")
