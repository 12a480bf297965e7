"""Gradients through a finite number of steps: Phantom (a few, taped after the solve) and Unrolled (all of them)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import check_choice, check_integer, check_number
from ..layout import Spec, Tree, detach
from ..problem import Cell, Problem
from ..solution import Solution, Status
from .base import AbstractAdjoint, first_order_only, reaches_beyond, refuse_second_order, sanitised, with_value


class _NeumannFunction(torch.autograd.Function):
    """Identity onto z*; backward replaces (I - J^T)^{-1} by damping * sum_{i<k} B^i.

    B = damping J^T + (1 - damping) I.
    """

    @staticmethod
    def forward(
        ctx: Any, image: Tensor, z: Tensor, leaf: Tensor, phantom: Phantom, solution: Solution, bad: Tensor
    ) -> Tensor:
        ctx.save_for_backward(image, leaf, bad)
        ctx.phantom, ctx.counts = phantom, solution.evaluations
        return z.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        refuse_second_order("Phantom")
        image, leaf, bad = ctx.saved_tensors
        term = grads[0].masked_fill(bad[:, None], 0.0)
        total, damping = term, ctx.phantom.damping
        for _ in range(ctx.phantom.steps - 1):
            ctx.counts.adjoint_vjp += 1
            with torch.enable_grad():
                pulled = torch.autograd.grad(image, leaf, term, retain_graph=True, allow_unused=True)[0]
            term = (1 - damping) * term + (0.0 if pulled is None else damping * pulled)
            total = total + term
        return damping * total, None, None, None, None, None


@dataclass(frozen=True)
class Phantom(AbstractAdjoint):
    """Phantom gradients (Geng et al. 2021): cheap, biased, a descent direction where the cell contracts well enough.

    damping: how far a step goes towards f, above 0 and at most 1. kind "unrolled" tapes ``steps`` damped applications
    of f after the solve; "neumann" keeps one taped application and sums ``steps`` terms of the series in the backward
    pass (the same gradient at an exact equilibrium, less memory). In ``solve`` x is held constant, as with
    :class:`Implicit`.
    """

    steps: int = 5
    damping: float = 0.5
    kind: str = "unrolled"

    def __post_init__(self) -> None:
        check_integer("Phantom.steps", self.steps, 1)
        check_number("Phantom.damping", self.damping, 0.0, 1.0, open_low=True)
        check_choice("Phantom.kind", self.kind, ("unrolled", "neumann"))

    def attach(self, problem: Problem, solution: Solution) -> Solution:
        attached = self.attach_equilibrium(problem.cell, detach(solution.x), solution)
        return with_value(problem, attached, attached.differentiable, "Phantom")

    def attach_equilibrium(self, cell: Cell, x: Tree, solution: Solution) -> Solution:
        bad = solution.status == int(Status.NONFINITE)
        x, start = sanitised(x, bad), sanitised(detach(solution.z), bad)
        spec = Spec.of(start)
        z = self._series(cell, x, start, solution) if self.kind == "neumann" else self._steps(cell, x, start, solution)
        if z is None or not z.requires_grad:
            return solution
        return dataclasses.replace(solution, z=spec.unpack(z), differentiable=frozenset({"z"}))

    def _series(self, cell: Cell, x: Tree, start: Tree, solution: Solution) -> Tensor | None:
        """z* (B, D) with the series behind it; None where the cell has nothing to give a gradient to."""
        spec, bad = Spec.of(start), solution.status == int(Status.NONFINITE)
        leaf = spec.pack(start).clone().requires_grad_()
        image = spec.pack(cell(spec.unpack(leaf), x))
        solution.evaluations.cell += 1
        if not image.requires_grad or not reaches_beyond(image, {id(leaf)}):
            return None
        return _NeumannFunction.apply(image, spec.pack(solution.z).detach(), leaf, self, solution, bad)

    def _steps(self, cell: Cell, x: Tree, start: Tree, solution: Solution) -> Tensor:
        """A few damped steps on from z*, taped (B, D)."""
        spec, bad = Spec.of(start), solution.status == int(Status.NONFINITE)
        z = spec.pack(start)
        for _ in range(self.steps):
            z = torch.lerp(z, spec.pack(cell(spec.unpack(z), x)), self.damping)
        solution.evaluations.cell += self.steps
        return first_order_only(z, "Phantom", bad)


@dataclass(frozen=True)
class Unrolled(AbstractAdjoint):
    """Ordinary automatic differentiation through every step of the solver: exact for the iterates, second derivatives
    included.

    Memory grows with the number of steps. Agrees with :class:`Implicit` (equilibrium) or :class:`KKT` (joint
    solve) once converged. Gradients also reach x0 and z0, as far as the iterates still depend on them. A NaN sample
    spoils the gradients of shared parameters here, as in any taped code; the other adjoints keep it apart.
    """

    taped = True

    def attach(self, problem: Problem, solution: Solution) -> Solution:
        return with_value(problem, solution, frozenset({"z", "x", "multiplier"}))

    def attach_equilibrium(self, cell: Cell, x: Tree, solution: Solution) -> Solution:
        return dataclasses.replace(solution, differentiable=frozenset({"z"}))
