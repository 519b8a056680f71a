"""`python -m analysis segment` and `solve`: cut a text by a rule, and find the parameter for a mean length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.options import (
    UNIT,
    LoadOptions,
    ModelOptions,
    Out,
    TextOptions,
    Unit,
    check_table,
    flatten_options,
    load_shown,
    print_notes,
    print_or_save,
    progress,
    set_parameters,
)
from model.errors import MicroStepError
from model.segmentation.segment import MAX_LENGTH, RULES

if TYPE_CHECKING:
    from analysis.segmentation.single import Segmentable
    from model.segmentation.features import FeatureOptions

commands = typer.Typer()

Strategy = Annotated[str, typer.Option(help=f"One of: {', '.join(RULES)}.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="parameter=value of the strategy; may be repeated. Entropies in nats."),
]


@dataclass(frozen=True)
class CutOptions:
    """How tokens are cut, and what is gathered for it, whatever the strategy."""

    max_length: Annotated[int, typer.Option(min=1, help="The most tokens that a segment has.")] = MAX_LENGTH
    prompt_apart: Annotated[
        bool | None,
        typer.Option(
            help="Each token that the assistant did not write is a segment. Default: where a chat template is applied"
            " to a conversation with an answer."
        ),
    ] = None
    layer: Annotated[
        list[int] | None,
        typer.Option(help="For the attention strategies: a layer, from 0; may be repeated. Default: all."),
    ] = None
    head: Annotated[
        list[int] | None,
        typer.Option(help="For the attention strategies: a head, from 0; may be repeated. Default: all."),
    ] = None
    history_method: Annotated[
        Literal["exact", "strided", "banded"], typer.Option(help="For limited_history: how it is limited.")
    ] = "exact"
    history_stride: Annotated[int, typer.Option(min=1, help="For strided: a window every so many tokens.")] = 16

    def gathering(self) -> FeatureOptions:
        """The choices that are no parameters of a rule."""
        from model.segmentation.features import FeatureOptions

        return FeatureOptions(
            _numbers(self.layer), _numbers(self.head), self.history_method, self.history_stride, self.prompt_apart
        )


@commands.command("segment")
@flatten_options
def segment_command(
    model: ModelOptions,
    strategy: Strategy,
    text: TextOptions,
    loading: LoadOptions,
    cutting: CutOptions,
    settings: Set = None,
    unit: Unit = UNIT,
    out: Out = None,
) -> None:
    """Cut a text into segments: the table of scores with value, starts_segment and segment."""
    from analysis.segmentation.single import segment_table
    from analysis.segmentation.strategy import check_rule
    from model.segmentation.segment import segment

    parameters = check_rule(strategy, set_parameters(settings), cutting.max_length)
    check_table(out)
    ready = _gather(model, text, loading, cutting, strategy, parameters)
    found = segment(strategy, ready.inputs, cutting.max_length, **parameters)
    count = int(found.starts.sum())
    caption = f"{len(found)} tokens of {ready.scored.facts.name} in {count} segments by {strategy}, values in {unit}"
    print_or_save(segment_table(ready.scored, found, unit), out, caption)


@commands.command("solve")
@flatten_options
def solve_command(
    model: ModelOptions,
    strategy: Strategy,
    text: TextOptions,
    loading: LoadOptions,
    cutting: CutOptions,
    target_length: Annotated[float | None, typer.Option(help="Mean tokens a segment.")] = None,
    target_segments: Annotated[int | None, typer.Option(min=1, help="Or the number of segments.")] = None,
    settings: Set = None,
    out: Out = None,
) -> None:
    """Find the parameter of a strategy that gives a mean segment length, with the curve between the two."""
    from analysis.segmentation.single import curve_table, finding
    from analysis.segmentation.strategy import check_rule
    from model.segmentation.solver import POINTS, solvable, solve

    given = set_parameters(settings)
    parameters = check_rule(strategy, given, cutting.max_length)
    if (target_length is None) == (target_segments is None):
        raise MicroStepError("give what is aimed at with --target-length or with --target-segments, one of them")
    solvable(strategy, target_length or 1, cutting.max_length, given)
    check_table(out)
    ready = _gather(model, text, loading, cutting, strategy, parameters)
    tokens = len(ready.inputs) if ready.inputs.prompt is None else int((~ready.inputs.prompt).sum())
    aim = target_length if target_length is not None else tokens / (target_segments or 1)
    solved = solve(strategy, ready.inputs, aim, cutting.max_length, POINTS, **given)
    if out is not None:
        print_notes("", (finding(solved),))
    print_or_save(curve_table(solved), out, finding(solved))


def _gather(
    model: ModelOptions,
    text: TextOptions,
    loading: LoadOptions,
    cutting: CutOptions,
    strategy: str,
    parameters: dict[str, float],
) -> Segmentable:
    from analysis.segmentation.single import gather
    from analysis.segmentation.strategy import Segmenter, Strategy

    segmenter = Segmenter(Strategy.of(strategy, parameters), cutting.max_length, cutting.gathering())
    read = text.input()
    loaded = load_shown(model.spec(loading))
    with progress("scoring") as told:
        ready = gather(loaded, read, segmenter, told)
    print_notes(f"{ready.scored.facts.name}: ", ready.notes)
    return ready


def _numbers(given: list[int] | None) -> tuple[int, ...] | None:
    return tuple(given) if given else None
