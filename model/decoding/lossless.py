"""Checked decoding: the micro decoder drafts from the unmerged base's states, and the base checks drafts in one pass.

With eps = 1 it is lossless. Greedy output equals the base's, token for token; sampled output has the base's
distribution (speculative acceptance, arXiv 2302.01318 and 2211.17192). With a smaller eps the check is relaxed: it also
keeps each drafted token that the base gives at least eps of its likeliest token's probability (after processors and
warpers), so the output is no longer the base's.

Drafting continues while the likeliest word's probability is at least tau. The rule never looks at the drawn token's own
probability, which would bias the distribution. With a draft vocabulary (arXiv 2502.14856) only its words are drafted.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.device_speed import clock_of
from model.causal_lm.finite import not_finite
from model.causal_lm.forward import logits_of, vocabulary
from model.causal_lm.kv_cache import (
    MAX_IDLE,
    growing_cache,
    join_rows,
    joined_masks,
    keep_slots,
    padded_anywhere,
    rows_may_join,
)
from model.causal_lm.padding import padding_is_bound
from model.decoding.draft_length import DraftCosts, tokens_to_draft
from model.decoding.output import Clock
from model.decoding.row import LiveRow
from model.decoding.sampling import (
    any_sampled,
    append,
    choose,
    needs_history,
    probability_of,
    processed,
    sample,
    uniform,
)
from model.decoding.session import DecodingBatch, count_pass, drop_finished_rows, prompts_of, read_prompts
from model.decoding.stopping import Why

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel


class LosslessBatch(DecodingBatch):
    """Rows whose drafts the base checks. One pass of the base gives one segment.

    A row's `rule` decides when drafting stops: `stop_head` by the stop head, the others by the likeliest word's
    probability or the product of these.
    """

    def __init__(self, model: MicroStepPreTrainedModel, clock: Clock, costs: DraftCosts | None = None) -> None:
        super().__init__(model, clock)
        self.costs, self.anywhere = costs, padded_anywhere(model.base)
        self.now = clock_of(model.device)
        self.cache = growing_cache()  # it keeps everything, sliding layers too, so that refused tokens can be removed
        # the base's next token of each row [R] and its probability, from logits [R, V]; states [R, K, d] before it;
        # what each row sees of the cache [R, N], and the position of its last token there [R]
        self.token = self.probability = self.logits = torch.zeros(0)
        self.context = self.mask = self.position = torch.zeros(0)

    @cached_property
    def drafter(self) -> Drafter:
        """It copies the rows of its words from the head, so a batch whose rows only join another one makes none."""
        return Drafter(self.model, self.costs)

    def reading(self, rows: Sequence[LiveRow], at_once: int | None) -> Generator[None]:
        """Read the prompts of rows, which become those of this batch."""
        model, cache = self.model, self.cache
        last, context, self.mask, position = yield from read_prompts(
            model,
            *prompts_of(rows, model.device),
            cache,
            lambda embeds, mask, position: model.macro(embeds, mask, position, cache),
            at_once,
        )
        count_pass(rows)
        logits = logits_of(model.base, last)
        self._state = (*choose(logits, rows), logits, context, position)
        self.rows = list(rows)
        self.clock.to("prompt")

    def add(self, other: Self) -> None:
        """Take over the rows of another batch."""
        join_rows(self.cache, other.cache)
        self.mask = joined_masks(self.mask, other.mask)
        self._state = tuple(map(torch.cat, zip(self._state, other._state, strict=True)))
        self.rows += other.rows

    def step(self) -> None:
        """Write one segment of each row, and let the base read it. Rows that are over leave."""
        over = []
        chosen = zip(self.rows, self.token.tolist(), self.probability.tolist(), self.logits, strict=True)
        for row, id_, p, logits in chosen:
            row.out.open()
            reason = append(self.model, row, id_, p, self.clock.now(), logits)
            over.append(reason is not None)
            if reason is not None:
                row.out.close(reason)
        if any(over):
            going = self._leave(over, self._row_slots)
            if not going:
                return
            self._select(going)
        rows, begun = len(self.rows), self.now()
        draft = self.drafter.draft(self.rows, self.context, self.token)
        self.clock.to("micro")
        self._check(draft)
        if self.costs is not None:
            self.costs.observe(rows, draft.ids.shape[1], draft.steps, self.now() - begun)

    def _check(self, draft: Draft) -> None:
        """Let the base read a draft, append what it keeps, and close the segments."""
        model, mask = self.model, self.mask
        n = draft.ids.shape[1]
        fed = torch.cat([self.token[:, None], draft.ids], 1)
        inside = torch.cat([torch.ones_like(draft.valid[:, :1]), draft.valid], 1) if n else mask.new_ones(len(mask), 1)
        steps = torch.arange(1, n + 2, device=mask.device)
        seen = torch.cat([mask, inside.to(mask.dtype)], 1)
        macro = model.macro(model.get_input_embeddings()(fed), seen, self.position[:, None] + steps, self.cache)
        count_pass(self.rows)
        logits = logits_of(model.base, macro.last.flatten(0, 1)).view(len(self.rows), n + 1, -1)
        self.clock.to("macro")
        checked = _checked(model, self.rows, logits, draft, self.clock)
        count = checked.count
        batch = torch.arange(len(self.rows), device=mask.device)
        logits = logits[batch, count]
        probability = probability_of(logits, checked.token).where(checked.possible, torch.nan)
        kept = torch.arange(n + 1, device=mask.device) <= count[:, None]
        self.mask = keep_slots(self.cache, seen, kept, self.anywhere, MAX_IDLE)
        position = self.position + count + 1
        self._state = checked.token, probability, logits, macro.context[batch, count], position
        self.clock.to("macro")
        going = self._leave(checked.over, self._row_slots)
        if going:
            self._select(going)

    def _row_slots(self) -> list[int]:
        slots: list[int] = self.mask.sum(1).tolist()
        return slots

    @property
    def _state(self) -> tuple[Tensor, ...]:
        return self.token, self.probability, self.logits, self.context, self.position

    @_state.setter
    def _state(self, state: tuple[Tensor, ...]) -> None:
        self.token, self.probability, self.logits, self.context, self.position = state

    def _select(self, chosen: list[int]) -> None:
        self.rows, self.mask, *state = drop_finished_rows(self.cache, chosen, self.rows, self.mask, *self._state)
        self._state = tuple(state)

    @property
    def rows_may_join(self) -> bool:
        """True if rows of other lengths may be written beside these."""
        return rows_may_join(self.cache) and padding_is_bound(self.model)

    @property
    def slots(self) -> int:
        """Slots of the longest row in the base's cache."""
        return int(self.cache.get_seq_length())


