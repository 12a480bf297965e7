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
from ..runs import Best, Run, check_targets, restarted
from ..target import Slope, Target
from ..threat import ThreatModel


@dataclass
class Ascent:
    """The objective of one run, to be asked point by point. aimed: (B,) the classes to reach, where it has a target."""

    model: Target
    objective: AbstractObjective
    y: Tensor
    aimed: Tensor | None
    warm: bool
    state: Any = None

    def slope(self, point: Tensor) -> Slope:
        """Objective, gradient and scores at ``point`` (B, ...)."""
        found = self.model.slope(point, lambda logits: self.objective(logits, self.y, self.aimed), self._start())
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
    likeliest wrong classes are tried, one run each, or a tuple of the classes to try. restarts: runs, each on the
    samples that resisted the ones before. random_start: the first run starts at a random point too (later ones always
    do). adjoint: how an equilibrium model is differentiated (None: its own). warm: start each equilibrium solve of a
    run from the last state; the count that matters is made from a cold start in any case. tolerance,
    inner_steps: relative tolerance and most steps of the forward and adjoint solves *inside* a run (None: the model's
    own). ``warm=True, tolerance=3e-2`` is the strongest attack per call on an equilibrium model: a step of the input
    changes more than the rest of the solve would.
    """

    steps: int = 20
    objective: AbstractObjective = field(default_factory=CrossEntropy)
    targets: int | tuple[int, ...] = 9
    restarts: int = 1
    random_start: bool = True
    adjoint: jiio.AbstractAdjoint | None = None
    warm: bool = False
    tolerance: float | None = field(default=None, kw_only=True)
    inner_steps: int = field(default=8, kw_only=True)

    def __post_init__(self) -> None:
        name = type(self).__name__
        check_integer(f"{name}.steps", self.steps, 1)
        check_instance(f"{name}.objective", self.objective, AbstractObjective)
        check_targets(f"{name}.targets", self.targets)
        check_integer(f"{name}.restarts", self.restarts, 1)
        if self.adjoint is not None:
            check_instance(f"{name}.adjoint", self.adjoint, jiio.AbstractAdjoint)
        if self.tolerance is not None:
            check_number(f"{name}.tolerance", self.tolerance, 0.0, open_low=True)
        check_integer(f"{name}.inner_steps", self.inner_steps, 2)

    def climb(self, ascent: Ascent, start: Tensor, x: Tensor, y: Tensor, threat: ThreatModel) -> Tensor:
        """One run from ``start``."""
        raise NotImplementedError

    def fits(self, model: Target, x: Tensor, threat: ThreatModel) -> None:
        if self.adjoint is not None and not model.implicit:
            fail(f"{type(self).__name__}.adjoint", "an EquilibriumModel to use it on", type(model.model).__name__)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        if self.adjoint is not None:
            model = model.variant(adjoint=self.adjoint)
        return restarted(self, self._once, Run(model, x, y, threat), generator)

    def _inner(self, model: Target) -> Target:
        """The model with the solves that a run makes."""
        if self.tolerance is None:
            return model
        if not model.implicit:
            fail(f"{type(self).__name__}.tolerance", "an EquilibriumModel to loosen", type(model.model).__name__)
        loose = {"tolerance": jiio.Tolerance(1e-5, self.tolerance), "max_steps": self.inner_steps}
        adjoint = {} if self.adjoint is not None else {"adjoint": jiio.Implicit(**loose)}
        return model.variant(**loose, **adjoint)

    def _once(self, run: Run) -> Tensor:
        ascent = Ascent(self._inner(run.model), self.objective, run.y, run.aimed, self.warm)
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
            pull = self._pulled(pull, slope.gradient)
            point = move(point + stride * threat.steepest(pull, point), x)

        # The last point has been taken a step away from and not been looked at.
        if self.best:
            best.offer(point, ascent.look(point), y)
        return best.x if self.best else point

    def _pulled(self, pull: Tensor, gradient: Tensor) -> Tensor:
        """The direction of the next step: the gradient, or with momentum the sum of the normalised ones."""
        if not self.momentum:
            return gradient
        size = gradient.flatten(1).abs().mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        return self.momentum * pull + gradient / rows(size, gradient)


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
        point = before = threat.project(start, x)
        slope, best = ascent.slope(point), Best.empty(x)
        best.offer(point, slope.logits, y)
        summit = _Summit(slope.value, point, slope.gradient)
        pace, marks = _Pace.first(1.0 if threat.norm == "l1" else 2.0, slope.value), set(self.checkpoints())

        for k in range(1, self.steps):
            before, point = point, self._next(point, before if k > 1 else None, slope, pace.fraction, x, threat)
            value, slope = slope.value, ascent.slope(point)
            best.offer(point, slope.logits, y)
            pace.rises = pace.rises + (slope.value > value)
            summit.offer(point, slope)

            # Where the steps were too long: back to the summit, with half of them.
            if k in marks:
                halved = pace.judge(k, summit.value, self.rho)
                point, before, slope = summit.back(halved, point, before, slope)

        # Nothing follows the last point, so it needs no gradient.
        last = self._next(point, before if self.steps > 1 else None, slope, pace.fraction, x, threat)
        best.offer(last, ascent.look(last), y)
        return best.x

    def _next(
        self, point: Tensor, before: Tensor | None, slope: Slope, fraction: Tensor, x: Tensor, threat: ThreatModel
    ) -> Tensor:
        """A step of ``fraction`` (B,) of the radius along the gradient, mixed with the last one where there was one."""
        move = threat.project(point + threat.steps(x, fraction) * threat.steepest(slope.gradient, point), x)
        if before is None:
            return move
        mixed = point + (1 - self.momentum) * (move - point) + self.momentum * (point - before)
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

    def back(self, mask: Tensor, point: Tensor, before: Tensor, slope: Slope) -> tuple[Tensor, Tensor, Slope]:
        """Point, the one before and slope, with those of the summit where the mask (B,) says so."""
        wide = rows(mask, point)
        value = torch.where(mask, self.value, slope.value)
        gradient = torch.where(wide, self.gradient, slope.gradient)
        slope = slope._replace(value=value, gradient=gradient)
        return torch.where(wide, self.x, point), torch.where(wide, self.x, before), slope


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
