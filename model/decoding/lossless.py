"""Lossless decoding: the micro decoder drafts from the unmerged base's states, the base checks the draft in one pass.

Greedy output is the base's, token for token; sampled output has the base's distribution (speculative acceptance,
arXiv 2302.01318 and 2211.17192). A draft goes on while the likeliest word's probability is at least tau: never by the
drawn token's own, which would bend the distribution. With a draft vocabulary (arXiv 2502.14856) only these words are
drafted.
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
from model.causal_lm.kv_cache import IDLE, growing_cache, keep_slots, padded_anywhere
from model.decoding.output import Clock, RowOutput
from model.decoding.sampling import TokenSampler, probability_of
from model.decoding.session import DecodingSession, count_pass, drop_finished_rows, read_prompts
from model.decoding.stopping import Why


def write_lossless(course: DecodingSession, input_ids: Tensor, mask: Tensor, rows: list[RowOutput]) -> int:
    """Write all rows to their ends; returns the slots of the base's cache. A segment is what one pass gave.

    `rule` says when to stop drafting: `stop_head` by the stop head, the others by the likeliest word's probability or
    the product of these.
    """
    model, chooser, clock = course.model, course.chooser, course.clock
    embed = model.get_input_embeddings()
    drafter, anywhere = _Drafter(course), padded_anywhere(model.base)
    cache = growing_cache()  # layers that keep everything, sliding ones too: what was refused is taken out again
    last, context, mask, position = read_prompts(
        model, input_ids, mask, cache, lambda e, mask, position: model.macro(e, mask, position, cache)
    )
    count_pass(rows)
    logits = logits_of(model.base, last)
    token, probability = chooser.choose(logits, rows)
    clock.to("prompt")
    live = list(range(len(rows)))
    while True:
        going = []
        told = zip(live, token.tolist(), probability.tolist(), strict=True)
        for at, (i, id_, p) in enumerate(told):
            rows[i].open()
            if (over := chooser.add(rows[i], id_, p, clock.now(), logits[at])) is not None:
                rows[i].close(over)
                course.tell(i, rows[i])
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
        inside = torch.cat([torch.ones_like(draft.there[:, :1]), draft.there], 1) if n else mask.new_ones(len(mask), 1)
        steps = torch.arange(1, n + 2, device=mask.device)
        seen = torch.cat([mask, inside.to(mask.dtype)], 1)
        macro = model.macro(embed(fed), seen, position[:, None] + steps, cache)
        count_pass(written)
        logits = logits_of(model.base, macro.last.flatten(0, 1)).view(len(live), n + 1, -1)
        clock.to("macro")
        checked = _check(chooser, written, logits, draft, clock)
        token, count = checked.token, checked.count
        batch = torch.arange(len(live), device=mask.device)
        logits, context = logits[batch, count], macro.context[batch, count]
        probability = probability_of(logits, token).where(checked.possible, torch.nan)
        mask = keep_slots(cache, seen, torch.arange(n + 1, device=mask.device) <= count[:, None], anywhere, IDLE)
        position = position + count + 1
        clock.to("macro")
        for i in live:
            course.tell(i, rows[i])
        kept = [at for at, over in enumerate(checked.over) if not over]
        if not kept:
            return int(cache.get_seq_length())
        live, mask, position, token, context, probability, logits = drop_finished_rows(
            cache, kept, live, mask, position, token, context, probability, logits
        )


class Draft:
    """What was drafted for R rows."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.ids = torch.zeros(rows, 0, dtype=torch.long, device=device)  # [R, n]
        self.there = torch.zeros(rows, 0, dtype=torch.bool, device=device)  # [R, n]
        self.distributions: list[Tensor] = []  # n x [R, V], where they are sampled
        self.why: list[Why] = ["cap"] * rows  # the draft has no more tokens
        self.refused: list[tuple[int, float] | None] = [None] * rows  # the word that the rule did not keep

    def add(self, ids: Tensor, going: Tensor, distribution: Tensor | None) -> None:
        """Put one more token [R] where `going` [R]."""
        self.ids = torch.cat([self.ids, torch.where(going, ids, 0)[:, None]], 1)
        self.there = torch.cat([self.there, going[:, None]], 1)
        if distribution is not None:
            self.distributions.append(distribution)

    def stop(self, rows: Tensor, why: Why) -> None:
        """Note why the drafts of rows, [R] bool, have no more tokens."""
        for i in rows.nonzero()[:, 0].tolist():
            self.why[i] = why


