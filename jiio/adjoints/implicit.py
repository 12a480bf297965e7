"""Implicit differentiation of the equilibrium, and the envelope gradient of the joint solve."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..arithmetic import Arithmetic
from ..checks import check_instance, check_integer
from ..iterate import Recorder, iterate
from ..layout import Spec, Tree, detach
from ..operators import EquilibriumMap
from ..problem import Cell, Problem
from ..solution import Evaluations, Solution, Status, Tolerance
from ..solvers import AbstractSolver, Anderson
from .base import AbstractAdjoint, first_order_only, reaches_beyond, refuse_second_order, sanitised, with_value


class _ImplicitFunction(torch.autograd.Function):
    """Identity onto z*; backward turns a cotangent g into u = (I - J_z^T)^{-1} g.

    Autograd then pulls u through the taped f.
    """

    @staticmethod
    def forward(
        ctx: Any,
        image: Tensor,
        z: Tensor,
        leaf: Tensor,
        adjoint: AbstractTransposed,
        counts: Evaluations,
        bad: Tensor,
        arithmetic: Arithmetic,
    ) -> Tensor:
        ctx.save_for_backward(image, leaf, bad)
        ctx.adjoint, ctx.counts, ctx.arithmetic = adjoint, counts, arithmetic
        return z.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        refuse_second_order(type(ctx.adjoint).__name__)
        image, leaf, bad = ctx.saved_tensors
        g = grads[0].masked_fill(bad[:, None], 0.0)

        def transposed(u: Tensor) -> Tensor:
            ctx.counts.adjoint_vjp += 1
            return torch.autograd.grad(image, leaf, u, retain_graph=True, allow_unused=True)[0]

        u, ctx.counts.adjoint_residual = ctx.adjoint.solve_transposed(transposed, g, ctx.arithmetic)
        return u, None, None, None, None, None, None


@dataclass(frozen=True)
class AbstractTransposed(AbstractAdjoint):
    """An adjoint that takes one taped application at z*, and a solution of the transposed linear system there."""

    @abstractmethod
    def solve_transposed(
        self, transposed: Callable[[Tensor], Tensor | None], g: Tensor, arithmetic: Arithmetic
    ) -> tuple[Tensor, Tensor | None]:
        """u with u = transposed(u) + g, all (B, D), and the RMS of what is missing over that of g (B,), if measured.

        arithmetic: that of the cell whose products these are.
        """

    def attach_equilibrium(self, cell: Cell, x: Tree, solution: Solution) -> Solution:
        spec = Spec.of(solution.z)
        bad = solution.status == int(Status.NONFINITE)
        z = spec.pack(solution.z).detach()
        leaf = sanitised(z, bad).clone().requires_grad_()
        image = spec.pack(cell(spec.unpack(leaf), sanitised(x, bad)))
        solution.evaluations.cell += 1
        if not image.requires_grad or not reaches_beyond(image, {id(leaf)}):
            return solution
        arithmetic = getattr(cell, "arithmetic", Arithmetic.around(z))  # that of the tape, not of the backward pass
        packed = _ImplicitFunction.apply(image, z, leaf, self, solution.evaluations, bad, arithmetic)
        return dataclasses.replace(solution, z=spec.unpack(packed), differentiable=frozenset({"z"}))


@dataclass(frozen=True)
class Implicit(AbstractTransposed):
    """The implicit function theorem at z*: solves u = J_z^T u + g, then one VJP with respect to parameters and x.

    Exact for :func:`jiio.equilibrium`. In :func:`jiio.solve` it is the papers' first-order gradient: z is
    differentiated with x held constant, so ``value`` is exact (envelope theorem) and any other loss on z is an
    approximation; use :class:`KKT` for the exact one.

    solver, tolerance, max_steps: for the adjoint solve. The cotangent is scaled to RMS 1 per sample first, so
    atol is relative.
    """

    solver: AbstractSolver = field(default_factory=Anderson)
    tolerance: Tolerance = Tolerance(atol=1e-6, rtol=1e-5)
    max_steps: int = 100

    def __post_init__(self) -> None:
        check_instance("Implicit.solver", self.solver, AbstractSolver)
        check_instance("Implicit.tolerance", self.tolerance, Tolerance)
        check_integer("Implicit.max_steps", self.max_steps, 1)

    def attach(self, problem: Problem, solution: Solution) -> Solution:
        attached = self.attach_equilibrium(problem.cell, detach(solution.x), solution)
        return with_value(problem, attached, attached.differentiable, "Implicit")

    def solve_transposed(
        self, transposed: Callable[[Tensor], Tensor | None], g: Tensor, arithmetic: Arithmetic
    ) -> tuple[Tensor, Tensor]:
        def step(u: Tensor) -> Tensor:
            with torch.enable_grad():
                pulled = transposed(u)
            return torch.zeros_like(u) if pulled is None else pulled.detach()

        return linear_fixed_point(step, g, self.solver, self.tolerance, self.max_steps, arithmetic)


def linear_fixed_point(
    step: Callable[[Tensor], Tensor],
    right: Tensor,
    solver: AbstractSolver,
    tolerance: Tolerance,
    max_steps: int,
    arithmetic: Arithmetic,
) -> tuple[Tensor, Tensor]:
    """u (B, n) with u = step(u) + right, ``step`` linear, and what is missing, relative to ``right`` (B,)."""
    size = right.square().mean(1, keepdim=True).sqrt()
    unit = right / torch.where(size > 0, size, torch.ones_like(size))
    operator = EquilibriumMap(lambda u, added: step(u) + added, unit, unit, solver.damping)
    arguments = (tolerance, max_steps, Recorder(False, False), arithmetic.floor(right.dtype))
    with Arithmetic.around(right).full():
        outcome = iterate(operator, solver, unit, *arguments)
    return outcome.v * size, outcome.residual[:, 0]


@dataclass(frozen=True)
class Envelope(AbstractAdjoint):
    """The envelope (Danskin) gradient: only ``value`` is differentiable, and exactly so at an optimum.

    value = l(z*, x*) + <mu*, f(z*, x*) - z*> with z*, mu*, x* constant. Right for an outer loss that *is* the
    inner objective (reconstruction, adversarial training); costs one taped evaluation and no adjoint solve.
    """

    def attach(self, problem: Problem, solution: Solution) -> Solution:
        assert solution.multiplier is not None
        bad = solution.status == int(Status.NONFINITE)
        z, mu, x = (sanitised(detach(t), bad) for t in (solution.z, solution.multiplier, solution.x))
        spec = Spec.of(z)
        image = spec.pack(problem.cell(z, x))
        solution.evaluations.cell += 1
        batch = solution.value.shape[0]
        lagrangian = problem.value(z, x, batch) + (spec.pack(mu) * (image - spec.pack(z))).sum(1)
        if not lagrangian.requires_grad:
            return solution

        # The constraint term is a zero of the value but not of its derivative: show the measured objective,
        # keep the slope.
        slope = torch.where(bad, torch.zeros_like(lagrangian), lagrangian - lagrangian.detach())
        value = first_order_only(solution.value.detach() + slope, "Envelope")
        return dataclasses.replace(solution, value=value, differentiable=frozenset({"value"}))
