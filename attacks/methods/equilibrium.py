"""White-box attacks made for equilibrium models: gradients of states on the way, unrolled steps, several adjoints.

A defence, or a solver that stops short, can make the gradient at the final state useless while states on the way still
tell where the prediction would move. Yang, Pang and Liu ("A closer look at the adversarial robustness of deep
equilibrium models", NeurIPS 2022) attack through such states: some solver steps without a graph, then a few damped
applications of the cell with one, loss and gradient there. Whatever found an example, it counts only if the model's own
prediction, from a fresh start, is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import jiio
from jiio.checks import check_instance, check_integer, check_number, fail
from jiio.layout import Spec, detach

from ..base import AbstractAttack
from ..objectives import AbstractObjective, CrossEntropy, margin
from ..runs import Best, Starts
from ..target import Target
from ..threat import ThreatModel


@dataclass(frozen=True)
class _Walk:
    """Projected steps along a gradient that somebody else computes."""

    steps: int
    threat: ThreatModel

    def __call__(self, slope: Any, start: Tensor, x: Tensor) -> list[Tensor]:
        """All points after the first; slope: point -> gradient."""
        stride, point, seen = self.threat.steps(x, 2.5 / self.steps), self.threat.project(start, x), []
        for _ in range(self.steps):
            point = self.threat.project(point + stride * self.threat.steepest(slope(point), point), x)
            seen.append(point)
        return seen


@dataclass(frozen=True)
class IntermediateAttack(AbstractAttack):
    """PGD through intermediate states: for each i in ``states`` and k in ``unrolled``, i solver steps without a graph,
    then k steps z <- (1 - damping) z + damping f(z) with one. The worst of the whole grid counts; each point of it only
    works on what the others left.

    steps, random_start: of each run, as in :class:`jiio.attacks.PGD`. objective: one without a target. ensemble: in the
    end, one more run along the sum of the normalised gradients over ``states`` (the attack on the
    paper's ensemble of states).
    """

    needs_equilibrium = True

    steps: int = 10
    states: tuple[int, ...] = (1, 3, 5, 7)
    unrolled: tuple[int, ...] = (1, 5)
    damping: float = 0.5
    objective: AbstractObjective = field(default_factory=CrossEntropy)
    random_start: bool = True
    ensemble: bool = True

    def __post_init__(self) -> None:
        check_integer("IntermediateAttack.steps", self.steps, 1)
        for name in ("states", "unrolled"):
            entries = getattr(self, name)
            if not isinstance(entries, (tuple, list)) or not entries:
                fail(f"IntermediateAttack.{name}", "a tuple of whole numbers", entries)
            for entry in entries:
                check_integer(f"IntermediateAttack.{name}", entry, 0 if name == "states" else 1)
        check_number("IntermediateAttack.damping", self.damping, 0.0, 1.0, open_low=True)
        check_instance("IntermediateAttack.objective", self.objective, AbstractObjective)
        if self.objective.targeted:
            fail("IntermediateAttack.objective", "an objective without a target", type(self.objective).__name__)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        best, starts = Best.empty(x), Starts(generator)

        for number, (states, k) in enumerate(self._grid()):
            left = torch.nonzero(best.margin <= 0)[:, 0]
            if not len(left):
                break
            part, xs, ys = threat.select(left), x[left], y[left]
            start = starts(xs, part, number) if self.random_start else xs

            def slope(point: Tensor, ys: Tensor = ys, states: tuple[int, ...] = states, k: int = k) -> Tensor:
                return sum(unit(self.gradient(model, point, ys, i, k)) for i in states)  # type: ignore[return-value]

            # Whatever state the gradients were taken at, the model's own prediction decides.
            point = _Walk(self.steps, part)(slope, start, xs)[-1]
            best.enter(point, margin(model.predict(point).logits, ys), left)
        return best.x

    def _grid(self) -> list[tuple[tuple[int, ...], int]]:
        """(states whose gradients are added up, unrolled steps) of every run."""
        grid: list[tuple[tuple[int, ...], int]] = [((i,), k) for i in self.states for k in self.unrolled]
        if self.ensemble and len(self.states) > 1:
            grid.append((tuple(self.states), min(self.unrolled)))
        return grid

    def gradient(self, model: Target, x: Tensor, y: Tensor, state: int, unrolled: int) -> Tensor:
        """The gradient of the objective of a model at images x with labels y, at the state after ``state`` solver and
        ``unrolled`` taped steps, like x.
        """
        problem = model.problem(lambda logits: self.objective(logits, y), jiio.Identity())
        z = _state_after(model, problem.cell, x, state)
        spec = Spec.of(z)

        with torch.enable_grad():
            leaf = x.detach().clone().requires_grad_()
            packed = spec.pack(z)
            for _ in range(unrolled):  # z <- (1 - damping) z + damping f(z, x)
                packed = torch.lerp(packed, spec.pack(problem.cell(spec.unpack(packed), leaf)), self.damping)
            value = problem.objective(spec.unpack(packed), leaf)
            (found,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)

        model.counts.record(jiio.Evaluations(cell=unrolled + (state == 1), vjp=unrolled))
        model.counts.backward += 1
        return torch.zeros_like(x) if found is None else found


@torch.no_grad()
def _state_after(model: Target, cell: Any, x: Tensor, steps: int) -> Any:
    """The state after so many steps of the model's solver from its start; one step is one call of the cell."""
    z = cell.initial_state(x)
    if steps < 2:
        return cell(z, x) if steps else z
    solution = jiio.equilibrium(
        cell,
        x,
        z,
        solver=model.options["solver"],
        adjoint=jiio.Detached(),
        tolerance=model.options["tolerance"],
        max_steps=steps,
        on_failure="ignore",  # it is meant to stop on the way
    )

    model.counts.record(solution.evaluations)
    return detach(solution.z)


@dataclass(frozen=True)
class SimultaneousAttack(AbstractAttack):
    """PGD with an adjoint carried along the forward iteration (the simultaneous adjoint of Yang et al. 2022).

    Every gradient comes from ``inner`` joint steps of state and multiplier at a fixed x,

        z <- f(z, x),    mu <- J_z^T mu + l_z,    g = J_x^T mu + l_x,

    started where the last gradient left off. With one inner step and acceleration this is JIIO itself.

    steps, random_start: as in :class:`jiio.attacks.PGD`. objective: one without a target.
    """

    needs_equilibrium = True

    steps: int = 40
    inner: int = 3
    objective: AbstractObjective = field(default_factory=CrossEntropy)
    random_start: bool = True

    def __post_init__(self) -> None:
        check_integer("SimultaneousAttack.steps", self.steps, 1)
        check_integer("SimultaneousAttack.inner", self.inner, 1)
        check_instance("SimultaneousAttack.objective", self.objective, AbstractObjective)
        if self.objective.targeted:
            fail("SimultaneousAttack.objective", "an objective without a target", type(self.objective).__name__)

    def run(self, model: Target, x: Tensor, y: Tensor, threat: ThreatModel, generator: torch.Generator) -> Tensor:
        problem = model.problem(lambda logits: self.objective(logits, y), jiio.Identity())
        carried = _Carried.from_state(model, problem, self.inner, model.predict(x).state)
        best = Best.empty(x)

        # Halfway and at the end: what the carried state says in between may lag behind the equilibrium.
        start = Starts(generator)(x, threat) if self.random_start else x
        points = _Walk(self.steps, threat)(carried.slope, start, x)
        for point in (points[len(points) // 2], points[-1]):
            best.offer(point, model.predict(point).logits, y)
        return best.x


@dataclass
class _Carried:
    """State and multiplier (B, D), packed, that go on from one gradient to the next."""

    model: Target
    problem: jiio.Problem
    inner: int
    spec: Spec
    z: Tensor
    mu: Tensor

    @classmethod
    def from_state(cls, model: Target, problem: jiio.Problem, inner: int, state: Any) -> _Carried:
        """From this state (of the cell's own shape), and a multiplier of zero."""
        spec = Spec.of(state)
        z = spec.pack(detach(state))
        return cls(model, problem, inner, spec, z, torch.zeros_like(z))

    def slope(self, point: Tensor) -> Tensor:
        """J_x^T mu + l_x at ``point`` after ``inner`` more joint steps, like it."""
        gradient = torch.zeros_like(point)
        for _ in range(self.inner):
            gradient = self._step(point)
        self.model.counts.record(jiio.Evaluations(cell=self.inner, vjp=self.inner))
        self.model.counts.backward += 1
        return gradient

    def _step(self, point: Tensor) -> Tensor:
        """z <- f(z, x), mu <- J_z^T mu + l_z; the gradient in x with the multiplier from before."""
        with torch.enable_grad():
            z, leaf = self.z.clone().requires_grad_(), point.detach().clone().requires_grad_()
            image = self.spec.pack(self.problem.cell(self.spec.unpack(z), leaf))
            value = self.problem.objective(self.spec.unpack(z), leaf)

            # The gradient of l + mu^T f in z and x is both right-hand sides at once.
            total = value.sum() + (image * self.mu).sum()
            found = torch.autograd.grad(total, [z, leaf], allow_unused=True)

        # A cell may ignore one of the two, and a state on its way may overflow.
        mu, gradient = (torch.zeros_like(t) if g is None else g for g, t in zip(found, (z, leaf), strict=True))
        self.z, self.mu = torch.nan_to_num(image.detach()), torch.nan_to_num(mu)
        return torch.nan_to_num(gradient)


def unit(gradient: Tensor) -> Tensor:
    """Gradients (B, ...) of length 1, in the Euclidean norm."""
    size = gradient.flatten(1).norm(dim=1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / size.view(-1, *([1] * (gradient.dim() - 1)))
