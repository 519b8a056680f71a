"""Generate segment by segment: the base runs once per macro step, the micro decoder continues while a rule allows it.

`generate_segments` is the entry point for merged decoding (here) and for lossless decoding (lossless.py). Rows of a
batch have segments of different lengths; each segment takes one slot of the macro cache, so no row waits for another.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import StoppingCriteriaList
from transformers.generation import GenerationConfig

from model.causal_lm.fast_linear import with_fast_linear
from model.causal_lm.finite import not_finite
from model.causal_lm.forward import logits_of
from model.causal_lm.padding import equal_lengths, padding_is_bound
from model.decoding.generation_config import DEFAULT_NEW_TOKENS, check_settings, end_ids
from model.decoding.lossless import write_lossless
from model.decoding.output import Clock, RowOutput, SegmentedGeneration, collect_outputs
from model.decoding.sampling import Allowed, TokenSampler, rules_of
from model.decoding.session import DecodingSession, SegmentCallback, count_pass, drop_finished_rows, select_rows
from model.decoding.stopping import ProposedToken, StopRule, find_stop_rule
from model.errors import MicroStepError, TextError, TooLarge
from model.micro_step.base_check import check_base
from model.micro_step.macro_cache import macro_cache

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

Write = Callable[[DecodingSession, Tensor, Tensor, list[RowOutput]], int]

__all__ = ["RowOutput", "SegmentedGeneration", "generate_segments"]


def generate_segments(
    model: MicroStepPreTrainedModel,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    *,
    rule: str | StopRule = "confidence",
    confidence: float = 0.8,
    max_new_tokens: int | None = None,
    max_segment_length: int | None = None,
    verify: bool | None = None,
    eps: float = 1.0,
    generation_config: GenerationConfig | None = None,
    seed: int | None = None,
    topk: int = 0,
    tokenizer: Any = None,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    prefix_allowed_tokens_fn: Allowed | None = None,
    streamer: Any = None,
    on_segment: SegmentCallback | None = None,
    **settings: Any,
) -> SegmentedGeneration:
    """Continue B prompts.

    Args:
        model: a micro_step model.
        input_ids: [B, P] prompts, left-padded.
        attention_mask: [B, P], 0 at padding; None: no padding.
        rule: when the micro decoder hands back to the base, a name in `model.decoding.stopping.RULES`.
        confidence: tau of the rule; above 1, only the base writes. In lossless decoding, drafting continues while the
            likeliest word has at least this probability.
        max_new_tokens: the largest T; 256 unless the settings say otherwise.
        max_segment_length: M, at most the model's own.
        verify: the base checks each draft; None: what the model was trained for.
        eps: with `verify`, a drafted token is also kept if the base gives it at least this share of its likeliest
            token's probability; 1 is lossless.
        generation_config: transformers' settings; None: the model's own.
        seed: seed for sampling; None: torch's global state.
        topk: keep this many likeliest words of each new token.
        tokenizer: needed for stop strings.
        logits_processor: additional processors. They see one row at a time and must depend only on its tokens, since
            they
            are called again after a token was rejected.
        stopping_criteria: additional criteria, which see one row at a time.
        prefix_allowed_tokens_fn: maps a row's number and its tokens to the ids that may follow.
        streamer: a transformers streamer, for one prompt; it receives whole segments.
        on_segment: called after each segment with the row's number and its output so far; may raise to stop.
        settings: further fields of GenerationConfig: do_sample, temperature, top_p, top_k, repetition_penalty,
            stop_strings, ...

    Raises:
        TextError: a prompt is empty.
        TooLarge: prompt and new tokens do not fit the base's context.
        MicroStepError: padding is not on the left, or settings are not supported or do not fit together; see
            `model.decoding.generation_config`.
        NumericalError: the model's logits are not finite.
    """
    chosen = find_stop_rule(rule, model.stop is not None)
    lossless = model.config.decoding == "lossless" if verify is None else verify
    max_length = model.config.max_segment_length if max_segment_length is None else max_segment_length
    if not 1 <= max_length <= model.config.max_segment_length:
        raise MicroStepError(f"segments may have 1 to {model.config.max_segment_length} tokens, got {max_length}")
    if not 0 < eps <= 1:
        raise MicroStepError(f"eps must be above 0 and at most 1, got {eps:g}")
    if eps < 1 and not lossless:
        raise MicroStepError("eps relaxes the base's check of drafts, and merged decoding has none: leave it at 1")
    mask = _checked(input_ids, attention_mask)
    check_base(model, lossless)
    if streamer is not None and len(input_ids) != 1:
        raise MicroStepError("a streamer takes one prompt; use on_segment for a batch")
    if max_new_tokens is not None:
        settings["max_new_tokens"] = max_new_tokens
    prepared = prepared_settings(model, generation_config, settings, len(input_ids))
    criteria = ending_criteria(model, prepared, stopping_criteria, tokenizer)
    copies = prepared.num_return_sequences or 1
    ids, mask = input_ids.repeat_interleave(copies, 0), mask.repeat_interleave(copies, 0)
    if streamer is not None:
        streamer.put(input_ids.cpu())
    rows = [RowOutput(prompt[real].tolist()) for prompt, real in zip(ids, mask.bool(), strict=True)]
    rules = rules_of(model, prepared, rows, prefix_allowed_tokens_fn, logits_processor or [])
    generator = None if seed is None else torch.Generator(ids.device).manual_seed(seed)
    sampler = TokenSampler(model, bool(prepared.do_sample), rows, rules, criteria, generator, topk)
    _check_context(model, max(len(row.prompt) + sampler.room(row) for row in rows))
    clock = Clock()
    write = write_lossless if lossless else write_merged
    with torch.inference_mode():
        quick = with_fast_linear(model)
        session = DecodingSession(
            quick, sampler, chosen, confidence, max_length, clock, _segment_callback(streamer, on_segment), eps
        )
        slots = _in_groups(session, write, ids, mask, rows)
    if streamer is not None:
        streamer.end()
    pad = 0 if prepared._pad_token_tensor is None else int(prepared._pad_token_tensor)
    return collect_outputs(ids, rows, pad, clock, chosen.name, confidence, max_length, lossless, eps, slots)


def prepared_settings(
    model: MicroStepPreTrainedModel, given: GenerationConfig | None, settings: dict[str, Any], rows: int
) -> GenerationConfig:
    """Combine given settings with the model's own as transformers does, and check them."""
    if model.generation_config.eos_token_id is None and (given is None or given.eos_token_id is None):
        settings = {"eos_token_id": end_ids(model) or None, **settings}
    try:
        combined, others = model._prepare_generation_config(given, **settings)
    except ValueError as error:
        raise MicroStepError(f"transformers rejects these settings: {error}") from error
    check_settings(combined, others)
    lengths = [
        settings.get("max_length"),
        *(config.max_length for config in (given, model.generation_config) if config),
    ]
    if combined.max_new_tokens is None and all(length is None for length in lengths):
        combined.max_new_tokens = DEFAULT_NEW_TOKENS
    model._prepare_special_tokens(combined, True, device=model.device, batch_size=rows)
    return combined


