"""`python -m benchmarks account`: options, tables, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from benchmarks.output import Out, check_out, columns, interval_cell, show, write
from model.errors import MicroStepError
from model.terminal import progress_bar

commands = typer.Typer()


@commands.command("account")
def account_command(
    model: Annotated[list[str], typer.Option(help="Micro_step models and controls; give it again for each.")],
    prepared: Annotated[Path, typer.Option(help="Prepared data; its held-out examples are read.")],
    base: Annotated[str, typer.Option(help="Whose own answers they stand beside.")] = "smollm2-135m-instruct",
    confidence: Annotated[str, typer.Option(help="Values of tau.")] = "0.5,0.6,0.7,0.8,0.9,0.95",
    rule: Annotated[
        list[str] | None, typer.Option(help="When a segment ends: confidence, product or stop_head; may be repeated.")
    ] = None,
    questions: Annotated[int, typer.Option(min=0, help="First test questions of GSM8K.")] = 200,
    held_out: Annotated[int, typer.Option(min=0, help="Held-out prompts of --source.")] = 50,
    source: Annotated[str, typer.Option(help="Source in the prepared data.")] = "dolly_hhrlhf",
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of an answer at most.")] = 256,
    alone: Annotated[int, typer.Option(min=1, help="Prompts that are also answered one at a time.")] = 24,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts at a time, for all.")] = 8,
    segments: Annotated[str, typer.Option(help="Strategy for the accuracy by place: NAME:parameter=value.")] = (
        "confidence:tau=0.9"
    ),
    read: Annotated[
        int | None, typer.Option(min=1, help="Held-out examples read for the accuracy by place; all, if not given.")
    ] = None,
    dtype: Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the weights.")] = "bfloat16",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; its own choice if not given.")] = None,
    local: Annotated[Path | None, typer.Option(help="Folder of the sources' files; else the hub.")] = None,
    keep: Annotated[
        Path | None,
        typer.Option(help="A .jsonl file of all batches as they are measured; a begun one is gone on with."),
    ] = None,
    figure: Annotated[Path | None, typer.Option(help="A .png, .svg or .pdf file to draw it in.")] = None,
    out: Out = None,
) -> None:
    """Speed, agreement, likelihood and memory of trained models over tau, beside their base's own answers."""
    import torch

    from analysis.export import IMAGES, image
    from analysis.export import check_out as check_figure
    from analysis.export import write as write_bytes
    from analysis.segmentation.strategy import Strategy
    from benchmarks.account import QUESTIONS, account, held_out_prompts
    from benchmarks.account import questions as test_questions
    from benchmarks.account_figure import draw
    from benchmarks.account_positions import positions
    from data.prepared import read_prepared
    from model.decoding.stopping import find_stop_rule
    from model.hub.loading import ModelSpec, load
    from trainer.recipe import SegmentationConfig

    check_out(out)
    if figure is not None:
        check_figure(figure, IMAGES)
    try:
        taus = [float(part) for part in confidence.split(",")]
    except ValueError:
        raise MicroStepError(f"--confidence takes numbers with commas between, got {confidence!r}") from None
    rules = rule or ["confidence"]
    for name in rules:
        find_stop_rule(name, True)
    strategy = Strategy.parse(segments)
    if threads is not None:
        torch.set_num_threads(threads)
    data = read_prepared(prepared)
    sizes = [(1, alone), (batch_size, None)]
    cuts = SegmentationConfig(rule=strategy.name, parameters=dict(strategy.parameters))
    with progress_bar() as tell:
        own, *models = (load(ModelSpec(name, dtype=dtype, device=device), tell) for name in (base, *model))
        prompts = {
            QUESTIONS: test_questions(own.tokenizer, questions, local),
            source: held_out_prompts(data, source, held_out),
        }
        report = account(models, own, prompts, taus, rules, max_new_tokens, sizes, tell, keep)
        merged = [each for each in models if (said := each.facts.micro_step) and said.decoding == "merged"]
        report["positions"] = [row for each in merged for row in positions(each, own, data, cuts, read)]
    _show(report)
    if figure is not None:
        write_bytes(figure, image(draw(report), cast("Any", figure.suffix[1:])))
        print(figure)
    write(report, out)


_FIGURES = (
    ("a macro step", "tokens_per_macro_step"),
    ("x base", "speedup"),
    ("agreement", "agreement"),
    ("same prefix", "same_prefix"),
    ("identical", "identical"),
    ("nll x base's", "nll_ratio"),
    ("cache x base's", "cache_of_base"),
)


def _show(report: dict[str, Any]) -> None:
    table = columns("model", "rule", "tau", "at a time", "prompts", *(title for title, _ in _FIGURES))
    for row in report["rows"]:
        tau = "-" if row["tau"] is None else f"{row['tau']:g}"
        cells = [interval_cell(row[key], 3) for _, key in _FIGURES]
        table.add_row(
            f"{row['model']} ({row['decoding']})",
            row["rule"] or "-",
            tau,
            str(row["at_a_time"]),
            str(row["prompts"]),
            *cells,
        )
    places = columns("model", "place", "tokens", "accuracy", "base's")
    for row in report["positions"]:
        places.add_row(
            row["model"],
            str(row["place"]),
            f"{row['tokens']:,}",
            interval_cell(row["accuracy"], 3),
            interval_cell(row["base_accuracy"], 3),
        )
    show(
        f"\nbeside {report['base']}, {report['dtype']}, {report['threads']} threads: {report['prompts']}, at most"
        f" {report['max_new_tokens']} new tokens; 95% over prompts",
        table,
        places,
    )
