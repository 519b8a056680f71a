"""Transformers' generation settings: which mean here what they mean there, and which are refused.

Every field of `GenerationConfig` and every argument of its `generate` stands in one of the tables below, so that none
is ignored in silence: a test holds the tables against the installed transformers, and a field that only a later version
has is refused where it is set. Lengths count a row's own tokens, without padding: a row alone is the row in a batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation import GenerationConfig, SynthIDTextWatermarkingConfig

from model.causal_lm.parts import text_config
from model.errors import MicroStepError

NEW_TOKENS = 256  # where no length is set

CHOICE: dict[str, Any] = {
    "max_length": None,
    "max_time": None,
    "stop_strings": None,
    "min_length": 0,
    "min_new_tokens": None,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "renormalize_logits": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "remove_invalid_values": False,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "sequence_bias": None,
    "watermarking_config": None,
    "num_return_sequences": 1,
}
"""Honoured: what decides which token comes next, or where an answer ends; with the values that decide nothing."""

SAMPLED: dict[str, Any] = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "min_p": None,
    "top_h": None,
    "typical_p": 1.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
}
"""The same, where tokens are drawn."""

OWN = ("do_sample", "max_new_tokens", "eos_token_id", "pad_token_id")
"""Honoured, and with no value that would mean nothing."""

REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "num_beams": ((1,), "segments are written greedily or sampled, one course a row; set it to 1"),
    "constraints": ((), "constraints are met by beam search alone; leave it out"),
    "force_words_ids": ((), "words are forced by beam search alone; leave it out"),
    "penalty_alpha": ((0,), "contrastive search is none of the ways to write here; leave it out"),
    "dola_layers": ((), "DoLa is none of the ways to write here; leave it out"),
    "guidance_scale": ((1,), "guidance runs the base once more at every token; leave it out"),
    "token_healing": ((False,), "prompts are read as they are; leave it out"),
    "is_assistant": ((False,), "a micro_step model drafts for its own base only; leave it out"),
    "use_mtp": ((False,), "the micro decoder drafts here; leave it out"),
    "prompt_lookup_num_tokens": ((), "the micro decoder drafts here; leave it out"),
    "assistant_early_exit": ((), "the micro decoder drafts here; leave it out"),
    "speculation_type": ((), "the micro decoder drafts here; leave it out"),
    "assistant_ensemble_weight": ((), "the base alone decides on a draft; leave it out"),
    "cache_implementation": (("dynamic",), "the caches hold macro steps, and are made here; leave it out"),
    "cache_config": ((), "the caches hold macro steps, and are made here; leave it out"),
    "max_cache_len": ((), "the caches hold macro steps, and are made here; leave it out"),
    "prefill_chunk_size": ((), "prompts are read in one pass; leave it out"),
    "compile_config": ((), "nothing is compiled; leave it out"),
    "continuous_batching_config": ((), "rows are written in one batch; leave it out"),
    "output_attentions": ((False,), "call the model itself for attentions"),
    "output_hidden_states": ((False,), "call the model itself for hidden states"),
    "output_scores": ((False,), "generate_segments(topk=...) gives probabilities"),
    "output_logits": ((False,), "call the model itself for logits"),
    "return_dict_in_generate": ((False,), "call generate_segments, which says more than the ids"),
}
"""Refused, unless None or one of these values; and why, and what to do."""

NO_MATTER = {
    "use_cache": "what is written is the same with a cache and without; there always is one",
    "disable_compile": "nothing is compiled",
    "low_memory": "of contrastive search",
    "early_stopping": "of beam search",
    "length_penalty": "of beam search",
    "num_beam_groups": "of beam search",
    "diversity_penalty": "of beam search",
    "bos_token_id": "stands for a prompt where there is none, which is refused",
    "decoder_start_token_id": "of models with an encoder",
    "num_assistant_tokens": "of assistants",
    "num_assistant_tokens_schedule": "of assistants",
    "assistant_confidence_threshold": "of assistants",
    "assistant_lookbehind": "of assistants",
    "target_lookbehind": "of assistants",
    "max_matching_ngram_size": "of assistants",
    "transformers_version": "a note",
}
"""Of no effect on what is written: in transformers neither, without one of the refused ones."""

ARGUMENTS = (
    "inputs",
    "generation_config",
    "logits_processor",
    "stopping_criteria",
    "prefix_allowed_tokens_fn",
    "streamer",
    "tokenizer",
    "attention_mask",
)
"""Of `generate`, beside the fields: honoured."""

REFUSED_ARGUMENTS = {
    "assistant_model": "the micro decoder drafts here; leave it out",
    "negative_prompt_ids": "guidance runs the base once more at every token; leave it out",
    "negative_prompt_attention_mask": "guidance runs the base once more at every token; leave it out",
    "custom_generate": "segments are written in one way; leave it out",
    "synced_gpus": "every process writes for itself; leave it out",
}
"""Of `generate`: refused where they are set."""


def check_settings(settings: GenerationConfig, others: Mapping[str, Any]) -> None:
    """See that nothing that is set would be ignored.

    Args:
        settings: of one run, the model's own defaults included.
        others: arguments of `generate` that are no fields of settings.

    Raises:
        MicroStepError: something would, or does not go together.
    """
    for name in vars(GenerationConfig()):
        value = getattr(settings, name, None)
        if name.startswith("_") or value is None or name in CHOICE or name in SAMPLED or name in OWN:
            continue
        if name in REFUSED:
            fine, why = REFUSED[name]
            if value not in fine:
                raise MicroStepError(f"{name} is {value!r}, which is not had here: {why}")
        elif name not in NO_MATTER:
            raise MicroStepError(f"{name} is {value!r}, a setting of transformers that is not known here; leave it out")
    if isinstance(settings.watermarking_config, SynthIDTextWatermarkingConfig):
        raise MicroStepError(
            "watermarking_config is SynthID's, which counts on being asked once a token; a WatermarkingConfig is fine"
        )
    if (settings.num_return_sequences or 1) > 1 and not settings.do_sample:
        raise MicroStepError(
            f"num_return_sequences is {settings.num_return_sequences}, and greedy answers are all the same; set"
            " do_sample=True"
        )
    for name, value in others.items():
        if name not in REFUSED_ARGUMENTS:
            raise MicroStepError(f"there is no setting {name!r}; settings are those of transformers' GenerationConfig")
        if value is not None and value is not False:
            raise MicroStepError(f"{name} is given, which is not had here: {REFUSED_ARGUMENTS[name]}")


def asked(**given: Any) -> dict[str, Any]:
    """Settings for `generate` that are what is given and nothing else: a model's own defaults decide nothing."""
    neutral = CHOICE | SAMPLED if given.get("do_sample") else CHOICE
    return {"do_sample": False, **neutral, **given}


