"""States of a base for scores that are stored already, by a further pass: only what the scoring pass did not keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from data.corpus.scored_rows import from_parquet
from data.corpus.scoring import batches_of
from data.corpus.store import CorpusStore
from data.states.files import PartSource, read_mark
from data.states.recording import StateRecorder, chosen_layers
from data.states.spec import StatesSpec
from model.atomic_files import make_folder
from model.causal_lm.forward import hidden_states
from model.causal_lm.layer_states import layer_count
from model.one_writer import one_writer
from model.progress import Meter, Tell
from model.scoring import token_scores


def missing_parts(layers: int, store: CorpusStore, spec: StatesSpec, base: str | None, dtype: str | None) -> list[int]:
    """Return the shards of a store whose states are not kept, or are another base's.

    Args:
        layers: number of the base's layers.
        store: the scores.
        spec: what is kept.
        base: revision of the base.
        dtype: precision of the base; None: any.
    """
    folders = [] if spec.layers is None else [spec.state_folder(chosen_layers(layers, spec))]
    folders += [] if spec.top is None else [spec.top_folder]

    def kept(folder: Path, number: int) -> bool:
        mark = read_mark(folder, number)
        if mark is None or (mark.scores, mark.base) != (store.marks[number].sha256, base):
            return False
        return dtype is None or mark.dtype == dtype

    return [number for number in range(len(store.marks)) if not all(kept(folder, number) for folder in folders)]


def compute_missing(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    store: CorpusStore,
    spec: StatesSpec,
    base: str | None,
    dtype: str,
    tell: Tell,
) -> None:
    """Compute the states that are missing, in the batches in which the rows were scored. Stopped, it is resumed.

    Args:
        model: the base.
        tokenizer: its tokenizer.
        store: the scores.
        spec: what is kept.
        base: revision of the base.
        dtype: precision of the base.
        tell: told of progress.

    Raises:
        TooLarge: the disk has no room.
        ExportError: the folder cannot be written, or another process writes to it.
    """
    missing = missing_parts(layer_count(model), store, spec, base, dtype)
    if not missing:
        return
    prefix = store.prefix_under(tokenizer)
    make_folder(spec.folder)
    with one_writer(spec.folder, tell):
        total, meter = sum(store.marks[number].tokens for number in missing), Meter()
        for number in missing:
            rows = from_parquet(store.content(number))
            recorder = StateRecorder(model, spec, rows, len(prefix))
            for batch in batches_of(np.diff(rows.offsets), int(store.manifest["batch_tokens"])):
                ids = [rows.ids[rows.offsets[i] : rows.offsets[i + 1]].astype(np.int64) for i in batch]
                with recorder.reading(), torch.inference_mode():
                    if spec.top is None:
                        hidden_states(model, ids, prefix)
                        scored = []
                    else:
                        scored = token_scores.score(model, ids, prefix=prefix, k=recorder.top)
                recorder.add(batch, scored)
                meter.done += sum(map(len, ids))
                if meter.due():
                    tell(f"states of the base: {meter.done:,} of {total:,} tokens", meter.done / total)
            recorder.mark(number, PartSource(store.marks[number].sha256, base, dtype), recorder.write(number))