class _Drafter:
    """Drafts up to M - 1 tokens, each row as long as the rule lets it, and not beyond an end."""

    def __init__(self, course: DecodingSession) -> None:
        self.model, self.chooser, self.rule, self.tau = course.model, course.chooser, course.rule, course.tau
        self.most, self.alone = course.most, course.alone
        self.words = torch.tensor(self.model.config.draft_vocabulary, device=self.model.device, dtype=torch.long)
        self.head = with_vocabulary(self.model.base, self.words) if len(self.words) else self.model.base

    def draft(self, rows: list[RowOutput], context: Tensor, token: Tensor) -> Draft:
        """Draft after the tokens [R] that the base has just chosen, from its context states [R, K, d]."""
        model, out = self.model, Draft(len(rows), token.device)
        embed = model.get_input_embeddings()
        cache = model.micro.new_cache()
        going = torch.ones_like(token, dtype=torch.bool)
        if self.alone and self.most > 1:
            out.stop(going, "unsure")
            return out
        product = torch.ones(len(rows), device=token.device)
        # as many as there is room for: the base adds a token of its own
        room = torch.tensor([self.chooser.room(row) - 1 for row in rows], device=token.device)
        beyond: list[list[int]] = [[] for _ in rows]
        before: Tensor | None = context
        for slot in range(1, self.most):
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
            at = going.nonzero()[:, 0]
            asked = at.tolist()
            offered = self._next(state[at, 0], [rows[i] for i in asked], [beyond[i] for i in asked])
            token = token.index_put((at,), offered.ids)
            product = product.index_put((at,), product[at] * offered.sure)
            keep = going.index_put((at,), offered.possible)
            if not self.rule.early:
                keep[at] &= (product[at] if self.rule.name == "product" else offered.sure) >= self.tau
            told = zip(
                asked, keep[at].tolist(), offered.ids.tolist(), offered.probability.tolist(),
                offered.possible.tolist(), strict=True,
            )  # fmt: skip
            for i, kept, id_, p, possible in told:
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
            whole = offered.distribution
            if whole is not None:
                whole = whole.new_zeros(len(rows), whole.shape[1]).index_copy(0, at, whole)
            out.add(token, going, whole)
            if self.chooser.ends:
                over = torch.tensor([id_ in self.chooser.ends for id_ in token.tolist()], device=token.device)
                out.stop(going & over, "end")
                going = going & ~over
        return out

    def _next(self, state: Tensor, rows: list[RowOutput], beyond: list[list[int]]) -> Offered:
        """The next words of G rows, after the micro decoder's states [G, d]."""
        logits = logits_of(self.head, state)
        sure = (logits.amax(-1) - logits.logsumexp(-1)).exp()
        if not self.chooser.sampled and not self.chooser.looks_back(rows):
            best = logits.argmax(-1)
            return Offered(self.words[best] if len(self.words) else best, None, sure, sure, sure >= 0)
        if len(self.words):
            full = logits.new_full((len(logits), vocabulary(self.model.base)), float("-inf"))
            logits = full.index_copy(1, self.words, logits)
        scores = self.chooser.processed(logits, rows, beyond)
        possible = scores.amax(-1) > -torch.inf
        if not self.chooser.sampled:
            best = scores.argmax(-1)
            return Offered(best, None, sure, probability_of(logits, best), possible)
        distribution = scores.softmax(-1)
        drawn = self.chooser.sample(distribution)
        return Offered(drawn, distribution, sure, probability_of(logits, drawn), possible)