class Draft:
    """The drafted tokens of R rows."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.ids = torch.zeros(rows, 0, dtype=torch.long, device=device)  # [R, n]
        self.valid = torch.zeros(rows, 0, dtype=torch.bool, device=device)  # [R, n]
        self.probability = torch.zeros(rows, 0, device=device)  # [R, n] of each token, before processors
        self.value = torch.zeros(rows, 0, device=device)  # [R, n] that the rule compared with tau
        self.distributions: list[Tensor] = []  # n x [R, V], if tokens are sampled
        self.why: list[Why] = ["cap"] * rows  # why the draft has no more tokens
        self.refused: list[tuple[int, float] | None] = [None] * rows  # the word that the rule rejected
        self.steps = 0  # of the micro decoder

    def add(self, ids: Tensor, going: Tensor, probability: Tensor, value: Tensor, distribution: Tensor | None) -> None:
        """Append one more token [R] to the rows that are still `going` [R]."""
        self.ids = torch.cat([self.ids, torch.where(going, ids, 0)[:, None]], 1)
        self.valid = torch.cat([self.valid, going[:, None]], 1)
        self.probability = torch.cat([self.probability, probability[:, None]], 1)
        self.value = torch.cat([self.value, value[:, None]], 1)
        if distribution is not None:
            self.distributions.append(distribution)

    def stop(self, rows: Tensor, why: Why) -> None:
        """Note why the drafts of some rows, [R] bool, have no more tokens."""
        for i in rows.nonzero()[:, 0].tolist():
            self.why[i] = why


class Drafter:
    """Drafts up to M - 1 tokens per row, as long as its rule allows, and not beyond an end.

    With costs, drafts are also no longer than is quickest for the rows together.
    """

    def __init__(self, model: MicroStepPreTrainedModel, costs: DraftCosts | None = None) -> None:
        self.model, self.costs = model, costs
        self.words = torch.tensor(model.config.draft_vocabulary, device=model.device, dtype=torch.long)
        self.head = draft_head(model)

    def draft(self, rows: list[LiveRow], context: Tensor, token: Tensor) -> Draft:
        """Draft after the tokens [R] that the base's states [R, K, d] stand before."""
        model, out = self.model, Draft(len(rows), token.device)
        embed = model.get_input_embeddings()
        cache = model.micro.new_cache()
        how = [row.segments for row in rows]
        tau, length, alone, early, by_product = (
            torch.tensor(values, device=token.device)
            for values in (
                [each.tau for each in how],
                [each.max_length for each in how],
                [each.alone for each in how],
                [each.rule.early for each in how],
                [each.rule.name == "product" for each in how],
            )
        )
        out.stop(alone & (length > 1), "unsure")
        going = ~alone
        most = max(each.max_length for each in how) - 1
        if self.costs is not None:
            drafting_rows = [row.out for row in rows if not row.segments.alone]
            most = tokens_to_draft(drafting_rows, self.costs, most, len(rows) - len(drafting_rows))
            out.stop(going & (length > most + 1), "cost")
        product = torch.ones(len(rows), device=token.device)
        # leave room for the token that the base adds itself
        room = torch.tensor([row.room - 1 for row in rows], device=token.device)
        beyond: list[list[int]] = [[] for _ in rows]
        before: Tensor | None = context
        predicted = context[:, -1]
        for slot in range(1, most + 1):
            going = going & (length > slot)
            out.stop(going & (room < slot), "limit")
            going = going & (room >= slot)
            if not bool(going.any()):
                break
            state, _ = model.micro(before, embed(token)[:, None], cache)
            out.steps += 1
            before = None
            stop, predicted = model.stop_probability(state[:, 0], predicted), state[:, 0]
            if stop is not None:
                keep = (1 - stop >= tau) | ~early
                out.stop(going & ~keep, "unsure")
                going = going & keep
                if not bool(going.any()):
                    break
            index = going.nonzero()[:, 0]
            drafting = index.tolist()
            proposed = self._next(state[index, 0], [rows[i] for i in drafting], [beyond[i] for i in drafting])
            token = token.index_put((index,), proposed.ids)
            product = product.index_put((index,), product[index] * proposed.sure)
            sure = product.index_put((index,), proposed.sure)
            value = torch.where(early, product if stop is None else 1 - stop, torch.where(by_product, product, sure))
            keep = going.index_put((index,), proposed.possible) & (early | (value >= tau))
            results = zip(
                drafting, keep[index].tolist(), proposed.ids.tolist(), proposed.probability.tolist(),
                proposed.possible.tolist(), strict=True,
            )  # fmt: skip
            for i, kept, id_, p, possible in results:
                if math.isnan(p):
                    rows[i].error = not_finite(model, "the micro decoder has probabilities")
                rows[i].out.micro_steps += 1
                rows[i].out.drafted += kept
                beyond[i].append(id_)
                if not kept and possible:
                    out.refused[i] = (id_, p)
            out.stop(going & ~keep, "unsure")
            going = going & keep
            if not bool(going.any()):
                break
            whole = proposed.distribution
            if whole is not None:
                whole = whole.new_zeros(len(rows), whole.shape[1]).index_copy(0, index, whole)
            probability = product.index_put((index,), proposed.probability)
            out.add(token, going, probability, value, whole)
            if any(row.tokens.ends for row in rows):
                ended = [id_ in row.tokens.ends for id_, row in zip(token.tolist(), rows, strict=True)]
                over = torch.tensor(ended, device=token.device)
                out.stop(going & over, "end")
                going = going & ~over
        return out

    def logits(self, state: Tensor) -> Tensor:
        """Return float32 logits [G, W] of the words that may be drafted, from the micro decoder's states [G, d]."""
        return logits_of(self.head, state)

    def _next(self, state: Tensor, rows: list[LiveRow], beyond: list[list[int]]) -> DraftedWords:
        """Return the next words of G rows, from the micro decoder's states [G, d]."""
        logits = self.logits(state)
        sure = (logits.amax(-1) - logits.logsumexp(-1)).exp()
        if not any_sampled(rows) and not needs_history(rows):
            best = logits.argmax(-1)
            return DraftedWords(self.words[best] if len(self.words) else best, None, sure, sure, sure >= 0)
        if len(self.words):
            full = logits.new_full((len(logits), vocabulary(self.model.base)), float("-inf"))
            logits = full.index_copy(1, self.words, logits)
        scores = processed(logits, rows, beyond)
        possible = scores.amax(-1) > -torch.inf
        if not any_sampled(rows):
            best = scores.argmax(-1)
            return DraftedWords(best, None, sure, probability_of(logits, best), possible)
        distribution = scores.softmax(-1)
        drawn = sample(distribution, rows, scores.argmax(-1))
        return DraftedWords(drawn, distribution, sure, probability_of(logits, drawn), possible)


