"""From one judged point to the next: accelerate, guard, and let nobody move who has ended.

Plain functions of what a solve knows, without a decision that hangs on a number where that number may not be looked at,
so that the same lines run eagerly (:mod:`jiio.iterate`) and as one recorded launch (:mod:`jiio.recording`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .looks import some
from .operators import EquilibriumMap, JointMap, Point, select
from .progress import Progress
from .solvers.base import AbstractSolver


def onward(
    operator: EquilibriumMap | JointMap,
    solver: AbstractSolver,
    progress: Progress,
    v: Tensor,
    point: Point,
    state: Any,
    ending: bool | Tensor,
) -> tuple[Tensor, Any]:
    """The next v (B, D) and the solver's state there, after ``point`` at v was judged.

    ending: whether one evaluation is left; it goes to a value of the map, which can be returned.
    """
    # A solver never sees a number that is none: those samples stand at their best point.
    counts = progress.counts
    image = select(progress.finite, point.image, progress.best_image, counts.finite)
    seen = select(progress.finite, v, progress.best_v, counts.finite)
    progress.points.lend(seen, image)
    following, state = solver.step(seen, image, state)
    if isinstance(ending, Tensor):
        following = torch.where(ending, progress.best_image, following)
    elif ending:
        following = progress.best_image
    following = _guarded(operator, progress, v, select(progress.met, image, following, counts.met), point)

    troubled = progress.lost | progress.stalled
    if some(troubled, None if counts.lost is None or counts.stalled is None else counts.lost + counts.stalled):
        operator.slower(troubled)
        state = solver.restart(state, troubled)
    return select(progress.running, following, progress.best_v, counts.running), state


def looked_at_again(
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
