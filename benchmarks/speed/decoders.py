"""The ways to write answers that are compared, each as its users would call it. Nothing here measures.

A decoder takes prompts and gives the new ids of each. All are greedy, and end where one of the models ends its answers.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, cast

from benchmarks.speed.options import ComparedModelOptions, DecodeOptions
from benchmarks.speed.prompts import Rows
from model.causal_lm.fast_linear import with_fast_linear
from model.causal_lm.forward import vocabulary
from model.causal_lm.kv_cache import growing_cache, keeps_all
from model.causal_lm.padding import equal_lengths, left_padded, padding_is_bound
from model.decoding.generation_config import end_ids, ends_of, explicit_settings
from model.decoding.output import SegmentedGeneration
from model.decoding.pass_times import MeasuredTimes
from model.decoding.stopping import RULES
from model.errors import MicroStepError, ModelError
from model.hub.cache import times_folder
from model.hub.fetch import fetch
from model.hub.loading import LoadedModel, ModelSpec, load
from model.hub.wrap_base import Wrapped, wrap
from model.micro_step.configuration import MicroStepConfig
from model.micro_step.modeling import MicroStepForCausalLM

BASE, PLAIN, MERGED, LOSSLESS, RELAXED = "base", "plain", "merged", "lossless", "relaxed"
LOOKUP = 5  # tokens that prompt lookup may propose


@dataclass(frozen=True)
class BatchAnswers:
    """What was written to the prompts of a batch, and what it took."""

    rows: Rows  # the new ids of each prompt, the end token included
    passes: list[int] | None = None  # of the base, for each prompt; None: not known
    drafted: int = 0  # tokens that were shown to the base
    parts: dict[str, float] = field(default_factory=dict)  # seconds in the prompt, the base and the micro decoder
    slots: list[int] | None = None  # of the base's cache at the end, for each prompt, mean over layers; None: not known

    @classmethod
    def of(cls, generation: SegmentedGeneration) -> BatchAnswers:
        """The answers of a micro_step model."""
        rows = generation.rows
        return cls(
            [row.ids for row in rows],
            [row.macro_steps for row in rows],
            sum(row.drafted for row in rows),
            {part: getattr(generation, f"{part}_seconds") for part in ("prompt", "macro", "micro")},
            [row.cache_slots for row in rows],
        )


Write = Callable[[Rows, int], BatchAnswers]  # of prompts, and how many new tokens each answer may have


@dataclass(frozen=True)
class Decoder:
    """One way to answer: a model, and for a micro_step model a rule at one tau."""

    model: str
    decoding: str  # plain, merged, lossless, relaxed, or the name of a baseline
    computes: str
    write: Write
    rule: str | None = None  # when a segment ends
    tau: float | None = None
    eps: float | None = None  # of the check, where the base checks drafts
    max_segment_length: int | None = None  # M; None: the model's own
    by_cost: bool = False  # drafts are also limited by cost
    one_at_a_time: bool = False  # it takes one prompt at a time


@dataclass(frozen=True)
class ComparedModels:
    """The models that are compared, loaded, with one vocabulary."""

    micro: Sequence[Wrapped]
    controls: Sequence[LoadedModel]  # models without segments
    base: Any
    base_name: str
    tokenizer: Any

    @property
    def ends(self) -> list[int]:
        """The ids that end an answer of any of the models."""
        models = [self.base, *(each.model for each in self.micro), *(each.model for each in self.controls)]
        return sorted({end for model in models for end in end_ids(model)})

    def settings(self, new_tokens: int, endless: bool = False) -> dict[str, Any]:
        """Settings of `generate` that are the same for all, whatever a model's own defaults are."""
        ends = None if endless else self.ends or None
        return explicit_settings(
            max_new_tokens=new_tokens, eos_token_id=ends, pad_token_id=ends_of(self.base)["pad_token_id"]
        )


