"""Surprisal of the words of many short texts: `micro-step score --data` beside minicons, on the same model and batches.

Both put BOS before every text, as minicons asks for with models such as GPT-2, so that every word has a value. They
run once a round in turning order.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pandas as pd

from analysis.words.answer import score_table
from analysis.words.options import StimulusOptions
from benchmarks.options import WordsOptions, use_threads
from benchmarks.texts import bundled_text
from benchmarks.timing import device_name, environment, in_rounds, ratios, seconds_of, spread
from data.corpus.options import CorpusOptions
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec, load
from model.progress import Tell

WORDS = 12  # of a text


def stimuli(count: int) -> list[str]:
    """Texts of as many words as a sentence of an experiment has, from the bundled text."""
    words = bundled_text(count * WORDS * 2).split()
    return [" ".join(words[i * WORDS : (i + 1) * WORDS]) for i in range(count)]


def ours(loaded: LoadedModel, texts: list[str], batch_rows: int) -> list[list[float]]:
    """[texts][words] surprisal in nats, in the batches of `theirs`: one token budget would join more texts."""
    found = []
    for at in range(0, len(texts), batch_rows):
        batch = texts[at : at + batch_rows]
        longest = max(len(ids) for ids in loaded.tokenizer(batch)["input_ids"])
        options = CorpusOptions(force_bos=True, batch_tokens=batch_rows * longest, max_tokens=longest)
        table = score_table(
            (loaded.spec,), pd.DataFrame({"text": batch}), StimulusOptions(), options, "nats", lambda _: loaded
        ).table
        found += [group.tolist() for _, group in table.groupby("document")["surprisal"]]
    return found


def theirs(loaded: LoadedModel, scorer: Any, texts: list[str], batch_rows: int) -> list[list[float]]:
    """The same from minicons, whose words are split at white space, too."""
    found = []
    for at in range(0, len(texts), batch_rows):
        batch = texts[at : at + batch_rows]
        for words in scorer.word_score_tokenized(batch, str.split, bos_token=True, surprisal=True):
            found.append([value for _, value in words])
    return found


def measure(options: WordsOptions, tell: Tell) -> dict[str, Any]:
    """Seconds of both, their ratio in the same round, and how far their surprisals lie apart."""
    if find_spec("minicons") is None:
        raise MicroStepError("minicons is not installed: pip install -r benchmarks/requirements.txt")
    use_threads(options.threads)
    loaded, texts = load(ModelSpec(options.model, dtype=options.dtype), tell), stimuli(options.texts)
    scorer = import_module("minicons.scorer").IncrementalLMScorer(loaded.model, "cpu", tokenizer=loaded.tokenizer)
    runs: dict[str, Callable[[], list[list[float]]]] = {
        "minicons": partial(theirs, loaded, scorer, texts, options.batch_rows),
        "ours": partial(ours, loaded, texts, options.batch_rows),
    }
    values = {name: run() for name, run in runs.items()}  # warms up
    pairs = [
        (mine, other)
        for a, b in zip(values["ours"], values["minicons"], strict=True)
        for mine, other in zip(a, b, strict=True)
    ]
    timed = in_rounds({name: partial(seconds_of, run) for name, run in runs.items()}, options.repeats)
    seconds = {name: [each for each, _ in found] for name, found in timed.items()}
    computes = {"minicons": "surprisal", "ours": "surprisal, entropy, confidence, margin, rank; the table"}
    return {
        "benchmark": "words",
        "model": loaded.facts.name,
        "dtype": loaded.facts.dtype,
        "device": device_name("cpu"),
        "texts": len(texts),
        "words": len(texts) * WORDS,
        "largest_difference_nats": float(np.max(np.abs(np.subtract(*zip(*pairs, strict=True))))),
        "batch_rows": options.batch_rows,
        **environment("torch", "transformers", "minicons"),
        "rows": [
            {
                "method": name,
                "computes": computes[name],
                "seconds": spread(seconds[name]),
                "ratio": ratios(seconds[name], seconds["minicons"]),
            }
            for name in runs
        ],
    }
