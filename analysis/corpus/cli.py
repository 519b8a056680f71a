"""`micro-step corpus score`: score a corpus once into a store, and report on it. Torch waits until it is needed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Annotated, Literal

import typer

from analysis.corpus.report_cli import ReportStrategyOptions, show_strategies
from analysis.options import Column, Ids, id_columns, need_chat, print_notes
from data.corpus.documents import Corpus, CorpusSpec, Cut, open_corpus
from data.corpus.options import SHARD_TOKENS, CorpusOptions
from data.corpus.store import CorpusStore
from data.ray_pool import RayOptions
from model.command_options import Chat, ForceBos, LoadOptions, ModelOptions, TemplateOptions, flatten_options
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.progress import Tell
from model.storage.places import place_of
from model.terminal import resumable


@dataclass(frozen=True)
class DataOptions:
    """The corpus."""

    data: Annotated[
        str,
        typer.Option(
            help="A .txt, .csv, .tsv, .json, .jsonl (also .gz), .parquet file, its address (s3://...), or a hub id."
        ),
    ]
    column: Column = "text"
    ids: Ids = None
    documents: Annotated[Cut, typer.Option(help="What counts as a document in a .txt file.")] = "file"
    subset: Annotated[str | None, typer.Option(help="Configuration of a hub data set.")] = None
    split: Annotated[str, typer.Option(help="Split of a hub data set.")] = "train"
    data_revision: Annotated[str | None, typer.Option(help="Branch, tag or commit of a hub data set.")] = None

    def open(self) -> Corpus:
        ids = id_columns(self.ids)
        return open_corpus(
            CorpusSpec(self.data, self.column, self.documents, self.subset, self.split, self.data_revision, ids)
        )


@dataclass(frozen=True)
class ScoringOptions:
    """How it is scored."""

    limit_tokens: Annotated[int | None, typer.Option(min=1, help="Stop after this many tokens.")] = None
    max_tokens_per_document: Annotated[
        int | None,
        typer.Option(min=2, help="Leave out longer documents; by default those that do not fit the context."),
    ] = None
    windows: Annotated[
        bool,
        typer.Option(
            "--windows", help="Divide longer documents into windows of this many tokens, each scored on its own."
        ),
    ] = False
    window_characters: Annotated[
        int | None,
        typer.Option(min=1, help="Divide documents into windows of this many characters, the same under every model."),
    ] = None
    batch_tokens: Annotated[
        int | None, typer.Option(min=1, help="Tokens scored at once; by default as many as fit.")
    ] = None
    shard_tokens: Annotated[int, typer.Option(min=1, help="Tokens per shard.")] = SHARD_TOKENS
    chat: Chat = False
    force_bos: ForceBos = False
    engine: Annotated[
        Literal["own", "vllm"], typer.Option(help="What computes the scores; vllm must be installed (docs/serving.md).")
    ] = "own"
    tensor_parallel_size: Annotated[int, typer.Option(min=1, help="Devices over which vLLM shards the model.")] = 1

    def check(self, loading: LoadOptions, report: bool, cluster: RayOptions) -> None:
        """Refuse options that do not go together, before anything is read."""
        if self.engine == "vllm":
            from serving.vllm_plugin.launch import need_vllm

            need_vllm(loading)
            if cluster.ray:
                raise MicroStepError("--ray distributes this project's own scoring: leave it or --engine out")
            if report and find_spec("kaleido") is None:
                raise MicroStepError(
                    "vLLM's environment lacks what draws the report: give --no-report, and run `micro-step corpus"
                    " report STORE` in the other environment"
                )
        elif self.tensor_parallel_size > 1:
            raise MicroStepError("--tensor-parallel-size goes with --engine vllm")

    def load(self, spec: ModelSpec, tell: Tell) -> LoadedModel:
        """Load the model, in this process or in vLLM."""
        if self.engine == "own":
            return load(spec, tell)
        from serving.vllm_plugin.scorer import VllmOptions, load_in_vllm

        return load_in_vllm(spec, VllmOptions(self.batch_tokens, self.tensor_parallel_size), tell)

    def options(self, template: TemplateOptions) -> CorpusOptions:
        need_chat(self.chat, template.template_arg, template.template_date)
        return CorpusOptions(
            self.chat,
            self.force_bos,
            template.arguments,
            template.template_date,
            self.windows,
            self.window_characters,
            self.max_tokens_per_document,
            self.limit_tokens,
            self.shard_tokens,
            self.batch_tokens,
        )


@flatten_options
def corpus_command(
    model: ModelOptions,
    data: DataOptions,
    out: Annotated[
        str, typer.Option(help="Folder of the store, or its address (s3://, gs://, hf://). An existing one is resumed.")
    ],
    scoring: ScoringOptions,
    cluster: RayOptions,
    template: TemplateOptions,
    loading: LoadOptions,
    judging: ReportStrategyOptions,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Report on the strategies at the end.")] = True,
) -> None:
    """Score a corpus once into a store of Parquet shards, and report on it. The same command resumes a stopped run.

    All other columns of a table stay with its documents in the store.
    """
    settings, place = judging.check(), place_of(out)
    scoring.check(loading, report, cluster)
    corpus, spec, started = data.open(), model.spec(loading), time.monotonic()
    score: Callable[..., CorpusStore]
    if cluster.ray:
        from data.corpus.ray_scoring import score_corpus_with_ray

        score = partial(score_corpus_with_ray, cluster=cluster)
    else:
        from data.corpus.scoring import score_corpus as score  # torch

    with resumable(place, "the scores so far") as tell:
        store = score(lambda: scoring.load(spec, tell), corpus, place, scoring.options(template), tell)
    print_notes(f"{store.facts.name}: ", store.notes)
    size = sum(mark.size for mark in store.marks)
    print(
        f"{store.tokens:,} tokens of {store.documents:,} documents in {len(store.marks):,} shards,"
        f" {size / max(store.tokens, 1):.1f} bytes per token, {time.monotonic() - started:,.0f} s",
        file=sys.stderr,
    )
    if report:
        show_strategies(store, judging, settings)
    print(out)