@dataclass(frozen=True)
class DraftedWords:
    """The next word of a draft, for G rows. Probabilities are taken before processors and temperature."""

    ids: Tensor  # [G]
    distribution: Tensor | None  # [G, V] that the word was drawn from, if any row is sampled
    sure: Tensor  # [G] probability of the likeliest word, which the rule compares with tau
    probability: Tensor  # [G] probability of the word itself
    possible: Tensor  # [G] bool, whether processors leave any word that may be drafted


def draft_head(model: MicroStepPreTrainedModel) -> PreTrainedModel:
    """Return the base with a head for the words that may be drafted."""
    words = torch.tensor(model.config.draft_vocabulary, device=model.device, dtype=torch.long)
    return with_vocabulary(model.base, words) if len(words) else model.base


def with_vocabulary(lm: PreTrainedModel, words: Tensor) -> PreTrainedModel:
    """Return a shallow copy of a model whose head has only some words; it shares all other weights."""
    whole = lm.get_output_embeddings()
    small = nn.Linear(whole.weight.shape[1], len(words), bias=False, device="meta")
    small.weight = nn.Parameter(whole.weight[words].detach(), requires_grad=False)
    if getattr(whole, "bias", None) is not None:
        small.bias = nn.Parameter(whole.bias[words].detach(), requires_grad=False)
    name = next(name for name, module in lm.named_children() if module is whole)
    out = copy.copy(lm)
    out._modules = {**lm._modules, name: small}
    return out


