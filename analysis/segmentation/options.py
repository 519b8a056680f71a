"""Options of the commands `segment` and `solve`: how tokens are divided, by which strategies, and what else is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from analysis.options import (
    MAX_LENGTH_OPTION,
    HistoryMethod,
    HistoryStride,
    MaxLength,
    PromptApart,
    Settings,
    split_strategies,
    strategy_word,
)
from analysis.view import OF_FIGURES
from model.command_options import ListOf
from model.errors import MicroStepError
from model.segmentation.segment import MAX_LENGTH, RULES

if TYPE_CHECKING:
    from analysis.segmentation.strategy import Segmenter, Strategy
    from model.segmentation.features import FeatureOptions

STRATEGY = typer.Option(help=f"As in entropy:threshold=1.2, in nats; one of {', '.join(RULES)}.")


@dataclass(frozen=True)
class SegmenterOptions:
    """How tokens are divided, and how what strategies need is computed, whatever the strategy."""

    max_length: MaxLength = MAX_LENGTH
    prompt_apart: PromptApart = None
    layer: Annotated[
        tuple[int, ...] | None,
        typer.Option(help="For the attention strategies: layers, from 0. Default: all."),
        ListOf(int, least=0),
    ] = None
    head: Annotated[
        tuple[int, ...] | None,
        typer.Option(help="For the attention strategies: heads, from 0. Default: all."),
        ListOf(int, least=0),
    ] = None
    history_method: HistoryMethod = "exact"
    history_stride: HistoryStride = 16

    @classmethod
    def of(
        cls, max_length: int, features: FeatureOptions, strategies: Sequence[Strategy], history: bool = False
    ) -> SegmenterOptions:
        """The options that say the same for these strategies, and for a limited history that is compared."""
        needs = _needs(strategies, history)
        options = cls(max_length, features.prompt_apart)
        if "attention" in needs:
            options = replace(options, layer=features.layers, head=features.heads)
        if "window" in needs:
            options = replace(options, history_method=features.history, history_stride=features.stride)
        return options

    def of_strategy(self, strategy: Strategy) -> Segmenter:
        """A strategy with all that decides where segments start; an error as `features`."""
        from analysis.segmentation.strategy import Segmenter

        return Segmenter(strategy, self.max_length, self.features([strategy]))

    def features(self, strategies: Sequence[Strategy], history: bool = False) -> FeatureOptions:
        """The choices that are no parameters of a rule.

        Args:
            strategies: those that are asked for.
            history: a limited history is compared, too.

        Raises:
            MicroStepError: an option is given that none of the strategies uses.
        """
        from model.segmentation.features import FeatureOptions

        needs = _needs(strategies, history)
        if "attention" not in needs and (self.layer is not None or self.head is not None):
            raise MicroStepError(
                "--layer and --head are used only by attention_mass and attention_sparsity; leave them out"
                + ("; the layer of router is router:layer=2" if "hidden" in needs else "")
            )
        default = SegmenterOptions()
        ways = [(each.history_method, each.history_stride) for each in (self, default)]
        if "window" not in needs and ways[0] != ways[1]:
            raise MicroStepError(
                "--history-method and --history-stride are used only by limited_history and by --window; leave them out"
            )
        return FeatureOptions(self.layer, self.head, self.history_method, self.history_stride, self.prompt_apart)


def _needs(strategies: Sequence[Strategy], history: bool) -> set[str]:
    """What strategies need of a model."""
    return {need for each in strategies for need in each.rule.needs} | ({"window"} if history else set())


@dataclass(frozen=True)
class StrategyOptions:
    """One strategy."""

    strategy: Annotated[str, STRATEGY]
    settings: Settings = None

    def read(self) -> Strategy:
        """The strategy.

        Raises:
            MicroStepError: it does not exist, or a parameter is wrong or given twice.
        """
        from analysis.segmentation.strategy import Strategy

        return Strategy.parse(strategy_word(self.strategy, self.settings))

    def given(self) -> list[str]:
        """Names of the parameters that are set, the others being defaults."""
        _, _, own = strategy_word(self.strategy, self.settings).partition(":")
        return [setting.partition("=")[0].strip() for setting in own.split(",") if setting]


@dataclass(frozen=True)
class SegmentsOptions:
    """The segments of a text that is looked at for something else."""

    strategy: Annotated[str | None, STRATEGY] = None
    settings: Settings = None
    max_length: Annotated[int | None, MAX_LENGTH_OPTION] = None
    prompt_apart: PromptApart = None

    @classmethod
    def of(cls, segmenter: Segmenter) -> SegmentsOptions:
        """The options that say the same."""
        return cls(str(segmenter.strategy), None, segmenter.max_length, segmenter.features.prompt_apart)

    def read(self) -> Strategy | None:
        """The strategy, if one is given.

        Raises:
            MicroStepError: as `StrategyOptions.read`, or parameters are set of none.
        """
        if self.strategy is None and self.settings:
            raise MicroStepError("--set goes with --strategy")
        return None if self.strategy is None else StrategyOptions(self.strategy, self.settings).read()

    def segmenter(self) -> Segmenter:
        """All that decides where segments start: by words, unless a strategy is given.

        Raises:
            MicroStepError: as `read`.
        """
        from analysis.segmentation.strategy import Segmenter

        default = Segmenter()
        max_length = default.max_length if self.max_length is None else self.max_length
        return Segmenter(self.read() or default.strategy, max_length, self.features())

    def features(self) -> FeatureOptions:
        """The choices that are no parameters of a rule."""
        from model.segmentation.features import FeatureOptions

        return FeatureOptions(prompt_apart=self.prompt_apart)


@dataclass(frozen=True)
class StrategiesOptions:
    """One strategy, or several side by side."""

    strategy: Annotated[list[str], STRATEGY]
    settings: Settings = None

    @classmethod
    def of(cls, strategies: Sequence[Strategy]) -> StrategiesOptions:
        """The options that say the same."""
        return cls([str(each) for each in strategies])

    def read(self) -> tuple[Strategy, ...]:
        """The strategies.

        Raises:
            MicroStepError: as `StrategyOptions.read`, or --set is given with several.
        """
        words = split_strategies(self.strategy)
        if len(words) > 1 and self.settings:
            raise MicroStepError("--set goes with one --strategy; write several as name:parameter=value")
        return tuple(StrategyOptions(word, self.settings).read() for word in words)


@dataclass(frozen=True)
class StoreOptions:
    """A store of scores instead of models and a text."""

    store: Annotated[
        str | None, typer.Option(help="Instead of models and text: folder of a store that `corpus score` wrote.")
    ] = None
    number: Annotated[int, typer.Option(min=0, help="Document of the store that is shown token by token.")] = 0


@dataclass(frozen=True)
class ExtraRuns:
    """What is computed for some figures alone."""

    window: Annotated[
        int | None,
        typer.Option(min=1, help="For history: tokens that the model sees. Default: those of limited_history."),
        OF_FIGURES,
    ] = None
    other_precision: Annotated[
        bool,
        typer.Option("--other-precision", help="For unstable: run each model in bfloat16 (or float32), too."),
        OF_FIGURES,
    ] = False
