"""`score_corpus`: a corpus is scored once into a store on the disk, and strategies are judged from the store alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.answer import Result
from analysis.corpus.report import StrategyReport, report, strategies_for
from analysis.corpus.tables import strategy_table
from analysis.ranking.answer import open_pair, rank
from analysis.ranking.ranking import Ranking
from analysis.ranking.view import RankView, Show, Sort
from analysis.score_registry import Unit
from analysis.segmentation.comparison import store_bench
from analysis.segmentation.corpus_view import StoreSides
from analysis.segmentation.figures import FIGURES, draw
from analysis.segmentation.provenance import origin
from analysis.segmentation.request import CutRequest
from analysis.segmentation.segmented_text import MemoCache
from analysis.segmentation.strategy import Strategy
from analysis.segmentation.view import CutView
from analysis.view import Theme
from data.corpus import scoring
from data.corpus.documents import CorpusSpec, Cut, open_corpus
from data.corpus.options import CorpusOptions
from data.corpus.rule_inputs import CorpusSource
from data.corpus.store import CorpusStore
from micro_step.inputs import ModelLike, Models
from model.arguments import checked
from model.segmentation.segment import MAX_LENGTH
from model.storage.places import place_of
from model.terminal import progress_bar
from model.text.document import template_arguments

NOT_OF_A_STORE = ("history", "unstable")  # figures of one text under a model


@checked
def score_corpus(
    model: ModelLike,
    data: str | Path,
    out: str | Path,
    *,
    column: str = "text",
    ids: Sequence[str] = (),
    documents: Cut = "file",
    subset: str | None = None,
    split: str = "train",
    data_revision: str | None = None,
    limit_tokens: int | None = None,
    max_tokens_per_document: int | None = None,
    windows: bool = False,
    window_characters: int | None = None,
    batch_tokens: int | None = None,
    chat: bool = False,
    force_bos: bool = False,
    template: Mapping[str, Any] | None = None,
    template_date: str | None = None,
    strategies: Sequence[str] = (),
    target_lengths: Sequence[float] = (2.0, 3.0),
    max_length: int = MAX_LENGTH,
    unit: Unit = "nats",
) -> Result[CorpusStore]:
    """Score a corpus into a store, or go on where a run was stopped, and report on strategies.

    Args:
        model: a name, a path, a specification, or a loaded model.
        data: a .txt, .csv, .tsv, .json, .jsonl (also .gz) or .parquet file, or the hub id of a data set.
        out: folder of the store, or its address in object storage (s3://, gs://, hf://).
        column: holds the text or the conversation; for all but .txt. The others stay with the documents.
        ids: columns that together name a document.
        documents: file, line or paragraph: what is a document of a .txt file.
        subset: configuration of a hub data set.
        split: of a hub data set.
        data_revision: branch, tag or commit of a hub data set.
        limit_tokens: stop after so many tokens.
        max_tokens_per_document: leave out what is longer. None: what does not fit the context.
        windows: divide longer documents into windows of tokens, each scored on its own.
        window_characters: divide documents into windows of so many characters instead.
        batch_tokens: tokens at once. None: what fits.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        template: arguments of the chat template.
        template_date: YYYY-MM-DD that the chat template writes.
        strategies: names of rules to report on; empty: all that the store has what they need for.
        target_lengths: mean tokens per segment; each strategy is solved for each.
        max_length: M, the most tokens that a segment has.
        unit: bits or nats, in figures.

    Returns:
        A row a strategy and target length in `table`, with 95% intervals over documents.

    Raises:
        MicroStepError: the model or the corpus cannot be read, the store cannot be written, or memory or disk do not
            suffice.
    """
    models, place = Models(), place_of(out)
    spec = models.spec(model)
    corpus = open_corpus(CorpusSpec(str(data), column, documents, subset, split, data_revision, tuple(ids)))
    options = CorpusOptions(
        chat,
        force_bos,
        template_arguments(template) if template else None,
        template_date,
        windows,
        window_characters,
        max_tokens_per_document,
        limit_tokens,
        batch_tokens=batch_tokens,
    )
    with progress_bar() as tell:
        store = scoring.score_corpus(lambda: models.load(spec), corpus, place, options, tell)
    source = CorpusSource.read(store)
    targets = [target for target in target_lengths if target <= max_length] or [1.0]
    reports = [
        report(source, strategies_for(source, strategies, {}, target), max_length, curves=False) for target in targets
    ]
    solved = tuple(dict.fromkeys(_strategy(each) for found in reports for each in found.strategies))
    request = CutRequest((), None, solved, max_length, store=str(out))
    sides = StoreSides.of(source)
    bench = partial(store_bench, request, sides, MemoCache())
    return Result(
        "score_corpus",
        store,
        tuple(name for name in FIGURES if name not in NOT_OF_A_STORE),
        CutView(unit=unit),
        lambda: pd.concat([strategy_table(found) for found in reports], ignore_index=True),
        lambda: (
            f"{store.tokens:,} tokens of {store.documents:,} documents of {corpus.facts.name} under {store.facts.name},"
            f" in {out}"
        ),
        lambda name, view: draw(name, bench(), view),
        lambda _, view: origin(bench(), view),
        store.notes,
    )


def _strategy(found: StrategyReport) -> Strategy:
    return Strategy.of(found.cut.strategy.rule, found.cut.parameters)


@checked
def rank_documents(
    a: str | Path,
    b: str | Path | None = None,
    *,
    score: str = "entropy",
    sort: Sort = "change",
    reverse: bool = False,
    show: Show = "all",
    roles: Sequence[str] = (),
    column: str | None = None,
    values: Sequence[str] = (),
    top: int = 25,
    unit: Unit = "nats",
    theme: Theme = "light",
) -> Result[Ranking]:
    """Rank the documents of a store by their score, or of two stores by what changed from A to B.

    Args:
        a: folder of a store of scores, as `score_corpus` writes it.
        b: folder of a store of the same corpus under model B.
        score: entropy, confidence, surprisal or bits_per_byte.
        sort: change: the largest |B − A| first; a, b: the least sure first; document: by number.
        reverse: the other way round.
        show: all documents, or those in which the score rises, or falls.
        roles: tokens of these roles only; empty: all but the chat template.
        column: column of the corpus that groups documents.
        values: only documents with one of these values in the column.
        top: rows of the figure.
        unit: bits or nats.
        theme: colours of figures.

    Returns:
        A row for each document in `table`, in order.

    Raises:
        MicroStepError: a folder holds no complete store, the stores share no text, or no document is left.
    """
    view = RankView(score, sort, reverse, show, tuple(roles), column, list(values) or None, top, unit, theme)
    return rank(open_pair(place_of(a), None if b is None else place_of(b)), view)
