"""The one loop: evaluate, judge every sample for itself, freeze, go back where it went wrong, step.

A sample is CONVERGED when its residual meets the tolerance at a point and again at the image of that point: after the
first success the next point is the plain image F(v), so that what is returned is a value of the map (exactly
feasible, exactly sparse), and its residual was measured there. Frozen samples stay in the batch (the cell is a closed
function of the whole batch) but never move again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .operators import EquilibriumMap, JointMap, Point, select
from .solution import Status, Tolerance
from .solvers.base import AbstractSolver

GROWTH = 1e2  # residual over the best so far at which a sample goes back to its best point
RUNAWAY = 1e3  # size of the state over that at the best point, likewise: relative residuals hide a flight to infinity
PATIENCE = 15  # steps without a smaller residual or objective after which a sample takes shorter steps from where it is
RETRIES = 8  # times a sample may go back before it is given up


@dataclass
class Outcome:
    """What the loop hands to ``solve``: the returned point per sample and what was measured there."""

    v: Tensor  # (B, D)
    residual: Tensor  # (B, K)
    value: Tensor  # (B,)
    gradient: Tensor | None  # (B, n)
    status: Tensor  # (B,) int8
    steps: Tensor  # (B,)
    residuals: list[Tensor]  # T x (B, K), when traced
    values: list[Tensor]  # T x (B,)
    points: list[Tensor]  # T x (B, D), when asked for


class Recorder:
    """Collects the trace, NaN where a sample was not running; and shows every step to who watches.

    residuals, points: what to keep. watch: called with the step, v (B, D) and the point that was measured there.
    """

    def __init__(
        self, residuals: bool, points: bool, watch: Callable[[int, Tensor, Point], None] | None = None
    ) -> None:
        self.keep, self.keep_points, self.watch = residuals, points, watch
        self.residuals: list[Tensor] = []
        self.values: list[Tensor] = []
        self.points: list[Tensor] = []

    def __call__(self, step: int, v: Tensor, point: Point, running: Tensor) -> None:
        if self.watch is not None:
            self.watch(step, v, point)
        if not self.keep:
            return
        nan = point.residual.new_full((), float("nan"))
        self.residuals.append(torch.where(running[:, None], point.residual, nan))
        value = nan.expand(running.shape) if point.value is None else point.value.detach()
        self.values.append(torch.where(running, value, nan))
        if self.keep_points:
            self.points.append(v.detach().clone())


@torch.no_grad()
def _merit(point: Point, tolerance: Tolerance) -> Tensor:
    """(B,) largest residual over its tolerance; at most 1 means converged; NaN and infinity stay what they are."""
    allowed = tolerance.atol + tolerance.rtol * point.scale
    return (point.residual / allowed.clamp_min(torch.finfo(allowed.dtype).tiny)).amax(1)


@torch.no_grad()
def judged(point: Point, tolerance: Tolerance) -> Tensor:
    """(B,) int8 of :class:`Status` for points at which no step was taken: CONVERGED where every block meets the
    tolerance.
    """
    merit = _merit(point, tolerance)
    finite = torch.isfinite(merit) & torch.isfinite(point.image.sum(1))
    status = torch.where(merit <= 1, int(Status.CONVERGED), int(Status.MAX_STEPS))
    return torch.where(finite, status, int(Status.NONFINITE)).to(torch.int8)


def iterate(
    operator: EquilibriumMap | JointMap,
    solver: AbstractSolver,
    v: Tensor,
    tolerance: Tolerance,
    max_steps: int,
    recorder: Recorder,
) -> Outcome:
    """Run ``solver`` on ``operator`` from ``v`` (B, D) until every sample has ended or ``max_steps`` evaluations were
    spent.
    """
    batch = v.shape[0]
    state: Any = solver.init(v)
    status = torch.full((batch,), int(Status.RUNNING), dtype=torch.int8, device=v.device)
    steps = torch.zeros(batch, dtype=torch.int64, device=v.device)
    retries = torch.zeros_like(steps)
    met = torch.zeros(batch, dtype=torch.bool, device=v.device)
    best_merit = torch.full((batch,), float("inf"), dtype=v.dtype, device=v.device)
    best_v, best_image = v, v
    best: Point | None = None
    lowest, since = torch.full_like(best_merit, float("inf")), torch.zeros_like(steps)
    for k in range(max_steps):
        point = operator(v)
        running = status == Status.RUNNING
        recorder(k, v, point, running)
        steps = steps + running
        merit = _merit(point, tolerance)
        finite = torch.isfinite(merit) & torch.isfinite(point.image.detach().sum(1))
        merit = torch.where(finite, merit, torch.full_like(merit, float("inf")))
        if best is None:
            best_merit, best_v, best_image, best = merit, v, select(finite, point.image, v), point
            better = torch.ones_like(met)
            status = select(~finite, torch.full_like(status, int(Status.NONFINITE)), status)
            running = status == Status.RUNNING
        else:
            # At convergence the confirmed image is wanted even where its residual is a hair above the point before it.
            better = running & ((merit < best_merit) | (met & (merit <= 1)))
            best = _keep(better, point, best)
            best_merit = select(better, merit, best_merit)
            best_v = select(better, v, best_v)
            best_image = select(better, point.image, best_image)
        # Neither measure alone tells a stall: a residual grows on the way out of a saddle, an objective falls
        # while z still lags.
        lower = torch.zeros_like(better) if point.value is None else point.value.detach() < lowest
        lowest = lowest if point.value is None else select(lower, point.value.detach(), lowest)
        since = torch.where(better | lower, torch.zeros_like(since), since + 1)
        stalled = running & (since >= PATIENCE)
        since = torch.where(stalled, torch.zeros_like(since), since)
        ok = running & (merit <= 1)
        status = select(ok & met, torch.full_like(status, int(Status.CONVERGED)), status)
        away = point.scale[:, 0] > RUNAWAY * (1 + best.scale[:, 0])
        lost = running & (~finite | away | (merit > GROWTH * best_merit.clamp_min(1.0)))
        retries = retries + lost
        spent = lost & (retries > RETRIES)
        verdict = torch.where(finite, int(Status.DIVERGED), int(Status.NONFINITE)).to(status.dtype)
        status = select(spent, verdict, status)
        met = ok
        last = k == max_steps - 1
        if last or (k % tolerance.check_every == 0 and not bool((status == Status.RUNNING).any())):
            break
        safe = select(finite, point.image, best_image)
        following, state = solver.step(select(finite, v, best_v), safe, state)
        if k == max_steps - 2:
            following = best_image  # spend the last evaluation on a value of the map, so that what is returned is one
        following = select(ok, safe, following)
        if isinstance(operator, JointMap):
            following = operator.descend(v, following, point)
        following = select(lost, best_image, following)
        if bool((lost | stalled).any()):
            operator.slower(lost | stalled)
            state = solver.restart(state, lost | stalled)
        following = operator.project(following)
        following = select(torch.isfinite(following.detach().sum(1)), following, best_image)
        v = select(status == Status.RUNNING, following, best_v)
    assert best is not None
    status = select(status == Status.RUNNING, torch.full_like(status, int(Status.MAX_STEPS)), status)
    value = best.residual.new_full((batch,), float("nan")) if best.value is None else best.value
    return Outcome(
        best_v, best.residual, value, best.gradient, status, steps, recorder.residuals, recorder.values, recorder.points
    )


def _keep(better: Tensor, new: Point, old: Point) -> Point:
    return Point(
        image=new.image,
        residual=select(better, new.residual, old.residual),
        scale=select(better, new.scale, old.scale),
        value=None if new.value is None or old.value is None else select(better, new.value, old.value),
        gradient=None if new.gradient is None or old.gradient is None else select(better, new.gradient, old.gradient),
    )
