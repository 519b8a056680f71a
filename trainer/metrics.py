"""Metrics of a pass over some rows, as sums, so that parts of a step and processes can be added up."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

OTHER = 7  # length of `MetricSums.other`


@dataclass(frozen=True)
class MetricSums:
    """Sums over tokens, for each of M positions in a segment, and over stops."""

    position: Tensor  # [4, M] float64: tokens, nll in nats, correct tokens, tokens that have an nll
    other: Tensor
    """[7] float64: stops, correct stops, their loss; tokens with a teacher, their divergence; tokens with a teacher's
    states at the end of their segment, the error there."""
    rows: Tensor | None = None
    """[4, 1 + M] for a validation, over all positions and at each: number of rows with tokens there, and the sums over
    rows of tokens x tokens, tokens x correct, and correct x correct. They describe the variance between rows."""

    @classmethod
    def zeros(cls, positions: int, device: torch.device, rows: bool = False) -> MetricSums:
        kind = torch.float64 if device.type != "mps" else torch.float32
        position, other = (torch.zeros(shape, dtype=kind, device=device) for shape in ((4, positions), (OTHER,)))
        return cls(position, other, torch.zeros(4, 1 + positions, dtype=kind, device=device) if rows else None)

    def __add__(self, more: MetricSums) -> MetricSums:
        rows = [sums.rows for sums in (self, more) if sums.rows is not None]
        return MetricSums(
            self.position + more.position, self.other + more.other, sum(rows[1:], rows[0]) if rows else None
        )

    def with_rows(self, row: Tensor, slot: Tensor, correct: Tensor) -> MetricSums:
        """Return the sums with row statistics, from row, slot and correctness of each of T tokens: all [T]."""
        size, positions = int(row.max()) + 1 if len(row) else 0, self.position.shape[1]
        counts = torch.zeros(2, size, positions, dtype=self.position.dtype, device=row.device)
        for held, values in zip(counts, (torch.ones_like(correct), correct), strict=True):
            held.index_put_((row, slot), values.to(held.dtype), accumulate=True)
        tokens, right = torch.cat([counts.sum(2, keepdim=True), counts], 2)
        sums = (tokens > 0).to(tokens.dtype), tokens * tokens, tokens * right, right * right
        return replace(self, rows=torch.stack([values.sum(0) for values in sums]))

    @classmethod
    def of(
        cls,
        positions: int,
        slot: Tensor,
        nll: Tensor,
        correct: Tensor,
        stops: tuple[float, Tensor, Tensor] | None = None,
        teacher: tuple[float, Tensor] | None = None,
        hidden: tuple[Tensor, Tensor] | None = None,
    ) -> MetricSums:
        """Return the sums over T tokens.

        Args:
            positions: M.
            slot: [T] place in the segment.
            nll: [T] nats.
            correct: [T] bool.
            stops: number of stops, [] correct ones, [] sum of their losses.
            teacher: number of tokens with a teacher, [] sum of their KL(teacher || model), nats.
            hidden: [] number of tokens, [] sum of the errors at the ends of their segments.
        """
        zero = cls.zeros(positions, nll.device)
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
        cls, loss_mask: Tensor, known: Tensor, nll: Tensor, correct: Tensor, teacher: tuple[Tensor, Tensor] | None
    ) -> MetricSums:
        """Return the sums over places 2 .. M of Q positions, without waiting for the device.

        Args:
            loss_mask: [Q, M - 1] bool, the token counts.
            known: [Q, M - 1] bool, the token has an nll; without one it counts as missed.
            nll: [Q, M - 1] nats.
            correct: [Q, M - 1] bool.
            teacher: [Q, M - 1] bool, whether there is one, and [Q, M - 1] KL(teacher || model), nats.
        """
        zero = cls.zeros(loss_mask.shape[1] + 1, nll.device)
        position, other = zero.position.clone(), zero.other.clone()
        for row, values in enumerate((loss_mask, nll * known, correct & known, known)):
            position[row, 1:] = values.to(position.dtype).sum(0)
        if teacher is not None:
            taught, divergence = teacher
            other[3], other[4] = taught.sum(), (divergence * taught).to(other.dtype).sum()
        return cls(position, other)

    @property
    def tokens(self) -> int:
        return int(self.position[0].sum())

    @property
    def token_loss(self) -> float:
        """Nats per token that has an nll."""
        return float(self.position[1].sum() / self.position[3].sum())

    @property
    def accuracy(self) -> float:
        """Share of tokens that are the likeliest."""
        return float(self.position[2].sum() / self.position[0].sum())

    @property
    def stop_loss(self) -> float | None:
        """Nats per stop."""
        return float(self.other[2] / self.other[0]) if self.other[0] else None

    @property
    def stop_accuracy(self) -> float | None:
        """Share of stops on the right side of 0.5."""
        return float(self.other[1] / self.other[0]) if self.other[0] else None

    @property
    def teacher_loss(self) -> float | None:
        """Nats per token that has a teacher."""
        return float(self.other[4] / self.other[3]) if self.other[3] else None

    @property
    def divergence(self) -> float | None:
        """The teacher's part in nats per token that has an nll, including tokens without a teacher."""
        return float(self.other[4] / self.position[3].sum()) if self.other[3] else None

    @property
    def hidden_loss(self) -> float | None:
        """Relative error of the states, per token whose segment end has a teacher's states."""
        return float(self.other[6] / self.other[5]) if self.other[5] else None

    @property
    def hidden_part(self) -> float | None:
        """Relative error of the states, per token that has an nll."""
        return float(self.other[6] / self.position[3].sum()) if self.other[5] else None

    @property
    def position_tokens(self) -> tuple[int, ...]:
        """[M] number of tokens at each position."""
        return tuple(int(count) for count in self.position[0].tolist())

    @property
    def position_loss(self) -> tuple[float | None, ...]:
        """[M] nats per token; None if there is no token."""
        return _means(self.position[1], self.position[3])

    @property
    def position_accuracy(self) -> tuple[float | None, ...]:
        """[M] share of tokens that are the likeliest; None if there is no token."""
        return _means(self.position[2], self.position[0])

    @property
    def row_counts(self) -> tuple[float, ...]:
        """[1 + M] number of rows with tokens, over all positions and at each, weighted by their tokens (Kish 1965)."""
        if self.rows is None:
            return ()
        tokens = self._with_whole(self.position[0])
        return tuple((tokens**2 / self.rows[1].clamp(min=1)).tolist())

    @property
    def accuracy_errors(self) -> tuple[float | None, ...]:
        """[1 + M] standard error of the accuracy over rows, whose tokens are not independent; None for one row.

        It is that of the ratio of correct tokens to tokens, linearised (Cochran 1977, section 2.11).
        """
        if self.rows is None:
            return ()
        tokens, right = self._with_whole(self.position[0]), self._with_whole(self.position[2])
        rows, both, mixed, hits = self.rows
        share = right / tokens
        error = (rows / (rows - 1) * (hits - 2 * share * mixed + share**2 * both).clamp(min=0)).sqrt() / tokens
        return tuple(value if n > 1 else None for value, n in zip(error.tolist(), rows.tolist(), strict=True))

    def _with_whole(self, per_position: Tensor) -> Tensor:
        """Return [1 + M], the sum followed by the parts."""
        return torch.cat([per_position.sum()[None], per_position])


def _means(sums: Tensor, counts: Tensor) -> tuple[float | None, ...]:
    return tuple(total / n if n else None for total, n in zip(sums.tolist(), counts.tolist(), strict=True))
