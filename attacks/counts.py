"""What an attack costs, counted in calls."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

import jiio

OPEN = 256  # solves to which a backward pass may still add products; those before them are only sums


class Counts:
    """What was called, per batch: forward and backward passes, and for equilibrium models evaluations of the cell and
    vector-Jacobian products behind them (the adjoint solves included).
    """

    def __init__(self) -> None:
        self.forward = 0
        self.backward = 0
        self.solves: deque[jiio.Evaluations] = deque()  # the latest ones
        self._evaluations = 0
        self._vjps = 0

    def record(self, solve: jiio.Evaluations) -> None:
        """Count a solve, and what a backward pass through it will add."""
        self.solves.append(solve)
        if len(self.solves) > OPEN:
            closed = self.solves.popleft()
            self._evaluations += closed.cell
            self._vjps += closed.vjp + closed.adjoint_vjp

    def add(self, cost: Mapping[str, int]) -> None:
        """Count what was called elsewhere. cost: as :meth:`plain` has it."""
        self.forward += cost["forward"]
        self.backward += cost["backward"]
        self._evaluations += cost["evaluations"]
        self._vjps += cost["vjps"]

    @property
    def evaluations(self) -> int:
        """Of the cell."""
        return self._evaluations + sum(s.cell for s in self.solves)

    @property
    def vjps(self) -> int:
        """Vector-Jacobian products of the cell."""
        return self._vjps + sum(s.vjp + s.adjoint_vjp for s in self.solves)

    def plain(self) -> dict[str, int]:
        """As numbers, at this moment: a backward pass adds to the products of a solve that is long over."""
        names = ("forward", "backward", "evaluations", "vjps")
        return {name: getattr(self, name) for name in names}
