"""Ways of training that make a classifier harder to fool. Each is an object in the configuration; any may be combined.

A defence has a say in five places, and in each of them may have nothing to say:

- ``network`` changes the network before the training;
- ``images`` makes the images of a step. The cross-entropies of all makers are averaged; without a maker the clean
  images are trained on;
- ``solving`` changes the settings of the solves that the loss sees;
- ``term`` adds to the loss;
- ``deployed`` changes the network that is used in the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import jiio
from jiio.attacks import PGD, AbstractAttack, AbstractObjective, JointAttack, Target, ThreatModel
from jiio.checks import check_instance, check_integer, check_number
from jiio.diagnostics import jacobian_penalty
from jiio.layout import detach
from jiio.outputs.seeds import derive
from jiio.tasks.frame.choices import Choice
from jiio.tasks.frame.load import build

from .threat import TrainingThreat


@dataclass(frozen=True, eq=False)
class Batch:
    """One training step as the defence at ``place`` in the list sees it.

    target: the network, with counters of everything that is called. x: (B, C, H, W) clean images in [0, 1]. y: (B,).
    """

    target: Target
    x: Tensor
    y: Tensor
    seed: int
    step: int
    place: int = 0

    def draws(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Random numbers that depend on seed, step, place and purpose alone."""
        return torch.Generator(device).manual_seed(derive(self.seed, "defence", self.place, purpose, self.step))


@dataclass(frozen=True, eq=False)
class Part:
    """What the network says to the images of one maker: scores (B, classes), and the solve behind them if any."""

    x: Tensor
    logits: Tensor
    solution: jiio.Solution | None


class AbstractDefence:
    """Base of the defences: does nothing. ``needs_equilibrium``: it has no meaning for a plain network."""

    needs_equilibrium = False

    def network(self, model: nn.Module) -> nn.Module:
        """The network to be trained, made from the freshly initialised ``model``."""
        return model

    def images(self, batch: Batch) -> Tensor | None:
        """Images (B, C, H, W) to train on in this step."""
        return None

    def solving(self, batch: Batch) -> dict[str, Any]:
        """Settings of the solves that the loss sees: solver, adjoint, tolerance or max_steps."""
        return {}

    def term(self, batch: Batch, parts: list[Part]) -> Tensor | None:
        """A scalar that is added to the loss; ``parts``: one per maker of images, in the order of the list."""
        return None

    def deployed(self, model: nn.Module) -> nn.Module:
        """The network that is used in the end, made from the trained ``model``."""
        return model


@dataclass(frozen=True)
class Clean(AbstractDefence):
    """The clean images. Alone it is no defence; beside an adversarial training it gives them half of the weight."""

    def images(self, batch: Batch) -> Tensor:
        return batch.x


@dataclass(frozen=True)
class AbstractAdversary(AbstractDefence):
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

    def images(self, batch: Batch) -> Tensor:
        return adversarial(batch, self.attack, self.threat)


def adversarial(batch: Batch, attack: AbstractAttack, threat: ThreatModel) -> Tensor:
    """What the attack makes of the batch. Nothing is verified: a training needs no proof that a sample is broken."""
    with batch.target.held():
        found = attack.run(batch.target, batch.x, batch.y, threat, batch.draws("attack")).detach()
    sane = torch.isfinite(found).flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(sane, found, batch.x)


@dataclass(frozen=True)
class PGDTraining(AbstractAdversary):
    """Adversarial training (Madry et al. 2018): the last of ``steps`` projected gradient steps from a random start.

    adjoint: how the attack differentiates an equilibrium (None: as the model does), a name or {name, options}. warm:
    each solve starts at the equilibrium of the step before. step: length as a share of the radius (None: 2.5 / steps).
    """

    steps: int = 10
    adjoint: Any = None
    warm: bool = False
    step: float | None = None

    @property
    def attack(self) -> PGD:
        adjoint = as_adjoint(self.adjoint)
        return PGD(steps=self.steps, adjoint=adjoint, warm=self.warm, step=self.step, best=False)


@dataclass(frozen=True)
class JointTraining(AbstractAdversary):
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
class TRADES(AbstractAdversary):
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

    def images(self, batch: Batch) -> Tensor:
        return batch.x

    def term(self, batch: Batch, parts: list[Part]) -> Tensor:
        clean = next(part.logits for part in parts if part.x is batch.x)
        attack = PGD(
            steps=self.steps, adjoint=as_adjoint(self.adjoint), best=False, objective=Divergence(clean.detach())
        )
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


@dataclass(frozen=True)
class JacobianPenalty(AbstractDefence):
    """``weight`` times |J_z|_F^2 / d at the equilibria (Bai, Koltun and Kolter 2021), by ``probes`` random probes."""

    needs_equilibrium = True

    weight: float = 0.1
    probes: int = 1

    def __post_init__(self) -> None:
        check_number("JacobianPenalty.weight", self.weight, 0.0, open_low=True)
        check_integer("JacobianPenalty.probes", self.probes, 1)

    def term(self, batch: Batch, parts: list[Part]) -> Tensor:
        cell = batch.target.problem(lambda logits: logits.sum(1), jiio.Identity()).cell
        source, total = batch.draws("probe", batch.x.device), batch.x.new_zeros(())
        for part in parts:
            assert part.solution is not None
            penalty = jacobian_penalty(cell, detach(part.solution.z), part.x, probes=self.probes, generator=source)
            batch.target.counts.solves.append(jiio.Evaluations(cell=1, vjp=self.probes))
            total = total + penalty.mean()
        return self.weight * total / len(parts)


def as_adjoint(value: Any) -> jiio.AbstractAdjoint | None:
    """The adjoint that an option of a defence names: an object, a name, {name, options}, or None."""
    if value is None or isinstance(value, jiio.AbstractAdjoint):
        return value
    if isinstance(value, str):
        value = {"name": value}
    if isinstance(value, Mapping):
        return build(Choice, value, "adjoint.").make("adjoint", "adjoint")
    return check_instance("adjoint", value, jiio.AbstractAdjoint)
