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
from .operators import EquilibriumMap, JointMap, Point, select
from .progress import Progress
from .solution import Tolerance
from .solvers.base import AbstractSolver
from .solvers.keeper import SecantKeeper


class Recorder:
    """Collects the trace, NaN where a sample was not running; and shows every step to who watches.

    residuals, points: what to keep. watch: called with the step, v (B, D) and the point that was measured there; True
    ends the solve. keeper: keeps what the solver has learnt.
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

    @property
    def sees(self) -> bool:
        """Whether points are kept, or shown to somebody."""
        return self.keep or self.watch is not None

    def __call__(self, step: int, v: Tensor, point: Point, running: Tensor) -> bool:
        """Take the point in; whether the solve is to end here."""
        if self.keep:
            self._write(v, point, running)
        return self.watch is not None and self.watch(step, v, point)

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
    finer: Callable[[], float] | None = None,
) -> Outcome:
    """Run ``solver`` on ``operator`` from ``v`` (B, D) until all samples have ended or ``max_steps`` are spent.

    floor: what the arithmetic leaves of a residual, relative (see :meth:`jiio.arithmetic.Arithmetic.floor`). finer:
    makes the cell exact and gives the floor of that; called once, where the tolerance asks for more than its low
    precision can give: first steps are cheap, last ones right.
    """
    progress = Progress.start(v, tolerance, floor)
    progress.coarse = finer is not None
    state, attendance = solver.init(v), Attendance(operator)
    for step in range(max_steps):
        point = operator(v)
        stop = recorder.sees and recorder(step, *attendance.all(operator, v, point, progress.running))
        progress.judge(v, point)
        recorder.judged(state, progress.running, stop or step == max_steps - 1)
        if progress.coarse and finer is not None and step % tolerance.check_every == 0 and progress.exhausted(point):
            progress.refine(finer())
        if stop:
            progress.stop()
            break
        # On a GPU every look waits for the device; at the last point nobody is called converged without one.
        looked = step % tolerance.check_every == 0 or step == max_steps - 1
        fresh, again = _looked_at_again(operator, progress, v, point) if looked else (v, None)
        counts = progress.counts
        if step == max_steps - 1 or (looked and not _any(counts.running, progress.running)):
            break

        # A solver never sees a number that is none: those samples stand at their best point.
        image = select(progress.finite, point.image, progress.best_image, counts.finite)
        seen = select(progress.finite, v, progress.best_v, counts.finite)
        progress.points.lend(seen, image)
        following, state = solver.step(seen, image, state)
        if step == max_steps - 2:
            following = progress.best_image  # the last evaluation goes to a value of the map, which can be returned
        following = _guarded(operator, progress, v, select(progress.met, image, following, counts.met), point)

        troubled = progress.lost | progress.stalled
        if _any(None if counts.lost is None or counts.stalled is None else counts.lost + counts.stalled, troubled):
            operator.slower(troubled)
            state = solver.restart(state, troubled)
        v = select(progress.running, following, progress.best_v, counts.running)
        if again is not None:
            v, state = select(again, fresh, v), solver.restart(state, again)
        progress.points.lend(v)

        # Who still runs goes on alone, where that can be and pays; no sample waits to be looked at.
        if looked and not progress.coarse:
            rest = attendance.rest(solver, Rest(operator, progress, v, state))
            if rest is not None:
                (operator, progress, v, state), index = rest
                recorder.rows(index)
    return attendance.outcome(operator, progress)


def _any(count: int | None, mask: Tensor) -> bool:
    """Whether ``mask`` has any; ``count``: how many, where that is known."""
    return bool(mask.any()) if count is None else count > 0


def _looked_at_again(
    operator: EquilibriumMap | JointMap, progress: Progress, v: Tensor, point: Point
) -> tuple[Tensor, Tensor | None]:
    """Who has just met the tolerance, but on a slope, goes on from v (B, D), mostly in other units: v, and who (B,)."""
    done, progress.unverified = progress.unverified, torch.zeros_like(progress.unverified)
    if not bool(done.any()):
        return v, None
    fresh, again = operator.renew(v, point, done, progress.allowance(point))
    if not bool(again.any()):
        return v, None
    progress.resume(again, fresh)
    return fresh, again


def _guarded(
    operator: EquilibriumMap | JointMap, progress: Progress, v: Tensor, following: Tensor, point: Point
) -> Tensor:
    """The next point (B, D) made safe: downhill, back from where a sample went astray, feasible, finite."""
    following = operator.descend(v, following, point)
    following = operator.project(select(progress.lost, progress.best_image, following, progress.counts.lost))
    return select(torch.isfinite(following.detach().sum(1)), following, progress.best_image)
