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
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.causal_lm.finite import not_finite
from model.causal_lm.forward import logits_of, vocabulary
from model.causal_lm.kv_cache import MAX_IDLE, growing_cache, keep_slots, padded_anywhere
from model.decoding.output import Clock, RowOutput
from model.decoding.sampling import TokenSampler, probability_of
from model.decoding.session import DecodingSession, count_pass, drop_finished_rows, read_prompts
from model.decoding.stopping import Why


def write_lossless(session: DecodingSession, input_ids: Tensor, mask: Tensor, rows: list[RowOutput]) -> int:
    """Decode all rows to their ends and return the number of slots in the base's cache. One pass gives one segment.

    `rule` decides when drafting stops: `stop_head` by the stop head, the others by the likeliest word's probability or
    the product of these.
    """
    model, sampler, clock = session.model, session.sampler, session.clock
    embed = model.get_input_embeddings()
    drafter, anywhere = Drafter(session), padded_anywhere(model.base)
    cache = growing_cache()  # layers that keep everything, sliding ones too, so that refused tokens can be removed
    last, context, mask, position = read_prompts(
        model, input_ids, mask, cache, lambda embeds, mask, position: model.macro(embeds, mask, position, cache)
    )
    count_pass(rows)
    logits = logits_of(model.base, last)
    token, probability = sampler.choose(logits, rows)
    clock.to("prompt")
    live = list(range(len(rows)))
    while True:
        going = []
        chosen = zip(live, token.tolist(), probability.tolist(), strict=True)
        for at, (i, id_, p) in enumerate(chosen):
            rows[i].open()
            if (reason := sampler.add(rows[i], id_, p, clock.now(), logits[at])) is not None:
                rows[i].close(reason)
                session.tell(i, rows[i])
            else:
                going.append(at)
        if not going:
            return int(cache.get_seq_length())
        live, mask, position, token, context = drop_finished_rows(cache, going, live, mask, position, token, context)
        written = [rows[i] for i in live]
        draft = drafter.draft(written, context, token)
        clock.to("micro")
        n = draft.ids.shape[1]
        fed = torch.cat([token[:, None], draft.ids], 1)
        inside = torch.cat([torch.ones_like(draft.valid[:, :1]), draft.valid], 1) if n else mask.new_ones(len(mask), 1)
        steps = torch.arange(1, n + 2, device=mask.device)
        seen = torch.cat([mask, inside.to(mask.dtype)], 1)
        macro = model.macro(embed(fed), seen, position[:, None] + steps, cache)
        count_pass(written)
        logits = logits_of(model.base, macro.last.flatten(0, 1)).view(len(live), n + 1, -1)
        clock.to("macro")
        checked = _check(sampler, written, logits, draft, clock, session.eps)
        token, count = checked.token, checked.count
        batch = torch.arange(len(live), device=mask.device)
        logits, context = logits[batch, count], macro.context[batch, count]
        probability = probability_of(logits, token).where(checked.possible, torch.nan)
        mask = keep_slots(cache, seen, torch.arange(n + 1, device=mask.device) <= count[:, None], anywhere, MAX_IDLE)
        position = position + count + 1
        clock.to("macro")
        for i in live:
            session.tell(i, rows[i])
        kept = [at for at, reason in enumerate(checked.over) if not reason]
        if not kept:
            return int(cache.get_seq_length())
        live, mask, position, token, context, probability, logits = drop_finished_rows(
            cache, kept, live, mask, position, token, context, probability, logits
        )


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
    """Drafts up to M - 1 tokens per row, as long as the rule allows, and not beyond an end."""

    def __init__(self, session: DecodingSession) -> None:
        self.model, self.sampler, self.rule, self.tau = session.model, session.sampler, session.rule, session.tau
        self.max_length, self.alone = session.max_length, session.alone
        self.words = torch.tensor(self.model.config.draft_vocabulary, device=self.model.device, dtype=torch.long)
        self.head = with_vocabulary(self.model.base, self.words) if len(self.words) else self.model.base

    def draft(self, rows: list[RowOutput], context: Tensor, token: Tensor) -> Draft:
        model, out = self.model, Draft(len(rows), token.device)
        embed = model.get_input_embeddings()
        cache = model.micro.new_cache()
        going = torch.ones_like(token, dtype=torch.bool)
        if self.alone and self.max_length > 1:
            out.stop(going, "unsure")
            return out
        product = torch.ones(len(rows), device=token.device)
        # leave room for the token that the base adds itself
        room = torch.tensor([self.sampler.room(row) - 1 for row in rows], device=token.device)
        beyond: list[list[int]] = [[] for _ in rows]
        before: Tensor | None = context
        for slot in range(1, self.max_length):
            out.stop(going & (room < slot), "limit")
            going = going & (room >= slot)
            if not bool(going.any()):
                break
            state, _ = model.micro(before, embed(token)[:, None], cache)
            before = None
            stop = None if model.stop is None else model.stop(state[:, 0])[:, 0].float().sigmoid()
            if self.rule.early and stop is not None:
                keep = 1 - stop >= self.tau
                out.stop(going & ~keep, "unsure")
                going = going & keep
                if not bool(going.any()):
                    break
            index = going.nonzero()[:, 0]
            drafting = index.tolist()
            proposed = self._next(state[index, 0], [rows[i] for i in drafting], [beyond[i] for i in drafting])
            token = token.index_put((index,), proposed.ids)
            product = product.index_put((index,), product[index] * proposed.sure)
            keep = going.index_put((index,), proposed.possible)
            value = product.index_put((index,), product[index] if self.rule.name == "product" else proposed.sure)
            if self.rule.early:
                value = product if stop is None else 1 - stop
            else:
                keep[index] &= value[index] >= self.tau
            results = zip(
                drafting, keep[index].tolist(), proposed.ids.tolist(), proposed.probability.tolist(),
                proposed.possible.tolist(), strict=True,
            )  # fmt: skip
            for i, kept, id_, p, possible in results:
                if math.isnan(p):
                    raise not_finite(model, "the micro decoder has probabilities")
                rows[i].micro_steps += 1
                rows[i].drafted += kept
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
            if self.sampler.ends:
                over = torch.tensor([id_ in self.sampler.ends for id_ in token.tolist()], device=token.device)
                out.stop(going & over, "end")
                going = going & ~over
        return out

    def _next(self, state: Tensor, rows: list[RowOutput], beyond: list[list[int]]) -> DraftedWords:
        """Return the next words of G rows, from the micro decoder's states [G, d]."""
        logits = logits_of(self.head, state)
        sure = (logits.amax(-1) - logits.logsumexp(-1)).exp()
        if not self.sampler.sampled and not self.sampler.needs_history(rows):
            best = logits.argmax(-1)
            return DraftedWords(self.words[best] if len(self.words) else best, None, sure, sure, sure >= 0)
        if len(self.words):
            full = logits.new_full((len(logits), vocabulary(self.model.base)), float("-inf"))
            logits = full.index_copy(1, self.words, logits)
        scores = self.sampler.processed(logits, rows, beyond)
        possible = scores.amax(-1) > -torch.inf
        if not self.sampler.sampled:
            best = scores.argmax(-1)
            return DraftedWords(best, None, sure, probability_of(logits, best), possible)
        distribution = scores.softmax(-1)
        drawn = self.sampler.sample(distribution)
        return DraftedWords(drawn, distribution, sure, probability_of(logits, drawn), possible)


