"""The texts on which evenness is measured, segmented for one model. No model was trained on them.

samples            the bundled examples
PREPARED           the held-out rows of prepared training data, segmented exactly as in training if the model has
                   the tokenizer of its scores; otherwise their texts
texts.jsonl        any file that `micro-step corpus score` reads
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.attention.micro.segments import TrainingSegments, readable, readable_starts
from analysis.attention.micro.weights import SegmentedRow
from analysis.segmentation.single import gather
from analysis.segmentation.strategy import Segmenter, Strategy
from data.corpus.documents import CorpusSpec, open_corpus
from data.examples import TABLE, read_examples
from data.prepared import Prepared, examples_file, read_prepared
from data.samples import samples
from data.training_rows import segment_examples
from model.causal_lm.forward import context_length
from model.errors import TextError
from model.hub.loading import LoadedModel
from model.progress import Progress
from model.segmentation.segment import SegmentInputs
from model.text.document import Document, Message, TextInput

SAMPLES = "samples"


@dataclass(frozen=True)
class Texts:
    """D documents, and the prepared data whose held-out rows they are, if any."""

    name: str
    documents: tuple[Document, ...]
    prepared: Prepared | None = None
    examples: tuple[int, ...] = ()  # D, their indices in the prepared data
    chat: bool = False  # whether conversations are read in the model's chat format

    @property
    def what(self) -> str:
        kind = "held-out examples" if self.prepared is not None else "documents"
        return f"{self.name}, {len(self.documents):,} {kind}"


@dataclass(frozen=True)
class SegmentedTexts:
    """The segmented documents, as one model reads them."""

    rows: tuple[SegmentedRow, ...]  # D
    cut: str  # the rule, in words
    notes: tuple[str, ...]

    @property
    def tokens(self) -> int:
        return sum(len(row.ids) for row in self.rows)

    @property
    def segments(self) -> int:
        """Segments of two tokens and more."""
        return sum(int((_lengths(row) > 1).sum()) for row in self.rows)


def read_texts(data: str, column: str = "text", limit: int | None = None, chat: bool = False) -> Texts:
    """Read the documents.

    Args:
        data: see the module's docstring.
        column: of JSON lines and Parquet, with a text or a conversation.
        limit: use only the first documents.
        chat: read conversations in the model's chat format; prepared data says so itself.
    """
    if data == SAMPLES and not Path(data).exists():
        every = tuple(Document(tuple(Message(role, text) for role, text in each.messages)) for each in samples())
        return Texts("the bundled samples", every[:limit], chat=chat)
    if Path(data).is_dir():
        return _prepared(read_prepared(Path(data)), limit)
    corpus = open_corpus(CorpusSpec(data, column))
    found: list[Document] = []
    for entry in corpus.entries(others=()):
        if entry.document is not None and entry.document.text.strip():
            found.append(entry.document)
        if len(found) == limit:
            break
    if not found:
        raise TextError(f"{data} holds no text")
    return Texts(corpus.facts.name, tuple(found), chat=chat)


def _prepared(prepared: Prepared, limit: int | None) -> Texts:
    kept: list[Document] = []
    numbers: list[int] = []
    for number, example in enumerate(read_examples(examples_file(prepared.path).parent)):
        if len(kept) == limit:
            break
        if example.held_out and example.response:
            kept.append(Document(example.messages))
            numbers.append(number)
    if not kept:
        raise TextError(f"{prepared.path} holds no held-out example (see {TABLE}); set held_out in its mix")
    chat = bool(prepared.source.store.manifest["parameters"]["chat"])
    return Texts(prepared.name, tuple(kept), prepared, tuple(numbers), chat)


def cut_texts(
    loaded: LoadedModel,
    texts: Texts,
    how: TrainingSegments | Strategy,
    most: int,
    progress: Progress | None = None,
) -> SegmentedTexts:
    """Segment the documents for one model.

    Raises:
        MicroStepError: scoring fails, or the strategy cannot be used.
    """
    prepared = texts.prepared
    if prepared is not None and prepared.source.store.facts.tokenizer_hash == loaded.facts.tokenizer_hash:
        return _of_store(prepared, texts, how, most)
    return _of_documents(loaded, texts, how, most, progress)


def _of_store(prepared: Prepared, texts: Texts, how: TrainingSegments | Strategy, most: int) -> SegmentedTexts:
    """Segment by stored scores, with thresholds solved on all rows as in training."""
    target = how.target_length if isinstance(how, TrainingSegments) else None
    rule, given = (how.rule, dict(how.parameters)) if isinstance(how, TrainingSegments) else (how.name, how.parameters)
    found = segment_examples(prepared, rule, given, most, target)
    rows = found.rows
    at = {example: i for i, example in enumerate(rows.example.tolist())}
    kept = []
    for example in texts.examples:
        one = slice(*rows.offsets[at[example] : at[example] + 2].tolist())
        kept.append(SegmentedRow(rows.ids[one], readable_starts(rows.starts[one], 0)))
    settings = ", ".join(f"{name} {value:.3g}" for name, value in found.parameters.items())
    solved = f", solved for {target:g} tokens on average of all its rows" if target is not None else ""
    known = isinstance(how, TrainingSegments) and how.known
    words = f"{rule}({settings}){solved}; {'as in training' if known else 'as asked for'}"
    return SegmentedTexts(tuple(kept), words, (f"scores of {prepared.source.store.facts.name}",))


def _of_documents(
    loaded: LoadedModel, texts: Texts, how: TrainingSegments | Strategy, most: int, progress: Progress | None
) -> SegmentedTexts:
    """Segment by scores of the model's own base; a target length is solved on all documents together."""
    segmenter = Segmenter(how.strategy if isinstance(how, TrainingSegments) else how, most)
    ready = []
    notes: dict[str, None] = {}
    for i, document in enumerate(texts.documents):
        found = gather(loaded, TextInput(document, texts.chat), segmenter)
        ready.append(found)
        notes |= dict.fromkeys(found.notes)
        if progress is not None:
            progress((i + 1) / len(texts.documents))
    inputs = _joined([each.inputs for each in ready])
    chosen = how if isinstance(how, TrainingSegments) else TrainingSegments(how.name, how.values, None)
    starts, words = chosen.cut(inputs, most)
    if isinstance(how, Strategy):
        words = how.title("nats")
    rows, at = [], 0
    for each in ready:
        encoded = each.scored.encoded
        own = starts[at : at + len(encoded)]
        at += len(encoded)
        _, ids, there = readable(encoded, own, context_length(loaded.model))
        rows.append(SegmentedRow(ids, there))
    return SegmentedTexts(tuple(rows), words, tuple(notes))


def _joined(rows: Sequence[SegmentInputs]) -> SegmentInputs:
    """Join rows end to end; if some have a prompt that is kept apart, the others get an empty one."""
    if any(row.prompt is not None for row in rows):
        rows = [row if row.prompt is not None else replace(row, prompt=np.zeros(len(row), dtype=bool)) for row in rows]
    return SegmentInputs.join(rows)


def _lengths(row: SegmentedRow) -> NDArray[np.int64]:
    return np.diff(np.append(np.flatnonzero(row.starts), len(row.ids)))
