"""What is counted of a pass over some rows, as sums, so that parts of a step and processes can be added up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

OTHER = 7  # as `MetricSums.other`


@dataclass(frozen=True)
class MetricSums:
    """Sums over tokens, for each of M positions in a segment, and over stops."""

    position: Tensor  # [4, M] float64: tokens, nll in nats, tokens that are the likeliest, tokens that have an nll
    other: Tensor
    """[7] float64: stops, right ones, their loss; tokens with a teacher, their divergence; tokens with a teacher's
    states at the end of their segment, the error there."""
    rows: Tensor | None = None
    """[4, 1 + M] of a validation, over all positions and at each: rows that have tokens there, and the sums over rows
    of tokens x tokens, tokens x right ones, and right ones x right ones. They say how rows differ."""

    @classmethod
    def nothing(cls, most: int, device: torch.device, rows: bool = False) -> MetricSums:
        """Of no token; with `rows` also of no row."""
        kind = torch.float64 if device.type != "mps" else torch.float32
        position, other = (torch.zeros(shape, dtype=kind, device=device) for shape in ((4, most), (OTHER,)))
        return cls(position, other, torch.zeros(4, 1 + most, dtype=kind, device=device) if rows else None)

    def __add__(self, more: MetricSums) -> MetricSums:
        rows = [each.rows for each in (self, more) if each.rows is not None]
        return MetricSums(
            self.position + more.position, self.other + more.other, sum(rows[1:], rows[0]) if rows else None
        )

    def with_rows(self, row: Tensor, slot: Tensor, correct: Tensor) -> MetricSums:
        """The same, knowing which of its rows each of T tokens is of: all [T]."""
        size, most = int(row.max()) + 1 if len(row) else 0, self.position.shape[1]
        found = torch.zeros(2, size, most, dtype=self.position.dtype, device=row.device)
        for held, values in zip(found, (torch.ones_like(correct), correct), strict=True):
            held.index_put_((row, slot), values.to(held.dtype), accumulate=True)
        tokens, right = torch.cat([found.sum(2, keepdim=True), found], 2)
        sums = (tokens > 0).to(tokens.dtype), tokens * tokens, tokens * right, right * right
        return replace(self, rows=torch.stack([each.sum(0) for each in sums]))

    @classmethod
    def of(
        cls,
        most: int,
        slot: Tensor,
        nll: Tensor,
        correct: Tensor,
        stops: tuple[float, Tensor, Tensor] | None = None,
        teacher: tuple[float, Tensor] | None = None,
        hidden: tuple[Tensor, Tensor] | None = None,
    ) -> MetricSums:
        """Of T tokens.

        Args:
            most: M.
            slot: [T] place in the segment.
            nll: [T] nats.
            correct: [T] bool.
            stops: how many, [] right ones, [] sum of their losses.
            teacher: how many tokens, [] sum of their KL(teacher || model), nats.
            hidden: [] how many tokens, [] sum of the errors at the ends of their segments.
        """
        zero = cls.nothing(most, nll.device)
        position = zero.position.clone()
        for row, values in enumerate((torch.ones_like(nll), nll, correct, torch.ones_like(nll))):
            position[row].scatter_add_(0, slot, values.to(position.dtype))
        other = zero.other.clone()
        if stops is not None:
            other[0], other[1], other[2] = stops[0], stops[1].detach(), stops[2].detach()
        if teacher is not None:
            other[3], other[4] = teacher[0], teacher[1].detach()
        if hidden is not None:
            other[5], other[6] = hidden[0], hidden[1].detach()
        return cls(position, other)

    @classmethod
    def of_places(
        cls, learnt: Tensor, known: Tensor, nll: Tensor, correct: Tensor, teacher: tuple[Tensor, Tensor] | None
    ) -> MetricSums:
        """Of places 2 .. M of Q positions, without waiting for the device.

        Args:
            learnt: [Q, M - 1] bool, the token counts.
            known: [Q, M - 1] bool, it has an nll; where it has none it counts as missed.
            nll: [Q, M - 1] nats.
            correct: [Q, M - 1] bool.
            teacher: [Q, M - 1] bool, whether there is one, and [Q, M - 1] KL(teacher || model), nats.
        """
        zero = cls.nothing(learnt.shape[1] + 1, nll.device)
        position, other = zero.position.clone(), zero.other.clone()
        for row, values in enumerate((learnt, nll * known, correct & known, known)):
            position[row, 1:] = values.to(position.dtype).sum(0)
        if teacher is not None:
            there, divergence = teacher
            other[3], other[4] = there.sum(), (divergence * there).to(other.dtype).sum()
        return cls(position, other)

    @property
    def tokens(self) -> int:
        """Over all positions."""
        return int(self.position[0].sum())

    @property
    def token_loss(self) -> float:
        """Nats a token that has an nll."""
        return float(self.position[1].sum() / self.position[3].sum())

    @property
    def accuracy(self) -> float:
        """Share of tokens that are the likeliest."""
        return float(self.position[2].sum() / self.position[0].sum())

    @property
    def stop_loss(self) -> float | None:
        """Nats a stop."""
        return float(self.other[2] / self.other[0]) if self.other[0] else None

    @property
    def stop_accuracy(self) -> float | None:
        """Share of stops on the right side of one half."""
        return float(self.other[1] / self.other[0]) if self.other[0] else None

    @property
    def teacher_loss(self) -> float | None:
        """Nats a token that has a teacher."""
        return float(self.other[4] / self.other[3]) if self.other[3] else None

    @property
    def divergence(self) -> float | None:
        """Nats of the teacher's part for each token that has an nll, those that no teacher knows included."""
        return float(self.other[4] / self.position[3].sum()) if self.other[3] else None

    @property
    def hidden_loss(self) -> float | None:
        """Relative error of the states, for each token whose segment's end has a teacher's."""
        return float(self.other[6] / self.other[5]) if self.other[5] else None

    @property
    def hidden_part(self) -> float | None:
        """The same for each token that has an nll."""
        return float(self.other[6] / self.position[3].sum()) if self.other[5] else None

    @property
    def position_tokens(self) -> tuple[int, ...]:
        """[M]."""
        return tuple(int(count) for count in self.position[0].tolist())

    @property
    def position_loss(self) -> tuple[float | None, ...]:
        """[M] nats a token; None where there is none."""
        return _means(self.position[1], self.position[3])

    @property
    def position_accuracy(self) -> tuple[float | None, ...]:
        """[M] share of tokens that are the likeliest; None where there is none."""
        return _means(self.position[2], self.position[0])

    @property
    def row_counts(self) -> tuple[float, ...]:
        """[1 + M] rows that have tokens, over all positions and at each, counted by their tokens (Kish 1965)."""
        if self.rows is None:
            return ()
        tokens = self._with_whole(self.position[0])
        return tuple((tokens**2 / self.rows[1].clamp(min=1)).tolist())

    @property
    def accuracy_errors(self) -> tuple[float | None, ...]:
        """[1 + M] standard error of the accuracy over rows, whose tokens are not independent; None of fewer than two.

        Of the ratio of right tokens to tokens, linearised (Cochran 1977, section 2.11).
        """
        if self.rows is None:
            return ()
        tokens, right = self._with_whole(self.position[0]), self._with_whole(self.position[2])
        rows, both, mixed, hits = self.rows
        share = right / tokens
        error = (rows / (rows - 1) * (hits - 2 * share * mixed + share**2 * both).clamp(min=0)).sqrt() / tokens
        return tuple(value if n > 1 else None for value, n in zip(error.tolist(), rows.tolist(), strict=True))

    def _with_whole(self, per_position: Tensor) -> Tensor:
        """[1 + M] the sum before the parts."""
        return torch.cat([per_position.sum()[None], per_position])


def _means(sums: Tensor, counts: Tensor) -> tuple[float | None, ...]:
    return tuple(total / n if n else None for total, n in zip(sums.tolist(), counts.tolist(), strict=True))