@dataclass(frozen=True)
class Offered:
    """The next word of a draft, for G rows. Probabilities are before processors and temperature."""

    ids: Tensor  # [G]
    distribution: Tensor | None  # [G, V] that it was drawn from
    sure: Tensor  # [G] probability of the likeliest word, which the rule looks at
    probability: Tensor  # [G] of the word itself
    possible: Tensor  # [G] whether processors leave any word that may be drafted


def with_vocabulary(lm: PreTrainedModel, words: Tensor) -> PreTrainedModel:
    """A shallow copy of a model whose head knows only some words; it shares all other weights."""
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
class Checked:
    """What the base made of the drafts of R rows."""

    count: Tensor  # [R] drafted tokens that it keeps
    token: Tensor  # [R] its own token after them; nothing where the row is over
    possible: Tensor  # [R] whether any was possible there
    over: list[bool]  # R, the row ended within its draft


def _check(chooser: TokenSampler, rows: list[RowOutput], logits: Tensor, draft: Draft, clock: Clock) -> Checked:
    """Put what the base keeps of the drafts at the rows' ends, and close their segments; logits [R, 1 + n, V].

    Place by place, so that processors and criteria see only what was written.
    """
    n = draft.ids.shape[1]
    ids, drafted, told = draft.ids.tolist(), draft.there.sum(1).tolist(), _probability(logits, draft.ids)
    none = torch.zeros(len(rows), dtype=torch.long, device=logits.device)
    found = Checked(none, none.clone(), none.bool(), [False] * len(rows))
    counts, live = [0] * len(rows), list(range(len(rows)))
    for j in range(n + 1):
        if not live:
            break
        at = torch.tensor(live, device=logits.device)
        some = [rows[i] for i in live]
        scores = chooser.processed(logits[at, j], some)
        agreed, found.token[at] = _agreed(chooser, scores, draft, j, at)
        found.possible[at] = scores.amax(-1) > -torch.inf
        going = []
        for i, yes in zip(live, agreed, strict=True):
            row = rows[i]
            if not yes:
                disagreed = j < drafted[i]
                row.close("disagreed", (ids[i][j], told[i][j])) if disagreed else row.close(
                    draft.why[i], draft.refused[i]
                )
                continue
            counts[i] += 1
            row.accepted += 1
            if (over := chooser.add(row, ids[i][j], told[i][j], clock.now(), logits[i, j])) is None:
                going.append(i)
            else:
                row.close(over)
                found.over[i] = True
        live = going
    found.count = torch.tensor(counts, device=logits.device)
    return found


def _agreed(chooser: TokenSampler, scores: Tensor, draft: Draft, j: int, at: Tensor) -> tuple[list[bool], Tensor]:
    """Of rows `at` [L] whether the base, by its scores [L, V], keeps the draft's token at place j, and [L] its own."""
    n = draft.ids.shape[1]
    there = draft.there[at, j] if j < n else torch.zeros_like(at, dtype=torch.bool)
    if not chooser.sampled:
        choice = scores.argmax(-1)
        agreed = there & (choice == draft.ids[at, j]) if j < n else there
        return agreed.tolist(), choice
    p = scores.softmax(-1)
    if not bool(there.any()):
        return there.tolist(), chooser.sample(p)
    q, drawn = draft.distributions[j][at], draft.ids[at, j, None]
    ratio = (p.gather(1, drawn) / q.gather(1, drawn).clamp_min(1e-30))[:, 0]
    agreed = there & (chooser.uniform(len(at), device=at.device) < ratio)
    rest = (p - q).clamp_min(0)
    refused = there & ~agreed & (rest.sum(-1) > 0)
    return agreed.tolist(), chooser.sample(torch.where(refused[:, None], rest, p))


def _probability(logits: Tensor, ids: Tensor) -> list[list[float]]:
    """[R, n] the base's probability of drafted tokens, from logits [R, 1 + n, V]."""
    n = ids.shape[1]
    if not n:
        return [[] for _ in ids]
    at = logits[:, :n]
    found: list[list[float]] = (at.gather(2, ids[..., None])[..., 0] - at.logsumexp(-1)).exp().tolist()
    return found
