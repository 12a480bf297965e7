"""Gradients of several adjoints at one equilibrium, added up: what misleads one of them need not mislead all."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

import jiio
from jiio.checks import check_instance, check_integer, fail

from ..aims import AbstractAim, Strongest, Success
from ..base import AbstractAttack
from ..climbing import Ascent
from ..objectives import AbstractObjective, CrossEntropy
from ..runs import Run, Starts
from ..target import Slope, Target
from ..threat import ThreatModel
from .equilibrium import unit
from .gradient import PGD


@dataclass(frozen=True)
class AdjointEnsemble(AbstractAttack):
    """PGD along the mean of the normalised gradients of several adjoints: what misleads one need not mislead all.

    adjoints: whose gradients are added up. steps, random_start, aim: as in :class:`jiio.attacks.PGD`. objective: one
    without a target.
    """

    needs_equilibrium = True

    adjoints: tuple[jiio.AbstractAdjoint, ...] = (
        jiio.Implicit(),
        jiio.Phantom(steps=5, damping=0.5),
        jiio.Phantom(steps=1, damping=1.0),
    )
    steps: int = 20
    objective: AbstractObjective = field(default_factory=CrossEntropy)
    random_start: bool = True
    aim: AbstractAim = field(default=Strongest(), kw_only=True, compare=False)

    def __post_init__(self) -> None:
        check_integer("AdjointEnsemble.steps", self.steps, 1)
        check_instance("AdjointEnsemble.aim", self.aim, AbstractAim)
        check_instance("AdjointEnsemble.objective", self.objective, AbstractObjective)
        if not isinstance(self.adjoints, (tuple, list)) or not self.adjoints:
            fail("AdjointEnsemble.adjoints", "a tuple of adjoints", self.adjoints)
        for adjoint in self.adjoints:
            check_instance("AdjointEnsemble.adjoints", adjoint, jiio.AbstractAdjoint)
        if self.objective.targeted:
            fail("AdjointEnsemble.objective", "an objective without a target", type(self.objective).__name__)

    def until_broken(self) -> AdjointEnsemble:
        return replace(self, aim=Success())

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        variants = [model.variant(adjoint=adjoint) for adjoint in self.adjoints]
        run = Run(variants[0], x, y, threat)
        ascent = _Chorus.of(run, variants[0], self.objective, self.aim, warm=False)
        ascent.others = variants[1:]

        start = Starts(generator)(x, threat) if self.random_start else x
        return PGD(steps=self.steps).climb(ascent, start, x, threat)


@dataclass
class _Chorus(Ascent):
    """An ascent along the mean of the normalised gradients of several adjoints, at the same equilibrium."""

    others: list[Target] = field(default_factory=list)

    def slope(self, point: Tensor) -> Slope:
        found = super().slope(point)
        # The equilibrium is known by now, so that the others start at it.
        more = [other.slope(point, self.value, found.state).gradient for other in self.others]
        return found._replace(gradient=sum((unit(g) for g in more), unit(found.gradient)))
