"""The options of an evaluation, defined once: for `micro-step eval run` and for the functions. Light: no torch."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from evals.sandbox.runner import Isolation
from model.command_options import EPS_HELP, ByCost, Limit
from model.errors import MicroStepError

Likelihood = Literal["own", "base"]
AllowCodeExecution = Annotated[
    bool, typer.Option("--allow-code-execution", help="Run the programs that models write, in a sandbox.")
]


@dataclass(frozen=True)
class AskOptions:
    """How benchmarks are asked, and how many of their documents."""

    limit: Limit = None
    chat: Annotated[bool, typer.Option("--chat", help="Ask through the model's chat template.")] = False
    system: Annotated[str | None, typer.Option(help="System prompt, with --chat.")] = None
    multiturn: Annotated[bool, typer.Option("--multiturn", help="Examples as turns, with --chat.")] = False
    batch_rows: Annotated[int, typer.Option(min=1, help="Answers at once.")] = 8
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Of an answer, instead of the benchmark's own.")] = (
        None
    )
    repeats: Annotated[int, typer.Option(min=1, help="Answers to each document, for pass@10 and pass@100.")] = 1
    temperature: Annotated[
        float, typer.Option(min=0, help="Temperature of sampling, with top-p 0.95; 0 is greedy.")
    ] = 0.0
    seed: Annotated[int, typer.Option(min=0, help="Of sampling.")] = 0
    verify: Annotated[
        bool | None,
        typer.Option("--verify/--merged", help="Of a micro_step model: its base checks each draft, or nothing does."),
    ] = None
    eps: Annotated[float | None, typer.Option(help=EPS_HELP)] = None
    by_cost: ByCost = False
    likelihood: Annotated[
        Likelihood, typer.Option(help="Log-likelihoods in the model's own segments, or by its base alone.")
    ] = "own"

    def __post_init__(self) -> None:
        if self.eps is not None and not 0 < self.eps <= 1:
            raise MicroStepError(f"--eps must be above 0 and at most 1, got {self.eps:g}")
        if self.by_cost and (self.temperature or self.eps not in (None, 1)):
            raise MicroStepError(
                "--by-cost needs greedy answers and a lossless check: other answers would depend on the machine's speed"
            )
        if self.repeats > 1 and self.temperature == 0:
            raise MicroStepError("greedy answers are all the same: --repeats above 1 needs --temperature above 0")


@dataclass(frozen=True)
class EvalOptions(AskOptions):
    """The options that decide the samples, besides model, benchmark and tau."""

    isolation: Isolation | None = None  # isolation of generated programs; None: they are not run
    template: tuple[tuple[str, str], ...] | None = None  # arguments of the chat template, as JSON by name
    template_date: str | None = None  # YYYY-MM-DD, the date that the chat template writes