def load_models(options: ComparedModelOptions) -> ComparedModels:
    """Load what is compared. The base is the first model's, as it was before an adapter that was trained with it."""

    def loaded_as(name: str) -> LoadedModel:
        return load(ModelSpec(name, dtype=options.dtype, device=options.device))

    micro = [wrap(loaded_as(name)) for name in options.names]
    first = micro[0]
    for each in micro if options.draft_words else ():
        each.model.config.draft_vocabulary = list(range(min(options.draft_words, vocabulary(each.model.base))))
    other = options.base or _base_before_adapter(first)
    base_model = first.model.base if other is None else loaded_as(other).model
    base_name = other or first.facts.base or first.loaded.facts.name
    models = ComparedModels(
        micro, [loaded_as(name) for name in options.control or ()], base_model, base_name, first.loaded.tokenizer
    )
    others = [(each.loaded.facts.name, each.model.base) for each in micro]
    others += [(each.facts.name, each.model) for each in models.controls]
    for name, model in others:
        if vocabulary(model) != vocabulary(base_model):
            raise ModelError(
                f"{name} has {vocabulary(model):,} words, and {base_name} has {vocabulary(base_model):,}: their answers"
                " cannot be compared"
            )
    return models


def _base_before_adapter(micro: Wrapped) -> str | None:
    """The base's name, if the model's own base holds an adapter that was merged when it was loaded."""
    if micro.facts.untrained or micro.facts.base is None:
        return None
    config = MicroStepConfig.from_pretrained(fetch(micro.loaded.spec.name))
    return micro.facts.base if config.adapter is not None else None


# --- plain models


def plain_answers(model: Any, prompts: Rows, settings: dict[str, Any], fast: bool = False, **options: Any) -> Rows:
    """The new ids of each prompt by transformers' own greedy `generate`.

    Prompts of different lengths are padded, or answered apart where padding would change what the model writes.
    """
    groups = equal_lengths([len(prompt) for prompt in prompts])
    if len(groups) > 1 and padding_is_bound(model):
        groups = [list(range(len(prompts)))]
    ends = set(settings["eos_token_id"] or ())
    answers: dict[int, list[int]] = {}
    for group in groups:
        ids, mask = (each.to(model.device) for each in left_padded([prompts[i] for i in group]))
        cache = {"past_key_values": growing_cache(model.config)} if fast and keeps_all(model) else {}
        output = model.generate(input_ids=ids, attention_mask=mask, **settings, **cache, **options)
        written = output[:, ids.shape[1] :].tolist()
        answers.update((i, _until_end(row, ends)) for i, row in zip(group, written, strict=True))
    return [answers[i] for i in range(len(prompts))]


def _until_end(ids: list[int], ends: set[int]) -> list[int]:
    """The ids up to the first end token, which is included."""
    at = next((i for i, id_ in enumerate(ids) if id_ in ends), len(ids) - 1)
    return ids[: at + 1]


def plain_decoder(name: str, model: Any, models: ComparedModels, fast: bool = False, endless: bool = False) -> Decoder:
    """A model's own greedy answers, a token a pass."""
    quick = with_fast_linear(model) if fast else model

    def write(prompts: Rows, new_tokens: int) -> BatchAnswers:
        rows = plain_answers(quick, prompts, models.settings(new_tokens, endless), fast)
        return BatchAnswers(rows, [len(row) for row in rows])

    how = ", our linear layers and cache" if fast else ""
    return Decoder(name, PLAIN, f"generate(do_sample=False){how}", write)


