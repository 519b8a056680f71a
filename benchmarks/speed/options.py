"""The options of the command `decode`: which models answer which prompts, and how. The functions take the same."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks.options import SMOLLM2, Device, Dtype, NewTokens, Repeats
from model.command_options import EpsValues, ListOf, Local, Threads
from model.errors import MicroStepError

Size = tuple[int, int | None]  # prompts at a time, and how many of the prompts are answered so (None: all)


@dataclass(frozen=True)
class ComparedModelOptions:
    model: Annotated[
        list[str] | None,
        typer.Option(help="A micro_step model, or a base to put untrained modules around; give it again for each."),
    ] = None
    control: Annotated[
        list[str] | None, typer.Option(help="A model that answers without segments; give it again for each.")
    ] = None
    base: Annotated[str | None, typer.Option(help="Compare with this model instead of the first model's base.")] = None
    dtype: Dtype = "float32"
    device: Device = "cpu"
    threads: Threads = None
    draft_words: Annotated[int, typer.Option(min=0, help="Draft only the first so many words; 0: as trained.")] = 0

    @property
    def names(self) -> list[str]:
        return self.model or [SMOLLM2]


@dataclass(frozen=True)
class PromptOptions:
    """What they answer; bundled prompts if nothing is said."""

    prompts: Annotated[Path | None, typer.Option(help='A .jsonl file, {"prompt": ...} a line.')] = None
    questions: Annotated[int, typer.Option(min=0, help="Answer the first test questions of GSM8K.")] = 0
    prepared: Annotated[Path | None, typer.Option(help="Prepared data, whose held-out prompts are answered.")] = None
    source: Annotated[str, typer.Option(help="With --prepared: the source of the prompts.")] = "dolly_hhrlhf"
    held_out: Annotated[int, typer.Option(min=0, help="With --prepared: how many prompts.")] = 50
    local: Local = None


@dataclass(frozen=True)
class DecodeOptions:
    confidence: Annotated[
        tuple[float, ...],
        typer.Option(help="Values of tau, as 0.5,0.8; above 1 the base alone writes."),
        ListOf(float),
    ] = (0.8,)
    rule: Annotated[
        tuple[str, ...], typer.Option(help="When a segment ends: confidence, product, stop_head."), ListOf(str)
    ] = ("confidence",)
    verify: Annotated[bool | None, typer.Option(help="Lossless, or merged; else what each model is for.")] = None
    eps: EpsValues = (1.0,)
    max_segment_length: Annotated[
        tuple[int, ...],
        typer.Option(help="M, the most tokens of a segment; a draft has one fewer. The models' own if not given."),
        ListOf(int),
    ] = ()
    cross: Annotated[
        bool,
        typer.Option(
            help="Measure all combinations of tau, eps and M; without it, vary one of them at a time and leave the"
            " others at their first value."
        ),
    ] = True
    by_cost: Annotated[
        bool,
        typer.Option(
            "--by-cost",
            help="Where the base checks drafts: measure each way twice, the second time with drafts only as long as the"
            " measured times of passes make quickest.",
        ),
    ] = False
    max_new_tokens: NewTokens = 256
    batch_size: Annotated[
        str, typer.Option(help="Prompts that are answered together; 1:24,8 is one at a time for the first 24, then 8.")
    ] = "1"
    repeats: Repeats = 3
    clock: Annotated[
        Literal["wall", "processor"],
        typer.Option(help="What is a second; on a busy machine the processor's, with one thread."),
    ] = "wall"
    fast_base: Annotated[
        bool, typer.Option(help="Give the base and controls the linear layers and cache of micro_step models, too.")
    ] = False
    keep: Annotated[
        Path | None, typer.Option(help="A .jsonl file of all batches as they are measured; a begun one is resumed.")
    ] = None

    @property
    def sizes(self) -> list[Size]:
        sizes: list[Size] = []
        for part in self.batch_size.replace(" ", "").split(","):
            size, colon, most = part.partition(":")
            if not size.isdecimal() or int(size) < 1 or (colon and (not most.isdecimal() or int(most) < 1)):
                raise MicroStepError(f"--batch-size takes SIZE or SIZE:N, N prompts at most, got {part!r}")
            sizes.append((int(size), int(most) if colon else None))
        return sizes
