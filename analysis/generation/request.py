"""Let a micro_step model answer a prompt, and its base alone the same one: the request."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from analysis.generation.result import Decoding, Generation
from analysis.query import ModelLoader, RunCost, scoring_cost
from analysis.uncertainty.scoring import LONGEST_TEXT, encode_for
from model.errors import TextError, TooLarge
from model.hub.loading import LoadedModel, ModelSpec
from model.hub.micro_step_io import UNTRAINED
from model.hub.wrap_base import Wrapped, wrap
from model.progress import Progress
from model.text.document import Document, Message, TextInput
from model.text.encoding import EncodedText

if TYPE_CHECKING:
    from analysis.generation.run import GenerationRun, Watch

FIRST_WORDS = 12  # of a text whose beginning is continued
LONGEST_WORDS = 120  # characters of these


@dataclass(frozen=True)
class GenerationRequest:
    """A prompt for one model, and how it is answered."""

    model: ModelSpec
    text: TextInput
    how: Decoding = field(default_factory=Decoding)
    side: str = field(default="A", compare=False)  # what a reader knows the model as

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """Its one model."""
        return {self.side: self.model}

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What both answers take."""
        found = scoring_cost(loaded, self.text, 2 * self.how.max_new_tokens)
        return replace(found, tokens=found.tokens - self.how.max_new_tokens)

    def run(self, load: ModelLoader, progress: Progress | None = None, watch: Watch | None = None) -> Generation:
        """Both answers.

        Raises:
            TextError: there is no prompt.
            TooLarge: prompt and answer do not fit the model's context or the memory.
            MicroStepError: settings that the model cannot follow.
        """
        run = self.begin(wrap(load(self.model)), self.how, progress, watch)
        run.write()
        run.write_base()
        found = run.done()
        if progress is not None:
            progress(1.0)
        return found

    def begin(
        self, ready: Wrapped, how: Decoding, progress: Progress | None = None, watch: Watch | None = None
    ) -> GenerationRun:
        """A run of the prompt, before anything is written."""
        from analysis.generation.run import GenerationRun  # needs torch

        loaded = ready.loaded
        prompt = encode_prompt(loaded, self.text)
        notes = list(loaded.facts.approximations)
        if ready.facts.untrained and UNTRAINED not in notes:
            notes.append(UNTRAINED)
        if self.text.chat and not prompt.chat:
            notes.append("this model has no chat template: it read the raw text")
        notes += prompt.notes
        return GenerationRun(ready, prompt, how, tuple(notes), progress, watch)

    def plain(self) -> dict[str, Any]:
        """The request as plain values, for a manifest."""
        return asdict(self)


def prompt_of(document: Document) -> Document:
    """What is to be answered: a text as it is, a conversation without the answer that ends it.

    Raises:
        TextError: there is nothing else.
    """
    turns = list(document.messages)
    while turns and turns[-1].role == "assistant":
        turns.pop()
    if not any(turn.content for turn in turns):
        raise TextError("there is no prompt: the text is empty, or an answer only; type or choose one")
    return replace(document, messages=tuple(turns))


def beginning(document: Document) -> Document:
    """The first words of a plain text, or as many characters where there are no spaces; others as they are."""
    if len(document.messages) > 1:
        return document
    words = re.match(rf"\s*(?:\S+\s+){{{FIRST_WORDS - 1}}}\S+", document.text)
    short = words[0] if words else document.text
    return replace(document, messages=(Message(document.messages[0].role, short[:LONGEST_WORDS]),))


def encode_prompt(loaded: LoadedModel, text: TextInput) -> EncodedText:
    """Tokenise a prompt, with the template's cue for an answer where there is a template.

    Raises:
        TextError: see `prompt_of`; or the template refuses the conversation.
        TooLarge: it is far too long.
    """
    prompt = prompt_of(text.document)
    if len(prompt.text) > LONGEST_TEXT:
        raise TooLarge(f"the prompt has {len(prompt.text):,} characters; at most {LONGEST_TEXT:,} are read")
    return encode_for(loaded, replace(text, document=prompt), reply=True)
