"""The threat of a training: the same set of allowed images as in an evaluation, with a projection that costs less.

An evaluation projects to the last bit, by a search that takes as long as the network itself where that is small. A
training needs the allowed set, and a point near the nearest one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jiio import AbstractProx
from jiio.attacks import ThreatModel
from jiio.checks import GradientError, fail
from jiio.prox import Active

NEWTON = 2  # steps of the search; the result is inside after any number of them


def near(point: Tensor, center: Tensor, radius: float, low: float, high: float) -> Tensor:
    """A point of ball and box near the nearest to ``point``, packed (B, n); the centre lies in the box.

    The nearest is center + clip(sqrt(s) (point - center)) with the largest s <= 1 that the radius allows. The squared
    norm is a concave, piecewise linear function of s, so that Newton's method from s = radius^2 / |point - center|^2
    climbs towards that s and never passes it.
    """
    away = point - center
    square, a, b = away.square(), low - center, high - center
    tiny = torch.finfo(point.dtype).tiny
    s = (radius**2 / square.sum(1, keepdim=True).clamp_min(tiny)).clamp_max(1.0)
    for _ in range(NEWTON):
        moved = away * s.sqrt()
        kept = torch.minimum(torch.maximum(moved, a), b)
        slope = (square * (kept == moved)).sum(1, keepdim=True)
        left = (radius**2 - kept.square().sum(1, keepdim=True)).clamp_min(0.0)
        s = torch.where(slope > tiny, s + left / slope.clamp_min(tiny), s).clamp_max(1.0)
    return center + torch.minimum(torch.maximum(away * s.sqrt(), a), b)


@dataclass(frozen=True)
class NearBall(AbstractProx):
    """The L2 ball around images, cut with the box, by :func:`near`; for solves whose solution is not differentiated."""

    radius: float
    center: Tensor
    low: float
    high: float

    def apply(self, x: Tensor, step: Tensor | float) -> Tensor:
        return near(x, self.center, self.radius, self.low, self.high)

    def excess(self, x: Tensor) -> Tensor:
        outside = torch.maximum(self.low - x, x - self.high).amax(1).clamp_min(0.0)
        return torch.maximum(outside, (x - self.center).norm(dim=1) - self.radius)

    def active(self, x: Tensor, gradient: Tensor) -> Active:
        fail("adjoint", "one that needs no active set", "a projection for training", error=GradientError)


@dataclass(frozen=True, eq=False)
class TrainingThreat(ThreatModel):
    """A :class:`attacks.ThreatModel` with numbers for radius and bounds; for L2 with the cheap projection."""

    def project(self, point: Tensor, x: Tensor) -> Tensor:
        if self.norm != "l2":
            return super().project(point, x)
        (low, high), radius = self.bounds, self.radius
        assert isinstance(radius, float | int) and isinstance(low, float | int) and isinstance(high, float | int)
        return near(point.flatten(1), x.flatten(1), radius, low, high).view_as(x)

    def prox(self, x: Tensor) -> AbstractProx:
        if self.norm != "l2":
            return super().prox(x)
        (low, high), radius = self.bounds, self.radius
        assert isinstance(radius, float | int) and isinstance(low, float | int) and isinstance(high, float | int)
        return NearBall(float(radius), x.detach(), float(low), float(high))
