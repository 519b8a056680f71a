"""Lossless decoding: the micro decoder drafts from the unmerged base's states, the base checks the draft in one pass.

Greedy output is the base's, token for token; sampled output has the base's distribution (speculative acceptance,
arXiv 2302.01318 and 2211.17192). A draft goes on while the likeliest word's probability is at least tau: never by the
drawn token's own, which would bend the distribution. With a draft vocabulary (arXiv 2502.14856) only these words are
drafted.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from model.choosing import Chooser, probability_of
from model.course import Course, leave, read_prompts
from model.finite import not_finite
from model.forward import logits_of, vocabulary
from model.growing_cache import IDLE, growing_cache, keep_slots, padded_anywhere
from model.written import Clock, Written


def write_lossless(course: Course, input_ids: Tensor, mask: Tensor, rows: list[Written]) -> int:
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
    logits = logits_of(model.base, last)
    token, probability = chooser.choose(logits, rows)
    clock.to("prompt")
    live = list(range(len(rows)))
    while True:
        going = []
        told = zip(live, token.tolist(), probability.tolist(), strict=True)
        for at, (i, id_, p) in enumerate(told):
            rows[i].open()
            if chooser.add(rows[i], id_, p, clock.now(), logits[at]):
                rows[i].finish()
                course.tell(i, rows[i])
            else:
                going.append(at)
        if not going:
            return int(cache.get_seq_length())
        live, mask, position, token, context = leave(cache, going, live, mask, position, token, context)
        written = [rows[i] for i in live]
        draft = drafter.draft(written, context, token)
        clock.to("micro")
        n = draft.ids.shape[1]
        fed = torch.cat([token[:, None], draft.ids], 1)
        inside = torch.cat([torch.ones_like(draft.there[:, :1]), draft.there], 1) if n else mask.new_ones(len(mask), 1)
        steps = torch.arange(1, n + 2, device=mask.device)
        seen = torch.cat([mask, inside.to(mask.dtype)], 1)
        macro = model.macro(embed(fed), seen, position[:, None] + steps, cache)
        logits = logits_of(model.base, macro.last.flatten(0, 1)).view(len(live), n + 1, -1)
        count, token, possible = _accepted(chooser, written, logits, draft)
        batch = torch.arange(len(live), device=mask.device)
        every, logits, context = logits, logits[batch, count], macro.context[batch, count]
        probability = probability_of(logits, token).where(possible, torch.nan)
        mask = keep_slots(cache, seen, torch.arange(n + 1, device=mask.device) <= count[:, None], anywhere, IDLE)
        position = position + count + 1
        clock.to("macro")
        accepted_p = _chosen_probability(every, draft.ids)
        over = _take(chooser, written, draft, count.tolist(), accepted_p, every, clock)
        for i in live:
            course.tell(i, rows[i])
        kept = [at for at, done in enumerate(over) if not done]
        if not kept:
            return int(cache.get_seq_length())
        live, mask, position, token, context, probability, logits = leave(
            cache, kept, live, mask, position, token, context, probability, logits
        )


class Draft:
    """What was drafted for R rows."""

    def __init__(self, rows: int, device: torch.device) -> None:
        self.ids = torch.zeros(rows, 0, dtype=torch.long, device=device)  # [R, n]
        self.there = torch.zeros(rows, 0, dtype=torch.bool, device=device)  # [R, n]
        self.distributions: list[Tensor] = []  # n x [R, V], where they are sampled
        self.refused: list[tuple[int, float] | None] = [None] * rows  # the word that was not confident enough

    def add(self, ids: Tensor, going: Tensor, distribution: Tensor | None) -> None:
        """Put one more token [R] where `going` [R]."""
        self.ids = torch.cat([self.ids, torch.where(going, ids, 0)[:, None]], 1)
        self.there = torch.cat([self.there, going[:, None]], 1)
        if distribution is not None:
            self.distributions.append(distribution)


class _Drafter:
    """Drafts up to M - 1 tokens, each row as long as the rule lets it."""

    def __init__(self, course: Course) -> None:
        self.model, self.chooser, self.rule, self.tau = course.model, course.chooser, course.rule, course.tau
        self.most = course.most if course.tau <= 1 else 1
        self.words = torch.tensor(self.model.config.draft_vocabulary, device=self.model.device, dtype=torch.long)
        self.head = with_vocabulary(self.model.base, self.words) if len(self.words) else self.model.base

    def draft(self, rows: list[Written], context: Tensor, token: Tensor) -> Draft:
        """Draft after the tokens [R] that the base has just chosen, from its context states [R, K, d]."""
        model, out = self.model, Draft(len(rows), token.device)
        embed = model.get_input_embeddings()
        cache = model.micro.new_cache()
        going = torch.ones_like(token, dtype=torch.bool)
        product = torch.ones(len(rows), device=token.device)
        # as many as there is room for: the base adds a token of its own
        room = torch.tensor([self.chooser.most - len(row.ids) - 1 for row in rows], device=token.device)
        beyond: list[list[int]] = [[] for _ in rows]
        before: Tensor | None = context
        for slot in range(1, self.most):
            going = going & (room >= slot)
            if not bool(going.any()):
                break
            state, _ = model.micro(before, embed(token)[:, None], cache)
            before = None
            stop = None if model.stop is None else model.stop(state[:, 0])[:, 0].float().sigmoid()
            if self.rule.early:
                going = going & (1 - stop >= self.tau) if stop is not None else going
                if not bool(going.any()):
                    break
            token, distribution, sure = self._next(state[:, 0], rows, beyond)
            product = product * sure
            if not self.rule.early:
                keep = (product if self.rule.name == "product" else sure) >= self.tau
                self._refuse(out, rows, going, keep, token, sure)
                going = going & keep
            else:
                self._refuse(out, rows, going, going, token, sure)
            if not bool(going.any()):
                break
            out.add(token, going, distribution)
            for extra, id_ in zip(beyond, token.tolist(), strict=True):
                extra.append(id_)
        return out

    def _next(
        self, state: Tensor, rows: list[Written], beyond: list[list[int]]
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """[R] tokens, their distributions [R, V] where they are drawn, and [R] the likeliest word's probability."""
        logits = logits_of(self.head, state)
        sure = (logits.amax(-1) - logits.logsumexp(-1)).exp()
        if not self.chooser.sampled and not self.chooser.looks_back(rows):
            best = logits.argmax(-1)
            return (self.words[best] if len(self.words) else best), None, sure
        if len(self.words):
            full = logits.new_full((len(logits), vocabulary(self.model.base)), float("-inf"))
            logits = full.index_copy(1, self.words, logits)
        scores = self.chooser.processed(logits, rows, beyond)
        if not self.chooser.sampled:
            return scores.argmax(-1), None, sure
        distribution = scores.softmax(-1)
        return self.chooser.sample(distribution), distribution, sure

    def _refuse(
        self, out: Draft, rows: list[Written], going: Tensor, keep: Tensor, token: Tensor, sure: Tensor
    ) -> None:
        told = zip(rows, going.tolist(), keep.tolist(), token.tolist(), sure.tolist(), strict=True)
        for i, (row, was, is_kept, id_, p) in enumerate(told):
            if was and math.isnan(p):
                raise not_finite(self.model, "the micro decoder has probabilities")
            row.micro_steps += was
            row.drafted += was and is_kept
            if was and not is_kept:
                out.refused[i] = (id_, p)


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


