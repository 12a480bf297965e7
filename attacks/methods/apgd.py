"""APGD: projected gradient ascent that halves its steps where they stop helping."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from jiio.checks import check_number

from ..base import rows
from ..climbing import Guide
from ..target import Slope
from ..threat import ThreatModel
from .gradient import AbstractGradientAttack


@dataclass(frozen=True)
class APGD(AbstractGradientAttack):
    """Auto-PGD (Croce and Hein 2020): momentum, and steps that are halved where they no longer help.

    The first step is twice the radius (L1: the radius). At checkpoints that come ever closer a sample whose objective
    rose in less than ``rho`` of the steps, or whose best value and step have not changed since the last checkpoint,
    goes back to its best point with half the step. L1 takes sparse steps with exact projection (as in Croce and Hein
    2021), at a fixed sparsity.

    rho: the share of the steps that has to help. momentum: the share of the last move in the next one. steps: gradients
    per run.
    """

    steps: int = 100
    rho: float = 0.75
    momentum: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("APGD.rho", self.rho, 0.0, 1.0)
        check_number("APGD.momentum", self.momentum, 0.0, 1.0)

    def checkpoints(self) -> list[int]:
        """The steps after which steps are judged: p_1 = 0.22, p_{j+1} - p_j = max(p_j - p_{j-1} - 0.03, 0.06)."""
        share, gap, found = 0.22, 0.22, []
        while share <= 1.0:
            found.append(max(1, round(share * self.steps)))
            gap = max(gap - 0.03, 0.06)
            share += gap
        return sorted(set(found))

    def climb(self, ascent: Guide, start: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        point = threat.project(start, x)
        slope, first = ascent.slope(point), 1.0 if threat.norm == "l1" else 2.0
        summit = _Summit(slope.value, point, slope.gradient)
        way = ascent.keep(
            _Climb(x, threat, threat.steps(x, 1.0), point, None, slope, summit, _Pace.first(first, slope.value))
        )

        marks = set(self.checkpoints())
        for k in range(1, self.steps):
            if not len(way.x):
                return ascent.best.x
            way = self._step(ascent, way)
            # Where the steps were too long: back to the summit, with half of them.
            if k in marks and len(way.x):
                way.back(way.pace.judge(k, way.summit.value, self.rho))

        # Nothing follows the last point, so it needs no gradient.
        ascent.look(self._next(way))
        return ascent.best.x

    def _step(self, ascent: Guide, way: _Climb) -> _Climb:
        """The next point, and those of the samples that go on."""
        value, way.before, way.point = way.slope.value, way.point, self._next(way)
        way.slope = ascent.slope(way.point)
        way.pace.rises = way.pace.rises + (way.slope.value > value)
        way.summit.offer(way.point, way.slope)
        return ascent.keep(way)

    def _next(self, way: _Climb) -> Tensor:
        """A step along the gradient, mixed with the last one where there was one."""
        x, threat, point = way.x, way.threat, way.point
        stride = way.radius * rows(way.pace.fraction, x)
        move = threat.project(point + stride * threat.steepest(way.slope.gradient, point), x)
        if way.before is None:
            return move
        mixed = point + (1 - self.momentum) * (move - point) + self.momentum * (point - way.before)
        return threat.project(mixed, x)


@dataclass
class _Summit:
    """The highest point of a climb so far, per sample: its objective (B,), itself and its gradient (B, ...)."""

    value: Tensor
    x: Tensor
    gradient: Tensor

    def offer(self, point: Tensor, slope: Slope) -> None:
        """Keep what is higher."""
        higher = slope.value > self.value
        self.value = torch.where(higher, slope.value, self.value)
        self.x = torch.where(rows(higher, point), point, self.x)
        self.gradient = torch.where(rows(higher, point), slope.gradient, self.gradient)


@dataclass
class _Pace:
    """How long the steps of each sample are, and what decides that; all (B,), but for the step of the last checkpoint.

    fraction: length, in radii. rises: how often the objective rose since the last checkpoint. top, was: the best
    objective and the fraction at the last checkpoint.
    """

    fraction: Tensor
    rises: Tensor
    top: Tensor
    was: Tensor
    last: int = 0

    @classmethod
    def first(cls, fraction: float, value: Tensor) -> _Pace:
        """At the start of a climb, where the objective is ``value`` (B,)."""
        whole = torch.full_like(value, fraction)
        return cls(whole, torch.zeros_like(value), value, whole)

    def judge(self, k: int, top: Tensor, rho: float) -> Tensor:
        """Which steps are halved at this checkpoint (B,); they are. top: the best objective up to now, (B,)."""
        stuck = (self.top >= top) & (self.was == self.fraction)
        halved = (self.rises < rho * (k - self.last)) | stuck
        self.top, self.was, self.last = top, self.fraction, k
        self.fraction = torch.where(halved, self.fraction / 2, self.fraction)
        self.rises = torch.zeros_like(self.rises)
        return halved


@dataclass
class _Climb:
    """Where APGD is, with a row for every sample at work: images, the radius at every number of them, points, the ones
    before, slopes, summits, paces.
    """

    x: Tensor
    threat: ThreatModel
    radius: Tensor
    point: Tensor
    before: Tensor | None
    slope: Slope
    summit: _Summit
    pace: _Pace

    def back(self, mask: Tensor) -> None:
        """To the summit, where the mask (B,) says so, and from there without momentum."""
        top, wide = self.summit, rows(mask, self.point)
        value = torch.where(mask, top.value, self.slope.value)
        gradient = torch.where(wide, top.gradient, self.slope.gradient)
        self.slope = self.slope._replace(value=value, gradient=gradient)

        assert self.before is not None  # checkpoints come after a step
        self.before = torch.where(wide, top.x, self.before)
        self.point = torch.where(wide, top.x, self.point)
