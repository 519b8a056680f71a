"""`python -m analysis attention` and `attention-figure`: a map in full, the statistics of all heads, the figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.options import (
    Adapter,
    FigureOut,
    LoadOptions,
    ModelOptions,
    Out,
    Pinned,
    Revision,
    TextOptions,
    Theme,
    flatten_options,
    load_shown,
    print_notes,
    print_or_save,
    progress,
)
from model.errors import ExportError, MicroStepError
from model.segmentation.segment import MAX_LENGTH, RULES

if TYPE_CHECKING:
    from analysis.attention.positions import AttentionPositions
    from analysis.attention.request import PositionsQuery
    from analysis.segmentation.strategy import Segmenter
    from model.hub.loading import LoadedModel, ModelSpec
    from model.progress import Progress

commands = typer.Typer()

ARRAYS = "npz"
DEFINITIONS = """Attention of any model, a layer and head at a time: a map in full, or the statistics of all heads.

--out X.npz holds `attention` [queries, keys] in float32, of --layer and --head, as transformers' eager attention gives
it, BOS included, with `tokens`, `queries`, `keys` (positions), `starts` (segments) and `facts` (JSON). Of a micro_step
model that merges, positions are macro steps: segments. --out X.csv, .parquet or .json holds a row a layer and head.

Statistics, means over all queries but the first, with a the weights on the keys that a query q may see:

evenness: H / ln n, the entropy H = -sum a ln a over its largest value with n keys visible; 1 is even.

support: exp(H), keys. sink: a_0, the share on the first position.

current, previous: share on the keys of the query's own segment, and of the one before. boundaries: on keys that start
a segment. Segments are those of --strategy.

distance: mean of q - k, weighted by a, in positions.

