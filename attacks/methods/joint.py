"""The joint attack: state, multiplier and perturbation in one solve.

PGD on an equilibrium model pays a forward and an adjoint solve for every step. Here the network, its adjoint and the
adversarial example converge together (JIIO, Gurumurthy et al. 2021, section on adversarial training), at one evaluation
and one vector-Jacobian product a step. The published attack has a normalised L2 step, no bounds and no random start;
ours projects onto ball and box exactly and keeps the strongest point on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import check_instance, check_integer

from ..base import AbstractAttack
from ..objectives import AbstractObjective, CrossEntropy
from ..runs import Best, Run, check_targets, restarted
from ..target import Target
from ..threat import ThreatModel


@dataclass(frozen=True)
class JointAttack(AbstractAttack):
    """Maximise the objective over x while the equilibrium is being solved; for :class:`jiio.EquilibriumModel`.

    steps: evaluations (and vector-Jacobian products) of one solve, after the two that measure its scale. objective,
    targets, restarts: as in :class:`attacks.PGD`. random_start: the first run starts at a random point too. rule,
    solver, tolerance: of :func:`jiio.solve`. settle: steps after which points on the way are looked at: before, the
    state lags too far behind x to be believed. check: how many of the found points (the end of the solve, the strongest
    on the way) are compared at a fresh equilibrium; 1 takes the strongest on the way unseen.
    """

    needs_equilibrium = True

    steps: int = 60
    objective: AbstractObjective = field(default_factory=CrossEntropy)
    targets: int | tuple[int, ...] = 3
    restarts: int = 1
    random_start: bool = False
    rule: jiio.AbstractRule = field(default_factory=jiio.GradientStep)
    solver: jiio.AbstractSolver = field(default_factory=jiio.Anderson)
    tolerance: jiio.Tolerance = jiio.Tolerance(1e-5, 1e-3)
    settle: int = 5
    check: int = 2

    def __post_init__(self) -> None:
        check_integer("JointAttack.steps", self.steps, 2)
        check_instance("JointAttack.objective", self.objective, AbstractObjective)
        check_targets("JointAttack.targets", self.targets)
        check_integer("JointAttack.restarts", self.restarts, 1)
        check_instance("JointAttack.rule", self.rule, jiio.AbstractRule)
        check_instance("JointAttack.solver", self.solver, jiio.AbstractSolver)
        check_instance("JointAttack.tolerance", self.tolerance, jiio.Tolerance)
        check_integer("JointAttack.settle", self.settle, 0)
        check_integer("JointAttack.check", self.check, 1)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        return restarted(self, self._once, Run(model, x, y, threat), generator)

    def _once(self, run: Run) -> Tensor:
        model, x, y, aimed = run.model, run.x, run.y, run.aimed
        seen = _Watch(x, y, self.settle)
        objective = seen.scores(lambda logits: -self.objective(logits, y, aimed))
        solution = jiio.solve(
            model.problem(objective, run.threat.prox(x)),
            run.start,
            solver=self.solver,
            rule=self.rule,
            adjoint=jiio.Detached(),
            tolerance=self.tolerance,
            max_steps=self.steps,
            on_failure="ignore",
            watch=seen.step,
        )
        model.counts.record(solution.evaluations)
        best = Best.empty(x)
        found = [seen.best.x, solution.x][: self.check]
        if len(found) == 1:
            return found[0]
        for candidate in found:
            best.offer(candidate, model.predict(candidate).logits, y)
        return best.x


class _Watch:
    """Keeps the strongest x that a solve passes through, by the scores at the state of that moment."""

    def __init__(self, x: Tensor, y: Tensor, settle: int) -> None:
        self.best, self.y, self.settle = Best.empty(x), y, settle
        self.logits: Tensor | None = None

    def scores(self, objective: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        """The same objective of the scores, which are kept: a step has paid for them already."""

        def kept(logits: Tensor) -> Tensor:
            self.logits = logits.detach()
            return objective(logits)

        return kept

    def step(self, step: int, z: Any, x: Tensor, value: Tensor) -> None:
        """``watch`` of :func:`jiio.solve`: offer the input of this step, by the scores of its evaluation."""
        if step >= self.settle and self.logits is not None:
            self.best.offer(x, self.logits, self.y)
