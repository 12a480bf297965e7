"""What gradient attacks share, and projected gradient ascent with fixed steps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

import jiio
from jiio.checks import check_instance, check_integer, check_number, fail

from ..aims import AbstractAim, Strongest, Success
from ..base import AbstractAttack, rows
from ..climbing import Ascent, Guide
from ..objectives import AbstractObjective, CrossEntropy
from ..runs import Run, check_targets, restarted
from ..target import Slope, Target
from ..threat import ThreatModel


@dataclass(frozen=True)
class AbstractGradientAttack(AbstractAttack):
    """What every gradient attack shares.

    steps: gradients per run. objective: what is made larger. targets: for a targeted objective, how many of the
    likeliest wrong classes are tried, one run each, or a tuple of the classes to try. restarts: runs, each on the
    samples that resisted the ones before. random_start: the first run starts at a random point too (later ones always
    do). adjoint: how an equilibrium model is differentiated (None: its own). warm: start each equilibrium solve of a
    run from the last state; the count that matters is made from a cold start in any case. tolerance,
    inner_steps: relative tolerance and most steps of the forward and adjoint solves inside a run (None: the model's
    own). ``warm=True, tolerance=3e-2`` is the strongest attack per call on an equilibrium model: a step of the input
    changes more than the rest of the solve would. aim: when a sample leaves the batch. An evaluation, which counts
    breaks, sets it to ``Success()``; on its own an attack goes on to the strongest image.
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
    aim: AbstractAim = field(default=Strongest(), kw_only=True, compare=False)

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
        check_instance(f"{name}.aim", self.aim, AbstractAim)

    def until_broken(self) -> AbstractGradientAttack:
        return replace(self, aim=Success())

    def climb(self, ascent: Guide, start: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        """One run from ``start``: candidates (B, ...)."""
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
        ascent = Ascent.of(run, self._inner(run.model), self.objective, self.aim, self.warm)
        return self.climb(ascent, run.start, run.x, run.threat)


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
        if not self.best and self.aim != Strongest():
            fail("PGD.aim", "Strongest(), as the last point of a run is wanted (best=False)", self.aim)

    def until_broken(self) -> AbstractGradientAttack:
        return super().until_broken() if self.best else self  # whoever wants the last point wants all steps

    def climb(self, ascent: Guide, start: Tensor, x: Tensor, threat: ThreatModel) -> Tensor:
        point = self._move(threat, start, x)
        stride = threat.steps(x, 2.5 / self.steps if self.step is None else self.step)
        way = _Walk(x, threat, stride, point, ascent.slope(point), torch.zeros_like(x))

        for k in range(self.steps):
            way = ascent.keep(way)
            if not len(way.x):
                break
            way.pull = self._pulled(way.pull, way.slope.gradient)
            way.point = self._move(way.threat, way.point + way.stride * way.threat.steepest(way.pull, way.point), way.x)
            if k + 1 < self.steps:
                way.slope = ascent.slope(way.point)

        # Nothing follows the last point, so it needs no gradient.
        if self.best:
            ascent.look(way.point)
        return ascent.best.x if self.best else way.point

    def _move(self, threat: ThreatModel, point: Tensor, x: Tensor) -> Tensor:
        return threat.project(point, x) if self.exact else threat.retract(point, x)

    def _pulled(self, pull: Tensor, gradient: Tensor) -> Tensor:
        """The direction of the next step: the gradient, or with momentum the sum of the normalised ones."""
        if not self.momentum:
            return gradient
        size = gradient.flatten(1).abs().mean(1).clamp_min(torch.finfo(gradient.dtype).tiny)
        return self.momentum * pull + gradient / rows(size, gradient)


@dataclass
class _Walk:
    """Where PGD is, with a row for every sample at work: images, lengths of a step, points, slopes, pulls."""

    x: Tensor
    threat: ThreatModel
    stride: Tensor
    point: Tensor
    slope: Slope
    pull: Tensor
