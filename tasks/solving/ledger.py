"""What a nested run keeps: the inputs that it visited, one row per call where it is traced, and the best input."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

import jiio
from jiio.layout import Tree

BLOCKS = ("z", "mu", "x")


@dataclass(frozen=True)
class Visit:
    """An input that the run passed through, and what it had cost by then.

    cell, vjp: calls of the batch. own: (B,) the calls (evaluations plus VJPs) during which this sample itself was still
    being solved. x: tree (B, ...).
    """

    cell: int
    vjp: int
    own: Tensor
    x: Tree

    @property
    def calls(self) -> int:
        """Evaluations plus VJPs."""
        return self.cell + self.vjp


@dataclass(frozen=True)
class NestedTrace:
    """One row per evaluation or VJP; NaN where nothing was measured.

    calls: (T,) evaluations plus VJPs so far. outer: (T,) the outer step. value: (T, B), the objective at the last
    equilibrium that met the tolerance. residual: (T, B, 3) RMS, columns in the order of ``BLOCKS``; mu in units of its
    right-hand side, x in the scaled units of :func:`jiio.solve`.
    """

    calls: Tensor
    outer: Tensor
    value: Tensor
    residual: Tensor


@dataclass(frozen=True)
class NestedRun:
    """The best input that was verified, and the way there.

    x, z: trees at the smallest objective (to the tolerance) whose equilibrium was solved. value: (B,), NaN where none
    ever was. converged: (B,) bool, whether x itself met the tolerance before the outer steps ran out.
    """

    x: Tree
    z: Tree
    value: Tensor
    converged: Tensor
    evaluations: jiio.Evaluations
    visits: list[Visit]
    trace: NestedTrace | None = None

    @property
    def calls(self) -> int:
        """Evaluations plus VJPs."""
        return self.evaluations.cell + self.evaluations.vjp


class Ledger:
    """Counts calls, for the batch and for every sample, and keeps the rows of the trace."""

    def __init__(self, batch: int, like: Tensor, evaluations: jiio.Evaluations, keep: bool) -> None:
        self.evaluations, self.keep = evaluations, keep
        self.own = torch.zeros(batch, dtype=torch.int64)
        self.value = like.new_full((batch,), float("nan"))
        self.outer = 0
        self.rows: list[tuple[int, int, Tensor, Tensor]] = []
        self.running = torch.ones(batch, dtype=torch.bool)

    @property
    def calls(self) -> int:
        """Evaluations plus VJPs of the batch so far."""
        return self.evaluations.cell + self.evaluations.vjp

    def visit(self, x: Tree) -> Visit:
        """An input, at what it has cost so far."""
        return Visit(self.evaluations.cell, self.evaluations.vjp, self.own.clone(), x)

    def measured(self) -> None:
        """What the scales of the problem cost, which every sample pays."""
        self.own += self.calls
        if self.calls:
            self.row()

    def row(self, column: int | None = None, residual: Tensor | None = None, *, calls: int | None = None) -> None:
        """One line of the trace; ``residual`` (B,) of one block."""
        if not self.keep:
            return
        measured = self.value.new_full((len(self.own), 3), float("nan"))
        if column is not None and residual is not None:
            measured[:, column] = residual
        self.rows.append((self.calls if calls is None else calls, self.outer, self.value.clone(), measured))

    def solved(self, solution: jiio.Solution, column: int, kind: str) -> None:
        """An inner solve, one row per call."""
        first, count = self.calls, solution.evaluations.cell
        setattr(self.evaluations, kind, getattr(self.evaluations, kind) + count)
        self.own += torch.where(self.running, solution.steps.cpu(), 0)
        if solution.trace is not None:
            for t in range(count):
                self.row(column, solution.trace.residual[t, :, 0], calls=first + t + 1)

    def single(self, kind: str, column: int | None = None, residual: Tensor | None = None) -> None:
        """One call outside an inner solve."""
        setattr(self.evaluations, kind, getattr(self.evaluations, kind) + 1)
        self.own += self.running
        self.row(column, residual)

    def trace(self) -> NestedTrace | None:
        """The rows; None where none are kept."""
        if not self.keep:
            return None
        calls, outer, value, residual = zip(*self.rows, strict=True)
        return NestedTrace(torch.tensor(calls), torch.tensor(outer), torch.stack(value), torch.stack(residual))
