"""Transformers' generation settings: those that keep their meaning here, and those that are refused.

Every field of `GenerationConfig` and every argument of its `generate` is in one of the tables below, so none is
silently ignored. A test compares the tables with the installed transformers; a field that only a later version has is
refused if it is set. Lengths count a row's own tokens, without padding, so a row alone equals the row in a batch.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel
from transformers.generation import GenerationConfig, SynthIDTextWatermarkingConfig

from model.causal_lm.parts import text_config
from model.errors import MicroStepError

DEFAULT_NEW_TOKENS = 256  # if no length is set

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
"""Supported: they decide the next token or the end of an answer. The values here have no effect."""

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
"""Supported when sampling. The values here have no effect."""

OWN = ("do_sample", "max_new_tokens", "eos_token_id", "pad_token_id")
"""Supported; they have no value without effect."""

REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "num_beams": ((1,), "segments are decoded greedily or sampled, one sequence per row; set it to 1"),
    "constraints": ((), "only beam search supports constraints; leave it out"),
    "force_words_ids": ((), "only beam search can force words; leave it out"),
    "penalty_alpha": ((0,), "contrastive search is not supported; leave it out"),
    "dola_layers": ((), "DoLa is not supported; leave it out"),
    "guidance_scale": ((1,), "guidance needs a second base pass per token; leave it out"),
    "token_healing": ((False,), "prompts are read as they are; leave it out"),
    "is_assistant": ((False,), "a micro_step model drafts for its own base only; leave it out"),
    "use_mtp": ((False,), "the micro decoder drafts here; leave it out"),
    "prompt_lookup_num_tokens": ((), "the micro decoder drafts here; leave it out"),
    "assistant_early_exit": ((), "the micro decoder drafts here; leave it out"),
    "speculation_type": ((), "the micro decoder drafts here; leave it out"),
    "assistant_ensemble_weight": ((), "the base alone decides on a draft; leave it out"),
    "cache_implementation": (("dynamic",), "the caches hold macro steps and are created here; leave it out"),
    "cache_config": ((), "the caches hold macro steps and are created here; leave it out"),
    "max_cache_len": ((), "the caches hold macro steps and are created here; leave it out"),
    "prefill_chunk_size": ((), "prompts are read in one pass; leave it out"),
    "compile_config": ((), "nothing is compiled; leave it out"),
    "continuous_batching_config": ((), "all rows are decoded in one batch; leave it out"),
    "output_attentions": ((False,), "call the model itself to get attentions"),
    "output_hidden_states": ((False,), "call the model itself to get hidden states"),
    "output_scores": ((False,), "generate_segments(topk=...) gives probabilities"),
    "output_logits": ((False,), "call the model itself to get logits"),
    "return_dict_in_generate": ((False,), "call generate_segments, which returns more than ids"),
}
"""Refused unless the value is None or one of these, with the reason and the remedy."""

NO_EFFECT = {
    "use_cache": "a cache is always used, and the output is the same without",
    "disable_compile": "nothing is compiled",
    "low_memory": "of contrastive search",
    "early_stopping": "of beam search",
    "length_penalty": "of beam search",
    "num_beam_groups": "of beam search",
    "diversity_penalty": "of beam search",
    "bos_token_id": "replaces a missing prompt, which is refused here",
    "decoder_start_token_id": "of models with an encoder",
    "num_assistant_tokens": "of assistants",
    "num_assistant_tokens_schedule": "of assistants",
    "assistant_confidence_threshold": "of assistants",
    "assistant_lookbehind": "of assistants",
    "target_lookbehind": "of assistants",
    "max_matching_ngram_size": "of assistants",
    "transformers_version": "a note",
}
"""No effect on the output: none in transformers either, unless a refused setting is used."""

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
"""Arguments of `generate` that are supported, besides the fields."""

REFUSED_ARGUMENTS = {
    "assistant_model": "the micro decoder drafts here; leave it out",
    "negative_prompt_ids": "guidance runs the base once more at every token; leave it out",
    "negative_prompt_attention_mask": "guidance runs the base once more at every token; leave it out",
    "custom_generate": "custom decoding is not supported; leave it out",
    "synced_gpus": "each process decodes on its own; leave it out",
}
"""Arguments of `generate` that are refused if they are set."""


def check_settings(settings: GenerationConfig, others: Mapping[str, Any]) -> None:
    for name in vars(GenerationConfig()):
        value = getattr(settings, name, None)
        if name.startswith("_") or value is None or name in CHOICE or name in SAMPLED or name in OWN:
            continue
        if name in REFUSED:
            fine, why = REFUSED[name]
            if value not in fine:
                raise MicroStepError(f"{name} is {value!r}, which is not supported: {why}")
        elif name not in NO_EFFECT:
            raise MicroStepError(f"{name} is {value!r}, a setting of transformers that is not supported; leave it out")
    if isinstance(settings.watermarking_config, SynthIDTextWatermarkingConfig):
        raise MicroStepError(
            "watermarking_config is SynthID's, which needs exactly one call per token; use a WatermarkingConfig"
        )
    if (settings.num_return_sequences or 1) > 1 and not settings.do_sample:
        raise MicroStepError(
            f"num_return_sequences is {settings.num_return_sequences}, but greedy answers are all the same; set"
            " do_sample=True"
        )
    for name, value in others.items():
        if name not in REFUSED_ARGUMENTS:
            raise MicroStepError(f"there is no setting {name!r}; settings are those of transformers' GenerationConfig")
        if value is not None and value is not False:
            raise MicroStepError(f"{name} is given, which is not supported: {REFUSED_ARGUMENTS[name]}")


def explicit_settings(**given: Any) -> dict[str, Any]:
    """Return settings for `generate` in which only the given values have an effect, not a model's own defaults."""
    neutral = CHOICE | SAMPLED if given.get("do_sample") else CHOICE
    return {"do_sample": False, **neutral, **given}


def end_ids(model: PreTrainedModel) -> list[int]:
    """Return the ids that end an answer of a model, in any kind of decoding; if there are none, only its length does.

    They come from its generation settings, or else its configuration. A base that answers beside a micro_step model
    ends where that model does.
    """
    ends = getattr(model.generation_config, "eos_token_id", None)
    if ends is None:
        ends = getattr(text_config(model), "eos_token_id", None)
    return [] if ends is None else [int(i) for i in (ends if isinstance(ends, list | tuple) else [ends])]


def inferred_mask(ids: Tensor, settings: GenerationConfig, more: Mapping[str, Any]) -> Tensor | None:
    """Infer a mask [B, P] from the padding token of prompts, as transformers does; None: no padding.

    A padding token that also ends answers marks no padding.
    """
    pad, ends = (more.get(name, getattr(settings, name)) for name in ("pad_token_id", "eos_token_id"))
    if pad is None or pad in (ends if isinstance(ends, list | tuple) else [ends]):
        return None
    mask: Tensor = (ids != pad).long()
    return mask


def ends_of(model: PreTrainedModel) -> dict[str, Any]:
    """Return settings of `generate` that end answers, and pad rows, as the model does."""
    ends = end_ids(model)
    pad = model.generation_config.pad_token_id
    return {"eos_token_id": ends or None, "pad_token_id": min(ends, default=0) if pad is None else pad}
