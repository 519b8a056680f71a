"""A comparison as it was asked for: the inputs that decide it, as one value that can be kept, hashed and run again."""

from __future__ import annotations

from dataclasses import dataclass, field

from analysis.options import Reader, text_provenance
from analysis.provenance import Provenance, plain_values
from analysis.query import ModelLoader, RunCost, scoring_cost
from analysis.uncertainty.options import ContinuationOptions
from analysis.uncertainty.result import Comparison
from analysis.view import View
from model.command_options import SamplingOptions
from model.errors import MicroStepError
from model.hub.loading import LoadedModel, ModelSpec
from model.progress import Progress
from model.scoring.scores import Sampling
from model.text.document import TextInput


@dataclass(frozen=True)
class ComparisonQuery:
    """Two models, a document, and how it is read."""

    a: ModelSpec
    b: ModelSpec
    text: TextInput
    new_tokens: int = 0  # more than 0: each model continues the document, and its own continuation is scored
    sampling: Sampling = field(default_factory=Sampling)

    def __post_init__(self) -> None:
        if self.new_tokens < 0:
            raise MicroStepError(f"a continuation has 0 tokens or more, got {self.new_tokens}")

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """Both models."""
        return {"A": self.a, "B": self.b}

    def cost(self, loaded: LoadedModel) -> RunCost:
        """What a run takes on one of them."""
        return scoring_cost(loaded, self.text, self.new_tokens)

    def run(self, load: ModelLoader, progress: Progress | None = None) -> Comparison:
        """Answer the request with models that `load` gives."""
        from analysis.uncertainty.compare import compare, compare_continuations  # needs torch

        a, b = load(self.a), load(self.b)
        if self.new_tokens:
            return compare_continuations(a, b, self.text, self.new_tokens, self.sampling, progress=progress)
        return compare(a, b, self.text, progress=progress)

    def origin(self, comparison: Comparison, view: View) -> Provenance:
        """Where a figure of the comparison comes from."""
        readers = [
            Reader(key, spec, side.facts, side.encoded.text, side.notes)
            for key, spec, side in (("a", self.a, comparison.a), ("b", self.b, comparison.b))
        ]
        options = ContinuationOptions(self.new_tokens), SamplingOptions.of(self.sampling), view
        return text_provenance("compare", plain_values(self), self.text, view, readers, *options)
