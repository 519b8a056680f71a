"""The micro attention of one text as it was asked for: model, text, and which segments."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from analysis.attention.micro.result import MicroAttention
from analysis.attention.micro.segments import TrainingSegments, check_most, readable, training_of
from analysis.attention.micro.weights import SegmentedRow, micro_blocks
from analysis.generation.request import GenerationRequest
from analysis.generation.result import Decoding
from analysis.query import ModelLoader, RunCost, scoring_cost
from analysis.segmentation.single import gather
from analysis.segmentation.strategy import Segmenter, Strategy
from model.causal_lm.forward import context_length
from model.errors import TextError
from model.hub.loading import LoadedModel, ModelSpec
from model.hub.micro_step_io import UNTRAINED
from model.hub.wrap_base import Wrapped, wrap
from model.progress import Progress, part
from model.segmentation.features import FeatureOptions
from model.segmentation.segment import MAX_LENGTH
from model.text.document import TextInput
from model.text.encoding import EncodedText, encode_reply

UNMERGED = "the base read the text token by token, as this model does when it drafts for it"
NOTHING = "no segment has two tokens, so that the micro decoder has nothing to do; choose other segments, or more text"
_SHARE_CUT = 0.5  # of a run, until the segments are known


@dataclass(frozen=True)
class MicroRequest:
    """A text for one model, and the segments in which its micro attention is looked at.

    `strategy` cuts the text; without one, the model's training does. With `written`, the model answers the text, and
    the segments are those that it wrote.
    """

    model: ModelSpec
    text: TextInput
    strategy: Strategy | None = None
    written: Decoding | None = None
    max_length: int | None = None  # the most tokens of a segment; None: 4, or the model's M if that is less
    how: FeatureOptions = field(default_factory=FeatureOptions)
    side: str = field(default="A", compare=False)  # what a reader knows the model as

    @property
    def specs(self) -> dict[str, ModelSpec]:
        return {self.side: self.model}

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes: the text is scored, read in segments, and its weights are kept."""
        new = 0 if self.written is None else self.written.max_new_tokens
        found = scoring_cost(loaded, self.text, new, passes=2.0)
        micro, layers = loaded.facts.micro_step, loaded.facts.layers
        states, depth = (len(micro.context_layers), micro.micro_layers) if micro is not None else (4, 2)
        positions = (self.max_length or MAX_LENGTH) - 1
        slots, segments = states + positions, found.tokens // 2
        heads = int(getattr(loaded.model.config.get_text_config(), "num_attention_heads", 1) or 1)
        kept = 4 * segments * depth * heads * positions * slots
        work = loaded.facts.parameters * depth / max(1, layers) * segments * slots
        return RunCost(found.tokens, found.memory + kept, found.work + work)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> MicroAttention:
        """The micro attention.

        Raises:
            TooLarge: it does not fit the model's context or the memory.
            MicroStepError: the segments cannot be made.
        """
        ready = wrap(load(self.model))
        most = check_most(self.max_length, ready.facts.max_segment_length)
        cut = self._write if self.written is not None else self._cut
        encoded, starts, words, notes = cut(ready, most, part(progress, 0.0, _SHARE_CUT))
        merged = ready.facts.decoding == "merged"
        if self.written is not None and self.written.lossless is not None:
            merged = not self.written.lossless
        encoded, ids, starts = readable(encoded, starts, context_length(ready.model))
        row, lead = SegmentedRow(ids, starts), len(encoded.prefix)
        told = part(progress, _SHARE_CUT, 1.0)
        blocks = list(micro_blocks(ready.model, [row], merged, most, told))
        if not blocks:
            raise TextError(NOTHING)
        if ready.facts.untrained and UNTRAINED not in notes:
            notes = (*notes, UNTRAINED)
        return MicroAttention(
            facts=replace(ready.loaded.facts, micro_step=ready.facts),
            encoded=encoded,
            starts=starts[lead:],
            first=np.concatenate([block.first for block in blocks]) - lead,
            length=np.concatenate([block.length for block in blocks]),
            weights=np.concatenate([block.weights for block in blocks]),
            merged=merged,
            cut=words,
            notes=notes if merged else (*notes, UNMERGED),
        )

    def _cut(self, ready: Wrapped, most: int, progress: Progress | None) -> _CutText:
        """The text, cut by a strategy or as in training."""
        training = TrainingSegments()
        if self.strategy is None and (recipe := training_of(self.model.name, self.model.revision)) is not None:
            training = recipe.cut
        segmenter = Segmenter(self.strategy or training.strategy, most, self.how)
        found = gather(ready.loaded, self.text, segmenter, progress)
        if self.strategy is None:
            starts, words = training.cut(found.inputs, most)
        else:
            starts, words = segmenter.segment(found.inputs).starts, self.strategy.title("nats")
        return found.scored.encoded, starts, words, found.notes

    def _write(self, ready: Wrapped, most: int, progress: Progress | None) -> _CutText:
        """The text and the model's answer to it, cut where it cut; the text itself is not merged."""
        assert self.written is not None
        how = replace(self.written, max_segment_length=most)
        asked = GenerationRequest(self.model, self.text, how)
        run = asked.begin(ready, how, progress)
        run.write()
        found = run.so_far()
        whole = encode_reply(found.prompt, found.micro.ids, ready.loaded.tokenizer)
        starts = np.ones(len(whole), dtype=bool)
        starts[len(found.prompt) :] = False
        starts[len(found.prompt) + found.segments.starts] = True
        words = f"written by the model itself, rule {how.rule}, tau {how.tau:g}"
        return whole, starts, words, found.notes


_CutText = tuple[EncodedText, NDArray[np.bool_], str, tuple[str, ...]]  # what is read, starts, by which rule, notes