def ending_criteria(
    model: MicroStepPreTrainedModel, settings: GenerationConfig, given: Any, tokenizer: Any
) -> StoppingCriteriaList:
    """Return the criteria that end answers; the settings' lengths are counted per row in sampling.py."""
    if settings.stop_strings is not None and tokenizer is None:
        raise MicroStepError("stop strings need the tokenizer: give tokenizer=...")
    endless = copy.copy(settings)
    endless.max_length = None
    return model._get_stopping_criteria(endless, StoppingCriteriaList(given or []), tokenizer)


def _in_groups(session: DecodingSession, write: Write, ids: Tensor, mask: Tensor, rows: list[RowOutput]) -> int:
    """Decode all rows at once, or one length after another if the model does not respect a padding mask."""
    if bool(mask.all()) or padding_is_bound(session.model):
        return write(session, ids, mask, rows)
    slots = []
    for group in equal_lengths(mask.sum(1).tolist()):
        length = int(mask[group[0]].sum())
        slots.append(
            write(
                replace(session, tell=_renumbered(group, session.tell)),
                ids[group, -length:],
                mask[group, -length:],
                [rows[i] for i in group],
            )
        )
    return max(slots)


def _renumbered(group: list[int], tell: SegmentCallback) -> SegmentCallback:
    return lambda i, row: tell(group[i], row)


