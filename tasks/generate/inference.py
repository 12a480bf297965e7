"""Three ways to find the latent code of an image, with the loss that each trains the decoder by; one interface.

By their names in a configuration; all have the same objective, |decode(x) - image|^2 + prior |x|^2:

    Joint         state, multiplier and code in one solve (:func:`jiio.solve`); the loss is the objective at the
                  optimum, its gradient the envelope gradient. No encoder.
    Nested        Adam on the code, with a full forward and a full adjoint solve per step; the same loss where it ends,
                  its gradient by the implicit function theorem. No encoder.
    Variational   an encoder gives mean and spread of the code (Kingma, Welling 2014); the loss is the evidence bound of
                  the same model (noise and code of variance prior and one), times 2 prior.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

import jiio
from jiio.checks import check_integer, check_number
from jiio.layout import detach
from jiio.tasks.solving.nested import nested
from jiio.tasks.solving.starts import AbstractStart

from .generator import EXACT, Inferred

if TYPE_CHECKING:
    from .generator import LatentGenerator


@dataclass(frozen=True)
class AbstractInference(ABC):
    """A way to codes."""

    encodes = False  # whether the model needs an encoder
    metric_every = 0  # training steps between two measurements of the model's sensitivity; 0 for never

    @abstractmethod
    def infer(self, model: LatentGenerator, images: Tensor, noise: Tensor | None = None) -> Inferred:
        """For images (B, C, H, W). noise: (B, latent), standard normal, in training; None for the best code."""


@dataclass(frozen=True)
class JointInference(AbstractInference):
    """rate: of the gradient step, in curvature-scaled units. memory: of Anderson acceleration. metric_every: training
    steps after which the metric for the code is measured again; 0, solve without one.
    """

    rate: float = 0.5
    memory: int = 12
    atol: float = 1e-5
    rtol: float = 1e-3
    max_steps: int = 60
    metric_every: int = 0

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0.0, open_low=True)
        check_integer("memory", self.memory, 1)
        check_integer("metric_every", self.metric_every, 0)
        check_integer("max_steps", self.max_steps, 2)
        self.solve_settings()  # checks the rest

    def solve_settings(self) -> jiio.SolveSettings:
        """What :func:`jiio.solve` gets. The outer loss is the inner objective: the envelope gradient is exact."""
        solver, tolerance = jiio.Anderson(memory=self.memory), jiio.Tolerance(self.atol, self.rtol)
        return jiio.SolveSettings(solver, jiio.Envelope(), tolerance, self.max_steps, "ignore")

    def infer(
        self,
        model: LatentGenerator,
        images: Tensor,
        noise: Tensor | None = None,
        *,
        start: AbstractStart | None = None,
    ) -> Inferred:
        problem = model.problem(images, EXACT)
        begin = (start or model.beginning).begin(problem, model.start(images), model.observation(images, EXACT))
        settings = self.solve_settings().arguments()
        solution = begin.solve(problem, rule=jiio.GradientStep(self.rate), **settings)
        calls = begin.calls + solution.evaluations.total
        return Inferred(solution.x.detach(), detach(solution.z), solution.value, calls, solution.converged)


@dataclass(frozen=True)
class NestedInference(AbstractInference):
    """rate: of Adam, in units of the code. steps: of the code. warm: inner solves start at the last answer."""

    rate: float = 0.1
    steps: int = 20
    warm: bool = True
    atol: float = 1e-5
    rtol: float = 1e-3

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0.0, open_low=True)
        check_integer("steps", self.steps, 1)
        self.solve_settings()

    def solve_settings(self) -> jiio.SolveSettings:
        """Of the equilibria."""
        return jiio.SolveSettings(tolerance=jiio.Tolerance(self.atol, self.rtol), on_failure="ignore")

    def infer(self, model: LatentGenerator, images: Tensor, noise: Tensor | None = None) -> Inferred:
        problem, settings = model.problem(images, EXACT), self.solve_settings()
        run = nested(
            problem,
            model.start(images),
            rule=jiio.AdamStep(self.rate),
            warm=self.warm,
            outer_steps=self.steps,
            tolerance=settings.tolerance,
        )

        # The run itself has no graph: the equilibrium where it ended, solved once more, brings one.
        z, loss = run.z, run.value
        if torch.is_grad_enabled():
            z = jiio.equilibrium(problem.cell, run.x, run.z, **settings.arguments()).z
            loss = problem.value(z, run.x, len(images))
        return Inferred(run.x, detach(z), loss, run.calls, run.converged)


@dataclass(frozen=True)
class VariationalInference(AbstractInference):
    """atol, rtol: of the decoder's equilibrium."""

    atol: float = 1e-5
    rtol: float = 1e-3

    encodes = True

    def __post_init__(self) -> None:
        self.solve_settings()

    def solve_settings(self) -> jiio.SolveSettings:
        """Of the decoder's equilibrium."""
        return jiio.SolveSettings(tolerance=jiio.Tolerance(self.atol, self.rtol), on_failure="ignore")

    def infer(self, model: LatentGenerator, images: Tensor, noise: Tensor | None = None) -> Inferred:
        mean, log_spread = model.encode(images)
        x = mean if noise is None else mean + log_spread.exp() * noise
        problem = model.problem(images, EXACT)
        found = jiio.equilibrium(problem.cell, x, **self.solve_settings().arguments())
        error = problem.value(found.z, x, len(images)) - model.prior * x.square().sum(1)
        divergence = mean.square() + (2 * log_spread).exp() - 1 - 2 * log_spread  # 2 KL to the standard normal
        loss = error + model.prior * divergence.sum(1)
        return Inferred(x.detach(), detach(found.z), loss, 2 * found.evaluations.cell, found.converged)
