"""Who still takes part in a solve: the samples that run go on in a smaller batch, where the problem can be restricted.

A sample that has ended never moves again, but an evaluation of the whole batch still pays for it. Once enough have
ended, the loop goes on with the rest: map, solver and what is known of every sample are taken apart by their own
``rows``, and what comes out is put back into the places of the batch. The samples never meet, so their iterates are the
same to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .operators import EquilibriumMap, JointMap, Point
from .persample import placed
from .progress import Progress, merit_of
from .solution import Status
from .solvers.base import AbstractSolver

# Running share of the batch below which the rest goes on alone. To move a history costs about one step of the rest.
SHARE = 0.8


@dataclass
class Outcome:
    """What the loop hands to ``solve``: the returned point per sample and what was measured there."""

    v: Tensor  # (B, D)
    residual: Tensor  # (B, K)
    value: Tensor  # (B,)
    gradient: Tensor | None  # (B, n)
    status: Tensor  # (B,) int8
    steps: Tensor  # (B,)
    floored: Tensor  # (B,) bool, converged to what the arithmetic allows and not to the tolerance

    @classmethod
    def of(cls, progress: Progress) -> Outcome:
        """The best points; who still runs has run out of steps. NaN for the value where there is no objective."""
        best, status = progress.best, progress.status
        assert best is not None
        status = status.masked_fill(progress.running, int(Status.MAX_STEPS))
        value = best.residual.new_full(status.shape, float("nan")) if best.value is None else best.value
        floored = (status == int(Status.CONVERGED)) & (merit_of(best, progress.tolerance) > 1)
        return cls(progress.best_v, best.residual, value, best.gradient, status, progress.steps, floored)

    def with_rows(self, places: Tensor, part: Outcome) -> Outcome:
        """This one, with ``part`` for the samples ``places`` (k,)."""
        found: dict[str, Any] = {"gradient": None}
        for entry in fields(self):
            if getattr(self, entry.name) is not None:
                found[entry.name] = placed(getattr(self, entry.name), places, getattr(part, entry.name))
        return Outcome(**found)


class Rest(NamedTuple):
    """A solve in the middle: what goes on."""

    operator: EquilibriumMap | JointMap
    progress: Progress
    v: Tensor
    state: Any


class Attendance:
    """Which samples of ``operator`` still take part, and how the others have ended."""

    def __init__(self, operator: EquilibriumMap | JointMap) -> None:
        self.whole: Any = operator  # of one kind with what goes on
        self.places: Tensor | None = None  # (k,) in the batch, of those that take part; None: all do
        self.ended: Outcome | None = None  # right for those that do not
        self.divisible = True

    def rest(self, solver: AbstractSolver, solve: Rest) -> tuple[Rest, Tensor] | None:
        """The same solve of the samples that still run, and which of the present ones they are (k,); None where that
        would not pay, or cannot be.
        """
        running = solve.progress.running
        count = solve.progress.counts.running
        count = int(running.sum()) if count is None else count
        if not self.divisible or not 0 < count <= SHARE * len(running):
            return None
        index = torch.nonzero(running)[:, 0]
        operator = solve.operator.rows(index)
        state = NotImplemented if operator is None else solver.rows(solve.state, index)
        if operator is None or state is NotImplemented:
            self.divisible = False
            return None

        self._take(solve.operator, solve.progress)
        self.places = index if self.places is None else self.places[index]
        return Rest(operator, solve.progress.rows(index), solve.v.index_select(0, index), state), index

    def all(self, operator: EquilibriumMap | JointMap, v: Tensor, point: Point, running: Tensor) -> tuple:
        """v (B, D), point and running (B,) of the whole batch; who has ended stands at the returned point."""
        if self.places is None:
            return v, point, running
        assert self.ended is not None
        self.whole.adopt(self.places, operator)
        ended, places = self.ended, self.places
        v = placed(ended.v, places, v)
        value = None if point.value is None else placed(ended.value, places, point.value)
        residual = placed(ended.residual, places, point.residual)
        return v, Point(v, residual, residual, value), placed(torch.zeros_like(ended.floored), places, running)

    def outcome(self, operator: EquilibriumMap | JointMap, progress: Progress) -> Outcome:
        """That of all samples."""
        self._take(operator, progress)
        assert self.ended is not None
        return self.ended

    def _take(self, operator: EquilibriumMap | JointMap, progress: Progress) -> None:
        """Put what is known of those that take part into their places."""
        found = Outcome.of(progress)
        if self.places is None or self.ended is None:
            self.ended = found
            return
        self.ended = self.ended.with_rows(self.places, found)
        self.whole.adopt(self.places, operator)
