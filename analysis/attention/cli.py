"""`micro-step attention`: a map in full, the statistics of all heads, and figures."""

from __future__ import annotations

from typing import Annotated

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
    holds one row per layer and head.

    Statistics, means over all queries but the first, with a the weights on the keys that a query q may see:

    evenness: H / ln n, the entropy H = -sum a ln a over its largest value with n keys visible; 1 is even.

    support: exp(H), keys. sink: a_0, the share on the first position.

    current, previous: share on the keys of the query's own segment, and of the one before. boundaries: on keys that
    start a segment. Segments are those of --strategy.

    distance: mean of q - k, weighted by a, in positions.

    induction: share on the keys that followed an earlier occurrence of the query's token (Olsson et al. 2022);
    queries whose token is new are left out.
    """
    from analysis.attention.answer import AttentionMaps, origin
    from analysis.attention.figures import draw
    from analysis.attention.result import AttentionRequest, AttentionView
    from analysis.export import TABLES, check_out
    from model.atomic_files import atomic_write

    of_map = figure is None and out is not None and out.suffix.lower() == f".{ARRAYS}"
    if figure is None and out is not None:
        check_out(out, (ARRAYS, *TABLES))
    else:
        check_output(out, figure, FIGURE_NAMES)
    specs = models.some(loading)
    if figure is None and len(specs) > 1:
        raise MicroStepError("maps and statistics need one model; use --figure to draw B minus A")
    of_all = figure is None and not of_map
    if of_all:
        of.check_table()
    view = AttentionView() if of_all else looking.view(figure, of)
    request = AttentionRequest(specs, text.input(), segmented.segmenter(), looking.pool)
    with progress("looking") as tell:
        maps = AttentionMaps(request, load_shown, tell)
        result = maps.result(view, figure)
        table = maps.table(of.layer, of.head) if of_all else None
        arrays = maps.arrays(view) if of_map else b""
    for side in result.sides:
        print_notes(f"{side.key} {side.reading.facts.name}: ", side.reading.notes)
    if table is not None:
        units = "Means over queries; distance in positions, support in keys, all else in shares."
        print_or_save(table, out, f"{maps.summary}. {units}")
    elif figure is not None:
        save_drawn(draw(figure, result), out, origin(result))
    else:
        assert out is not None
        atomic_write(out, arrays)
        print(out)
