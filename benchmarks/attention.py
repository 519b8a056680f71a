"""Time and memory of looking at attention, beside one forward pass and beside transformers' own attention maps.

Ours: one pass that pools the maps of all layers and heads to 64 x 64, counts all statistics, and keeps one layer, of
which one head's map is then computed in full. Beside it `output_attentions=True` under eager attention, at a length
that memory bears, and the size of a page of bertviz, which holds every weight as JSON text.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from benchmarks.measure import highest, in_fresh_process, in_turn, resident, seconds_of, spread, version
from benchmarks.output import Out, check_out, columns, megabytes, show, spread_cells, write
from benchmarks.score import bundled_text
from model.errors import MicroStepError
from model.terminal import progress_bar
from model.text.document import TextInput

if TYPE_CHECKING:
    from analysis.attention.layer import LayerAttention
    from analysis.attention.overview import Overview
    from analysis.attention.positions import AttentionPositions
    from model.hub.loading import LoadedModel

commands = typer.Typer()

FORWARD, OURS, EAGER = "forward", "ours", "output_attentions"
WHAT = {
    FORWARD: "model(input_ids): body and LM head",
    OURS: "all heads pooled to 64 x 64, all statistics, and one map in full",
    EAGER: "model(input_ids, output_attentions=True) under eager attention: every map in full",
}
_SAMPLED = 64  # rows of each head that bertviz's text is sampled from
_SPARE = 0.8  # share of the free memory that a method may plan with


@commands.command("attention")
def attention(
    model: Annotated[str, typer.Option(help="Catalog name, hub id or folder.")] = "smollm2-135m-instruct",
    tokens: Annotated[int, typer.Option(min=2, help="Length of the text.")] = 4096,
    eager_tokens: Annotated[int, typer.Option(min=2, help="Of output_attentions=True, which holds every map.")] = 1024,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; each runs every method once.")] = 3,
    out: Out = None,
) -> None:
    """Time and memory of the attention page's overview and one map, against the bare forward pass, on the processor."""
    check_out(out)
    with progress_bar() as tell:
        report: dict[str, Any] = {"benchmark": "attention", "lengths": []}
        for n in dict.fromkeys((tokens, min(tokens, eager_tokens))):
            methods = (FORWARD, OURS, *((EAGER,) if n <= eager_tokens else ()))
            tell(f"{n} tokens: timing {repeats} rounds", None)
            part = in_fresh_process(timed, model, n, repeats, methods)
            for row in part["rows"]:
                tell(f"{n} tokens: memory of {row['method']}", None)
                row["peak_bytes"] = in_fresh_process(peak, model, n, row["method"])
            report["lengths"].append(part)
    for part in report["lengths"]:
        _show(part)
    write(report, out)


def _show(part: dict[str, Any]) -> None:
    table = columns("method", "seconds", "min..max", "x forward", "min..max", "CPU x forward", "min..max", "peak MB")
    table.add_column("what it does")
    for row in part["rows"]:
        table.add_row(
            row["method"],
            *spread_cells(row["seconds"], 2),
            *spread_cells(row["ratio"], 2),
            *spread_cells(row["cpu_ratio"], 2),
            megabytes(row["peak_bytes"]),
            WHAT[row["method"]],
        )
    sizes = columns("sent to the browser", "MB")
    for name, size in part["sent"].items():
        sizes.add_row(name, f"{size / 1e6:.2f}")
    sizes.add_row("bertviz: every weight as JSON text", f"{part['bertviz_bytes'] / 1e6:,.0f}")
    show(
        f"\n{part['model']}, {part['dtype']}: {part['tokens']:,} tokens, {part['layers']} layers x {part['heads']}"
        f" heads; {part['threads']} threads, {part['repeats']} rounds",
        table,
        sizes,
    )


# --- in the fresh process


def timed(name: str, tokens: int, repeats: int, methods: tuple[str, ...]) -> dict[str, Any]:
    """All but the peaks of one length."""
    import torch

    loaded, reading = _ready(name, tokens)
    _check_memory(loaded, len(reading), methods)
    runs = {method: _run(loaded, reading, method) for method in methods}
    _, short = _ready(name, 32, loaded)
    for method in methods:
        _run(loaded, short, method)()
    seconds: dict[str, list[float]] = {method: [] for method in methods}
    cpu: dict[str, list[float]] = {method: [] for method in methods}
    for turn in range(repeats):
        for method in (methods[i] for i in in_turn(turn, len(methods))):
            gc.collect()
            before = time.process_time()
            seconds[method].append(seconds_of(runs[method])[0])
            cpu[method].append(time.process_time() - before)

    def ratio(taken: dict[str, list[float]], method: str) -> dict[str, Any] | None:
        return spread([a / b for a, b in zip(taken[method], taken[FORWARD], strict=True)])

    layers, heads = _size(loaded)
    return {
        "model": loaded.facts.name,
        "dtype": loaded.facts.dtype,
        "tokens": len(reading),
        "layers": layers,
        "heads": heads,
        "threads": torch.get_num_threads(),
        "repeats": repeats,
        "versions": {package: version(package) for package in ("torch", "transformers", "plotly")},
        "rows": [
            {
                "method": method,
                "seconds": spread(seconds[method]),
                "ratio": ratio(seconds, method),
                "cpu_ratio": ratio(cpu, method),
                "peak_bytes": None,
            }
            for method in methods
        ],
        **_sizes(loaded, reading),
    }


