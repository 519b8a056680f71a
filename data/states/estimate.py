"""The disk that a base's states will take, estimated before a run from every sixteenth document."""

from collections.abc import Iterator
from itertools import islice
from typing import cast

from data.corpus.documents import Corpus, CorpusEntry
from data.corpus.options import CorpusOptions
from data.corpus.scored_rows import unscored_rows
from data.corpus.shards import stream_windows
from data.learned import kept_positions
from data.states.files import bytes_per_position
from data.states.recording import MORE_DISK, chosen_layers
from data.states.spec import StatesSpec
from model.atomic_files import need_disk
from model.causal_lm.forward import text_config
from model.causal_lm.layer_states import layer_count
from model.hub.loading import LoadedModel
from model.progress import Tell

EVERY = 16


def check_room(loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, spec: StatesSpec, tell: Tell) -> None:
    """Say how much disk the states will take, and refuse a disk that has less.

    Raises:
        TooLarge: with both numbers.
    """
    size = estimated_bytes(loaded, corpus, options, spec)
    tell(f"the base's states will take about {size / 1e9:.2f} GB in {spec.folder}", None)
    there = sum(file.stat().st_size for file in spec.folder.glob("*/part-*.safetensors"))
    need_disk(spec.folder, max(0, size - there), "the base's states", MORE_DISK)


def estimated_bytes(loaded: LoadedModel, corpus: Corpus, options: CorpusOptions, spec: StatesSpec) -> int:
    """Return the approximate size of the states of a corpus."""
    sampled = _Sampled(corpus)
    pieces = list(stream_windows(loaded, cast(Corpus, sampled), options, (0, 0)))
    positions = len(kept_positions(unscored_rows(pieces))[0])
    each = bytes_per_position(spec, chosen_layers(layer_count(loaded.model), spec), text_config(loaded.model))
    return positions * EVERY * each


class _Sampled:
    """Every sixteenth document of a corpus."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def entries(self, start: int = 0) -> Iterator[CorpusEntry]:
        return islice(self._corpus.entries(start), 0, None, EVERY)
