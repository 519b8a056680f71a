"""`micro-step bench decode`: options, tables, figure, JSON."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from benchmarks.options import Out, use_threads
from benchmarks.report import check_file, show, write
from benchmarks.speed.options import ComparedModelOptions, DecodeOptions, PromptOptions
from model.command_options import ListOf, flatten_options
from model.errors import MicroStepError
from model.one_writer import one_writer
from model.terminal import progress_bar


@flatten_options
def decode_command(
    which: ComparedModelOptions,
    prompts: PromptOptions,
    how: DecodeOptions,
    baselines: Annotated[bool, typer.Option(help="Run transformers' own ways to write faster, too.")] = True,
    assistant: Annotated[str | None, typer.Option(help="A smaller model, for assisted generation.")] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="With --prepared: the accuracy of merged models at each place of a segment, segmented by this strategy"
            " (NAME:parameter=value)."
        ),
    ] = None,
    read: Annotated[int | None, typer.Option(min=1, help="With --positions: examples that are read.")] = None,
    forced: Annotated[
        tuple[float, ...],
        typer.Option(help="Instead: merged decoding at these mean lengths of segments, as 1,1.5,2,3,4."),
        ListOf(float),
    ] = (),
    forced_agreement: Annotated[
        tuple[float, ...],
        typer.Option(help="Instead: lossless decoding with drafts that agree at these rates, as 0.6,0.8,1."),
        ListOf(float),
    ] = (),
    drafts: Annotated[
        tuple[int, ...], typer.Option(help="With --forced-agreement: tokens of a draft."), ListOf(int)
    ] = (1, 3),
    figure: Annotated[Path | None, typer.Option(help="A .png, .svg or .pdf file to draw the comparison in.")] = None,
    out: Out = None,
) -> None:
    """Speed, agreement, likelihood and memory of micro_step models' answers over tau, beside their base's own."""
    from analysis.export import IMAGES, check_out
    from analysis.segmentation.strategy import Strategy
    from model.decoding.stopping import find_stop_rule

    check_file(out, "json")
    if figure is not None:
        check_out(figure, IMAGES)
    for name in how.rule:
        find_stop_rule(name, True)
    assert how.sizes, "they are read, so that a mistake is told at once"
    if positions is not None and prompts.prepared is None:
        raise MicroStepError("--positions reads held-out examples; give --prepared as well")
    strategy = None if positions is None else Strategy.parse(positions)
    if how.clock == "processor" and which.device != "cpu":
        raise MicroStepError("the processor's clock does not see what a device does: use --clock wall")
    use_threads(which.threads)

    from benchmarks.speed.compare import compare, facts_of
    from benchmarks.speed.decoders import baselines_of, load_models
    from benchmarks.speed.forced import forced_drafts, forced_lengths, forced_study
    from benchmarks.speed.position_accuracy import position_accuracy
    from benchmarks.speed.prompts import find_prompts, mixed
    from data.prepared import read_prepared

    prepared = None if prompts.prepared is None else read_prepared(prompts.prepared)
    with progress_bar() as tell:
        tell("loading the models", None)
        models = load_models(which)
        by_source = find_prompts(prompts, prepared, models.tokenizer)
        every = mixed(by_source)
        if forced or forced_agreement:
            report: dict[str, Any] = {"benchmark": "decode", **facts_of(models), "repeats": how.repeats}
            if forced:
                report["forced"] = forced_study(models, every, forced_lengths(models, forced), how, tell)
            if forced_agreement:
                cases = forced_drafts(models, every, forced_agreement, drafts, how)
                report["forced_agreement"] = forced_study(models, every, cases, how, tell)
        else:
            with nullcontext() if how.keep is None else one_writer(how.keep, is_file=True):
                report = compare(models, by_source, how, baselines_of(models, assistant) if baselines else (), tell)
        if strategy is not None and prepared is not None:
            report["positions"] = position_accuracy(models, prepared, strategy, read)
    show(
        report, leave_out=("decoding", "rule", "tau", "eps", "max_segment_length", "by_cost", "at_a_time")
    )  # the first column tells them
    if figure is not None and "rows" in report:
        _draw(report, figure)
    write(report, out)


def _draw(report: dict[str, Any], path: Path) -> None:
    from analysis.export import image
    from benchmarks.speed.figure import draw
    from model.atomic_files import atomic_write

    atomic_write(path, image(draw(report), cast("Any", path.suffix[1:])))
    print(path)
