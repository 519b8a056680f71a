"""Time and memory of looking at attention, beside one forward pass and beside transformers' own attention maps.

Ours: one pass that pools the maps of all layers and heads to 64 x 64, counts all statistics, and keeps one layer, of
which one head's map is then computed in full. Beside it `output_attentions=True` under eager attention, at a length
that memory bears, and the size of a page of bertviz, which holds every weight as JSON text.
"""

import json
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch

from analysis.attention.figures import draw
from analysis.attention.layer import LayerAttention
from analysis.attention.maps import MapWindow, window
from analysis.attention.overview import Overview, overview
from analysis.attention.passes.attend import size
from analysis.attention.positions import AttentionPositions
from analysis.attention.request import PositionsQuery
from analysis.attention.result import CELLS, AttentionRequest, AttentionResult, AttentionSide, AttentionView
from benchmarks.options import AttentionOptions
from benchmarks.texts import bundled_text
from benchmarks.timing import Method, MethodSet, environment, in_fresh_process, measure_methods
from model.causal_lm.device_memory import available_memory
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.progress import Tell
from model.text.document import TextInput

FORWARD, OURS, EAGER = "forward", "ours", "output_attentions"
COMPUTES = {
    FORWARD: "model(input_ids): body and LM head",
    OURS: "all heads pooled to 64 x 64, all statistics, and one map in full",
    EAGER: "model(input_ids, output_attentions=True) under eager attention: every map in full",
}
_SAMPLED = 64  # rows of each head that bertviz's text is sampled from
_SPARE = 0.8  # share of the free memory that a method may plan with


def measure(options: AttentionOptions, tell: Tell) -> dict[str, Any]:
    """A part for each length of the text, with a row for each method and the sizes of what is sent."""
    parts = []
    for n in dict.fromkeys((options.tokens, min(options.tokens, options.eager_tokens))):
        arguments = (options.model, n, n <= options.eager_tokens)
        part = measure_methods(f"{n} tokens", prepare, arguments, options.repeats, tell)
        parts.append(part | in_fresh_process(sizes, options.model, n))
    return {"benchmark": "attention", "lengths": parts}


def prepare(name: str, tokens: int, eager: bool) -> MethodSet:
    """The methods at one length, ready to run."""
    loaded, reading = _ready(name, tokens)
    layers, heads = size(loaded.model)
    methods = (FORWARD, OURS, EAGER) if eager else (FORWARD, OURS)
    _check_memory(layers * heads, len(reading), methods)
    _, short = _ready(name, 32, loaded)
    facts = {
        "model": loaded.facts.name,
        "dtype": loaded.facts.dtype,
        "tokens": len(reading),
        "layers": layers,
        "heads": heads,
        **environment("torch", "transformers", "plotly"),
    }
    ready = {name: Method(COMPUTES[name], _run(loaded, reading, name), _run(loaded, short, name)) for name in methods}
    return MethodSet(facts, ready)


def _ready(name: str, tokens: int, loaded: LoadedModel | None = None) -> tuple[LoadedModel, AttentionPositions]:
    spec = ModelSpec(name, dtype="float32", device="cpu")
    model = loaded or load(spec)
    whole = PositionsQuery("A", spec, TextInput.plain(bundled_text(tokens))).run(lambda _: model)
    if len(whole) < tokens:
        raise MicroStepError(f"the text has {len(whole)} positions, {tokens} are asked for; use fewer --tokens")
    keep = tokens - whole.lead
    return model, type(whole)(
        whole.facts, whole.encoded.head(keep), whole.token_starts[:keep], whole.strategy, False, whole.notes
    )


def _check_memory(maps: int, n: int, methods: tuple[str, ...]) -> None:
    needed, free = 4 * maps * n * n, available_memory("cpu")
    if EAGER in methods and needed > _SPARE * free:
        raise MicroStepError(
            f"output_attentions over {n:,} tokens needs {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; use fewer"
            " --eager-tokens"
        )


def _run(loaded: LoadedModel, reading: AttentionPositions, method: str) -> Callable[[], object]:
    """A method, ready to be called."""
    before = np.asarray(reading.encoded.prefix, dtype=np.int64)
    ids = torch.as_tensor(np.concatenate([before, reading.encoded.ids]))[None]

    def forward(**options: Any) -> object:
        with torch.inference_mode():
            return loaded.model(ids, use_cache=False, **options)

    def eager() -> object:
        usual = loaded.model.config._attn_implementation
        loaded.model.set_attn_implementation("eager")
        try:
            return forward(output_attentions=True)
        finally:
            loaded.model.set_attn_implementation(usual)

    def ours() -> object:
        seen, kept = _overview(loaded, reading)
        return seen, window(kept.rows_of(0), MapWindow.of(len(reading)))

    return {FORWARD: forward, EAGER: eager, OURS: ours}[method]


def _overview(loaded: LoadedModel, reading: AttentionPositions) -> tuple[Overview, LayerAttention]:
    """The overview of all layers, and the middle layer, which it keeps."""
    seen = overview(loaded, reading, keep=size(loaded.model)[0] // 2)
    return seen, cast("LayerAttention", seen.kept)


def sizes(name: str, tokens: int) -> dict[str, Any]:
    """Bytes of the page's figures, and of bertviz's page of the same maps."""
    loaded, reading = _ready(name, tokens)
    layers, heads = size(loaded.model)
    middle = layers // 2
    seen, kept = _overview(loaded, reading)
    request = AttentionRequest((("A", loaded.spec),), TextInput.plain(reading.encoded.text))
    side = AttentionSide("A", reading, seen, kept.rows_of(0))
    part = (0, min(CELLS, len(reading)))
    views = {
        "overview, maps": ("maps", AttentionView(layer=middle)),
        "overview, a statistic": ("statistics", AttentionView("evenness", middle)),
        "one map, whole": ("map", AttentionView(layer=middle)),
        f"one map, a window of {part[1]} in full": ("map", AttentionView(layer=middle, queries=part, keys=part)),
    }
    sent = {
        title: len(cast("str", draw(name, AttentionResult(request, (side,), view)).figure.to_json()))
        for title, (name, view) in views.items()
    }
    return {"sent_bytes": sent, "bertviz_bytes": round(_characters(kept, heads) * layers * heads * len(reading))}


def _characters(layer: LayerAttention, heads: int) -> float:
    """Characters of a row of one head as bertviz writes it: `json.dumps` of the floats, with the zeros at its end."""
    n = len(layer.reading)
    count, sampled = 0, range(0, n, max(1, n // _SAMPLED))
    for q in sampled:
        for head in range(heads):
            row = layer.rows_of(head).rows(q, q + 1)[0]
            count += len(json.dumps([*row.tolist(), *([0.0] * (n - q - 1))]))
    return count / (len(sampled) * heads)
