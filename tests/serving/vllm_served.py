"""A server whose engine is vLLM, or its stand-in, and what its answers are compared with."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import contextmanager

import torch

from model.hub.loading import load
from model.hub.spec import ModelSpec
from serving.options import LimitOptions, SegmentOptions
from serving.protocol import CompletionRequest
from serving.vllm_plugin.service import VllmService

TEXTS = (
    "Once upon a time",
    "Once upon a time there was a little girl named Lily. She loved to play with her toys in the park. One day, she",
    "The dog",
    "Tom and his mom went to the shop. Tom saw a big red",
    "One day, a little boy named Tim went to the park. He saw a big tree. He wanted to climb the tree, but he was",
    "What is 12 times 7?",
)


def prompts_of(service):
    """Six prompts of unequal length."""
    return [service.tokenizer.encode(text) for text in TEXTS]


def vllm_folder_of(name, place):
    """Write a model as `model convert --to vllm` does, without its checks; returns the model."""
    loaded = load(ModelSpec(name))
    loaded.model.base.save_pretrained(place)
    loaded.tokenizer.save_pretrained(place)
    loaded.model.save_modules(place / "micro_step", "..", None, torch.float32)
    return loaded.model


def service_of(folder, confidence, lossless=True, max_rows=8):
    plain = not (folder / "micro_step").is_dir()
    segments = SegmentOptions() if plain else SegmentOptions(confidence=confidence, lossless=lossless)
    return VllmService(folder, "served", segments, LimitOptions(max_rows=max_rows))


@contextmanager
def running(service):
    """Let a service's engine work in this block."""
    service.engine.start()
    try:
        yield service
    finally:
        service.engine.close()


def served_by_vllm(name, folder, lossless=True):
    """The running service of a model in the real vLLM, and the model."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    model = vllm_folder_of(name, folder)
    with running(service_of(folder, 0.2, lossless)) as service:
        yield service, model


def written(service, prompts, together, each=None, **asked):
    """The rows of prompts, all at once or one after the other; `each` has fields of single requests."""
    rows, done = [], []
    each = iter(each or [{} for _ in prompts])

    def finished(row, out):
        if row.over or row.error is not None:
            done[rows.index(row)].set()

    groups = [prompts] if together else [[prompt] for prompt in prompts]
    for group in groups:
        started = []
        for prompt in group:
            body = {"model": "served", "prompt": prompt, "temperature": 0, **asked, **next(each)}
            request = CompletionRequest.model_validate_json(json.dumps(body))
            (row,) = service.prepare(request).rows
            row.on_segment = lambda out, row=row: finished(row, out)
            rows.append(row)
            done.append(threading.Event())
            started.append(row)
        service.engine.submit(started, True)
        for event in done:
            assert event.wait(300)
    end = time.monotonic() + 10
    while service.engine.running:
        assert time.monotonic() < end, "rows are not freed"
    for row in rows:
        assert row.error is None, row.error
    return [row.out for row in rows]


def expected(model, prompt, new, confidence, verify=True, **how):
    """The row that `generate_segments` writes."""
    return model.generate_segments(
        torch.tensor([prompt]), max_new_tokens=new, do_sample=False, verify=verify, confidence=confidence, **how
    ).rows[0]


def same(ours, theirs):
    """True if two rows have the same tokens and segments, and counts."""
    return all(
        getattr(ours, name) == getattr(theirs, name)
        for name in ("ids", "segments", "why", "macro_steps", "drafted", "accepted", "ended")
    )