@dataclass(frozen=True)
class DraftedWords:
    """The next word of a draft, for G rows. Probabilities are taken before processors and temperature."""

    ids: Tensor  # [G]
    distribution: Tensor | None  # [G, V] that the word was drawn from, if sampled
    sure: Tensor  # [G] probability of the likeliest word, which the rule compares with tau
    probability: Tensor  # [G] probability of the word itself
    possible: Tensor  # [G] bool, whether processors leave any word that may be drafted


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


def _check(
    sampler: TokenSampler, rows: list[RowOutput], logits: Tensor, draft: Draft, clock: Clock, eps: float
) -> CheckedDrafts:
    """Append the drafted tokens that the base keeps to the rows and close their segments; logits [R, 1 + n, V].

    It proceeds token by token, so that processors and criteria see only tokens that were kept.
    """
    n = draft.ids.shape[1]
    ids, drafted, probabilities = draft.ids.tolist(), draft.valid.sum(1).tolist(), _probability(logits, draft.ids)
    none = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
    result = CheckedDrafts(none, none.clone(), none.bool(), [False] * len(rows))
    counts, live = [0] * len(rows), list(range(len(rows)))
    for j in range(n + 1):
        if not live:
            break
        at = torch.tensor(live, device=logits.device)
        some = [rows[i] for i in live]
        scores = sampler.processed(logits[at, j], some)
        agreed, result.token[at] = _agreed(sampler, scores, draft, j, at)
        tolerated = _tolerated(scores, draft, j, at, eps) if eps < 1 else agreed
        result.possible[at] = scores.amax(-1) > -torch.inf
        going = []
        for i, agrees, tolerates in zip(live, agreed, tolerated, strict=True):
            row = rows[i]
            if not agrees and not tolerates:
                disagreed = j < drafted[i]
                row.close("disagreed", (ids[i][j], probabilities[i][j])) if disagreed else row.close(
                    draft.why[i], draft.refused[i]
                )
                continue
            counts[i] += 1
            row.accepted += 1
            row.relaxed += not agrees
            if (reason := sampler.add(row, ids[i][j], probabilities[i][j], clock.now(), logits[i, j])) is None:
                going.append(i)
            else:
                row.close(reason)
                result.over[i] = True
        live = going
    result.count = torch.tensor(counts, device=logits.device)
    return result


