"""A solve under autocast: first steps in its low precision, as far as that goes, and the last ones in full.

Both stages are solves of their own (:func:`jiio.iterate.iterate`), each of which ends every sample for itself. A sample
that has got what the low precision can give it waits for the others, and what it goes on from does not depend on them;
a switch of the whole batch in the middle of one solve would.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor

from .arithmetic import Arithmetic
from .calls import refined
from .iterate import Outcome, Recorder, iterate
from .operators import EquilibriumMap, JointMap, Point
from .progress import Progress, Tally
from .solution import Status, Tolerance
from .solvers.base import AbstractSolver

SHARE = 3  # a third of the evaluations at most goes to the low precision
FEWEST = 6  # evaluations below which there is no time for it
IDLE = 3  # steps without a smaller residual or objective after which the low precision has given what it can


class Rough(Progress):
    """Judges what a low precision can give: a sample has it where its residual is at the floor, or falls no further.

    One such point is enough: nobody is called converged by it.
    """

    def judge(self, v: Tensor, point: Point) -> None:
        self.met = torch.ones_like(self.met)
        super().judge(v, point)
        worn = self.running & (self.since >= IDLE)
        self.status = self.status.masked_fill(worn, int(Status.CONVERGED))
        self.running = self.status == int(Status.RUNNING)
        self.counts = Tally.of(self)
        self.unverified = torch.zeros_like(self.unverified)  # whether it stands on a slope is asked at the end

    def _within(self, point: Point, merit: Tensor) -> Tensor:
        return (merit <= 1) | (point.residual.amax(1) <= self.floor * point.scale.amax(1))


def in_stages(
    operator: EquilibriumMap | JointMap,
    solver: AbstractSolver,
    v: Tensor,
    tolerance: Tolerance,
    max_steps: int,
    recorder: Recorder,
    arithmetic: Arithmetic,
    *parts: Any,
) -> Outcome:
    """As :func:`jiio.iterate.iterate` from ``v`` (B, D), in the ``arithmetic`` around the solve as far as that will do.

    parts: the guarded cell and objective, which compute exactly from the second stage on.
    """
    floor, exact = arithmetic.floor(v.dtype), arithmetic.exact()
    if not arithmetic.coarse(tolerance.rtol, v.dtype):
        return iterate(operator, solver, v, tolerance, max_steps, recorder, floor)

    # The first stage keeps nothing of the solver: its differences are as rough as its points.
    spent, rough = 0, None
    if max_steps >= FEWEST:
        spent, unkept = max_steps // SHARE, copy.copy(recorder)
        unkept.keeper = None
        rough = iterate(operator, solver, v, tolerance, spent, unkept, floor, Rough)
        recorder.begun, v = unkept.count, rough.v
        if unkept.stopped:
            return dataclasses.replace(rough, status=torch.full_like(rough.status, int(Status.STOPPED)))

    refined(*parts)
    found = iterate(operator, solver, v, tolerance, max_steps - spent, recorder, exact.floor(v.dtype))
    return found if rough is None else dataclasses.replace(found, steps=found.steps + rough.steps)
