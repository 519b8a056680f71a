"""Time and memory of the scores of every layer, beside the arithmetic that no logit lens can do without.

That is the LM head on the states of each of the L layers, in the same chunks of positions, its logits thrown away. The
ratio to it says what the body, the norms and the scores cost on top.
"""

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.options import DepthOptions, use_threads
from benchmarks.scorers import excerpt
from benchmarks.texts import bundled_text
from benchmarks.timing import Method, MethodSet, environment, measure_methods
from model.causal_lm.forward import logits_of, vocabulary
from model.causal_lm.layer_states import layer_count, read_layers
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.progress import Tell
from model.scoring.logit_lens import lens_chunk, score_layers

Ids = NDArray[np.int64]


def measure(options: DepthOptions, tell: Tell) -> dict[str, Any]:
    """A row for the heads, the body, and the scores."""
    arguments = (options.model, options.tokens, options.threads)
    return {"benchmark": "depth", **measure_methods(options.model, prepare, arguments, options.repeats, tell)}


def prepare(name: str, tokens: int, threads: int | None) -> MethodSet:
    """The methods, ready to run on a text."""
    use_threads(threads)
    loaded = load(ModelSpec(name, dtype="float32", device="cpu"))
    ids = excerpt(loaded, bundled_text(tokens + 1), tokens + 1).ids  # the first one has no score
    if len(ids) <= tokens:
        raise MicroStepError(f"the text has {len(ids)} tokens, one more than {tokens} is needed; use fewer --tokens")
    runs = {
        "heads": (_heads, "the LM head on the states of every layer, logits thrown away"),
        "body": (_body, "one pass of the body, which keeps the states before each layer"),
        "ours": (_ours, "both, and every score of every layer"),
    }
    methods = {
        key: Method(computes, partial(run, loaded, ids), partial(run, loaded, ids[:33]))
        for key, (run, computes) in runs.items()
    }
    facts = {
        "model": loaded.facts.name, "dtype": loaded.facts.dtype, "tokens": tokens, "layers": layer_count(loaded.model),
        "vocabulary": vocabulary(loaded.model), **environment("torch", "transformers"),
    }  # fmt: skip
    return MethodSet(facts, methods)


def _heads(loaded: LoadedModel, ids: Ids) -> None:
    model, positions = loaded.model, len(ids) - 1
    step = lens_chunk(vocabulary(model))
    states = torch.randn(min(step, positions), loaded.facts.hidden_size)
    with torch.inference_mode():
        for start in range(0, positions, step):
            for _ in range(layer_count(model)):
                logits_of(model, states[: positions - start])


def _body(loaded: LoadedModel, ids: Ids) -> None:
    with torch.inference_mode():
        read_layers(loaded.model, ids)


def _ours(loaded: LoadedModel, ids: Ids) -> None:
    score_layers(loaded.model, ids)
