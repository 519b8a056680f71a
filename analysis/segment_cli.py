"""`python -m analysis segment` and `solve`: cut a text by a rule, and find the parameter for a mean length."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.cli import (
    Adapter,
    Answer,
    Attention,
    Chat,
    Device,
    Dtype,
    ForceBos,
    Out,
    Quantization,
    Revision,
    System,
    Text,
    TextFile,
    Trust,
    Unit,
    _check_table,
    _document,
    _give,
    _load,
    _progress,
    _remark,
    app,
)
from model.errors import MicroStepError
from model.loading import ModelSpec
from model.segmentation import MAX_LENGTH, RULES

if TYPE_CHECKING:
    from analysis.segmenting import Gathering, Segmentable
    from model.document import Document

Model = Annotated[str, typer.Option(help="Catalog name, hub id or folder.")]
Strategy = Annotated[str, typer.Option(help=f"One of: {', '.join(RULES)}.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="parameter=value of the strategy; may be repeated. Entropies in nats."),
]
MaxLength = Annotated[int, typer.Option(min=1, help="The most tokens that a segment has.")]
Layer = Annotated[
    list[int] | None, typer.Option(help="For the attention strategies: a layer, from 0; may be repeated. Default: all.")
]
Head = Annotated[
    list[int] | None, typer.Option(help="For the attention strategies: a head, from 0; may be repeated. Default: all.")
]
HistoryMethod = Annotated[
    Literal["exact", "strided", "banded"], typer.Option(help="For limited_history: how it is limited.")
]
HistoryStride = Annotated[int, typer.Option(min=1, help="For strided: a window every so many tokens.")]
PromptApart = Annotated[
    bool | None,
    typer.Option(
        help="Each token that the assistant did not write is a segment. Default: where a chat template is applied to"
        " a conversation with an answer."
    ),
]


@app.command("segment")
def segment_command(
    model: Model,
    strategy: Strategy,
    settings: Set = None,
    max_length: MaxLength = MAX_LENGTH,
    text: Text = None,
    text_file: TextFile = None,
    system: System = None,
    answer: Answer = None,
    chat: Chat = False,
    force_bos: ForceBos = False,
    prompt_apart: PromptApart = None,
    layer: Layer = None,
    head: Head = None,
    history_method: HistoryMethod = "exact",
    history_stride: HistoryStride = 16,
    unit: Unit = "nats",
    revision: Revision = None,
    adapter: Adapter = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn_implementation: Attention = None,
    quantization: Quantization = "none",
    trust_remote_code: Trust = False,
    out: Out = None,
) -> None:
    """Cut a text into segments: the table of scores with value, starts_segment and segment."""
    from analysis.segmenting import Gathering, check_rule, segment_table
    from model.segmentation import segment

    parameters = check_rule(strategy, _parameters(settings), max_length)
    _check_table(out)
    document = _document(text, text_file, system, answer)
    spec = ModelSpec(model, revision, adapter, dtype, device, attn_implementation, quantization, trust_remote_code)
    how = Gathering(_numbers(layer), _numbers(head), history_method, history_stride, prompt_apart)
    ready = _gather(spec, document, strategy, parameters, max_length, how, chat, force_bos)
    found = segment(strategy, ready.inputs, max_length, **parameters)
    count = int(found.starts.sum())
    caption = f"{len(found)} tokens of {ready.scored.facts.name} in {count} segments by {strategy}, values in {unit}"
    _give(segment_table(ready.scored, found, unit), out, caption)


@app.command("solve")
def solve_command(
    model: Model,
    strategy: Strategy,
    target_length: Annotated[float | None, typer.Option(help="Mean tokens a segment.")] = None,
    target_segments: Annotated[int | None, typer.Option(min=1, help="Or the number of segments.")] = None,
    settings: Set = None,
    max_length: MaxLength = MAX_LENGTH,
    text: Text = None,
    text_file: TextFile = None,
    system: System = None,
    answer: Answer = None,
    chat: Chat = False,
    force_bos: ForceBos = False,
    prompt_apart: PromptApart = None,
    layer: Layer = None,
    head: Head = None,
    history_method: HistoryMethod = "exact",
    history_stride: HistoryStride = 16,
    revision: Revision = None,
    adapter: Adapter = None,
    dtype: Dtype = "auto",
    device: Device = "auto",
    attn_implementation: Attention = None,
    quantization: Quantization = "none",
    trust_remote_code: Trust = False,
    out: Out = None,
) -> None:
    """Find the parameter of a strategy that gives a mean segment length, with the curve between the two."""
    from analysis.segmenting import Gathering, check_rule, curve_table, finding
    from analysis.solver import POINTS, solvable, solve

    given = _parameters(settings)
    parameters = check_rule(strategy, given, max_length)
    if (target_length is None) == (target_segments is None):
        raise MicroStepError("give what is aimed at with --target-length or with --target-segments, one of them")
    solvable(strategy, target_length or 1, max_length, given)
    _check_table(out)
    document = _document(text, text_file, system, answer)
    spec = ModelSpec(model, revision, adapter, dtype, device, attn_implementation, quantization, trust_remote_code)
    how = Gathering(_numbers(layer), _numbers(head), history_method, history_stride, prompt_apart)
    ready = _gather(spec, document, strategy, parameters, max_length, how, chat, force_bos)
    tokens = len(ready.inputs) if ready.inputs.prompt is None else int((~ready.inputs.prompt).sum())
    aim = target_length if target_length is not None else tokens / (target_segments or 1)
    solved = solve(strategy, ready.inputs, aim, max_length, POINTS, **given)
    if out is not None:
        _remark("", (finding(solved),))
    _give(curve_table(solved), out, finding(solved))


def _gather(
    spec: ModelSpec,
    document: Document,
    strategy: str,
    parameters: dict[str, float],
    max_length: int,
    how: Gathering,
    chat: bool,
    force_bos: bool,
) -> Segmentable:
    from analysis.segmenting import gather

    loaded = _load(spec)
    with _progress("scoring") as progress:
        ready = gather(loaded, document, strategy, parameters, max_length, how, chat, force_bos, progress)
    _remark(f"{ready.scored.facts.name}: ", ready.notes)
    return ready


def _parameters(settings: list[str] | None) -> dict[str, float]:
    """The numbers of --set."""
    found: dict[str, float] = {}
    for setting in settings or ():
        name, _, value = setting.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise MicroStepError(f"--set takes parameter=number, got {setting!r}") from None
        if name in found:
            raise MicroStepError(f"{name!r} is set twice; set it once")
        found[name] = number
    return found


def _numbers(given: list[int] | None) -> tuple[int, ...] | None:
    return tuple(given) if given else None
