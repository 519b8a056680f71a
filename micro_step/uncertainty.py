"""`score` and `compare`: how sure one model, or two, are at each token of a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from analysis.answer import Result
from analysis.score_registry import Unit
from analysis.uncertainty.answer import ScoreRequest, comparison, scores
from analysis.uncertainty.options import HistoryOptions
from analysis.uncertainty.request import ComparisonQuery
from analysis.uncertainty.result import Comparison, ScoredText
from analysis.view import ScoreView, View
from analysis.words.answer import ScoredStimuli
from analysis.words.answer import score_table as tabulate_scores
from analysis.words.options import By, StimulusOptions
from data.corpus.options import CorpusOptions
from micro_step.inputs import ModelLike, Models, TextLike, as_text_input
from model.arguments import checked
from model.errors import MicroStepError
from model.scoring.scores import Method, Sampling


@checked
def score(
    model: ModelLike,
    text: TextLike,
    *,
    chat: bool = False,
    force_bos: bool = False,
    history: int = 0,
    history_method: Method = "exact",
    history_stride: int = 16,
    unit: Unit = "nats",
) -> Result[ScoredText]:
    """Score every token of a text: entropy, confidence, margin, surprisal and rank.

    Args:
        model: a name, a path, a specification, or a loaded model.
        text: a text, a `Document`, or a list of messages.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        history: limit what the model sees to so many tokens before each; 0 is all.
        history_method: exact, strided or banded: how the history is limited.
        history_stride: of strided: a window every so many tokens.
        unit: bits or nats, of entropy and surprisal.

    Returns:
        A row a token in `table`.

    Raises:
        MicroStepError: the model or the text cannot be read, or memory does not suffice.
    """
    models = Models()
    limit = HistoryOptions(history, history_method, history_stride)
    request = ScoreRequest(models.spec(model), as_text_input(text, chat, force_bos), limit)
    return scores(request, ScoreView(unit=unit), models.load)


@checked
def score_table(
    model: ModelLike,
    data: str | Path | pd.DataFrame,
    b: ModelLike | None = None,
    *,
    column: str = "text",
    ids: Sequence[str] = (),
    by: By = "word",
    regions: str | None = None,
    rows: Literal["texts", "regions"] = "texts",
    join_with: str = " ",
    chat: bool = False,
    force_bos: bool = False,
    unit: Unit = "nats",
) -> Result[ScoredStimuli]:
    """Score the texts of a table, such as stimuli of an experiment, by word or by token; all its columns are kept.

    Args:
        model: a name, a path, a specification, or a loaded model.
        data: a pandas table, or a .csv, .tsv, .json, .jsonl (also .gz) or .parquet file.
        b: a second model, whose scores stand beside the first's.
        column: holds the texts, or lists of messages.
        ids: columns that together name a text.
        by: what a row of the result is: a word (or a region), or a token.
        regions: column with the same text divided into regions by |, or as a list; they take the place of words.
        rows: what a row of `data` is: a text, or one region of the text that `ids` name.
        join_with: stands between the regions of rows that are regions.
        chat: apply the model's chat template.
        force_bos: put BOS first even if the tokenizer does not.
        unit: bits or nats, of entropy and surprisal.

    Returns:
        The columns of `data` and the scores in `table`.

    Raises:
        MicroStepError: a model or the table cannot be read, or memory does not suffice.
    """
    models = Models()
    specs = tuple(models.spec(each) for each in (model, b) if each is not None)
    options = StimulusOptions(column, list(ids), by, regions, rows, join_with)
    return tabulate_scores(specs, data, options, CorpusOptions(chat, force_bos), unit, models.load)


@checked
def compare(
    a: ModelLike,
    b: ModelLike,
    text: TextLike,
    *,
    chat: bool = False,
    force_bos: bool = False,
    new_tokens: int = 0,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    unit: Unit = "nats",
) -> Result[Comparison]:
    """Compare two models on one text: which one is less sure, and by how much.

    Args:
        a: model A: a name, a path, a specification, or a loaded model.
        b: model B.
        text: a text, a `Document`, or a list of messages.
        chat: apply each model's own chat template.
        force_bos: put BOS first even if the tokenizer does not.
        new_tokens: above 0: each model continues the text by up to so many tokens, and its own are scored.
        temperature: of the continuation; 0 is greedy.
        top_p: sample from the likeliest tokens of this total probability.
        seed: of sampling.
        unit: bits or nats, of entropy and surprisal.

    Returns:
        A row for all roles and for each one in `table`: means, differences B - A, and their 95% intervals. The numbers
        behind the figures scatter and strip are a row a common piece of text, and a row a token.

    Raises:
        MicroStepError: a model or the text cannot be read, or memory does not suffice.
    """
    models, sampling = Models(), Sampling(temperature, top_p, seed)
    if not new_tokens and sampling != Sampling():
        raise MicroStepError("temperature, top_p and seed are of a continuation: give new_tokens, too")
    read = as_text_input(text, chat, force_bos)
    query = ComparisonQuery(models.spec(a), models.spec(b), read, new_tokens, sampling)
    return comparison(query, View(unit=unit), models.load)
