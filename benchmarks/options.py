"""The options of the benchmarks, each defined once: the command line and the functions that measure take the same.

The first line of a class is the help of its command.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from model.command_options import ListOf, Local, Threads

SMOLLM2 = "smollm2-135m-instruct"
TAUS = (0.2, 0.5, 0.8, 0.95)

Model = Annotated[str, typer.Option(help="Catalog name, hub id or folder.")]
Dtype = Annotated[Literal["float32", "bfloat16", "float16"], typer.Option(help="Of the weights.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, ...")]
Repeats = Annotated[int, typer.Option(min=1, help="Rounds; each runs everything once.")]
Length = Annotated[float, typer.Option(min=1, max=4, help="Mean length of a segment.")]
Precision = Annotated[Literal["float32", "bfloat16"], typer.Option(help="bfloat16: autocast, with weights in float32.")]
NewTokens = Annotated[int, typer.Option(min=1, help="Of an answer at most.")]
Out = Annotated[Path | None, typer.Option(help="A .json file to write as well.")]


@dataclass(frozen=True)
class ScoreOptions:
    """Time and memory of scoring every token of a text, against the bare forward pass."""

    model: Annotated[
        list[str] | None, typer.Option(help="Catalog name, hub id or folder; may be given several times.")
    ] = None
    tokens: Annotated[int, typer.Option(min=2, help="Length of the text.")] = 4096
    repeats: Repeats = 5
    method: Annotated[list[str] | None, typer.Option(help="Only these methods, beside the bare forward pass.")] = None
    text_file: Annotated[Path | None, typer.Option(help="A UTF-8 text; without it the bundled samples.")] = None
    dtype: Dtype = "float32"
    device: Device = "cpu"


@dataclass(frozen=True)
class WordsOptions:
    """Surprisal of the words of many short texts, beside minicons: equal values, and the time they take."""

    model: Model = SMOLLM2
    texts: Annotated[int, typer.Option(min=1, help="How many, of 12 words each.")] = 40
    batch_rows: Annotated[int, typer.Option(min=1, help="Texts of a batch, of both.")] = 8
    repeats: Repeats = 5
    dtype: Dtype = "float32"
    threads: Threads = None


@dataclass(frozen=True)
class SegmentTimingOptions:
    """Time of segmenting stored scores beside a plain loop, and of solving for a mean length."""

    tokens: Annotated[int, typer.Option(min=1, help="Stored scores to segment.")] = 1_000_000
    solved_tokens: Annotated[int, typer.Option(min=1, help="Stored scores to solve on.")] = 100_000
    repeats: Repeats = 3
    max_length: Annotated[int, typer.Option(min=3, help="The most tokens that a segment has.")] = 4


@dataclass(frozen=True)
class ServeOptions:
    """Tokens per second of the server under several clients, beside one prompt at a time and beside transformers."""

    model: Model = "micro-step-smollm2-135m"
    clients: Annotated[
        tuple[int, ...], typer.Option(help="Clients at once, as 1,4,16,32."), ListOf(int, least=1, below=129)
    ] = (1, 4, 16, 32)
    prompts: Annotated[int, typer.Option(min=1, help="Requests of a round.")] = 32
    max_new_tokens: NewTokens = 64
    confidence: Annotated[float, typer.Option(min=0, help="tau; a plain base has none.")] = 0.8
    vllm: Annotated[
        Path | None,
        typer.Option(help="Python of vLLM's environment: also measure vLLM, with the model and with --plain-base."),
    ] = None
    plain_base: Annotated[str | None, typer.Option(help="The model's base, for vLLM to serve alone.")] = None
    repeats: Repeats = 3
    dtype: Dtype = "float32"
    device: Device = "cpu"
    threads: Threads = None


@dataclass(frozen=True)
class AppOptions:
    """The first minute with the app in a browser: seconds to the first figures of each page, bytes, layout shift."""

    page: Annotated[list[str] | None, typer.Option(help="A page to open; may be given several times. [all]")] = None
    repeats: Repeats = 3
    against: Annotated[Path | None, typer.Option(help="Folder of another checkout to measure beside it.")] = None


@dataclass(frozen=True)
class VisitorsOptions:
    """The app under many visitors at once: seconds to Uncertainty and Attribution, memory, and mix-ups."""

    visitors: Annotated[int, typer.Option(min=1, help="At once.")] = 20
    pairs: Annotated[int, typer.Option(min=0, help="Pairs of tiny models, each in files of its own.")] = 6
    pair: Annotated[list[str] | None, typer.Option(help="A,B: these models, too; may be given several times.")] = None
    minutes: Annotated[float, typer.Option(min=0.05, help="For which visitors come.")] = 5.0
    think: Annotated[float, typer.Option(min=0, help="Seconds that a visitor reads, on average.")] = 5.0
    compared: Annotated[int, typer.Option(min=0, help="Links that are opened once more, alone.")] = 40
    seed: int = 0
    against: Annotated[Path | None, typer.Option(help="Folder of another checkout to measure before.")] = None


@dataclass(frozen=True)
class AttentionOptions:
    """Time and memory of the attention page's overview and one map, against the bare forward pass, on the processor."""

    model: Model = SMOLLM2
    tokens: Annotated[int, typer.Option(min=2, help="Length of the text.")] = 4096
    eager_tokens: Annotated[int, typer.Option(min=2, help="Of output_attentions=True, which holds every map.")] = 1024
    repeats: Repeats = 3


