"""Three ways to adapt to a task, with the gradient that each hands to the outer loss; one interface, one cost.

By their names in a configuration; all minimise the same inner objective over the task variable x, from x = 0:

    Joint        state, multiplier and x in one solve (:func:`jiio.solve`); exact outer gradient by the KKT adjoint
    Nested       steps on x with a full forward and a full adjoint solve each, as in implicit MAML (Rajeswaran, Finn,
                 Kakade, Levine 2019); the same exact outer gradient, where they end
    FirstOrder   a few such steps; the outer gradient takes x as a constant (first-order MAML, Finn et al. 2017)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

import jiio
from jiio.checks import check_choice, check_integer, check_number
from jiio.layout import Tree, detach
from jiio.tasks.solving.ledger import NestedRun
from jiio.tasks.solving.nested import nested
from jiio.tasks.solving.starts import Start

RULES = {"Adam": jiio.AdamStep, "Gradient": jiio.GradientStep}


@dataclass(frozen=True, eq=False)
class Adapted:
    """The outcome for a batch of tasks.

    x, z: task variable and state, with their gradients where grad mode is on. value: (B,) inner objective. calls: (B,)
    evaluations plus VJPs that each task took. converged: (B,).
    """

    x: Tree
    z: Tree
    value: Tensor
    calls: Tensor
    converged: Tensor


@dataclass(frozen=True)
class AbstractAdaptation(ABC):
    """A way to minimise a problem's objective over its input."""

    @abstractmethod
    def adapt(self, problem: jiio.Problem, x0: Tensor) -> Adapted:
        """From x0 (B, n)."""


@dataclass(frozen=True)
class JointAdaptation(AbstractAdaptation):
    """rate: of the gradient step, in curvature-scaled units. adjoint_rtol, adjoint_steps: of the KKT solve."""

    rate: float = 0.5
    memory: int = 12
    atol: float = 1e-5
    rtol: float = 1e-3
    max_steps: int = 60
    adjoint_rtol: float = 1e-2
    adjoint_steps: int = 30

    def __post_init__(self) -> None:
        check_number("rate", self.rate, 0.0, open_low=True)
        check_integer("memory", self.memory, 1)
        check_integer("max_steps", self.max_steps, 2)
        self.solve_settings()  # checks the rest

    def solve_settings(self) -> jiio.SolveSettings:
        """What :func:`jiio.solve` gets."""
        return jiio.SolveSettings(
            jiio.Anderson(memory=self.memory),
            jiio.KKT(self.adjoint_rtol, self.adjoint_steps),
            jiio.Tolerance(self.atol, self.rtol),
            self.max_steps,
            "ignore",  # the share that converged is in the log
        )

    def adapt(self, problem: jiio.Problem, x0: Tensor, begin: Start | None = None) -> Adapted:
        """begin: where else to start than at x0, of :mod:`jiio.tasks.solving.starts`."""
        begin = Start(x0) if begin is None else begin
        settings = self.solve_settings().arguments()
        solution = begin.solve(problem, rule=jiio.GradientStep(self.rate), **settings)
        measured = 2 if begin.measures else 0  # evaluations, and as many VJPs, for the scale
        calls = begin.calls + 2 * (solution.steps.cpu() + measured)
        return Adapted(solution.x, solution.z, solution.value, calls, solution.converged)


@dataclass(frozen=True)
class NestedAdaptation(AbstractAdaptation):
    """rule: Adam or Gradient. steps: of the task variable. warm: inner solves start at the last answer."""

    rule: str = "Adam"
    rate: float = 0.1
    steps: int = 20
    warm: bool = True
    atol: float = 1e-5
    rtol: float = 1e-3
    adjoint_rtol: float = 1e-2
    adjoint_steps: int = 30

    def __post_init__(self) -> None:
        check_choice("rule", self.rule, RULES)
        check_number("rate", self.rate, 0.0, open_low=True)
        check_integer("steps", self.steps, 1)
        self.solve_settings()  # checks the rest

    def solve_settings(self) -> jiio.SolveSettings:
        """Of the equilibria; the adjoint is that of the outer gradient."""
        adjoint = jiio.KKT(self.adjoint_rtol, self.adjoint_steps)
        return jiio.SolveSettings(adjoint=adjoint, tolerance=jiio.Tolerance(self.atol, self.rtol), on_failure="ignore")

    def run(self, problem: jiio.Problem, x0: Tensor) -> NestedRun:
        """The steps."""
        return nested(
            problem,
            x0,
            rule=RULES[self.rule](self.rate),
            warm=self.warm,
            outer_steps=self.steps,
            tolerance=self.solve_settings().tolerance,
        )

    def adapt(self, problem: jiio.Problem, x0: Tensor) -> Adapted:
        run = self.run(problem, x0)
        z, x = run.z, run.x
        if torch.is_grad_enabled():
            settings = self.solve_settings()
            solution = jiio.solution_at(problem, x, z, adjoint=settings.adjoint, tolerance=settings.tolerance)
            z, x = solution.z, solution.x
        return Adapted(x, z, run.value, run.visits[-1].own, run.converged)


@dataclass(frozen=True)
class FirstOrderAdaptation(NestedAdaptation):
    """As :class:`NestedAdaptation`, with fewer steps, and an outer gradient that does not see how x came about."""

    steps: int = 5

    def adapt(self, problem: jiio.Problem, x0: Tensor) -> Adapted:
        run = self.run(problem, x0)
        z, x = run.z, detach(run.x)
        if torch.is_grad_enabled():
            settings = self.solve_settings().merged(adjoint=jiio.Implicit())
            z = jiio.equilibrium(problem.cell, x, z, **settings.arguments()).z
        return Adapted(x, z, run.value, run.visits[-1].own, run.converged)