def write_merged(session: DecodingSession, input_ids: Tensor, mask: Tensor, rows: list[RowOutput]) -> int:
    """Decode all rows to their ends; return the slots in the macro cache. Finished rows leave the batch."""
    if session.alone:
        session = replace(session, max_length=1)
    clock, cache = session.clock, macro_cache(session.model)
    last, context = cache.read(input_ids, mask)
    count_pass(rows)
    clock.to("prompt")
    live = list(range(len(rows)))
    while live:
        segment = _Segment(session, [rows[i] for i in live])
        embeds, valid, over = segment.write(last, context)
        for i in live:
            session.tell(i, rows[i])
        going = [at for at, done in enumerate(over) if not done]
        clock.to("micro")
        if not going:
            break
        live, embeds, valid = drop_finished_rows(cache, going, live, embeds, valid)
        last, context = cache.step(embeds, valid)
        count_pass([rows[i] for i in live])
        clock.to("macro")
    return cache.slots


class _Segment:
    """One segment of each of R rows, while it is decoded."""

    def __init__(self, session: DecodingSession, rows: list[RowOutput]) -> None:
        self.session, self.rows = session, rows
        self.over = [False] * len(rows)

    def write(self, last: Tensor, context: Tensor) -> tuple[Tensor, Tensor, list[bool]]:
        """Decode a segment from the base's states [R, d] and [R, K, d].

        Returns:
            [R, M, d] embeddings of the segments' tokens, [R, M] bool which exist, and whether each row is over.
        """
        model, max_length = self.session.model, self.session.max_length
        embed = model.get_input_embeddings()
        logits = logits_of(model.base, last)
        token, product = self.session.sampler.choose(logits, self.rows)
        self.session.clock.to("macro")  # the base's head belongs to the macro step
        for row in self.rows:
            row.open()
        fed = embed(token)
        embeds = fed.new_zeros(len(self.rows), max_length, fed.shape[-1])
        valid = torch.zeros(len(self.rows), max_length, dtype=torch.bool, device=embeds.device)
        embeds[:, 0], valid[:, 0] = fed, True
        live = list(range(len(self.rows)))
        going = self._stopped_early(live, self._add(live, token, product, logits, slot=0), product, slot=1)
        cache = model.micro.new_cache()
        for slot in range(1, max_length):
            live, fed, context, product = select_rows(going, live, fed, context, product)
            if not live:
                break
            if slot > 1 and len(going) < len(token):
                cache.batch_select_indices(torch.tensor(going, device=embeds.device))
            state, _ = model.micro(context if slot == 1 else None, fed[:, None], cache)
            kept, token, probability, product, logits = self._propose(live, state[:, 0], product, slot)
            if not kept:
                break
            live, context = drop_finished_rows(cache, kept, live, context)
            fed = embed(token)
            embeds[live, slot], valid[live, slot] = fed, True
            going = self._add(live, token, probability, logits, slot)
            going = self._stopped_early(live, going, product, slot + 1)
        return embeds, valid, self.over

    def _stopped_early(self, live: list[int], going: list[int], product: Tensor, slot: int) -> list[int]:
        """Apply an early stopping rule before the micro decoder runs; return the indices into `live` that continue."""
        rule, tau = self.session.rule, self.session.tau
        if not going or not rule.early or rule.needs_stop_head:
            return going
        _, product = select_rows(going, live, product)
        step, unknown = self.rows[live[0]].macro_steps - 1, torch.full_like(product, float("nan"))
        return self._kept(rule.keep(ProposedToken(slot, step, unknown, product, None), tau), live, going)

    def _add(self, live: list[int], token: Tensor, probability: Tensor, logits: Tensor, slot: int) -> list[int]:
        """Append a token to each live row. Returns the indices into `live` whose segment may continue."""
        now, going = self.session.clock.now(), []
        chosen = zip(live, token.tolist(), probability.tolist(), strict=True)
        for at, (i, id_, p) in enumerate(chosen):
            row = self.rows[i]
            reason = self.session.sampler.add(row, id_, p, now, logits[at])
            self.over[i] = reason is not None
            if reason is not None:
                row.close(reason)
            elif self.session.alone:
                row.close("unsure")
            elif slot == self.session.max_length - 1:
                row.close("cap")
            else:
                going.append(at)
        return going

    def _propose(
        self, live: list[int], state: Tensor, product: Tensor, slot: int
    ) -> tuple[list[int], Tensor, Tensor, Tensor, Tensor]:
        """Return the micro decoder's next token for each live row, from the states [L, d] of the tokens before.

        Returns:
            The rows (0 to L - 1) that keep their token, and of these the tokens, their probabilities, the products and
                the
            logits.
        """
        model, rule, tau = self.session.model, self.session.rule, self.session.tau
        stop = None if model.stop is None else model.stop(state)[:, 0].float().sigmoid()
        step = self.rows[live[0]].macro_steps - 1
        candidates = list(range(len(live)))  # rows for which a token is computed
        if rule.early and rule.needs_stop_head:
            unknown = torch.full_like(product, float("nan"))
            candidates = self._kept(
                rule.keep(ProposedToken(slot, step, unknown, product, stop), tau), live, candidates, None, stop
            )
            if not candidates:
                return [], torch.zeros(0), product, product, state
        rows, state, product = select_rows(candidates, [self.rows[i] for i in live], state, product)
        logits = logits_of(model.base, state)
        token, probability = self.session.sampler.choose(logits, rows)
        product = product * probability
        for row in rows:
            row.micro_steps += 1
        if rule.early:
            return candidates, token, probability, product, logits
        keep = rule.keep(ProposedToken(slot, step, probability, product, stop), tau)
        kept = self._kept(keep, live, candidates, token, probability)
        _, token, probability, product, logits = select_rows(kept, live, token, probability, product, logits)
        return kept, token, probability, product, logits

    def _kept(
        self,
        keep: Tensor,
        live: list[int],
        candidates: list[int],
        token: Tensor | None = None,
        probability: Tensor | None = None,
    ) -> list[int]:
        """Return the candidates whose segment continues; close the segments of the others.

        Raises:
            NumericalError: a probability is NaN, which no rule keeps.
        """
        if bool(keep.all()):
            return candidates
        kept = []
        proposed = None
        p = None if probability is None else probability.tolist()
        if p is not None and any(math.isnan(value) for value in p):
            raise not_finite(self.session.model, "the micro decoder has probabilities")
        if token is not None and p is not None:
            proposed = list(zip(token.tolist(), p, strict=True))
        for at, continues in zip(candidates, keep.tolist(), strict=True):
            if continues:
                kept.append(at)
            else:
                self.rows[live[at]].close("unsure", None if proposed is None else proposed[at])
        return kept


