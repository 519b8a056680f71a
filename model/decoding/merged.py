"""Generate segment by segment: the base runs once per macro step, the micro decoder continues while a rule allows it.

`generate_segments` is the entry point for merged decoding (here) and for lossless decoding (lossless.py). Rows of a
batch have segments of different lengths; each segment takes one slot of the macro cache, so no row waits for another.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Generator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor
from transformers import StoppingCriteriaList
from transformers.generation import GenerationConfig

from model.causal_lm.fast_linear import with_fast_linear
from model.causal_lm.finite import not_finite
from model.causal_lm.forward import logits_of
from model.causal_lm.padding import equal_lengths, padding_is_bound
from model.decoding.draft_length import DraftCosts
from model.decoding.generation_config import DEFAULT_NEW_TOKENS, check_settings, end_ids
from model.decoding.lossless import LosslessBatch
from model.decoding.output import Clock, RowOutput, SegmentedGeneration, collect_outputs
from model.decoding.row import LiveRow, SegmentSettings
from model.decoding.sampling import Allowed, append, choose, token_settings
from model.decoding.session import DecodingBatch, count_pass, drop_finished_rows, prompts_of, select_rows
from model.decoding.stopping import ProposedToken, StopRule, find_stop_rule
from model.errors import MicroStepError, TextError, TooLarge
from model.micro_step.base_check import check_base
from model.micro_step.macro_cache import macro_cache

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

SegmentCallback = Callable[[int, RowOutput], None]  # of a row's number and all that it has written

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
    draft_costs: DraftCosts | None = None,
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
        draft_costs: with `verify`, times of passes, such as `model.decoding.pass_times.MeasuredTimes`. Drafts are then
            as long as these and what was kept so far make quickest; where the base alone is quicker, nothing is
            drafted. This changes no greedy lossless answer. It does change which sampled answer is drawn, and which
            tokens a relaxed check keeps. None: the rule alone ends drafts.
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
    if streamer is not None and len(input_ids) != 1:
        raise MicroStepError("a streamer takes one prompt; use on_segment for a batch")
    mask = _checked(input_ids, attention_mask)
    lossless = verifies(model, verify)
    if draft_costs is not None and not lossless:
        raise MicroStepError("draft_costs limit drafts, and merged decoding makes none: leave them out")
    rows, prepared = new_rows(
        model,
        [prompt[real].tolist() for prompt, real in zip(input_ids, mask.bool(), strict=True)],
        rule=rule,
        confidence=confidence,
        max_new_tokens=max_new_tokens,
        max_segment_length=max_segment_length,
        verify=verify,
        eps=eps,
        generation_config=generation_config,
        generator=None if seed is None else torch.Generator(model.device).manual_seed(seed),
        topk=topk,
        tokenizer=tokenizer,
        logits_processor=logits_processor,
        stopping_criteria=stopping_criteria,
        prefix_allowed_tokens_fn=prefix_allowed_tokens_fn,
        on_segment=_segment_callback(streamer, on_segment),
        **settings,
    )
    if streamer is not None:
        streamer.put(input_ids.cpu())
    clock, slots = Clock(), 0
    with torch.inference_mode():
        quick = with_fast_linear(model)
        for group in [rows] if rows_share_a_batch(model, rows) else equal_rows(rows):
            batch = new_batch(quick, lossless, clock, draft_costs)
            batch.read(group)
            while batch.rows:
                batch.step()
                for row in group:
                    if row.error is not None:
                        raise row.error
            slots = max(slots, batch.slots)
    if streamer is not None:
        streamer.end()
    pad = 0 if prepared._pad_token_tensor is None else int(prepared._pad_token_tensor)
    ids = input_ids.repeat_interleave(len(rows) // len(input_ids), 0)
    how = rows[0].segments
    return collect_outputs(
        ids, [row.out for row in rows], pad, clock, how.rule.name, how.tau, how.max_length, lossless, how.eps, slots
    )


def verifies(model: MicroStepPreTrainedModel, verify: bool | None) -> bool:
    """True if the base checks drafts: as asked, or as the model was trained."""
    return model.config.decoding == "lossless" if verify is None else verify


def new_rows(
    model: MicroStepPreTrainedModel,
    prompts: Sequence[list[int]],
    *,
    rule: str | StopRule = "confidence",
    confidence: float = 0.8,
    max_new_tokens: int | None = None,
    max_segment_length: int | None = None,
    verify: bool | None = None,
    eps: float = 1.0,
    generation_config: GenerationConfig | None = None,
    generator: torch.Generator | None = None,
    topk: int = 0,
    tokenizer: Any = None,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    prefix_allowed_tokens_fn: Allowed | None = None,
    on_segment: SegmentCallback = lambda i, row: None,
    **settings: Any,
) -> tuple[list[LiveRow], GenerationConfig]:
    """Check a request and return its rows, ready to join a batch, and transformers' settings of them.

    The arguments are those of `generate_segments`, except for the prompts, which have no padding, and the generator.
    """
    chosen = find_stop_rule(rule, model.stop is not None)
    lossless = verifies(model, verify)
    max_length = model.config.max_segment_length if max_segment_length is None else max_segment_length
    if not 1 <= max_length <= model.config.max_segment_length:
        raise MicroStepError(f"segments may have 1 to {model.config.max_segment_length} tokens, got {max_length}")
    if not 0 < eps <= 1:
        raise MicroStepError(f"eps must be above 0 and at most 1, got {eps:g}")
    if eps < 1 and not lossless:
        raise MicroStepError("eps relaxes the base's check of drafts, and merged decoding has none: leave it at 1")
    check_base(model, lossless)
    if max_new_tokens is not None:
        settings["max_new_tokens"] = max_new_tokens
    prepared = prepared_settings(model, generation_config, settings, len(prompts))
    criteria = ending_criteria(model, prepared, stopping_criteria, tokenizer)
    copies = prepared.num_return_sequences or 1
    each = [prompt for prompt in prompts for _ in range(copies)]
    tokens = token_settings(
        model, prepared, each, criteria, generator, topk, prefix_allowed_tokens_fn, logits_processor or []
    )
    segments = SegmentSettings(chosen, confidence, max_length, eps)
    rows = [
        LiveRow(RowOutput(prompt), segments, how, partial(on_segment, i))
        for i, (prompt, how) in enumerate(zip(each, tokens, strict=True))
    ]
    _check_context(model, max(len(row.out.prompt) + row.room for row in rows))
    return rows, prepared


def new_batch(
    model: MicroStepPreTrainedModel, lossless: bool, clock: Clock, costs: DraftCosts | None = None
) -> DecodingBatch:
    return LosslessBatch(model, clock, costs) if lossless else MergedBatch(model, clock)


def rows_share_a_batch(model: MicroStepPreTrainedModel, rows: Sequence[LiveRow]) -> bool:
    """True if rows may be read together: the model respects a padding mask, or there is no padding."""
    return len({len(row.out.prompt) for row in rows}) == 1 or padding_is_bound(model)


def equal_rows(rows: Sequence[LiveRow]) -> list[list[LiveRow]]:
    """Return groups of rows whose prompts have one length."""
    return [[rows[i] for i in group] for group in equal_lengths([len(row.out.prompt) for row in rows])]


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


class MergedBatch(DecodingBatch):
    """Rows whose segments are merged: one slot of the macro cache for each segment."""

    def __init__(self, model: MicroStepPreTrainedModel, clock: Clock) -> None:
        super().__init__(model, clock)
        self.cache = macro_cache(model)
        self.last = self.context = torch.zeros(0)  # [R, d], [R, K, d] the base's states at the last macro steps

    def reading(self, rows: Sequence[LiveRow], at_once: int | None) -> Generator[None]:
        """Read the prompts of rows, which become those of this batch."""
        self.last, self.context = yield from self.cache.reading(*prompts_of(rows, self.model.device), at_once)
        self.rows = list(rows)
        count_pass(rows)
        self.clock.to("prompt")

    def add(self, other: Self) -> None:
        """Take over the rows of another batch."""
        self.cache.join(other.cache)
        self.last, self.context = torch.cat([self.last, other.last]), torch.cat([self.context, other.context])
        self.rows += other.rows

    def step(self) -> None:
        """Write one segment of each row, and let the base read it. Rows that are over leave."""
        segment = SegmentWriter(self.model, self.clock, self.rows)
        embeds, valid, over = segment.write(logits_of(self.model.base, self.last), self.last, self.context)
        going = self._leave(over, self.cache.row_slots)
        self.clock.to("micro")
        if not going:
            return
        self.rows, embeds, valid = drop_finished_rows(self.cache, going, self.rows, embeds, valid)
        self.last, self.context = self.cache.step(embeds, valid)
        count_pass(self.rows)
        self.clock.to("macro")

    def _select(self, chosen: list[int]) -> None:
        kept = drop_finished_rows(self.cache, chosen, self.rows, self.last, self.context)
        self.rows, self.last, self.context = kept

    @property
    def rows_may_join(self) -> bool:
        """True if rows of other lengths may be written beside these."""
        return self.cache.rows_may_join and padding_is_bound(self.model)

    @property
    def slots(self) -> int:
        """Slots of the longest row in the macro cache, mean over its layers."""
        return self.cache.slots


class SegmentWriter:
    """Writes one segment of each of R rows."""

    def __init__(self, model: MicroStepPreTrainedModel, clock: Clock, rows: list[LiveRow]) -> None:
        self.model, self.clock, self.rows = model, clock, rows
        self.over = [False] * len(rows)

    def write(self, logits: Tensor, last: Tensor, context: Tensor) -> tuple[Tensor, Tensor, list[bool]]:
        """Decode a segment from the base's logits [R, V] and states [R, d] and [R, K, d].

        Returns:
            [R, M, d] embeddings of the segments' tokens, [R, M] bool which exist, and whether each row is over.
        """
        model, max_length = self.model, max(_cap(row) for row in self.rows)
        embed = model.get_input_embeddings()
        token, product = self._choose(logits, list(range(len(self.rows))))
        self.clock.to("macro")  # the base's head belongs to the macro step
        for row in self.rows:
            row.out.open()
        fed = embed(token)
        embeds = fed.new_zeros(len(self.rows), max_length, fed.shape[-1])
        valid = torch.zeros(len(self.rows), max_length, dtype=torch.bool, device=embeds.device)
        embeds[:, 0], valid[:, 0] = fed, True
        live = list(range(len(self.rows)))
        going = self._stopped_early(live, self._add(live, token, product, logits, slot=0), product, slot=1)
        cache, predicted = model.micro.new_cache(), last
        for slot in range(1, max_length):
            live, fed, context, product, predicted = select_rows(going, live, fed, context, product, predicted)
            if not live:
                break
            if slot > 1 and len(going) < len(token):
                cache.batch_select_indices(torch.tensor(going, device=embeds.device))
            state, _ = model.micro(context if slot == 1 else None, fed[:, None], cache)
            kept, token, probability, product, logits = self._propose(live, state[:, 0], predicted, product, slot)
            if not kept:
                break
            live, context, predicted = drop_finished_rows(cache, kept, live, context, state[:, 0])
            fed = embed(token)
            embeds[live, slot], valid[live, slot] = fed, True
            going = self._add(live, token, probability, logits, slot)
            going = self._stopped_early(live, going, product, slot + 1)
        return embeds, valid, self.over

    def _stopped_early(self, live: list[int], going: list[int], product: Tensor, slot: int) -> list[int]:
        """Apply early stopping rules before the micro decoder runs; return the indices into `live` that continue."""
        early = [self._rule(live[at]).early and not self._rule(live[at]).needs_stop_head for at in going]
        if not any(early):
            return going
        _, product = select_rows(going, live, product)
        keep = self._keeps([live[at] for at in going], early, slot, torch.full_like(product, torch.nan), product, None)
        return self._kept(keep, live, going)

    def _add(self, live: list[int], token: Tensor, probability: Tensor, logits: Tensor, slot: int) -> list[int]:
        """Append a token to each live row. Returns the indices into `live` whose segment may continue."""
        now, going = self.clock.now(), []
        chosen = zip(live, token.tolist(), probability.tolist(), strict=True)
        for at, (i, id_, p) in enumerate(chosen):
            row = self.rows[i]
            reason = append(self.model, row, id_, p, now, logits[at])
            self.over[i] = reason is not None
            if reason is not None:
                row.out.close(reason)
            elif row.segments.alone:
                row.out.close("unsure")
            elif slot == row.segments.max_length - 1:
                row.out.close("cap")
            else:
                going.append(at)
        return going

    def _propose(
        self, live: list[int], state: Tensor, predicted: Tensor, product: Tensor, slot: int
    ) -> tuple[list[int], Tensor, Tensor, Tensor, Tensor]:
        """Return the micro decoder's next token for each live row, from the states [L, d] of the tokens before.

        `predicted` are the states [L, d] that predicted these tokens.

        Returns:
            The rows (0 to L - 1) that keep their token, and of these the tokens, their probabilities, the products and
                the
            logits.
        """
        model = self.model
        stop = model.stop_probability(state, predicted)
        candidates = list(range(len(live)))  # rows for which a token is computed
        early = [self._rule(i).early and self._rule(i).needs_stop_head for i in live]
        if any(early):
            unknown = torch.full_like(product, torch.nan)
            candidates = self._kept(
                self._keeps(live, early, slot, unknown, product, stop), live, candidates, None, stop
            )
            if not candidates:
                return [], torch.zeros(0), product, product, state
        some, state, product = select_rows(candidates, live, state, product)
        logits = self._logits(state)
        token, probability = self._choose(logits, some)
        product = product * probability
        for i in some:
            self.rows[i].out.micro_steps += 1
        late = [not self._rule(i).early for i in some]
        if not any(late):
            return candidates, token, probability, product, logits
        stop = None if stop is None else select_rows(candidates, live, stop)[1]
        keep = self._keeps(some, late, slot, probability, product, stop)
        going = self._kept(keep, some, list(range(len(some))), token, probability)
        _, token, probability, product, logits = select_rows(going, some, token, probability, product, logits)
        return [candidates[at] for at in going], token, probability, product, logits

    def _logits(self, state: Tensor) -> Tensor:
        """Return float32 logits [L, V] for the micro decoder's states [L, d]."""
        return logits_of(self.model.base, state)

    def _choose(self, logits: Tensor, live: list[int]) -> tuple[Tensor, Tensor]:
        """Return the next token of each live row, and its probability under the logits [L, V] themselves."""
        return choose(logits, [self.rows[i] for i in live])

    def _rule(self, i: int) -> StopRule:
        return self.rows[i].segments.rule

    def _keeps(
        self, live: list[int], asked: list[bool], slot: int, probability: Tensor, product: Tensor, stop: Tensor | None
    ) -> Tensor:
        """Return [L] bool, whether segments continue by the rules of the rows in `asked`; all other segments do."""
        rows = [self.rows[i] for i in live]
        step = torch.tensor([row.out.macro_steps - 1 for row in rows], device=product.device)
        tau = torch.tensor([row.segments.tau for row in rows], device=product.device)
        proposed = ProposedToken(slot, step, probability, product, stop)
        rules = {row.segments.rule.name: row.segments.rule for row, asks in zip(rows, asked, strict=True) if asks}
        keep = torch.ones(len(rows), dtype=torch.bool, device=product.device)
        for name, rule in rules.items():
            own = [row.segments.rule.name == name for row in rows]
            kept = rule.keep(proposed, tau)
            keep = kept if all(own) else torch.where(torch.tensor(own, device=keep.device), kept, keep)
        return keep

    def _kept(
        self,
        keep: Tensor,
        live: list[int],
        candidates: list[int],
        token: Tensor | None = None,
        probability: Tensor | None = None,
    ) -> list[int]:
        """Return the candidates whose segment continues; close the segments of the others.

        A probability that is NaN, which no rule keeps, ends its row with an error.
        """
        if bool(keep.all()):
            return candidates
        kept = []
        p = [0.0] * len(candidates) if probability is None else probability.tolist()
        proposed = None if token is None else list(zip(token.tolist(), p, strict=True))
        for at, (candidate, continues) in enumerate(zip(candidates, keep.tolist(), strict=True)):
            i = live[candidate]
            if continues:
                kept.append(candidate)
                continue
            self.rows[i].out.close("unsure", None if proposed is None else proposed[at])
            if math.isnan(p[at]):
                self.rows[i].error = not_finite(self.model, "the micro decoder has probabilities")
                self.over[i] = True
        return kept


def _cap(row: LiveRow) -> int:
    return 1 if row.segments.alone else row.segments.max_length


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