induction: share on the keys that followed an earlier occurrence of the query's token (Olsson et al. 2022); queries
whose token is new are left out."""

Layers = Annotated[
    list[int] | None, typer.Option("--layer", help="A layer, from 0; may be repeated for statistics. Default: all.")
]
Heads = Annotated[
    list[int] | None,
    typer.Option("--head", help="A head, from 0; may be repeated for statistics. Of a map, default: the mean of all."),
]
Queries = Annotated[str | None, typer.Option(help="FROM:TO, the queries of a map, TO left out. Default: all.")]
Keys = Annotated[str | None, typer.Option(help="FROM:TO, the keys of a map, TO left out. Default: all.")]
Level = Annotated[
    Literal["tokens", "segments"],
    typer.Option(help="segments: weights on a segment's keys summed, rows of its queries averaged."),
]


@dataclass(frozen=True)
class SegmentOptions:
    """The segments that a map is read by, and that a micro_step model merges."""

    strategy: Annotated[str, typer.Option(help=f"As in entropy:threshold=1.2, in nats; one of {', '.join(RULES)}.")] = (
        "word"
    )
    max_length: Annotated[int, typer.Option(min=1, help="The most tokens that a segment has.")] = MAX_LENGTH
    prompt_apart: Annotated[
        bool | None,
        typer.Option(help="Each token that the assistant did not write is a segment. Default: in a chat with answer."),
    ] = None

    def segmenter(self) -> Segmenter:
        """All that decides where segments start."""
        from analysis.segmentation.strategy import Segmenter, Strategy
        from model.segmentation.features import FeatureOptions

        return Segmenter(Strategy.parse(self.strategy), self.max_length, FeatureOptions(prompt_apart=self.prompt_apart))

    def reading_of(self, side: str, spec: ModelSpec, text: TextOptions) -> PositionsQuery:
        """What is read."""
        from analysis.attention.request import PositionsQuery

        return PositionsQuery(side, spec, text.input(), self.segmenter())


@commands.command("attention", help=DEFINITIONS)
@flatten_options
def attention(
    model: ModelOptions,
    text: TextOptions,
    loading: LoadOptions,
    segments: SegmentOptions,
    layer: Layers = None,
    head: Heads = None,
    level: Level = "tokens",
    rollout: Annotated[
        bool,
        typer.Option("--rollout", help="Of a map: attention rollout through --layer (Abnar and Zuidema 2020)."),
    ] = False,
    queries: Queries = None,
    keys: Keys = None,
    out: Out = None,
) -> None:
    """See DEFINITIONS."""
    from analysis.export import TABLES, check_out

    if out is not None:
        check_out(out, (ARRAYS, *TABLES))
    asked = segments.reading_of("model", model.spec(loading), text)
    windows = _window(queries), _window(keys)
    of_map = out is not None and out.suffix.lower() == f".{ARRAYS}"
    if of_map and (len(layer or ()) != 1 or len(head or ()) > 1):
        raise MicroStepError("a map is of one layer and at most one head: give --layer once, and --head once or not")
    if not of_map and (rollout or queries or keys or level != "tokens"):
        raise MicroStepError("--rollout, --queries, --keys and --level are of a map: give --out X.npz")
    if rollout and head:
        raise MicroStepError("a rollout is over all heads; leave --head out")
    loaded = load_shown(asked.spec)
    if layer or head:
        _check(loaded, layer, head)
    with progress("reading") as told:
        reading = asked.run(lambda _: loaded, told)
    print_notes(f"{reading.facts.name}: ", reading.notes)
    if of_map:
        with progress("looking") as told:
            content = _map(loaded, reading, (layer or [0])[0], head, level, rollout, windows, told)
        _write(content, out)
    else:
        with progress("looking") as told:
            _statistics(loaded, reading, layer, head, out, told)


def _check(loaded: LoadedModel, layer: list[int] | None, head: list[int] | None) -> None:
    from analysis.attention.positions import check_heads, check_layers

    if layer:
        check_layers(loaded.model, layer)
    if head:
        check_heads(loaded.model, head)


def _statistics(
    loaded: LoadedModel,
    reading: AttentionPositions,
    layer: list[int] | None,
    head: list[int] | None,
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


def _map(
    loaded: LoadedModel,
    reading: AttentionPositions,
    layer: int,
    head: list[int] | None,
    level: Literal["tokens", "segments"],
    rollout: bool,
    windows: tuple[tuple[int, int] | None, tuple[int, int] | None],
    told: Progress,
) -> bytes:
    """The arrays of one map, as a file."""
    import io
    import json

    import numpy as np

    from analysis.attention import rollout as rolling
    from analysis.attention.layer import layer_attention
    from analysis.attention.maps import MapWindow, window
    from analysis.attention.result import AttentionView, rows_at

    source: Literal["head", "mean", "rollout"] = "rollout" if rollout else "head" if head else "mean"
    view = AttentionView(layer=layer, head=head[0] if head else 0, source=source, level=level)
    whole = rolling.rollout if rollout else layer_attention
    rows = rows_at(whole(loaded, reading, layer, told), view)
    part = MapWindow.of(rows.size, *windows)
    segmented = level == "segments" and not reading.merged
    facts = {
        "model": reading.facts.to_dict(), "layer": layer, "head": head[0] if head else None, "source": source,
        "level": level, "strategy": reading.strategy, "positions": f"{reading.unit}s", "notes": list(reading.notes),
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

    if out is None:
        raise ExportError("give the file with --out")
    atomic_write(out, content)
    print(out)


def _window(given: str | None) -> tuple[int, int] | None:
    """FROM:TO as numbers.

    Raises:
        MicroStepError: it does not read so.
    """
    if given is None:
        return None
    first, colon, last = given.partition(":")
    if not (colon and all(part.isascii() and part.isdigit() and len(part) < 10 for part in (first, last))):
        raise MicroStepError(f"a part of a map reads like 0:100, not {given!r}")
    return int(first), int(last)


@dataclass(frozen=True)
class Models:
    """One model, or two whose difference is drawn."""

    a: Annotated[str | None, typer.Option("--a", help="Model A: catalog name, hub id or folder.")] = None
    b: Annotated[str | None, typer.Option("--b", help="Model B; with both, B minus A is drawn.")] = None
    a_revision: Revision = None
    b_revision: Revision = None
    a_adapter: Adapter = None
    b_adapter: Adapter = None

    def specs(self, loading: LoadOptions) -> tuple[tuple[str, ModelSpec], ...]:
        """The models that are given, under their letters.

        Raises:
            MicroStepError: there is none.
        """
        given = (("A", self.a, self.a_revision, self.a_adapter), ("B", self.b, self.b_revision, self.b_adapter))
        found = tuple((key, loading.spec(name, revision, adapter)) for key, name, revision, adapter in given if name)
        if not found:
            raise MicroStepError("give a model with --a or --b; with both, B minus A is drawn")
        return found


@commands.command("attention-figure")
@flatten_options
def attention_figure(
    name: Annotated[str, typer.Argument(help="maps, statistics, map or row.")],
    models: Models,
    text: TextOptions,
    loading: LoadOptions,
    segments: SegmentOptions,
    out: FigureOut,
    pool: Annotated[Literal["max", "mean"], typer.Option(help="What a cell of several weights holds.")] = "max",
    shown: Annotated[str, typer.Option(help="For statistics: which; see `attention --help`.")] = "evenness",
    layer: Annotated[int, typer.Option(min=0, help="For map and row; in the others it is framed.")] = 0,
    head: Annotated[int, typer.Option(min=0, help="For map and row; in the others it is framed.")] = 0,
    source: Annotated[
        Literal["head", "mean", "rollout"], typer.Option(help="Which map: a head's, the mean of heads, the rollout.")
    ] = "head",
    level: Level = "tokens",
    queries: Queries = None,
    keys: Keys = None,
    theme: Theme = "light",
    pinned: Pinned = None,
) -> None:
    """Draw attention, of one model or B minus A: the command that export bundles name."""
    from analysis.attention.figures import draw
    from analysis.attention.provenance import origin
    from analysis.attention.result import NEEDS, AttentionRequest, AttentionView, compute_attention
    from analysis.export import FIGURE_FORMATS, check_out, save_figure
    from analysis.figures.figure import check_figure

    check_figure(name, NEEDS)
    check_out(out, FIGURE_FORMATS)
    view = AttentionView(shown, layer, head, source, level, _window(queries), _window(keys), theme, pinned)
    request = AttentionRequest(
        models.specs(loading),
        text.input(),
        segments.segmenter(),
        pool,
    )
    with progress("looking") as told:
        looked = compute_attention(request, view, load_shown, name, told)
    for side in looked.sides:
        print_notes(f"{side.key} {side.reading.facts.name}: ", side.reading.notes)
    save_figure(draw(name, looked), out, origin(looked))
    print(out)
