"""`python -m benchmarks decode`: options, tables, JSON."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from benchmarks.output import Out, check_out, show, write
from model.errors import MicroStepError
from model.terminal import progress_bar

commands = typer.Typer()

Dtype = Literal["float32", "bfloat16", "float16"]


@commands.command("decode")
def decode_command(
    model: Annotated[
        str, typer.Option(help="Catalog name, hub id or folder of a micro_step model, or of a base to put one around.")
    ] = "smollm2-135m-instruct",
    prompts: Annotated[Path | None, typer.Option(help='A .jsonl file, {"prompt": ...} a line.')] = None,
    confidence: Annotated[float, typer.Option(min=0, help="tau of the rule; above 1 the base alone writes.")] = 0.8,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="T at most of each answer.")] = 256,
    rule: Annotated[str, typer.Option(help="When a segment ends: confidence, product or stop_head.")] = "confidence",
    verify: Annotated[bool | None, typer.Option(help="Lossless, or merged; else what the model is for.")] = None,
    base: Annotated[str | None, typer.Option(help="Compare with this model instead of the model's own base.")] = None,
    assistant: Annotated[str | None, typer.Option(help="A smaller model, for assisted generation.")] = None,
    rivals: Annotated[bool, typer.Option(help="Run transformers' own ways to write faster, too.")] = True,
    batch_size: Annotated[int, typer.Option(min=1, help="Prompts that are answered together.")] = 1,
    dtype: Annotated[Dtype, typer.Option(help="Of the weights.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; its own choice if not given.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds; each writes every answer once in every way.")] = 3,
    forced: Annotated[
        str | None, typer.Option(help="Instead: merged decoding at these mean lengths of segments, as 1,1.5,2,3,4.")
    ] = None,
    forced_agreement: Annotated[
        str | None, typer.Option(help="Instead: lossless decoding with drafts that agree at these rates, as 0.6,0.8,1.")
    ] = None,
    drafts: Annotated[str, typer.Option(help="With --forced-agreement: tokens of a draft.")] = "1,3",
    draft_words: Annotated[int, typer.Option(min=0, help="Draft only the first so many words; 0: as trained.")] = 0,
    out: Out = None,
) -> None:
    """Speed, agreement and likelihood of a micro_step model's answers beside its base's own."""
    import torch

    from benchmarks.decode import decode, setting
    from benchmarks.decode_studies import lossless_study, merged_study
    from benchmarks.decode_ways import PROMPTS, RIVALS, assisted_by, read_prompts
    from model.decoding.stopping import find_stop_rule

    check_out(out)
    find_stop_rule(rule, True)
    lengths, rates = _numbers("--forced", forced), _numbers("--forced-agreement", forced_agreement)
    counts = [int(n) for n in _numbers("--drafts", drafts)]
    texts = list(PROMPTS) if prompts is None else read_prompts(prompts)
    if threads is not None:
        torch.set_num_threads(threads)
    with progress_bar() as tell:
        tell(f"loading {model}", None)
        made = setting(model, texts, max_new_tokens, batch_size, dtype, device, base, draft_words)
        report: dict[str, Any] = {"benchmark": "decode", **made.facts, "repeats": repeats}
        if lengths:
            report["forced"] = merged_study(made, lengths, repeats, tell)
        if rates:
            report["forced_agreement"] = lossless_study(made, rates, counts, repeats, tell)
        if not lengths and not rates:
            others = [] if not rivals else list(RIVALS)
            if assistant is not None:
                others = [*others[:-1], assisted_by(assistant, dtype, device)]
            report = decode(made, rule, confidence, verify, repeats, others, tell)
    _show(report)
    write(report, out)


def _numbers(option: str, given: str | None) -> list[float]:
    try:
        return [float(part) for part in given.split(",")] if given else []
    except ValueError:
        raise MicroStepError(f"{option} takes numbers with commas between, got {given!r}") from None


def _show(report: dict[str, Any]) -> None:
    fresh = " (untrained modules around it)" if report["untrained"] else ""
    tables = []
    for name, titles in _TABLES.items():
        if name not in report:
            continue
        table = Table(box=None, pad_edge=False)
        for title in titles:
            table.add_column(title, justify="left" if title in ("way", "what it does") else "right")
        for row in report[name]:
            table.add_row(*(_cell(row, key) for key in titles.values()))
        tables.append(table)
    show(
        f"\n{report['model']}{fresh} beside {report['base']}, {report['dtype']}, {report['threads']} threads:"
        f" {report['prompts']} prompts in batches of {report['batch_size']}, {report['max_new_tokens']} new tokens,"
        f" {report['repeats']} rounds",
        *tables,
    )
    if "speedup" in report:
        show(f"tokens per macro step {report['tokens_per_macro_step']:.2f}; {_shares(report)}")


_TABLES: dict[str, dict[str, str]] = {
    "rows": {
        "way": "way",
        "tokens/s": "tokens_per_second",
        "x base": "speedup",
        "agreement": "agreement",
        "identical": "identical",
        "NLL": "nll",
        "x base's": "nll_ratio",
        "what it does": "computes",
    },
    "forced": {
        "length": "length",
        "x base": "speedup",
        "bound": "bound",
        "of bound": "of_bound",
        "tokens/s": "tokens_per_second",
        "base": "base_tokens_per_second",
        "time": "parts",
    },
    "forced_agreement": {
        "rate": "rate",
        "drafts": "drafts",
        "a pass": "tokens_per_macro_step",
        "x base": "speedup",
        "bound": "bound",
        "of bound": "of_bound",
        "identical": "identical",
        "tokens/s": "tokens_per_second",
        "base": "base_tokens_per_second",
        "time": "parts",
    },
}


def _cell(row: dict[str, Any], key: str) -> str:
    value = row.get("note") if key == "computes" and row.get("note") else row[key]
    if value is None:
        return "-"
    if key == "parts":
        return _shares(row)
    if isinstance(value, dict):
        digits = 1 if "tokens" in key else 2
        return f"{value['median']:.{digits}f} ({value['min']:.{digits}f}..{value['max']:.{digits}f})"
    if isinstance(value, float):
        return f"{value:.3g}"
    return str(value)


def _shares(row: dict[str, Any]) -> str:
    return ", ".join(f"{part} {share:.0%}" for part, share in row["parts"].items())