def _accepted(chooser: Chooser, rows: list[Written], logits: Tensor, draft: Draft) -> tuple[Tensor, Tensor, Tensor]:
    """[R] how many drafted tokens the base keeps, [R] its own token after them, and whether any was possible there.

    Args:
        chooser: chooses.
        rows: R rows.
        logits: [R, 1 + n, V] of the base, before and after each drafted token.
        draft: n tokens of each row.
    """
    n = draft.ids.shape[1]
    batch = torch.arange(len(rows), device=logits.device)
    if chooser.looks_back(rows):
        drafts = draft.ids.tolist()
        scores = torch.stack(
            [chooser.processed(logits[:, j], rows, [ids[:j] for ids in drafts]) for j in range(n + 1)], 1
        )
    else:
        scores = logits
    if not chooser.sampled:
        choice = scores.argmax(-1)
        agreed = (choice[:, :n] == draft.ids) & draft.there
        count = agreed.long().cumprod(1).sum(1)
        return count, choice[batch, count], scores[batch, count].amax(-1) > -torch.inf
    p, possible = scores.softmax(-1), scores.amax(-1) > -torch.inf
    if not n:
        return torch.zeros_like(batch), chooser.sample(p[:, 0]), possible[:, 0]
    q = torch.stack(draft.distributions, 1)  # [R, n, V]
    drawn = draft.ids[..., None]
    ratio = (p[:, :n].gather(2, drawn) / q.gather(2, drawn).clamp_min(1e-30))[..., 0]
    agreed = (chooser.uniform(len(rows), n, device=logits.device) < ratio) & draft.there
    count = agreed.long().cumprod(1).sum(1)
    refused = count < draft.there.sum(1)
    at = p[batch, count]
    rest = (at - q[batch, count.clamp(max=n - 1)]).clamp_min(0)
    token = chooser.sample(torch.where((refused & (rest.sum(-1) > 0))[:, None], rest, at))
    return count, token, possible[batch, count]


def _chosen_probability(logits: Tensor, ids: Tensor) -> list[list[float]]:
    """[R, n] the base's probability of drafted tokens, from logits [R, 1 + n, V]."""
    n = ids.shape[1]
    if not n:
        return [[] for _ in ids]
    at = logits[:, :n]
    found: list[list[float]] = (at.gather(2, ids[..., None])[..., 0] - at.logsumexp(-1)).exp().tolist()
    return found


def _take(
    chooser: Chooser,
    rows: list[Written],
    draft: Draft,
    counts: list[int],
    probability: list[list[float]],
    logits: Tensor,
    clock: Clock,
) -> list[bool]:
    """Put what was accepted at the rows' ends and close their segments; whether each row is over."""
    over, ids, drafted = [], draft.ids.tolist(), draft.there.sum(1).tolist()
    for i, (row, count) in enumerate(zip(rows, counts, strict=True)):
        done = False
        for j in range(count):
            row.accepted += 1
            if done := chooser.add(row, ids[i][j], probability[i][j], clock.now(), logits[i, j]):
                break
        if done:
            row.finish()
        elif count < drafted[i]:
            row.close("disagreed", (ids[i][count], probability[i][count]))
        else:
            row.close("cap" if draft.refused[i] is None else "unsure", draft.refused[i])
        over.append(done)
    return over
