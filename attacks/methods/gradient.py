"""Projected gradient attacks: PGD with fixed steps, and APGD, which halves its steps where they stop helping."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import check_instance, check_integer, check_number, fail

from ..base import AbstractAttack, rows
from ..objectives import AbstractObjective, CrossEntropy
from ..runs import Best, Run, restarted
from ..target import Slope, Target
from ..threat import ThreatModel


@dataclass
class Ascent:
    """The objective of one run, to be asked point by point: which labels, which target, which start of the solver."""

    model: Target
    objective: AbstractObjective
    y: Tensor
    target: Tensor | None
    warm: bool
    state: Any = None

    def slope(self, point: Tensor) -> Slope:
        """Objective, gradient and scores at ``point`` (B, ...)."""
        found = self.model.slope(point, lambda logits: self.objective(logits, self.y, self.target), self._start())
        self.state = found.state
        return found

    @torch.no_grad()
    def look(self, point: Tensor) -> Tensor:
        """The scores alone."""
        return self.model.forward(point, self._start())[0]

    def _start(self) -> Any:
        return self.state if self.warm else None


@dataclass(frozen=True)
class AbstractGradientAttack(AbstractAttack):
    """What every gradient attack shares.

    steps: gradients per run. objective: what is made larger. targets: for a targeted objective, how many of the
    likeliest wrong classes are tried, one run each. restarts: runs, each on the samples that resisted the ones before.
    random_start: the first run starts at a random point too (later ones always do). adjoint: how an equilibrium model
    is differentiated (None: its own). warm: start each equilibrium solve of a run from the last state; the count that
    matters is made from a cold start in any case.
    """

    steps: int = 20
    objective: AbstractObjective = field(default_factory=CrossEntropy)
    targets: int = 9
    restarts: int = 1
    random_start: bool = True
    adjoint: jiio.AbstractAdjoint | None = None
    warm: bool = False

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_integer(f"{name}.steps", self.steps, 1)
        check_instance(f"{name}.objective", self.objective, AbstractObjective)
        check_integer(f"{name}.targets", self.targets, 1)
        check_integer(f"{name}.restarts", self.restarts, 1)
        if self.adjoint is not None:
            check_instance(f"{name}.adjoint", self.adjoint, jiio.AbstractAdjoint)

    def climb(self, ascent: Ascent, start: Tensor, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        """One run from ``start``."""
        raise NotImplementedError

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        if self.adjoint is not None:
            if not model.implicit:
                fail(f"{type(self).__name__}.adjoint", "an EquilibriumModel to use it on", type(model.model).__name__)
            model = model.variant(adjoint=self.adjoint)
        return restarted(self, self._once, Run(model, x, y, threat), generator)

    def _once(self, run: Run) -> Tensor:
        ascent = Ascent(run.model, self.objective, run.y, run.target, self.warm)
        return self.climb(ascent, run.start, run.x, run.y, run.threat)


@dataclass(frozen=True)
class PGD(AbstractGradientAttack):
    """Projected gradient ascent (Madry et al. 2018) in any norm, with any objective and any adjoint.

    step: its length as a share of the radius (None: 2.5 / steps). momentum: of the normalised gradients (Dong et al.
    2018; 0 is plain PGD). best: keep the strongest point of the run, else the last. exact: the nearest feasible point
    after every step, else ball and then box, as published.
    """

    step: float | None = None
    momentum: float = 0.0
    best: bool = True
    exact: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step is not None:
            check_number("PGD.step", self.step, 0.0, open_low=True)
        check_number("PGD.momentum", self.momentum, 0.0)

    def climb(self, ascent: Ascent, start: Tensor, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        stride = threat.steps(x, 2.5 / self.steps if self.step is None else self.step)
        move = threat.project if self.exact else threat.retract
        point, best, pull = move(start, x), Best.empty(x), torch.zeros_like(x)
        for _ in range(self.steps):
            slope = ascent.slope(point)
            best.offer(point, slope.logits, y)
            if self.momentum:
                size = slope.gradient.flatten(1).abs().mean(1).clamp_min(torch.finfo(x.dtype).tiny)
                pull = self.momentum * pull + slope.gradient / rows(size, x)
            else:
                pull = slope.gradient
            point = move(point + stride * threat.steepest(pull, point), x)
        if self.best:
            best.offer(point, ascent.look(point), y)
        return best.x if self.best else point


@dataclass(frozen=True)
class APGD(AbstractGradientAttack):
    """Auto-PGD (Croce and Hein 2020): momentum, and steps that are halved where they no longer help.

    The first step is twice the radius (L1: the radius). At checkpoints that come ever closer a sample whose objective
    rose in less than ``rho`` of the steps, or whose best value and step have not changed since the last checkpoint,
    goes back to its best point with half the step. L1 takes sparse steps with exact projection (as in Croce and Hein
    2021), at a fixed sparsity.
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

    def climb(self, ascent: Ascent, start: Tensor, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        point = threat.project(start, x)
        slope, best = ascent.slope(point), Best.empty(x)
        best.offer(point, slope.logits, y)
        top, top_x, top_gradient = slope.value, point, slope.gradient
        fraction = torch.full_like(top, 1.0 if threat.norm == "l1" else 2.0)
        before, last, value = point, 0, slope.value
        rises, judged_top, judged_fraction = torch.zeros_like(top), top, fraction
        checkpoints = set(self.checkpoints())
        for k in range(1, self.steps + 1):
            move = threat.project(point + threat.steps(x, fraction) * threat.steepest(slope.gradient, point), x)
            if k > 1:
                mixed = point + (1 - self.momentum) * (move - point) + self.momentum * (point - before)
                move = threat.project(mixed, x)
            before, point = point, move
            if k == self.steps:
                best.offer(point, ascent.look(point), y)
                break
            slope = ascent.slope(point)
            best.offer(point, slope.logits, y)
            rises = rises + (slope.value > value)
            value = slope.value
            higher = slope.value > top
            top = torch.where(higher, slope.value, top)
            top_x = torch.where(rows(higher, x), point, top_x)
            top_gradient = torch.where(rows(higher, x), slope.gradient, top_gradient)
            if k in checkpoints:
                stuck = (judged_top >= top) & (judged_fraction == fraction)
                halve = (rises < self.rho * (k - last)) | stuck
                judged_top, judged_fraction, last = top, fraction, k
                fraction = torch.where(halve, fraction / 2, fraction)
                point = torch.where(rows(halve, x), top_x, point)
                before = torch.where(rows(halve, x), top_x, before)
                gradient = torch.where(rows(halve, x), top_gradient, slope.gradient)
                slope, value = slope._replace(gradient=gradient), torch.where(halve, top, value)
                rises = torch.zeros_like(rises)
        return best.x
