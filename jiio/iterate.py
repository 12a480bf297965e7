"""The one loop: evaluate, judge every sample for itself, step, and guard the step.

Samples that have ended never move again; they stay in the batch where the cell is a closed function of all of it, and
leave it where the problem can be restricted (:mod:`jiio.attendance`). How samples are judged stands in
:mod:`jiio.progress`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .attendance import Attendance, Outcome, Rest
from .looks import some
from .onward import looked_at_again, onward
from .operators import EquilibriumMap, JointMap, Point, select
from .progress import Progress
from .recording import Launch
from .solution import Tolerance
from .solvers.base import AbstractSolver
from .solvers.keeper import SecantKeeper


class Recorder:
    """Collects the trace, NaN where a sample was not running; and shows every step to who watches.

    residuals, points: what to keep. watch: called with the step, v (B, D) and the point that was measured there; True
    ends the solve. keeper: keeps what the solver has learnt. A solve in two stages counts its steps on.
    """

    def __init__(
        self,
        residuals: bool,
        points: bool,
        watch: Callable[[int, Tensor, Point], bool] | None = None,
        keeper: SecantKeeper | None = None,
    ) -> None:
        self.keep, self.keep_points, self.watch, self.keeper = residuals, points, watch, keeper
        self.residuals: list[Tensor] = []  # T x (B, K)
        self.values: list[Tensor] = []  # T x (B,)
        self.points: list[Tensor] = []  # T x (B, D)
        self.begun, self.count, self.stopped = 0, 0, False  # steps of an earlier stage, and with those of this one

    @property
    def watches(self) -> bool:
        """Whether anything is to be kept, or shown to somebody, in the course of the steps."""
        return self.sees or self.keeper is not None

    @property
    def sees(self) -> bool:
        """Whether points are kept, or shown to somebody."""
        return self.keep or self.watch is not None

    def __call__(self, step: int, v: Tensor, point: Point, running: Tensor) -> bool:
        """Take the point in; whether the solve is to end here."""
        if self.keep:
            self._write(v, point, running)
        self.count = self.begun + step + 1
        self.stopped = self.watch is not None and self.watch(self.begun + step, v, point)
        return self.stopped

    def judged(self, state: Any, running: Tensor, last: bool) -> None:
        """Who still runs, and what the solver knows by now."""
        if self.keeper is not None:
            self.keeper.look(state, running, last)

    def rows(self, index: Tensor) -> None:
        """From now on only the samples ``index`` (k,) of those so far go on."""
        if self.keeper is not None:
            self.keeper.rows(index)

    def _write(self, v: Tensor, point: Point, running: Tensor) -> None:
        nan = point.residual.new_full((), float("nan"))
        self.residuals.append(torch.where(running[:, None], point.residual, nan))
        value = nan.expand(running.shape) if point.value is None else point.value.detach()
        self.values.append(torch.where(running, value, nan))
        if self.keep_points:
            self.points.append(v.detach().clone())


def iterate(
    operator: EquilibriumMap | JointMap,
    solver: AbstractSolver,
    v: Tensor,
    tolerance: Tolerance,
    max_steps: int,
    recorder: Recorder,
    floor: float = 0.0,
    judge: type[Progress] = Progress,
) -> Outcome:
    """Run ``solver`` on ``operator`` from ``v`` (B, D) until all samples have ended or ``max_steps`` are spent.

    floor: what the arithmetic leaves of a residual, relative (see :meth:`jiio.arithmetic.Arithmetic.floor`). judge: how
    points are judged.
    """
    progress, attendance = judge.start(v, tolerance, floor), Attendance(operator)
    launch = Launch.of(operator, solver, v, max_steps, recorder.watches)
    state = None if launch is not None else solver.init(v)
    for step in range(max_steps):
        point = operator(v)
        stop = recorder.sees and recorder(step, *attendance.all(operator, v, point, progress.running))
        progress.judge(v, point)
        recorder.judged(state, progress.running, stop or step == max_steps - 1)
        if stop:
            progress.stop()
            break
        # On a GPU every look waits for the device; at the last point nobody is called converged without one.
        looked = step % tolerance.check_every == 0 or step == max_steps - 1
        fresh, again = looked_at_again(operator, progress, v, point) if looked else (v, None)
        if step == max_steps - 1 or (looked and not some(progress.running, progress.counts.running)):
            break

        # From here on by a record, where there is one.
        if launch is not None and step == 0:
            if launch.ran(progress, v, point, tolerance.check_every):
                break
            state = solver.init(v)
        v, state = onward(operator, solver, progress, v, point, state, ending=step == max_steps - 2)
        if again is not None:
            v, state = select(again, fresh, v), solver.restart(state, again)
        progress.points.lend(v)

        # Who still runs goes on alone, where that can be and pays; no sample waits to be looked at.
        if looked:
            rest = attendance.rest(solver, Rest(operator, progress, v, state))
            if rest is not None:
                (operator, progress, v, state), index = rest
                recorder.rows(index)
    return attendance.outcome(operator, progress)
