"""Ways of training that make a classifier harder to fool. Each is an object in the configuration; any may be combined.

A defence has a say in five places, and in each of them may have nothing to say:

- ``network`` changes the network before the training;
- ``images`` makes the images of a step. The cross-entropies of all makers are averaged; without a maker the clean
  images are trained on;
- ``solving`` changes the settings of the solves that the loss sees;
- ``term`` adds to the loss;
- ``deployed`` changes the network that is used in the end.

Here stand what a defence sees and answers, the base class, and the defences that attack nothing; those that train on
attacked images are in :mod:`.adversarial`, those that shape the dynamics in :mod:`.stability`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import jiio
from jiio.attacks import Target
from jiio.attacks.inside import Reached
from jiio.checks import check_integer, check_number, fail
from jiio.diagnostics import jacobian_penalty
from jiio.layout import detach
from jiio.outputs.seeds import derive, generator


@dataclass(frozen=True, eq=False)
class Batch:
    """One training step as the defence at ``place`` in the list sees it.

    target: the network, with counters of everything that is called. x: (B, C, H, W) clean images in [0, 1]. y: (B,).
    unlabelled: as many images without a label, where the data have such.
    """

    target: Target
    x: Tensor
    y: Tensor
    seed: int
    step: int
    place: int = 0
    unlabelled: Tensor | None = None

    def draws(self, purpose: str, device: torch.device | str = "cpu") -> torch.Generator:
        """Random numbers that depend on seed, step, place and purpose alone."""
        return torch.Generator(device).manual_seed(derive(self.seed, "defence", self.place, purpose, self.step))


@dataclass(frozen=True)
class Clean:
    """A maker asks for the images as they are. Any number may ask: they are trained on once."""


@dataclass(frozen=True, eq=False)
class Attacked:
    """A maker's own images x (B, C, H, W), for the labels of the batch. Every maker's count for themselves."""

    x: Tensor


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network says to the images of one maker: scores (B, classes), and what the solve behind them did if any.

    made: which images. x: (B, C, H, W), the images themselves.
    """

    made: Clean | Attacked
    x: Tensor
    logits: Tensor
    reached: Reached | None


@dataclass(frozen=True, eq=False)
class Answers:
    """What the network says to all images of a step, in the order of their makers."""

    parts: tuple[Answer, ...]

    @classmethod
    def of(cls, target: Target, clean: Tensor, made: Iterable[Clean | Attacked]) -> Answers:
        """Ask ``target`` about the images of every maker; ``clean`` (B, C, H, W) are those of the batch."""
        shown = [(one, clean if isinstance(one, Clean) else one.x) for one in made]
        return cls(tuple(Answer(one, x, *target.forward(x)) for one, x in shown))

    @property
    def clean(self) -> Answer:
        """The answer to the clean images. Errors: ArgumentError where no maker asked for them."""
        for part in self.parts:
            if isinstance(part.made, Clean):
                return part
        fail("defence", "the clean images among those that are trained on", "attacked ones alone", "Add Clean.")

    def __iter__(self) -> Iterator[Answer]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


class AbstractDefence:
    """Base of the defences: does nothing. ``needs_equilibrium``: it has no meaning for a plain network. ``explicit``:
    the network that it makes is a plain one.
    """

    needs_equilibrium = False
    explicit = False

    @property
    def uses_unlabelled(self) -> bool:
        """Whether it learns from images without a label too."""
        return False

    def network(self, model: nn.Module) -> nn.Module:
        """The network to be trained, made from the freshly initialised ``model``."""
        return model

    def images(self, batch: Batch) -> Clean | Attacked | None:
        """What to train on in this step; None leaves it to the others."""
        return None

    def solving(self, batch: Batch) -> dict[str, Any]:
        """Settings of the solves that the loss sees: solver, adjoint, tolerance or max_steps."""
        return {}

    def term(self, batch: Batch, answers: Answers) -> Tensor | None:
        """A scalar that is added to the loss; ``answers``: to the images of all makers."""
        return None

    def deployed(self, model: nn.Module) -> nn.Module:
        """The network that is used in the end, made from the trained ``model``."""
        return model


@dataclass(frozen=True)
class CleanTraining(AbstractDefence):
    """The clean images. Alone it is no defence; beside an adversarial training it gives them half of the weight."""

    def images(self, batch: Batch) -> Clean:
        return Clean()


@dataclass(frozen=True)
class JacobianPenalty(AbstractDefence):
    """``weight`` times |J_z|_F^2 / d at the equilibria (Bai, Koltun and Kolter 2021), by ``probes`` random probes, in a
    random ``share`` of the steps (the paper: 0.05 on CIFAR-10, 0.1 on ImageNet).
    """

    needs_equilibrium = True

    weight: float = 0.1
    probes: int = 1
    share: float = 1.0

    def __post_init__(self) -> None:
        check_number("JacobianPenalty.weight", self.weight, 0.0, open_low=True)
        check_integer("JacobianPenalty.probes", self.probes, 1)
        check_number("JacobianPenalty.share", self.share, 0.0, 1.0, open_low=True)

    def term(self, batch: Batch, answers: Answers) -> Tensor | None:
        # One draw for the whole batch, whoever computes which part of it.
        if self.share < 1.0:
            draw = torch.rand((), generator=generator(batch.seed, "share", batch.step), device="cpu")
            if float(draw) >= self.share:
                return None

        # At all equilibria of the step.
        cell = batch.target.problem(lambda logits: logits.sum(1), jiio.Identity()).cell
        source, total = batch.draws("probe", batch.x.device), batch.x.new_zeros(())
        for answer in answers:
            assert answer.reached is not None
            penalty = jacobian_penalty(
                cell, detach(answer.reached.state), answer.x, probes=self.probes, generator=source
            )
            batch.target.counts.record(jiio.Evaluations(cell=1, vjp=self.probes))
            total = total + penalty.mean()
        return self.weight * total / len(answers)
