"""The times of passes on this machine, measured when they are first needed, kept in a folder, and corrected by use.

What is measured apart promises too much: caches are longer in use, rows keep different parts of their drafts. So each
pass is timed too, and the times are multiplied by what passes took of late over what was measured, for each length of
the longest draft on its own. Now and then a pass without a draft is made to see what the base alone would take.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import torch

from model.atomic_files import as_json, atomic_write, read_json
from model.causal_lm.device_speed import clock_of
from model.causal_lm.fast_linear import with_fast_linear
from model.causal_lm.forward import logits_of
from model.causal_lm.kv_cache import growing_cache
from model.decoding.draft_length import PassTimes
from model.decoding.lossless import draft_head

if TYPE_CHECKING:
    from model.micro_step.pretrained import MicroStepPreTrainedModel

SLOTS = 256  # tokens that each row has in the cache
ROUNDS = 4  # the fastest counts: other work on the machine only slows passes down
RECENT = 5  # passes whose median corrects a time
UNSEEN = 32  # passes with drafts after which one without is due
VERSION = 2  # of what is measured


class MeasuredTimes:
    """Times of a model's passes. They are measured at powers of two of rows, and interpolated between these.

    Args:
        model: with a micro decoder.
        folder: where they are kept, a file for each model, dtype, device, number of threads and version of torch.
    """

    def __init__(self, model: MicroStepPreTrainedModel, folder: Path) -> None:
        self._model, self._most = model, model.config.max_segment_length - 1
        self._path = folder / f"{_key(model)}.json"
        self._times = _read(self._path)
        self._ratios: dict[int, deque[float]] = {}  # of seconds in use over measured ones, by tokens of the draft
        self._since_plain = 0  # passes with drafts since the last one without

    def seconds(self, rows: int, most: int) -> tuple[Sequence[float], float]:
        """See `model.decoding.draft_length.DraftCosts`."""
        base, micro = self._measured(rows, most)
        seen = {drafted: median(ratios) for drafted, ratios in self._ratios.items()}
        drafting = [ratio for drafted, ratio in seen.items() if drafted] or [seen.get(0, 1.0)]
        others = median(drafting)  # holds for lengths that were not seen yet
        return [seconds * seen.get(drafted, others) for drafted, seconds in enumerate(base)], micro * others

    @property
    def needs_plain_pass(self) -> bool:
        """See `model.decoding.draft_length.DraftCosts`."""
        return 0 not in self._ratios or self._since_plain >= UNSEEN

    def observe(self, rows: int, drafted: int, steps: int, seconds: float) -> None:
        """See `model.decoding.draft_length.DraftCosts`."""
        self._since_plain = self._since_plain + 1 if steps else 0
        if drafted or not steps:  # else all was refused: it is a pass with a draft, but of no length
            base, micro = self._measured(rows, self._most)
            ratios = self._ratios.setdefault(drafted, deque(maxlen=RECENT))
            ratios.append(seconds / (base[drafted] + steps * micro))

    def _measured(self, rows: int, most: int) -> tuple[Sequence[float], float]:
        """The times as they were measured, now if they are not known yet."""
        above = 1 << (rows - 1).bit_length()
        for point in sorted({max(1, above // 2), above} if rows < above else {above}):
            if point not in self._times.base:
                base, micro = time_passes(self._model, point, self._most)
                self._times = PassTimes({**self._times.base, point: base}, {**self._times.micro, point: micro})
                self._path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(self._path, as_json({"base": dict(self._times.base), "micro": dict(self._times.micro)}))
        return self._times.seconds(rows, most)


def time_passes(model: MicroStepPreTrainedModel, rows: int, most: int) -> tuple[list[float], float]:
    """Return the seconds of a pass of the base over 1, 2, .. 1 + `most` tokens of each row, and of a micro step."""
    now = clock_of(model.device)
    with torch.inference_mode():
        model = with_fast_linear(model)
        embed, cache = model.get_input_embeddings(), growing_cache()
        device = model.device
        ids = torch.zeros(1, SLOTS, dtype=torch.long, device=device)
        first = model.macro(embed(ids), torch.ones_like(ids), torch.arange(SLOTS, device=device)[None], cache)
        cache.batch_repeat_interleave(rows)
        context = first.context[:, -1].expand(rows, *first.context.shape[2:])
        token, head = ids[:, 0].expand(rows), draft_head(model)

        def read(count: int) -> None:
            held = int(cache.get_seq_length())
            fed = token[:, None].expand(rows, count)
            position = held + torch.arange(count, device=device).expand(rows, count)
            mask = fed.new_ones(rows, held + count)
            mask[1::2, 0] = 0  # rows of one batch have different lengths
            macro = model.macro(embed(fed), mask, position, cache)
            logits_of(model.base, macro.last.flatten(0, 1)).argmax(-1).tolist()
            cache.crop(-count)

        def propose() -> None:
            state, _ = model.micro(context, embed(token)[:, None], model.micro.new_cache())
            logits = logits_of(head, state[:, 0])
            ((logits.amax(-1) - logits.logsumexp(-1)).exp() + logits.argmax(-1)).tolist()

        steps = [propose, *(lambda count=count: read(count) for count in range(1, most + 2))]
        fastest = [float("inf")] * len(steps)
        for turn in range(ROUNDS + 1):  # the first is not counted
            for i, step in enumerate(steps):
                begun = now()
                step()
                if turn:
                    fastest[i] = min(fastest[i], now() - begun)
    proposing, *reading = fastest
    return [min(reading[i:]) for i in range(len(reading))], proposing  # fewer tokens never take longer


def _key(model: MicroStepPreTrainedModel) -> str:
    weights = next(model.base.parameters())
    device = torch.cuda.get_device_name(weights.device) if weights.device.type == "cuda" else platform.processor()
    what = (
        [sum(p.numel() for p in part.parameters()) for part in (model.base, model.micro)],
        [model.base.config.model_type, model.config.max_segment_length, len(model.config.draft_vocabulary)],
        [str(weights.dtype), str(weights.device.type), device, platform.node()],
        [torch.get_num_threads(), torch.__version__, VERSION],
    )
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _read(path: Path) -> PassTimes:
    """The times of a file; none if it is missing or damaged: they are measured again."""
    try:
        kept = read_json(path)
        base = {int(rows): [float(value) for value in values] for rows, values in kept["base"].items()}
        return PassTimes(base, {int(rows): float(value) for rows, value in kept["micro"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return PassTimes({}, {})
