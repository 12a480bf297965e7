"""Adversarial training: defences whose images come from an attack on the network of the very step.

:class:`PGDTraining` and :class:`TRADES` climb by projected gradient steps; :class:`JointTraining` finds state,
multiplier and image in one solve.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import jiio
from jiio.attacks import PGD, AbstractAttack, AbstractObjective, JointAttack, ThreatModel
from jiio.checks import check_instance, check_number
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.load import build

from .defences import AbstractDefence, Answers, Attacked, Batch, Clean
from .threat import TrainingThreat


@dataclass(frozen=True)
class AbstractAdversarialTraining(AbstractDefence):
    """Images from an attack on the network of this very step.

    norm, radius: of the ball, cut with the range of images [0, 1].
    """

    norm: str = "l2"
    radius: float = 1.0

    def __post_init__(self) -> None:
        _ = self.threat, self.attack

    @property
    def threat(self) -> TrainingThreat:
        """What the adversary may do."""
        return TrainingThreat(self.norm, self.radius)

    @property
    def attack(self) -> AbstractAttack:
        """How it does it."""
        raise NotImplementedError

    def images(self, batch: Batch) -> Clean | Attacked:
        return Attacked(adversarial(batch, self.attack, self.threat))


def adversarial(batch: Batch, attack: AbstractAttack, threat: ThreatModel) -> Tensor:
    """What the attack makes of the batch. Nothing is verified: a training needs no proof that a sample is broken."""
    with batch.target.held():
        found = attack.run(batch.target, batch.x, batch.y, threat, batch.draws("attack")).detach()
    sane = torch.isfinite(found).flatten(1).all(1).view(-1, *[1] * (found.dim() - 1))
    return torch.where(sane, found, batch.x)


@dataclass(frozen=True)
class PGDTraining(AbstractAdversarialTraining):
    """Adversarial training (Madry et al. 2018): the last of ``steps`` projected gradient steps from a random start.

    adjoint: how the attack differentiates an equilibrium (None: as the model does), a name or {name, options}. warm:
    each solve starts at the equilibrium of the step before. step: length as a share of the radius (None: 2.5 / steps).
    tolerance: relative, of the solves inside the attack (None: the model's own).
    """

    steps: int = 10
    adjoint: Any = None
    warm: bool = False
    step: float | None = None
    tolerance: float | None = None

    @property
    def attack(self) -> PGD:
        options = {"warm": self.warm, "step": self.step, "tolerance": self.tolerance}
        return PGD(steps=self.steps, adjoint=as_adjoint(self.adjoint), best=False, **options)


@dataclass(frozen=True)
class JointTraining(AbstractAdversarialTraining):
    """Adversarial training by the joint attack (Gurumurthy et al. 2021): state, multiplier and image in one solve of
    ``max_steps`` evaluations, where PGD pays a forward and an adjoint solve for each of its steps.

    rate: of the image step, in curvature-scaled units; in so few steps a large one is stronger. memory: of Anderson
    acceleration. random_start: at a random point of the ball instead of the image. settle: evaluations before the
    strongest point so far is remembered.
    """

    needs_equilibrium = True

    max_steps: int = 12
    rate: float = 3.0
    memory: int = 10
    random_start: bool = False
    settle: int = 3

    @property
    def attack(self) -> JointAttack:
        return JointAttack(
            steps=self.max_steps,
            rule=jiio.GradientStep(self.rate),
            solver=jiio.Anderson(memory=self.memory),
            random_start=self.random_start,
            settle=self.settle,
            check=1,
        )


@dataclass(frozen=True)
class TRADES(AbstractAdversarialTraining):
    """Zhang et al. 2019: cross-entropy of the clean images plus ``beta`` times KL(clean || attacked), where the attack
    makes that divergence large.

    The start is a random point of the ball (the authors' is nearly the image, where the divergence has no gradient).
    """

    beta: float = 6.0
    steps: int = 10
    adjoint: Any = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("TRADES.beta", self.beta, 0.0, open_low=True)

    @property
    def attack(self) -> PGD:
        return PGD(steps=self.steps, adjoint=as_adjoint(self.adjoint), best=False)

    def images(self, batch: Batch) -> Clean:
        return Clean()

    def term(self, batch: Batch, answers: Answers) -> Tensor:
        clean = answers.clean.logits
        attack = dataclasses.replace(self.attack, objective=Divergence(clean.detach()))
        attacked = batch.target.forward(adversarial(batch, attack, self.threat))[0]
        return self.beta * divergence(clean, attacked).mean()


def divergence(clean: Tensor, attacked: Tensor) -> Tensor:
    """(B,) KL(softmax(clean) || softmax(attacked))."""
    p, q = clean.log_softmax(1), attacked.log_softmax(1)
    return F.kl_div(q, p, reduction="none", log_target=True).sum(1)


@dataclass(frozen=True, eq=False)
class Divergence(AbstractObjective):
    """KL(softmax(clean) || softmax(scores)) for the scores ``clean`` (B, classes) of one batch."""

    clean: Tensor

    def value(self, logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
        return divergence(self.clean, logits)


def as_adjoint(value: Any) -> jiio.AbstractAdjoint | None:
    """The adjoint that an option of a defence names: an object, a name, {name, options}, or None."""
    if value is None or isinstance(value, jiio.AbstractAdjoint):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, Mapping):
        return build(Choice, value, "adjoint.").make("adjoint", "adjoint")
    return check_instance("adjoint", value, jiio.AbstractAdjoint)
