"""Depth as it is asked for: a question to each model, so that another model B asks A for nothing again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from analysis.depth.options import DepthView, TunedLensOptions
from analysis.depth.result import LOGIT_LENS, Depth, LayeredText
from analysis.options import Reader, text_provenance
from analysis.provenance import Provenance, plain_values
from analysis.query import Ask, ModelLoader, RunCost, scoring_cost
from analysis.uncertainty.scoring import TOP_K, cost_of, encode_for, fit, scored_text
from model.causal_lm.device_memory import available_memory, spoken_bytes
from model.errors import MicroStepError, ModelError, TooLarge
from model.hub.loading import LoadedModel, ModelSpec
from model.progress import Progress
from model.reading.regular_files import read_bytes
from model.text.document import TextInput
from model.text.encoding import EncodedText, token_strings

SPARE = 0.9  # share of the free memory that a run may use
REDUCING = 100  # multiplications that take as long as reducing one logit to scores


@dataclass(frozen=True)
class LensFile:
    """A tuned lens, by its file and what it holds, so that an answer is kept for this content alone."""

    path: str
    sha256: str

    @classmethod
    def of(cls, given: str | Path) -> LensFile:
        """The lens in a file, or in a folder as the package tuned-lens saves it.

        Raises:
            ModelError: there is none, or it cannot be read.
        """
        from model.scoring.tuned_lens import lens_file  # needs torch

        try:
            path = lens_file(Path(given).expanduser().resolve())
        except (OSError, RuntimeError, ValueError):  # such as a name that is too long, or of an unknown user
            raise ModelError(f"{str(given)[:200]!r} is no path of a tuned lens") from None
        return cls(str(path), hashlib.sha256(_content(path)).hexdigest())

    @property
    def name(self) -> str:
        """For readers: the folder that holds it, or the file."""
        path = Path(self.path)
        return path.parent.name if path.stem == "params" else path.name


def _content(path: Path) -> bytes:
    try:
        return read_bytes(path)
    except OSError as error:
        raise ModelError(f"the tuned lens {path} cannot be read: {error.strerror}") from None


@dataclass(frozen=True)
class LayersQuery:
    """What every layer of one model predicts for a text."""

    side: str  # A or B
    spec: ModelSpec
    text: TextInput
    tuned_lens: LensFile | None = None  # None: the logit lens

    @property
    def specs(self) -> dict[str, ModelSpec]:
        return {self.side: self.spec}

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes: a pass, the states between all layers, and the head once for each layer."""
        read, facts = scoring_cost(loaded, self.text), loaded.facts
        heads = facts.layers * facts.vocab_size * float(facts.hidden_size + REDUCING)
        return replace(read, memory=_memory(loaded, read.tokens), work=read.work + heads * read.tokens)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> LayeredText:
        """Read the text, and score every layer.

        Raises:
            MicroStepError: the text cannot be read, the family's layers cannot, or the tuned lens does not fit.
        """
        from model.scoring.caveats import remarks  # these need torch
        from model.scoring.logit_lens import score_layers
        from model.scoring.tuned_lens import read_lens

        loaded = load(self.spec)
        lens = None
        if self.tuned_lens is not None:
            path = Path(self.tuned_lens.path)
            lens = read_lens(_content(path), path)
            lens.check_fits(loaded.model, loaded.facts.name)
        encoded, cut = _fit_layers(loaded, *fit(loaded, encode_for(loaded, self.text)))
        scores, layers = score_layers(loaded.model, encoded.ids, encoded.prefix, TOP_K, lens, progress=progress)
        scored = scored_text(loaded, encoded, scores, (*remarks(loaded, encoded, self.text.chat), *cut))
        ids = np.unique(layers.top_id[layers.top_id >= 0]).astype(np.int64)
        strings = dict(zip(ids.tolist(), token_strings(loaded.tokenizer, ids), strict=True))
        name = LOGIT_LENS if self.tuned_lens is None else f"tuned lens {self.tuned_lens.name}"
        return LayeredText(scored, layers, strings, name)


@dataclass(frozen=True)
class DepthRequest:
    """One model on a text, or two."""

    models: tuple[tuple[str, ModelSpec], ...]  # ("A", spec), ("B", spec)
    text: TextInput
    tuned_lenses: tuple[LensFile | None, ...] = ()  # of the models in their order; (): none

    def __post_init__(self) -> None:
        if not 1 <= len(self.models) <= 2:
            raise MicroStepError(f"depth needs one model or two, got {len(self.models)}")
        if len(self.tuned_lenses) not in (0, len(self.models)):
            raise MicroStepError(f"{len(self.models)} models have {len(self.tuned_lenses)} tuned lenses; give one each")

    @property
    def questions(self) -> list[LayersQuery]:
        """A question to each model; their answers are what `answered` takes."""
        lenses = self.tuned_lenses or (None,) * len(self.models)
        return [LayersQuery(key, spec, self.text, lens) for (key, spec), lens in zip(self.models, lenses, strict=True)]

    def answered(self, sides: Sequence[LayeredText]) -> Depth:
        """The answers to all questions, aligned."""
        return Depth.of(self.text.document, tuple(sides))

    def origin(self, depth: Depth, view: DepthView) -> Provenance:
        """Where a figure comes from."""
        readers = [
            Reader(key.lower(), spec, side.scored.facts, side.scored.encoded.text, side.scored.notes)
            for (key, spec), side in zip(self.models, depth.sides, strict=True)
        ]
        paths = [None if lens is None else lens.path for lens in self.tuned_lenses]
        lenses = TunedLensOptions(*paths)
        return text_provenance("depth", plain_values(self), self.text, view, readers, lenses, view)


def lens_files(a: str | Path | None, b: str | Path | None, models: int) -> tuple[LensFile | None, ...]:
    """The tuned lenses of one model or of two, from their paths; () where there are none.

    Raises:
        ModelError: a lens cannot be read.
        MicroStepError: there is a lens for B, but no B.
    """
    if b is not None and models < 2:
        raise MicroStepError("there is a tuned lens for B, but no model B: give one with --b")
    given = (a, b)[:models]
    return tuple(None if path is None else LensFile.of(path) for path in given) if any(given) else ()


def read_depth(request: DepthRequest, ask: Ask) -> Depth | None:
    """The answer; None while one of the models' is missing."""
    sides = ask(request.questions)
    return None if any(side is None for side in sides) else request.answered([each for each in sides if each])


def _memory(loaded: LoadedModel, tokens: int) -> int:
    """Bytes of a run on top of the weights: that of scoring, and the states between all layers."""
    kept = tokens * loaded.facts.layers * loaded.facts.hidden_size * loaded.model.dtype.itemsize
    return int(cost_of(loaded, tokens).run + kept)


def _fit_layers(
    loaded: LoadedModel, encoded: EncodedText, notes: tuple[str, ...]
) -> tuple[EncodedText, tuple[str, ...]]:
    """Cut a text to what the states of all layers leave room for; returns it with a note on what was cut."""
    needed, free = _memory(loaded, len(encoded)), SPARE * available_memory(loaded.model.device)
    if needed <= free:
        return encoded, notes
    fits = int(len(encoded) * free / needed)  # memory grows at least as fast as the text
    if fits < 1:
        raise TooLarge(
            f"the layers' states need {spoken_bytes(needed)}, but {spoken_bytes(free)} are free; close others"
        )
    note = f"the first {fits:,} of {len(encoded):,} tokens were scored: the states of all layers need the memory"
    return encoded.head(fits), (*notes, note)