@dataclass
class CheckedDrafts:
    """The base's verdict on the drafts of R rows."""

    count: Tensor  # [R] number of drafted tokens that the base keeps
    token: Tensor  # [R] the base's own token after them; unused if the row is over
    possible: Tensor  # [R] bool, whether any token was possible there
    over: list[bool]  # R entries, True if the row ended within its draft


def _checked(
    model: MicroStepPreTrainedModel, rows: list[LiveRow], logits: Tensor, draft: Draft, clock: Clock
) -> CheckedDrafts:
    """Append the drafted tokens that the base keeps to the rows and close their segments; logits [R, 1 + n, V].

    It proceeds token by token, so that processors and criteria see only tokens that were kept.
    """
    n = draft.ids.shape[1]
    ids, drafted, probabilities = draft.ids.tolist(), draft.valid.sum(1).tolist(), _probability(logits, draft.ids)
    none = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
    over = [row.error is not None for row in rows]
    result = CheckedDrafts(none, none.clone(), none.bool(), over)
    counts, live = [0] * len(rows), list(range(len(rows)))
    for j in range(n + 1):
        if not live:
            break
        at = torch.tensor(live, device=logits.device)
        some = [rows[i] for i in live]
        scores = processed(logits[at, j], some)
        agreed, result.token[at] = _agreed(some, scores, draft, j, at)
        tolerated = _tolerated(some, scores, draft, j, at)
        result.possible[at] = scores.amax(-1) > -torch.inf
        going = []
        for i, agrees, tolerates in zip(live, agreed, tolerated, strict=True):
            row = rows[i]
            if not agrees and not tolerates:
                disagreed = j < drafted[i]
                row.out.close("disagreed", (ids[i][j], probabilities[i][j])) if disagreed else row.out.close(
                    draft.why[i], draft.refused[i]
                )
                continue
            counts[i] += 1
            row.out.accepted += 1
            row.out.relaxed += not agrees
            if (reason := append(model, row, ids[i][j], probabilities[i][j], clock.now(), logits[i, j])) is None:
                going.append(i)
            else:
                row.out.close(reason)
                over[i] = True
        live = going
    result.count = torch.tensor(counts, device=logits.device)
    return result


