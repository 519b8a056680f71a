"""Options of the command `attention`: which layers and heads, which map, and how a figure is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from analysis.view import OF_FIGURES, PinnedOption, ThemeOption
from model.command_options import ListOf
from model.errors import MicroStepError

if TYPE_CHECKING:
    from analysis.attention.pooling import Pool
    from analysis.attention.result import AttentionView

MAPS = "maps"
EVENNESS = "evenness"
_PART = "FROM:TO, the {} of a map, TO left out. Default: all."


@dataclass(frozen=True)
class MapOptions:
    """Which layers, heads and positions."""

    layer: Annotated[
        tuple[int, ...] | None,
        typer.Option(help="Layers, from 0; a map and a figure take one. Default: all, and 0 of a figure."),
        ListOf(int, least=0),
    ] = None
    head: Annotated[
        tuple[int, ...] | None,
        typer.Option(
            help="Heads, from 0; a map and a figure take one. Default: all, whose mean is a map's, and 0 of a figure."
        ),
        ListOf(int, least=0),
    ] = None
    source: Annotated[
        Literal["head", "mean", "rollout"] | None,
        typer.Option(help="Which map: a head's, the mean of heads, or the attention rollout through --layer."),
    ] = None
    level: Annotated[
        Literal["tokens", "segments"],
        typer.Option(help="segments: weights on a segment's keys summed, rows of its queries averaged."),
    ] = "tokens"
    queries: Annotated[str | None, typer.Option(help=_PART.format("queries"))] = None
    keys: Annotated[str | None, typer.Option(help=_PART.format("keys"))] = None

    def check_table(self) -> None:
        if self.source or self.queries or self.keys or self.level != "tokens":
            raise MicroStepError(
                "--source, --queries, --keys and --level apply to a map: give --out X.npz, or --figure"
            )

    def check_map(self) -> None:
        if len(self.layer or ()) != 1 or len(self.head or ()) > 1:
            raise MicroStepError("a map shows one layer and at most one head: give one --layer, and one --head or none")
        if self.head and self.source in ("mean", "rollout"):
            raise MicroStepError(f"the {self.source} covers all heads; leave --head out")
        if self.source == "head" and not self.head:
            raise MicroStepError("give the head with --head")


@dataclass(frozen=True)
class AttentionViewOptions:
    """How a figure is drawn."""

    shown: Annotated[
        str, typer.Option(help=f"For the figure statistics: which one; {EVENNESS} unless given."), OF_FIGURES
    ] = MAPS
    pool: Annotated[Literal["max", "mean"], typer.Option(help="What a cell of several weights holds."), OF_FIGURES] = (
        "max"
    )
    theme: ThemeOption = "light"
    pinned: PinnedOption = None

    def view(self, figure: str | None, of: MapOptions) -> AttentionView:
        """The view of a figure; without one, of a map that is written in full."""
        from analysis.attention.result import AttentionView

        if figure is None:
            of.check_map()
        elif len(of.layer or ()) > 1 or len(of.head or ()) > 1:
            raise MicroStepError("a figure shows one layer and head: give --layer and --head once")
        shown = EVENNESS if figure == "statistics" and self.shown == MAPS else self.shown
        (layer,), (head,) = of.layer or (0,), of.head or (0,)
        source = of.source or ("head" if figure is not None or of.head else "mean")
        windows = _window(of.queries), _window(of.keys)
        return AttentionView(shown, layer, head, source, of.level, *windows, self.theme, self.pinned)


def options_of(view: AttentionView, pool: Pool) -> tuple[MapOptions, AttentionViewOptions]:
    """The options that say the same."""
    windows = (None if part is None else f"{part[0]}:{part[1]}" for part in (view.queries, view.keys))
    return (
        MapOptions((view.layer,), (view.head,), view.source, view.level, *windows),
        AttentionViewOptions(view.shown, pool, view.theme, view.pinned),
    )


def _window(given: str | None) -> tuple[int, int] | None:
    """FROM:TO as numbers."""
    if given is None:
        return None
    first, colon, last = given.partition(":")
    if not (colon and all(part.isascii() and part.isdigit() and len(part) < 10 for part in (first, last))):
        raise MicroStepError(f"a part of a map is written as 0:100, not {given!r}")
    return int(first), int(last)