def baselines_of(models: ComparedModels, assistant: str | None = None) -> list[Decoder]:
    """Transformers' own ways to write faster: prompt lookup, and assisted generation.

    Args:
        models: all that is compared.
        assistant: a smaller model of the same tokenizer that drafts; None: the base's own first half does.
    """
    if assistant is None:
        layers = models.base.config.get_text_config().num_hidden_layers
        options: dict[str, Any] = {"assistant_early_exit": max(1, layers // 2)}
        computes = "generate(assistant_early_exit=L/2): the base's own first half drafts"
    else:
        dtype, device = str(models.base.dtype).removeprefix("torch."), str(models.base.device)
        spec = ModelSpec(assistant, dtype=cast("Any", dtype), device=device)
        options = {"assistant_model": load(spec).model}
        computes = f"generate(assistant_model={assistant})"
    lookup = f"generate(prompt_lookup_num_tokens={LOOKUP})"
    return [
        _baseline("prompt lookup", lookup, models, {"prompt_lookup_num_tokens": LOOKUP}),
        _baseline("assisted", computes, models, options),
    ]


def _baseline(name: str, computes: str, models: ComparedModels, options: dict[str, Any]) -> Decoder:
    def write(prompts: Rows, new_tokens: int) -> BatchAnswers:
        return BatchAnswers(plain_answers(models.base, prompts, models.settings(new_tokens), **options))

    return Decoder(BASE, name, computes, write, one_at_a_time=True)


# --- micro_step models


def segmented_answers(
    model: MicroStepForCausalLM, prompts: Rows, settings: dict[str, Any], **options: Any
) -> BatchAnswers:
    """The greedy answers of a micro_step model."""
    ids, mask = (each.to(model.device) for each in left_padded(prompts))
    return BatchAnswers.of(model.generate_segments(ids, mask, **settings, **options))


def segment_decoders(models: ComparedModels, options: DecodeOptions) -> list[Decoder]:
    """Every micro_step model by every rule that it can follow, at each tau and M; where it checks drafts, each eps.

    With `by_cost` there is a second decoder for each that checks drafts, whose drafts are also limited by cost.
    """
    decoders = []
    for each in models.micro:
        checked = each.facts.decoding == LOSSLESS if options.verify is None else options.verify
        settings = (options.confidence, options.eps if checked else (None,), _segment_lengths(each, options))
        costs = (None, MeasuredTimes(each.model, times_folder())) if checked and options.by_cost else (None,)
        for rule, (tau, eps, most), times in product(options.rule, _combined(settings, options.cross), costs):
            if each.facts.stop_head or not RULES[rule].needs_stop_head:
                how = {"rule": rule, "confidence": tau, "verify": checked, "eps": 1.0 if eps is None else eps}
                how |= {"max_segment_length": most, "draft_costs": times}
                relaxed = "" if how["eps"] == 1 else f", eps={eps:g}"
                limited = "" if most is None else f", max_segment_length={most}"
                decoding = MERGED if not checked else RELAXED if relaxed else LOSSLESS
                computes = f"generate_segments({rule}, {tau:g}{relaxed}{limited}{', draft_costs' if times else ''})"
                write = _segment_writer(each.model, models, **how)
                decoder = Decoder(each.loaded.facts.name, decoding, computes, write, rule, tau, eps, most, bool(times))
                decoders.append(decoder)
    return decoders


def _segment_lengths(micro: Wrapped, options: DecodeOptions) -> tuple[int | None, ...]:
    """The values of M that are measured; None is the model's own."""
    own = micro.model.config.max_segment_length
    for most in options.max_segment_length:
        if not 1 <= most <= own:
            raise MicroStepError(
                f"segments of {micro.loaded.facts.name} have 1 to {own} tokens: --max-segment-length cannot be {most}"
            )
    return options.max_segment_length or (None,)


def _combined(settings: Sequence[Sequence[Any]], cross: bool) -> list[tuple[Any, ...]]:
    """All combinations of values; or else those in which at most one setting is not at its first value."""
    first = [values[0] for values in settings]
    return [each for each in product(*settings) if cross or sum(map(operator.ne, each, first)) <= 1]


def _segment_writer(model: MicroStepForCausalLM, models: ComparedModels, **options: Any) -> Write:
    return lambda prompts, new_tokens: segmented_answers(model, prompts, models.settings(new_tokens), **options)