def _agreed(sampler: TokenSampler, scores: Tensor, draft: Draft, j: int, at: Tensor) -> tuple[list[bool], Tensor]:
    n = draft.ids.shape[1]
    valid = draft.valid[at, j] if j < n else torch.zeros_like(at, dtype=torch.bool)
    if not sampler.sampled:
        choice = scores.argmax(-1)
        agreed = valid & (choice == draft.ids[at, j]) if j < n else valid
        return agreed.tolist(), choice
    p = scores.softmax(-1)
    if not bool(valid.any()):
        return valid.tolist(), sampler.sample(p)
    q, drawn = draft.distributions[j][at], draft.ids[at, j, None]
    ratio = (p.gather(1, drawn) / q.gather(1, drawn).clamp_min(1e-30))[:, 0]
    agreed = valid & (sampler.uniform(len(at), device=at.device) < ratio)
    rest = (p - q).clamp_min(0)
    refused = valid & ~agreed & (rest.sum(-1) > 0)
    return agreed.tolist(), sampler.sample(torch.where(refused[:, None], rest, p))


def _tolerated(scores: Tensor, draft: Draft, j: int, at: Tensor, eps: float) -> list[bool]:
    """Whether the base gives the drafted tokens of rows `at` at least eps of its likeliest token's probability."""
    if j == draft.ids.shape[1]:
        return [False] * len(at)
    drafted = scores.gather(1, draft.ids[at, j, None])[:, 0]
    kept: list[bool] = (draft.valid[at, j] & (drafted - scores.amax(-1) >= math.log(eps))).tolist()
    return kept


def _probability(logits: Tensor, ids: Tensor) -> list[list[float]]:
    """Return [R, n], the base's probability of drafted tokens, from logits [R, 1 + n, V]."""
    n = ids.shape[1]
    if not n:
        return [[] for _ in ids]
    before = logits[:, :n]
    probabilities: list[list[float]] = (before.gather(2, ids[..., None])[..., 0] - before.logsumexp(-1)).exp().tolist()
    return probabilities