def end_ids(model: PreTrainedModel) -> list[int]:
    """The ids that end an answer of a model, whichever way it is written; none: only its length does.

    Those of its generation settings, or else of its configuration. Where a base answers beside a micro_step model, it
    ends where that model does.
    """
    ends = getattr(model.generation_config, "eos_token_id", None)
    if ends is None:
        ends = getattr(text_config(model), "eos_token_id", None)
    return [] if ends is None else [int(i) for i in (ends if isinstance(ends, list | tuple) else [ends])]


def inferred_mask(ids: Tensor, settings: GenerationConfig, more: Mapping[str, Any]) -> Tensor | None:
    """[B, P] 0 at the padding token of prompts, where it is no end as well; None: no padding. Transformers' own way."""
    pad, ends = (more.get(name, getattr(settings, name)) for name in ("pad_token_id", "eos_token_id"))
    if pad is None or pad in (ends if isinstance(ends, list | tuple) else [ends]):
        return None
    mask: Tensor = (ids != pad).long()
    return mask


def ends_of(model: PreTrainedModel) -> dict[str, Any]:
    """Settings of `generate` that end answers, and fill rows, as the model does."""
    ends = end_ids(model)
    pad = model.generation_config.pad_token_id
    return {"eos_token_id": ends or None, "pad_token_id": min(ends, default=0) if pad is None else pad}