def _agreed(rows: list[LiveRow], scores: Tensor, draft: Draft, j: int, at: Tensor) -> tuple[list[bool], Tensor]:
    """Whether the base agrees with the drafted tokens of rows `at`, and the base's own tokens there."""
    n = draft.ids.shape[1]
    valid = draft.valid[at, j] if j < n else torch.zeros_like(at, dtype=torch.bool)
    choice = scores.argmax(-1)
    agreed = valid & (choice == draft.ids[at, j]) if j < n else valid
    if not any_sampled(rows):
        return agreed.tolist(), choice
    p = scores.softmax(-1)
    sampled = torch.tensor([row.tokens.sampled for row in rows], device=at.device)
    drawing = valid & sampled
    if not bool(drawing.any()):
        return agreed.tolist(), sample(p, rows, choice)
    q, drawn = draft.distributions[j][at], draft.ids[at, j, None]
    ratio = (p.gather(1, drawn) / q.gather(1, drawn).clamp_min(1e-30))[:, 0]
    agreed = torch.where(sampled, drawing & (uniform(rows, drawing) < ratio), agreed)
    rest = (p - q).clamp_min(0)
    refused = drawing & ~agreed & (rest.sum(-1) > 0)
    return agreed.tolist(), sample(torch.where(refused[:, None], rest, p), rows, choice)


def _tolerated(rows: list[LiveRow], scores: Tensor, draft: Draft, j: int, at: Tensor) -> list[bool]:
    """Whether the base gives the drafted tokens of rows `at` at least eps of its likeliest token's probability."""
    eps = [row.segments.eps for row in rows]
    if j == draft.ids.shape[1] or min(eps) == 1:
        return [False] * len(at)
    least = torch.tensor([math.log(each) if each < 1 else math.inf for each in eps], device=at.device)
    drafted = scores.gather(1, draft.ids[at, j, None])[:, 0]
    kept: list[bool] = (draft.valid[at, j] & (drafted - scores.amax(-1) >= least)).tolist()
    return kept


def _probability(logits: Tensor, ids: Tensor) -> list[list[float]]:
    """Return [R, n], the base's probability of drafted tokens, from logits [R, 1 + n, V]."""
    n = ids.shape[1]
    if not n:
        return [[] for _ in ids]
    before = logits[:, :n]
    probabilities: list[list[float]] = (before.gather(2, ids[..., None])[..., 0] - before.logsumexp(-1)).exp().tolist()
    return probabilities
