"""`micro-step attention`: a map in full, the statistics of all heads, and figures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from analysis.attention.options import AttentionViewOptions, MapOptions
from analysis.options import (
    Out,
    TextOptions,
    check_output,
    figure_option,
    load_shown,
    print_notes,
    print_or_save,
    progress,
    save_drawn,
)
from analysis.segmentation.options import SegmentsOptions
from model.command_options import LoadOptions, ModelsOptions, flatten_options
from model.errors import MicroStepError

if TYPE_CHECKING:
    from analysis.attention.positions import AttentionPositions
    from analysis.attention.request import PositionsQuery
    from model.hub.loading import LoadedModel, ModelSpec
    from model.progress import Progress

ARRAYS = "npz"
FIGURE_NAMES = ("maps", "statistics", "map", "row")


@flatten_options
def attention(
    models: ModelsOptions,
    text: TextOptions,
    loading: LoadOptions,
    segmented: SegmentsOptions,
    of: MapOptions,
    looking: AttentionViewOptions,
    figure: Annotated[str | None, figure_option(FIGURE_NAMES)] = None,
    out: Out = None,
) -> None:
    """Attention of any model, a layer and head at a time.

    --out X.npz holds `attention` [queries, keys] in float32, of --layer and --head, as transformers' eager
    attention gives it, BOS included, with `tokens`, `queries`, `keys` (positions), `starts` (segments) and `facts`
    (JSON). Of a micro_step model that merges, positions are macro steps: segments. --out X.csv, .parquet or .json
    holds a row a layer and head.

    Statistics, means over all queries but the first, with a the weights on the keys that a query q may see:

    evenness: H / ln n, the entropy H = -sum a ln a over its largest value with n keys visible; 1 is even.

    support: exp(H), keys. sink: a_0, the share on the first position.

    current, previous: share on the keys of the query's own segment, and of the one before. boundaries: on keys that
    start a segment. Segments are those of --strategy.

    distance: mean of q - k, weighted by a, in positions.

    induction: share on the keys that followed an earlier occurrence of the query's token (Olsson et al. 2022);
    queries whose token is new are left out.
    """
    from analysis.export import TABLES, check_out

    of_map = figure is None and out is not None and out.suffix.lower() == f".{ARRAYS}"
    if figure is None and out is not None:
        check_out(out, (ARRAYS, *TABLES))
    else:
        check_output(out, figure, FIGURE_NAMES)
    specs = models.some(loading)
    if figure is not None:
        _draw(figure, specs, text, segmented, of, looking, out)
        return
    if len(specs) > 1:
        raise MicroStepError("maps and statistics are of one model; B minus A is drawn with --figure")
    asked = _query(specs[0][1], text, segmented)
    of.windows  # noqa: B018 - refused before a model is loaded
    if of_map:
        of.check_map()
    else:
        of.check_table()
    loaded = load_shown(asked.spec)
    _check(loaded, of.layer, of.head)
    with progress("reading") as told:
        reading = asked.run(lambda _: loaded, told)
    print_notes(f"{reading.facts.name}: ", reading.notes)
    with progress("looking") as told:
        if of_map:
            _write(_map(loaded, reading, of, told), out)
        else:
            _statistics(loaded, reading, of.layer, of.head, out, told)


def _query(spec: ModelSpec, text: TextOptions, segmented: SegmentsOptions) -> PositionsQuery:
    from analysis.attention.request import PositionsQuery

    return PositionsQuery(
        "model",
        spec,
        text.input(),
        segmented.segmenter(),
    )


def _draw(
    figure: str,
    specs: tuple[tuple[str, ModelSpec], ...],
    text: TextOptions,
    segmented: SegmentsOptions,
    of: MapOptions,
    looking: AttentionViewOptions,
    out: Path | None,
) -> None:
    from analysis.attention.figures import draw
    from analysis.attention.provenance import origin
    from analysis.attention.result import AttentionRequest, compute_attention

    view = looking.view(figure, of)
    request = AttentionRequest(
        specs,
        text.input(),
        segmented.segmenter(),
        looking.pool,
    )
    with progress("looking") as told:
        found = compute_attention(request, view, load_shown, figure, told)
    for side in found.sides:
        print_notes(f"{side.key} {side.reading.facts.name}: ", side.reading.notes)
    save_drawn(draw(figure, found), out, origin(found))


def _check(loaded: LoadedModel, layer: tuple[int, ...] | None, head: tuple[int, ...] | None) -> None:
    from analysis.attention.positions import check_heads, check_layers

    if layer:
        check_layers(loaded.model, layer)
    if head:
        check_heads(loaded.model, head)


def _statistics(
    loaded: LoadedModel,
    reading: AttentionPositions,
    layer: tuple[int, ...] | None,
    head: tuple[int, ...] | None,
    out: Path | None,
    told: Progress,
) -> None:
    from analysis.attention.overview import overview

    found = overview(loaded, reading, layer, progress=told)
    table = found.table()
    if head:
        table = table[table["head"].isin(head)].reset_index(drop=True)
    caption = (
        f"{len(reading)} {reading.unit}s of {reading.facts.name}; segments: {reading.strategy}. Means over queries;"
        " distance in positions, support in keys, all else in shares."
    )
    print_or_save(table, out, caption)


def _map(loaded: LoadedModel, reading: AttentionPositions, of: MapOptions, told: Progress) -> bytes:
    """The arrays of one map, as a file."""
    import io
    import json

    import numpy as np

    from analysis.attention import rollout as rolling
    from analysis.attention.layer import layer_attention
    from analysis.attention.maps import MapWindow, window
    from analysis.attention.result import AttentionView, Source, rows_at

    (layer,), head = of.layer or (0,), of.head[0] if of.head else None
    source: Source = of.source or ("mean" if head is None else "head")
    view = AttentionView(layer=layer, head=head or 0, source=source, level=of.level)
    whole = rolling.rollout if source == "rollout" else layer_attention
    rows = rows_at(whole(loaded, reading, layer, told), view)
    part = MapWindow.of(rows.size, *of.windows)
    segmented = of.level == "segments" and not reading.merged
    facts = {
        "model": reading.facts.to_dict(), "layer": layer, "head": head, "source": source,
        "level": of.level, "strategy": reading.strategy, "positions": f"{reading.unit}s", "notes": list(reading.notes),
    }  # fmt: skip
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        attention=np.nan_to_num(window(rows, part)),
        queries=np.arange(part.q0, part.q1),
        keys=np.arange(part.k0, part.k1),
        tokens=np.array(reading.words, dtype=np.str_),
        starts=reading.starts,
        rows=reading.segment if segmented else np.arange(len(reading)),
        facts=np.array(json.dumps(facts, ensure_ascii=False)),
    )
    return buffer.getvalue()


def _write(content: bytes, out: Path | None) -> None:
    from model.atomic_files import atomic_write

    assert out is not None
    atomic_write(out, content)
    print(out)