def _checked(input_ids: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Return a [B, P] long mask with ones at real tokens."""
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask.long()
    if input_ids.ndim != 2 or mask.shape != input_ids.shape:
        raise MicroStepError(
            f"input_ids and attention_mask must be [B, P], got {list(input_ids.shape)} and {list(mask.shape)}"
        )
    if not input_ids.numel() or bool((mask.sum(1) == 0).any()):
        raise TextError("there is no text to continue; give each prompt at least one token")
    if bool((mask[:, :-1] > mask[:, 1:]).any()):
        raise MicroStepError("prompts must be padded on the left (tokenizer.padding_side = 'left')")
    return mask


def _check_context(model: MicroStepPreTrainedModel, tokens: int) -> None:
    limit = model.config.max_position_embeddings
    if limit is not None and tokens > limit:
        raise TooLarge(
            f"prompt and new tokens are {tokens} together, but the model's context holds {limit}; request fewer"
        )


def _segment_callback(streamer: Any, on_segment: SegmentCallback | None) -> SegmentCallback:
    """Return a callback that passes each segment to a streamer and to another callback."""

    def tell(i: int, row: RowOutput) -> None:
        if streamer is not None:
            for token in row.ids[row.starts[-1] :]:
                streamer.put(torch.tensor([token]))
        if on_segment is not None:
            on_segment(i, row)

    return tell
