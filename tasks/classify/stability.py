"""Defences that shape the dynamics of an equilibrium network: Lyapunov stability, and regularised dynamics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import jiio
from jiio.checks import check_instance, check_integer, check_number, fail
from jiio.draws import normal_like
from jiio.layout import Spec, detach
from jiio.models import (
    ClassifierHead,
    LyapunovCell,
    LyapunovFlow,
    ModelConfig,
    RegulatedModel,
    lyapunov_model,
    orthogonal_head,
)
from jiio.tasks.frame.config import whole

from .defences import AbstractDefence, Answers, Batch


@dataclass(frozen=True)
class Lyapunov(AbstractDefence):
    """LyaDEQ (Chu et al. 2024): the cell projected so that a learnt Lyapunov function falls, an orthogonal last layer,
    and ``weight`` times the mean violation of the unprojected cell at states around the equilibria.

    alpha: rate at which the function must fall. widths: of the convex network. noise: of the states, in units of the
    RMS of the equilibrium. See :mod:`jiio.models.lyapunov` for what is and what is not guaranteed.
    """

    needs_equilibrium = True

    weight: float = 0.1
    alpha: float = 0.1
    widths: tuple[int, ...] = (40, 40)
    noise: float = 1.0

    def __post_init__(self) -> None:
        check_number("Lyapunov.weight", self.weight, 0.0)
        check_number("Lyapunov.alpha", self.alpha, 0.0)
        check_number("Lyapunov.noise", self.noise, 0.0, open_low=True)
        _check_widths("Lyapunov.widths", self.widths)

    def network(self, model: nn.Module) -> nn.Module:
        check_instance("model", model, jiio.EquilibriumModel)
        assert isinstance(model, jiio.EquilibriumModel) and isinstance(model.config, ModelConfig)
        weight = next(model.parameters())
        like = torch.zeros(1, *model.config.input, dtype=weight.dtype, device=weight.device)
        return lyapunov_model(model, like, widths=tuple(self.widths), alpha=self.alpha)

    def term(self, batch: Batch, answers: Answers) -> Tensor | None:
        if self.weight == 0:
            return None
        model = batch.target.equilibrium
        cell = check_instance("model.cell", model.cell, LyapunovCell, "Put Lyapunov last in the list of defences.")
        source, total = batch.draws("states"), batch.x.new_zeros(())

        for answer in answers:
            assert answer.reached is not None
            z = detach(answer.reached.state)
            spec = Spec.of(z)
            u = model.inject(batch.target.normalised(answer.x))
            # The function must fall around the equilibrium, so it is asked at states moved away from it.
            total = total + cell.violation(spec.unpack(self._away(spec.pack(z), source)), u).mean()
            batch.target.counts.record(jiio.Evaluations(cell=1, vjp=1))
        return self.weight * total / len(answers)

    def _away(self, packed: Tensor, source: torch.Generator) -> Tensor:
        """Packed states (B, D) with noise on them, in units of each one's root mean square."""
        size = packed.square().mean(1, keepdim=True).sqrt()
        return packed + self.noise * size * normal_like(packed, source)


@dataclass(frozen=True)
class LyapunovFeature(AbstractDefence):
    """The other reading of LyaDEQ, see :class:`jiio.models.LyapunovFlow`: the finished state runs through ``steps``
    steps of a projected field on its way to an orthogonal last layer. For a state that is a vector.
    """

    needs_equilibrium = True

    alpha: float = 0.01
    steps: int = 5
    widths: tuple[int, ...] = (40, 40)

    def __post_init__(self) -> None:
        check_number("LyapunovFeature.alpha", self.alpha, 0.0)
        whole("LyapunovFeature.steps", self.steps, 1, 1000)
        _check_widths("LyapunovFeature.widths", self.widths)

    def network(self, model: nn.Module) -> nn.Module:
        assert isinstance(model, jiio.EquilibriumModel)
        if not isinstance(model.head, ClassifierHead) or model.head.branches:
            fail("defence", "a Dense or Monotone cell for LyapunovFeature", type(model.cell).__name__)
        flow = LyapunovFlow(
            model.head.linear.in_features, widths=tuple(self.widths), alpha=self.alpha, steps=self.steps
        )
        model.head = nn.Sequential(flow, orthogonal_head(model.head))
        model.config = None  # it is not what ``build`` makes of the configuration any more
        return model


@dataclass(frozen=True)
class RegulatedDynamics(AbstractDefence):
    """Yang et al. 2023: the loss sees a random state on the way to the equilibrium, and the finished network moves its
    input towards a confident prediction while it is being solved.

    depth: the solver of the loss gets 2 to so many steps, drawn anew in every training step; then ``unrolled`` damped
    steps with a graph. radius: of the box in which the input moves when the network is used; 0 leaves that part out.
    """

    needs_equilibrium = True

    depth: int = 8
    unrolled: int = 5
    damping: float = 0.5
    radius: float = 0.0
    rounds: int = 4
    updates: int = 10

    def __post_init__(self) -> None:
        whole("RegulatedDynamics.depth", self.depth, 2, 100_000)
        check_integer("RegulatedDynamics.rounds", self.rounds, 1)
        check_integer("RegulatedDynamics.updates", self.updates, 1)
        check_number("RegulatedDynamics.radius", self.radius, 0.0)
        _ = self._phantom

    @property
    def _phantom(self) -> jiio.Phantom:
        return jiio.Phantom(steps=self.unrolled, damping=self.damping)

    def solving(self, batch: Batch) -> dict[str, Any]:
        steps = int(torch.randint(2, self.depth + 1, (), generator=batch.draws("depth")))
        return {"max_steps": steps, "adjoint": self._phantom}

    def deployed(self, model: nn.Module) -> nn.Module:
        if self.radius == 0:
            return model
        assert isinstance(model, jiio.EquilibriumModel)
        return RegulatedModel.of(model, radius=self.radius, rounds=self.rounds, updates=self.updates)


def _check_widths(argument: str, widths: Any) -> None:
    if not isinstance(widths, (tuple, list)) or not widths:
        fail(argument, "whole numbers, one per layer", widths)
    for width in widths:
        whole(argument, width, 1, 10_000)
