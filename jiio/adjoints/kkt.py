"""The exact outer gradient of a joint solve.

At a solution s = (z, mu, x) of the optimality conditions the Lagrangian L = l(z, x) + mu^T (f(z, x) - z) is
stationary. For an outer loss Lo(s, theta)

    K w = - dLo/ds,   K = d^2 L / ds^2 (symmetric, indefinite),   dLo/dtheta = d/dtheta [ Lo + <w, dL/ds> ], w constant,

so one symmetric solve with Hessian-vector products gives the exact gradient. Where a constraint is active the solve
runs in the tangent space of the active set, and the curvature of the active constraint joins the x block. The system
is solved in the scaled units of the joint map (z, mu / sigma, x sqrt(kappa)), a symmetric diagonal preconditioner.

The exact gradient holds only as far as x* follows theta linearly. Where the inner problem has flat directions that is
not far: dx*/dtheta = -H^-1 (...) runs along them. Levenberg's damping (1944), K_xx + delta I, says how stiffly x* is
held: the result is the exact gradient of a problem whose inner objective carries delta / 2 |x - x*|^2, x* constant.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..checks import check_integer, check_number
from ..layout import Spec
from ..metric import Metric
from ..problem import Problem
from ..solution import Solution
from ..solvers.krylov import minres
from .base import AbstractAdjoint, reaches_beyond, refuse_second_order, with_value
from .elimination import eliminated
from .system import System

STIFF = 0.03  # damping from which on MINRES takes as few products as an elimination in a metric


class _KKTFunction(torch.autograd.Function):
    """Identity onto s*; backward solves K w = -g and hands w to the taped dL/ds."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, point: Tensor, system: System, adjoint: KKT) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.system, ctx.adjoint = dataclasses.replace(system, slope=slope.detach()), adjoint
        return point.detach().clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        refuse_second_order("KKT")
        system = dataclasses.replace(ctx.system, slope=ctx.saved_tensors[0])
        g = grads[0].masked_fill(system.bad[:, None], 0.0)
        right = system.tangent(-g * system.scale)
        w, system.counts.adjoint_residual = ctx.adjoint.solve_system(system, right)
        return system.tangent(w) * system.scale, None, None, None


@dataclass(frozen=True)
class KKT(AbstractAdjoint):
    """The exact gradient of any outer loss on ``z``, ``x``, ``multiplier`` and ``value``.

    rtol, max_steps: of the MINRES solve (relative residual per sample; Hessian-vector products). In training 1e-3
    and a few dozen products are enough; for a gradient check take 1e-10 and a thousand. damping: curvature added to the
    x block, in units of the measured curvature sigma kappa (``Solution.scaling``): 0 is exact, a large one holds x*
    constant, as ``Implicit`` does, and between the two the gradient holds for longer steps of the outer training
    (:class:`Levenberg` measures how much of it a training needs). Where the solve was in a metric, the system is solved
    by it, with fewer products. The cell and the objective must be twice differentiable by autograd.
    """

    rtol: float = 1e-4
    max_steps: int = 200
    damping: float = 0.0

    def __post_init__(self) -> None:
        check_number("KKT.rtol", self.rtol, 0.0)
        check_integer("KKT.max_steps", self.max_steps, 1)
        check_number("KKT.damping", self.damping, 0.0)

    def inside(self, metric: Metric | None) -> AbstractAdjoint:
        if metric is None or type(self) is not KKT:
            return self
        return _InMetric(self.rtol, self.max_steps, self.damping, metric)

    def solve_system(self, system: System, right: Tensor) -> tuple[Tensor, Tensor]:
        """w (B, D) with K w = right in the system's units, and its relative residual (B,)."""
        w, residual, _ = minres(system.product, right, rtol=self.rtol, max_steps=self.max_steps)
        return w, residual

    def attach(self, problem: Problem, solution: Solution) -> Solution:
        assert solution.multiplier is not None
        system = System.at(problem, solution, self.damping)
        if not system.slope.requires_grad or not reaches_beyond(system.slope, {id(system.point)}):
            return with_value(problem, solution, frozenset(), "KKT")

        zspec, xspec = Spec.of(solution.z), Spec.of(solution.x)
        zs, ms, xs = _KKTFunction.apply(system.slope, system.point, system, self).split(system.sizes, dim=1)
        parts = {"z": zspec.unpack(zs), "multiplier": zspec.unpack(ms), "x": xspec.unpack(xs)}
        return with_value(problem, dataclasses.replace(solution, **parts), frozenset(parts), "KKT")


@dataclass(frozen=True)
class _InMetric(KKT):
    """For a solve in a metric."""

    metric: Metric | None = None

    def solve_system(self, system: System, right: Tensor) -> tuple[Tensor, Tensor]:
        if self.metric is None or self.damping >= STIFF:
            return super().solve_system(system, right)
        return eliminated(system, right, self.metric, self.rtol, self.max_steps)
