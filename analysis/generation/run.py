"""Runs one generation: a micro_step model writes, then its base alone, and a callback can watch.

Time spent in the callback is not counted, and each model is warmed up before it is timed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from analysis.generation.result import Answer, Decoding, GeneratedSegments, Generation
from analysis.uncertainty.scoring import TOP_K, cost_of
from model.causal_lm.finite import FiniteLogits
from model.causal_lm.forward import context_length, token_model
from model.causal_lm.partial_adapter import adapter_acting
from model.decoding.draft_record import EveryDraft
from model.decoding.every_draft import draft_after_each_token
from model.decoding.generation_config import ends_of, explicit_settings
from model.decoding.output import RowOutput
from model.errors import TooLarge
from model.hub.memory import require_memory
from model.hub.wrap_base import Wrapped
from model.progress import Progress
from model.scoring.token_scores import score
from model.text.encoding import EncodedText, encode_reply, token_strings

Watch = Callable[["GenerationRun"], None]  # called after each segment, and each token of the base; may raise to stop
WARM_UP = 8  # the warm-up answers this many tokens of the prompt's end with as many tokens


class GenerationRun:
    """A generation in progress: what is written so far, and how long it took without the callback."""

    def __init__(
        self,
        ready: Wrapped,
        prompt: EncodedText,
        how: Decoding,
        notes: tuple[str, ...] = (),
        progress: Progress | None = None,
        watch: Watch | None = None,
    ) -> None:
        self.ready, self.prompt, self.how, self.notes = ready, prompt, how, notes
        self.fed = torch.tensor([_fed(prompt)], device=ready.model.device, dtype=torch.long)
        self.verified = ready.facts.decoding == "lossless" if how.lossless is None else how.lossless
        self.written: RowOutput | None = None
        self.base: list[int] = []
        self._base_seconds: list[float] = []
        self._pauses: list[tuple[int, float]] = []  # tokens written so far, and seconds spent in the callback
        self._slots = 0
        self._micro_total = self._base_total = self._shift = 0.0
        self._progress, self._watch = progress, watch
        self._check_room()

    def write(self) -> None:
        """Let the micro_step model answer."""
        model, how = self.ready.model, self.how
        options: dict[str, Any] = {
            "rule": how.rule,
            "confidence": how.tau,
            "max_segment_length": how.max_segment_length,
            "verify": self.verified,
            "eps": how.eps,
            "seed": how.sampling.seed if how.sampled else None,
            **_settings(how),
        }
        model.generate_segments(self.fed[:, -WARM_UP:], **{**options, "max_new_tokens": WARM_UP})
        began = time.perf_counter()

        def told(_: int, row: RowOutput) -> None:
            self.written = row
            self._micro_total = time.perf_counter() - began - self._paused
            with self._pause(len(row.ids)):
                self._tell(0.5 * len(row.ids) / how.max_new_tokens)

        found = model.generate_segments(self.fed, topk=TOP_K, on_segment=told, **options)
        whole = time.perf_counter() - began
        self.written, self._slots = found.rows[0], found.cache_slots
        self._micro_total = whole - self._paused
        self._shift = whole - found.total_seconds  # its own clock starts once the settings are ready
        self._tell(0.5)

    def write_base(self) -> None:
        """Let the base alone answer, with transformers' own `generate`."""
        model, how = token_model(self.ready.model), self.how
        settings = _settings(how) | ends_of(self.ready.model)
        mask = torch.ones_like(self.fed)
        short = self.fed[:, -WARM_UP:]
        with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
            model.generate(short, attention_mask=mask[:, -WARM_UP:], **{**settings, "max_new_tokens": WARM_UP})
            torch.manual_seed(how.sampling.seed)
            began, away = time.perf_counter(), self._paused

            def told(token: int) -> None:
                self.base.append(token)
                self._base_total = time.perf_counter() - began - (self._paused - away)
                self._base_seconds.append(self._base_total)
                with self._pause(-1):
                    self._tell(0.5 + 0.45 * len(self.base) / how.max_new_tokens)

            finite = FiniteLogits(model)
            model.generate(
                self.fed,
                attention_mask=mask,
                streamer=_Streamer(told),
                logits_processor=LogitsProcessorList([finite]),
                **settings,
            )
            finite.check()
            self._base_total = time.perf_counter() - began - (self._paused - away)

    def done(self, base: Answer | None = None) -> Generation:
        """The whole result, once both have written; `base` is its answer if it was known before."""
        found = self.so_far()
        micro = self._read(found.micro)
        if base is None:
            assert found.base is not None
            base = self._read(found.base)
        return self._told(replace(found, micro=micro, base=base, drafts=self._drafts(), finished=True))

    def _drafts(self) -> EveryDraft | None:
        """What would be drafted after each token, from which the run is replayed at other values of tau."""
        if not self.verified or self.how.eps < 1 or self.how.sampled or self.written is None:
            return None
        return draft_after_each_token(
            self.ready.model,
            _fed(self.prompt),
            self.written.ids,
            rule=self.how.rule,
            max_segment_length=self.how.max_segment_length,
            **_settings(self.how),
        )

    def so_far(self) -> Generation:
        """The result so far, while the run goes on, without the texts of other tokens."""
        row = self.written or RowOutput([])
        seconds = np.array(row.seconds, dtype=np.float64) - self._watched(len(row.ids)) + self._shift
        ids, probability = _topk(row)
        micro = self._answer(row.ids, row.probability, ids, probability, seconds, self._micro_total)
        base = None
        if self.base:
            none = np.full(len(self.base), np.nan)
            nothing = np.zeros((len(self.base), 0))
            base = self._answer(self.base, none, nothing, nothing, self._base_seconds, self._base_total)
        whys = [*row.why, *[None] * (len(row.starts) - len(row.why))]
        refused = [*row.refused, *[None] * (len(row.starts) - len(row.refused))]
        segments = GeneratedSegments(
            starts=np.array(row.starts, dtype=np.int32),
            why=tuple(whys),
            refused_ids=np.array([-1 if each is None else each[0] for each in refused], dtype=np.int64),
            refused_probability=np.array([np.nan if each is None else each[1] for each in refused], dtype=np.float32),
            tokens=len(row.ids),
        )
        return Generation(
            facts=replace(self.ready.loaded.facts, micro_step=self.ready.facts),
            how=self.how,
            verified=self.verified,
            prompt=self.prompt,
            micro=micro,
            segments=segments,
            base=base,
            macro_steps=row.macro_steps,
            micro_steps=row.micro_steps,
            drafted=row.drafted,
            accepted=row.accepted,
            relaxed=row.relaxed,
            cache_slots=self._slots,
            strings={},
            notes=self.notes,
            finished=False,
        )

    def stopped(self) -> Generation:
        """The result up to the point where the run was stopped."""
        return self._told(self.so_far())

    def _told(self, found: Generation) -> Generation:
        """Add the texts of token ids."""
        answers = [answer.topk_ids.ravel() for answer in (found.micro, found.base) if answer is not None]
        drafted = [] if found.drafts is None else [found.drafts.ids.ravel()]
        ids = np.unique(np.concatenate([*answers, *drafted, found.segments.refused_ids]))
        ids = ids[ids >= 0].astype(np.int64)
        strings = token_strings(self.ready.loaded.tokenizer, ids)
        return replace(found, strings=dict(zip(ids.tolist(), strings, strict=True)))

    def _answer(
        self,
        ids: list[int],
        probability: Any,
        topk_ids: NDArray[Any],
        topk_probability: NDArray[Any],
        seconds: Any,
        total: float,
    ) -> Answer:
        count, offset = len(ids), len(self.prompt.text)
        placed = encode_reply(self.prompt, np.array(ids, dtype=np.int64), self.ready.loaded.tokenizer)
        of_answer = slice(len(placed) - count, None)
        return Answer(
            text=placed.text[offset:],
            ids=placed.ids[of_answer],
            start=placed.start[of_answer] - offset,
            end=placed.end[of_answer] - offset,
            probability=np.asarray(probability, dtype=np.float32),
            nll=np.full(count, np.nan, dtype=np.float32),
            topk_ids=topk_ids.astype(np.int64),
            topk_probability=topk_probability.astype(np.float32),
            seconds=np.asarray(seconds, dtype=np.float64),
            total_seconds=total,
        )

    def _read(self, answer: Answer) -> Answer:
        """Add the base's scores of an answer, read token by token; for its own answer, its probabilities too."""
        whole = np.concatenate([self.prompt.ids, answer.ids])
        read = torch.arange(len(self.prompt.prefix) + len(whole) - 1, device=self.ready.model.device)
        with adapter_acting(read[None] >= len(self.prompt.prefix) + len(self.prompt)):
            (scores,) = score(token_model(self.ready.model), [whole], prefix=self.prompt.prefix, k=TOP_K)
        own = slice(len(whole) - len(answer), None)
        nll = scores.surprisal[own]
        if not np.isnan(answer.probability).all():
            return replace(answer, nll=nll, rank=scores.rank[own].astype(np.int64))
        return replace(
            answer,
            nll=nll,
            rank=scores.rank[own].astype(np.int64),
            probability=np.exp(-nll),
            topk_ids=scores.topk_ids[own].astype(np.int64),
            topk_probability=scores.topk_probability[own],
        )

    @property
    def _paused(self) -> float:
        return sum(pause for _, pause in self._pauses)

    def _watched(self, tokens: int) -> NDArray[np.float64]:
        """[T] seconds spent in the callback before each token of the micro_step model."""
        own = [(n, pause) for n, pause in self._pauses if n >= 0]
        spent = np.cumsum([0.0, *(pause for _, pause in own)])
        found: NDArray[np.float64] = spent[np.searchsorted([n for n, _ in own], np.arange(tokens), side="right")]
        return found

    @contextmanager
    def _pause(self, tokens: int) -> Iterator[None]:
        """Exclude the time in the block from all times; `tokens` of the micro_step model were written before it."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self._pauses.append((tokens, time.perf_counter() - began))

    def _tell(self, share: float) -> None:
        if self._watch is not None:
            self._watch(self)
        if self._progress is not None:
            self._progress(min(share, 0.95))

    def _check_room(self) -> None:
        """Raise TooLarge, before anything is written, if the answer cannot fit."""
        loaded, tokens = self.ready.loaded, self.fed.shape[1] + self.how.max_new_tokens
        limit = context_length(self.ready.model)
        if limit is not None and tokens > limit:
            raise TooLarge(
                f"{self.fed.shape[1]:,} prompt tokens and {self.how.max_new_tokens:,} new ones do not fit this model's"
                f" context of {limit:,}; shorten the prompt or ask for fewer new tokens"
            )
        require_memory(cost_of(loaded, tokens), loaded.model.device)


def _fed(prompt: EncodedText) -> list[int]:
    return [*prompt.prefix, *prompt.ids.tolist()]


def _settings(how: Decoding) -> dict[str, Any]:
    """Settings of `generate`, the same for both models whatever their own defaults are."""
    drawn = {"temperature": how.sampling.temperature, "top_p": how.sampling.top_p} if how.sampled else {}
    return explicit_settings(
        max_new_tokens=how.max_new_tokens,
        do_sample=how.sampled,
        repetition_penalty=how.repetition_penalty,
        **drawn,
    )


def _topk(row: RowOutput) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """[T, k] ids and probabilities."""
    ids = np.array([ids for ids, _ in row.topk], dtype=np.int64).reshape(len(row.ids), -1)
    return ids, np.array([p for _, p in row.topk], dtype=np.float32).reshape(len(row.ids), -1)


class _Streamer(BaseStreamer):  # type: ignore[misc]
    """Passes on each token as soon as `generate` has it."""

    def __init__(self, told: Callable[[int], None]) -> None:
        self._told, self._prompt = told, True

    def put(self, value: Tensor) -> None:
        """Receive the prompt first, then one token at a time."""
        if self._prompt:
            self._prompt = False
            return
        self._told(int(value.reshape(-1)[0]))

    def end(self) -> None:
        """Called at the end; does nothing."""
