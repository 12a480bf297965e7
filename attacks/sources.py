"""One source at a time: the adversary may change any one view of a sample, and no more than one.

The allowed set is a union of balls, one for each view, and no convex set: what works for a ball (a steepest direction,
the nearest point) is answered view by view and the best view taken. A climb inside the union hardly leaves the view it
began in, so the strong attack is :class:`SingleViewAttack`, which climbs in each view alone and keeps the worst.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import fail

from .threat import ThreatModel
from .views import MultiViewThreat


@dataclass(frozen=True, eq=False)
class OneViewThreat(MultiViewThreat):
    """Any one of the balls of a :class:`MultiViewThreat`, whose fields these are; the other views stay as they are."""

    def alone(self) -> dict[int, MultiViewThreat]:
        """view -> the threat to it alone, for every view that may be touched."""
        whole = MultiViewThreat(self.norm, self.radius, self.bounds, self.sizes)
        return {view: whole.only(view) for view, radius in enumerate(self.radii) if radius > 0}

    def only(self, view: int) -> MultiViewThreat:
        return MultiViewThreat(self.norm, self.radius, self.bounds, self.sizes).only(view)

    def prox(self, x: Tensor) -> jiio.AbstractProx:
        alone = [*self.alone().values()]
        if len(alone) > 1:
            remedy = "Wrap the attack: SingleViewAttack(JointAttack()) solves in each view alone."
            fail("threat", "a convex set, for a joint solve", "a union of balls, one for each view", remedy)
        return alone[0].prox(x)

    # -- points

    def project(self, point: Tensor, x: Tensor) -> Tensor:
        return self._nearest(point, x, lambda one: one.project(point, x))

    def retract(self, point: Tensor, x: Tensor) -> Tensor:
        return self._nearest(point, x, lambda one: one.retract(point, x))

    def restored(self, point: Tensor, x: Tensor) -> Tensor:
        inside = self.violation(point, x) <= self.slack(x)
        # What is inside but for rounding: the views that are left alone, to the last bit.
        best = torch.stack([one.violation(point, x) for one in self.alone().values()]).argmin(0)
        kept = torch.stack([self._cut(point, x, v) for v in self.alone()])[best, torch.arange(len(x), device=x.device)]
        return torch.where(_wide(inside, x), kept, point)

    def violation(self, point: Tensor, x: Tensor) -> Tensor:
        return torch.stack([one.violation(point, x) for one in self.alone().values()]).amin(0)

    def random_start(self, x: Tensor, generator: torch.Generator) -> Tensor:
        moved = super().random_start(x, generator)
        views = [*self.alone()]
        drawn = torch.randint(len(views), (len(x),), generator=generator, device=generator.device).to(x.device)
        rows = torch.arange(len(x), device=x.device)
        return torch.stack([self._cut(moved, x, view) for view in views])[drawn, rows]

    def steepest(self, gradient: Tensor, point: Tensor | None = None, *, sparsity: float = 0.05) -> Tensor:
        """In the view in which a linear objective grows most within its radius; see :meth:`ThreatModel.steepest`."""
        whole = super().steepest(gradient, point, sparsity=sparsity)
        gain = (gradient * whole * self.steps(gradient, 1.0)).flatten(1)
        sums = torch.stack([gain[:, part].sum(1) for part, _ in self.parts(gain.shape[1])])  # (views, B)
        allowed = torch.tensor([radius > 0 for radius in self.radii], device=gain.device)
        best = torch.where(allowed[:, None], sums, -torch.inf).argmax(0)
        zero = torch.zeros_like(whole)
        views = torch.stack([self._cut(whole, zero, view) for view in range(len(self.sizes))])
        return views[best, torch.arange(len(whole), device=whole.device)]

    # -- parts

    def _nearest(self, point: Tensor, x: Tensor, put: Callable[[ThreatModel], Tensor]) -> Tensor:
        """Of the points that ``put`` finds in each view, the one nearest to ``point``."""
        found = torch.stack([self._cut(put(one), x, view) for view, one in self.alone().items()])
        away = (found - point).flatten(2).square().sum(2)  # (views, B)
        return found[away.argmin(0), torch.arange(len(x), device=x.device)]

    def _cut(self, point: Tensor, x: Tensor, view: int) -> Tensor:
        """``point`` in this view, x in all others."""
        flat, (part, _) = x.flatten(1).clone(), self.parts(x[0].numel())[view]
        flat[:, part] = point.flatten(1)[:, part]
        return flat.view_as(x)

    def describe(self) -> dict[str, Any]:
        return super().describe() | {"views at once": 1}


def _wide(mask: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B, 1, ...), to go with ``like`` (B, ...)."""
    return mask.view(-1, *[1] * (like.dim() - 1))
