"""Measures the evenness of several models on the same texts: trained runs, and untrained modules around their bases.

Runs that differ only in the seed are also combined, document by document. Only sums are kept of a model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray

from analysis.attention.evenness.statistics import EvennessSums, document_units, over_documents, segment_units
from analysis.attention.evenness.texts import SegmentedTexts, Texts, cut_texts
from analysis.attention.micro.request import NOTHING
from analysis.attention.micro.segments import Training, TrainingSegments, check_most, model_of, training_of
from analysis.attention.micro.weights import micro_blocks
from analysis.query import ModelLoader
from analysis.segmentation.strategy import Strategy
from model.errors import MicroStepError, TextError
from model.hub.catalog import find
from model.hub.loading import LoadedModel, ModelSpec
from model.hub.model_info import MicroStepInfo, ModelInfo
from model.hub.wrap_base import SEED, Wrapped, wrap
from model.micro_step.modeling import MicroStepForCausalLM
from model.progress import Progress, part


@dataclass(frozen=True)
class EvennessQuery:
    """What is measured on each model."""

    texts: Texts
    strategy: Strategy | None = None  # None: as each model was trained
    max_length: int | None = None  # longest segment, in tokens
    untrained: bool = True  # also measure untrained modules around the bases


@dataclass(frozen=True)
class EvennessRow:
    """One model, or several of one recipe that differ only in the seed."""

    name: str
    variant: str
    seeds: tuple[int, ...]
    facts: ModelInfo  # of the first model; `micro_step` is never None
    stages: str
    cut: str
    documents: int
    tokens: int
    sums: EvennessSums
    notes: tuple[str, ...]
    recipe: str = ""  # the recipe without name and seed

    @property
    def micro(self) -> MicroStepInfo:
        assert self.facts.micro_step is not None
        return self.facts.micro_step


@dataclass(frozen=True)
class EvennessStudy:
    """All models in the order given, untrained ones last; and the recipes with several seeds."""

    texts: str
    rows: tuple[EvennessRow, ...]
    together: tuple[EvennessRow, ...]

    @property
    def shown(self) -> tuple[EvennessRow, ...]:
        """A row for each variant, with several seeds combined."""
        several = {row.variant: row for row in self.together}
        found: dict[str, EvennessRow] = {}
        for row in self.rows:
            found.setdefault(row.variant, several.get(row.variant, row))
        return tuple(found.values())


def study(
    specs: Sequence[ModelSpec], asked: EvennessQuery, load: ModelLoader, progress: Progress | None = None
) -> EvennessStudy:
    """Measure models one after another; no two are in memory at a time.

    Raises:
        TextError: no segment of a model has two tokens.
        MicroStepError: as loading, scoring and segmenting.
    """
    rows: list[EvennessRow] = []
    references: dict[tuple[object, ...], _Reference] = {}
    named = [(spec, model_of(spec.name)) for spec in specs]
    for i, (spec, name) in enumerate(named):
        own = part(progress, i / (len(named) + 1), (i + 1) / (len(named) + 1))
        recipe = training_of(name, spec.revision)
        ready = wrap(load(replace(spec, name=name)))
        rows.append(_distinct(_measured(ready, recipe, asked, own), rows))
        if recipe is not None and not ready.facts.untrained and (base := recipe.base.get("name")):
            found = _Reference(str(base), ready.facts, str(ready.model.config.micro_start), recipe, spec)
            references.setdefault(found.key, found)
        del ready  # before the next one is loaded
    if asked.untrained:
        for each in references.values():
            if any(each.is_of(row) for row in rows):
                continue  # it is among the named models
            base = replace(each.spec, name=each.base, revision=each.recipe.base.get("revision"), adapter=None)
            rows.append(_distinct(each.measured(load(base), asked), rows))
    if progress is not None:
        progress(1.0)
    return EvennessStudy(asked.texts.what, tuple(rows), tuple(_together(rows)))


def _measured(
    ready: Wrapped, recipe: Training | None, asked: EvennessQuery, progress: Progress | None = None
) -> EvennessRow:
    most = check_most(asked.max_length, ready.facts.max_segment_length)
    how = asked.strategy or (recipe.cut if recipe is not None else TrainingSegments())
    cut = cut_texts(ready.loaded, asked.texts, how, most, progress)
    facts = replace(ready.loaded.facts, micro_step=ready.facts)
    untrained, of_run = ready.facts.untrained, recipe is not None and find(ready.loaded.spec.name) is None
    drafting = ", drafting" if ready.facts.decoding == "lossless" else ""
    name = recipe.name if recipe is not None and of_run else facts.name
    name = f"untrained ({facts.name}{drafting})" if untrained else name
    return EvennessRow(
        name=name,
        variant=name if untrained or recipe is None or not of_run else recipe.variant,
        seeds=() if untrained or recipe is None else (recipe.seed,),
        recipe="" if untrained or recipe is None else recipe.but_for_its_seed,
        facts=facts,
        stages="untrained" if untrained else recipe.stage_words if recipe is not None else "not known",
        cut=cut.cut,
        documents=len(cut.rows),
        tokens=cut.tokens,
        sums=corpus_sums(ready.model, cut, ready.facts.decoding == "merged", most, progress),
        notes=cut.notes,
    )


def corpus_sums(
    model: MicroStepForCausalLM, cut: SegmentedTexts, merged: bool, most: int, progress: Progress | None = None
) -> EvennessSums:
    """The sums of a corpus, a few segments in memory at a time."""
    if not cut.segments:
        raise TextError(NOTHING)
    by_document = over_documents(len(cut.rows))
    units = document_units(len(cut.rows)) if by_document else segment_units(cut.segments)

    def parts() -> Iterator[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        seen = 0
        for block in micro_blocks(model, cut.rows, merged, most, progress):
            numbers = np.arange(seen, seen + len(block.row))
            seen += len(block.row)
            yield (block.row if by_document else numbers), block.weights

    return EvennessSums.of(parts(), model.micro.context, units)


@dataclass(frozen=True)
class _Reference:
    """Untrained modules with which a trained model started: its shape, around the base that it was trained from."""

    base: str
    like: MicroStepInfo
    start: str  # "copied" or "random"
    recipe: Training
    spec: ModelSpec

    @property
    def key(self) -> tuple[object, ...]:
        """All that decides its numbers."""
        like = self.like
        kind = like.context_layers, like.micro_layers, like.decoding, like.merge_layer, like.keep
        return self.base, *kind, self.start, self.recipe.cut

    def is_of(self, row: EvennessRow) -> bool:
        """Whether a row is of the same model."""
        named = row.micro.untrained and row.facts.name == self.base
        read = row.micro.decoding, row.micro.merge_layer
        return named and read == (self.like.decoding, self.like.merge_layer) and self.start == "copied"

    def measured(self, loaded: LoadedModel, asked: EvennessQuery) -> EvennessRow:
        if loaded.facts.micro_step is not None:
            raise MicroStepError(f"{self.base}, the base of {self.recipe.name}, is itself a micro_step model")
        like, device = self.like, loaded.model.device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(SEED)
            fresh = MicroStepForCausalLM.from_base(
                loaded.model,
                loaded.tokenizer,
                max_segment_length=like.max_segment_length,
                context_layers=list(like.context_layers),
                micro_layers=like.micro_layers,
                micro_start=self.start,
                merger="mean",  # all mergers start as the mean
                stop_head=False,
                decoding=like.decoding,
                merge_layer=like.merge_layer,
                keep=like.keep,
            )
        fresh.eval().requires_grad_(False)
        facts = replace(like, merger="mean", stop_head=False, base=self.base, untrained=True)
        row = _measured(Wrapped(fresh, loaded, facts), self.recipe, asked)
        return (
            row if self.start == "copied" else replace(row, name=f"{row.name}, random", variant=f"{row.name}, random")
        )


def _together(rows: Sequence[EvennessRow]) -> Iterator[EvennessRow]:
    """The variants with several seeds, on the same documents."""
    variants: dict[str, list[EvennessRow]] = {}
    for row in rows:
        if row.seeds:
            variants.setdefault(row.variant, []).append(row)
    for variant, found in variants.items():
        first = found[0]
        distinct = len({row.seeds for row in found}) == len(found)
        if len(found) < 2 or not distinct or any(row.sums.counted.shape != first.sums.counted.shape for row in found):
            continue
        sums = first.sums
        for row in found[1:]:
            sums = sums.plus(row.sums)
        seeds = tuple(seed for row in found for seed in row.seeds)
        yield replace(first, name=variant, seeds=seeds, sums=sums)


def _distinct(row: EvennessRow, others: Sequence[EvennessRow]) -> EvennessRow:
    """The row with a unique name, and with a variant that no other recipe has.

    A row whose name had to change is its own variant.
    """
    names = {other.name for other in others}
    if row.name in names:
        name = next(each for i in range(2, len(names) + 3) if (each := f"{row.name}, {i}") not in names)
        return replace(row, name=name, variant=name)
    recipes = {other.variant: other.recipe for other in others}
    if recipes.get(row.variant, row.recipe) != row.recipe:  # another recipe has the same name without its seed
        taken = names | set(recipes)
        return replace(row, variant=next(each for i in count(2) if (each := f"{row.variant}, {i}") not in taken))
    return row
