"""Statistics of a head's attention.

Each is defined for a query q over the keys k that it may see, with weights a_k. With learned sinks the weights sum to
less than one; entropy and distance then use the weights divided by their sum. A head's statistic is the mean over all
queries, except the first, which sees only itself, and those for which it is not defined.
"""

from __future__ import annotations

from dataclasses import dataclass

from model.arguments import check_choice


@dataclass(frozen=True)
class Statistic:
    """A number of each layer and head."""

    name: str
    title: str
    unit: str
    meaning: str  # one sentence, its definition
    top: float | None = 1.0  # the upper end of its scale; None: it depends on the text

    @property
    def column(self) -> str:
        """Its column in tables, which names the unit of what is no share."""
        return self.name if self.unit == "share" else f"{self.name}_{self.unit}"


STATISTICS: dict[str, Statistic] = {
    each.name: each
    for each in (
        Statistic(
            "evenness", "evenness", "share",
            "H / ln n: the entropy H = −Σ a ln a divided by its largest value, with n visible keys. 1 is even, 0 is "
            "a single key. Not defined if only one key is visible.",
        ),
        Statistic(
            "support", "effective support", "keys",
            "exp(H): the number of keys that would give this entropy if all had the same weight.", None,
        ),
        Statistic("sink", "on the sink", "share", "a_0: the weight of the very first position (Xiao et al. 2023)."),
        Statistic(
            "current", "on the current segment", "share",
            "The sum of a over the keys of the query's own segment, including the query itself.",
        ),
        Statistic(
            "previous", "on the previous segment", "share",
            "The sum of a over the keys of the segment before the query's own. Not defined in the first segment.",
        ),
        Statistic(
            "boundaries", "on boundaries", "share", "The sum of a over the keys that start a segment, including BOS."
        ),
        Statistic("distance", "distance", "positions", "The mean of q − k, weighted by a.", None),
        Statistic(
            "induction", "induction", "share",
            "The sum of a over the keys that followed an earlier occurrence of the query's token (Olsson et al. 2022). "
            "Not defined if the token did not occur before.",
        ),
    )
}  # fmt: skip


def statistic(name: str) -> Statistic:
    """The statistic of this name.

    Raises:
        MicroStepError: no statistic has this name.
    """
    check_choice("statistic", name, STATISTICS)
    return STATISTICS[name]