def peak(name: str, tokens: int, method: str) -> int:
    """Bytes by which a method's resident memory grows at its peak over the loaded model."""
    loaded, reading = _ready(name, tokens)
    _, short = _ready(name, 32, loaded)
    _run(loaded, short, method)()
    gc.collect()
    before = resident()
    _run(loaded, reading, method)()
    return max(0, highest() - before)


def _ready(name: str, tokens: int, loaded: LoadedModel | None = None) -> tuple[LoadedModel, AttentionPositions]:
    from analysis.attention.request import PositionsQuery
    from model.hub.loading import ModelSpec, load

    spec = ModelSpec(name, dtype="float32", device="cpu")
    model = loaded or load(spec)
    whole = PositionsQuery("A", spec, TextInput.plain(bundled_text(tokens))).run(lambda _: model)
    if len(whole) < tokens:
        raise MicroStepError(f"the text has {len(whole)} positions, {tokens} are asked for; use fewer --tokens")
    keep = tokens - whole.lead
    return model, type(whole)(
        whole.facts, whole.encoded.head(keep), whole.token_starts[:keep], whole.strategy, False, whole.notes
    )


def _size(loaded: LoadedModel) -> tuple[int, int]:
    from analysis.attention.positions import size

    return size(loaded.model)


def _check_memory(loaded: LoadedModel, n: int, methods: tuple[str, ...]) -> None:
    from model.causal_lm.device_memory import available_memory

    layers, heads = _size(loaded)
    needed, there = 4 * layers * heads * n * n, available_memory("cpu")
    if EAGER in methods and needed > _SPARE * there:
        raise MicroStepError(
            f"output_attentions over {n:,} tokens needs {needed / 1e9:.1f} GB, {there / 1e9:.1f} GB are free; use fewer"
            " --eager-tokens"
        )


def _run(loaded: LoadedModel, reading: AttentionPositions, method: str) -> Callable[[], object]:
    """A method, ready to be called."""
    import numpy as np
    import torch

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

    return {FORWARD: forward, EAGER: eager, OURS: lambda: _ours(loaded, reading)}[method]


def _ours(loaded: LoadedModel, reading: AttentionPositions) -> object:
    from analysis.attention.maps import MapWindow, window
    from analysis.attention.overview import overview

    found = overview(loaded, reading, keep=_size(loaded)[0] // 2)
    return found, window(_kept(found).rows_of(0), MapWindow.of(len(reading)))


def _kept(found: Overview) -> LayerAttention:
    if found.kept is None:
        raise ValueError("the overview was to keep a layer")
    return found.kept


def _sizes(loaded: LoadedModel, reading: AttentionPositions) -> dict[str, Any]:
    """Bytes of the page's figures, and of bertviz's page of the same maps."""
    from analysis.attention.figures import draw
    from analysis.attention.overview import overview
    from analysis.attention.result import CELLS, AttentionRequest, AttentionResult, AttentionSide, AttentionView

    layers, heads = _size(loaded)
    middle = layers // 2
    found = overview(loaded, reading, keep=middle)
    kept = _kept(found)
    request = AttentionRequest((("A", loaded.spec),), TextInput.plain(reading.encoded.text))
    side = AttentionSide("A", reading, found, kept.rows_of(0))
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
    return {"sent": sent, "bertviz_bytes": round(_characters(kept, heads) * layers * heads * len(reading))}


def _characters(layer: LayerAttention, heads: int) -> float:
    """Characters of a row of one head as bertviz writes it: `json.dumps` of the floats, with the zeros at its end."""
    n = len(layer.reading)
    count, sampled = 0, range(0, n, max(1, n // _SAMPLED))
    for q in sampled:
        for head in range(heads):
            row = layer.rows_of(head).rows(q, q + 1)[0]
            count += len(json.dumps([*row.tolist(), *([0.0] * (n - q - 1))]))
    return count / (len(sampled) * heads)