@dataclass(frozen=True)
class DepthOptions:
    """Time and memory of the scores of every layer, against the LM head on as many states, on the processor."""

    model: Model = SMOLLM2
    tokens: Annotated[int, typer.Option(min=2, help="That are scored.")] = 4096
    repeats: Repeats = 3
    threads: Threads = None


@dataclass(frozen=True)
class CorpusTimingOptions:
    """Scoring documents in this process and inside vLLM, in turn: tokens per second, and how far the scores differ."""

    model: Model = SMOLLM2
    tokens: Annotated[int, typer.Option(min=2, help="Of all documents together.")] = 4096
    document_tokens: Annotated[int, typer.Option(min=2, help="Of each document.")] = 128
    repeats: Repeats = 3
    threads: Threads = None


@dataclass(frozen=True)
class HarnessOptions:
    """Answers and likelihoods beside the harness's own class: whether they are equal, and the time they take."""

    model: Annotated[str, typer.Option(help="A micro_step model without an adapter on its base.")] = (
        "micro-step-smollm2-135m-draft"
    )
    base: Annotated[str, typer.Option(help="Its base.")] = SMOLLM2
    tasks: Annotated[str, typer.Option(help="Benchmarks with commas between; NAME:N asks for the first N.")] = (
        "arc_challenge:200,gsm8k_cot_zeroshot:50"
    )
    local: Local = None
    chat: Annotated[bool, typer.Option(help="Ask through the chat template, examples as turns.")] = True
    batch_rows: Annotated[int, typer.Option(min=1, help="Requests at once.")] = 8
    max_new_tokens: NewTokens = 256
    dtype: Dtype = "float32"
    device: Device = "cpu"
    threads: Threads = None


@dataclass(frozen=True)
class TrainStepOptions:
    """Time and memory of forward and backward, beside the base's own training step, on the processor."""

    model: Model = SMOLLM2
    rows: Annotated[int, typer.Option(min=1, help="Rows of the batch.")] = 8
    tokens: Annotated[int, typer.Option(min=2, help="Response tokens of each row.")] = 512
    length: Length = 2.0
    precision: Precision = "float32"
    repeats: Repeats = 3
    memory: Annotated[bool, typer.Option(help="Measure the peak memory as well.")] = True


@dataclass(frozen=True)
class TrainOptions:
    """Tokens per second of training, beside transformers' Trainer on the same batches."""

    model: Model = SMOLLM2
    rows: Annotated[int, typer.Option(min=1, help="Rows of a step.")] = 8
    prompt: Annotated[int, typer.Option(min=1, help="Tokens of each row that are left out of the loss.")] = 64
    tokens: Annotated[int, typer.Option(min=2, help="Tokens of each row that are.")] = 192
    length: Length = 2.0
    precision: Precision = "bfloat16"
    steps: Annotated[int, typer.Option(min=1, help="Timed steps of each round.")] = 3
    repeats: Repeats = 3
    device: Device = "cpu"

    @property
    def width(self) -> int:
        return self.prompt + self.tokens


@dataclass(frozen=True)
class DraftsOptions:
    """What drafts have right and how many passes they save on held-out answers, without writing any."""

    model: Annotated[list[str], typer.Option(help="A model for the lossless mode; may be given several times.")]
    prepared: Annotated[
        Path, typer.Option(help="Prepared data with the base's own greedy answers, of which the held-out ones count.")
    ]
    read: Annotated[int, typer.Option(min=1, help="Answers that are read.")] = 60
    confidence: Annotated[tuple[float, ...], typer.Option(help="Values of tau, as 0.5,0.8."), ListOf(float)] = TAUS
    dtype: Dtype = "float32"
    device: Device = "cpu"


def use_threads(count: int | None) -> None:
    """Let torch use so many threads; None: as many as it chooses."""
    import torch

    if count is not None:
        torch.set_num_threads(count)
