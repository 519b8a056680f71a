"""How many seconds a run takes, before a model is loaded: from earlier runs, or from a short timing of this machine."""

from __future__ import annotations

import math
import time
from functools import cache

import numpy as np

from analysis.generation.request import GenerationRequest
from analysis.generation.result import Generation
from app.cache import model_pool
from model.checkpoint_files import weight_files
from model.errors import MicroStepError
from model.hub.catalog import find
from model.hub.fetch import fetch, is_cached

FLOAT = 4  # bytes of a weight on a CPU
CALLS = 0.006  # seconds a token that do not depend on the size of the weights
LOADING = 1.0  # seconds, before weights are read
TIMED = 1 << 23  # weights of the matrix whose product is timed: too many for the processor's caches


def seconds_to_run(request: GenerationRequest, answers: int = 2) -> str | None:
    """So many answers, the base's among them, rounded: "12 s", "3 min"; None if the model's size is unknown."""
    tokens = answers * request.how.max_new_tokens
    earlier = [
        (found.micro.total_seconds + found.base.total_seconds) / max(1, len(found.micro) + len(found.base))
        for asked, found in model_pool().computed()
        if isinstance(found, Generation) and asked.specs == request.specs and found.base is not None
    ]
    weights = _weights(request.model.name)
    if earlier:
        seconds = tokens * earlier[-1]
    elif weights is None:
        return None
    else:
        read = weights * FLOAT * _seconds_a_byte()
        seconds = LOADING + read + tokens * (read + CALLS)
    return f"{math.ceil(seconds)} s" if seconds < 100 else f"{math.ceil(seconds / 60)} min"


def _weights(name: str) -> int | None:
    """The number of a model's weights, from the catalog or from the size of its files."""
    if (entry := find(name)) is not None:
        return entry.parameters
    try:
        return sum(file.stat().st_size for file in weight_files(fetch(name))) // FLOAT if is_cached(name) else None
    except (MicroStepError, OSError, ValueError):
        return None


@cache
def _seconds_a_byte() -> float:
    """The time that this machine takes to read a byte of weights in a product with a vector, the median of three."""
    matrix, vector = np.ones((TIMED >> 10, 1 << 10), np.float32), np.ones(1 << 10, np.float32)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        matrix @ vector
        times.append(time.perf_counter() - began)
    return sorted(times)[1] / matrix.nbytes
