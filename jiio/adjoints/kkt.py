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
from ..layout import Spec, detach
from ..problem import Problem
from ..prox import Active
from ..solution import Evaluations, Solution, Status
from ..solvers.krylov import minres
from .base import AbstractAdjoint, reaches_beyond, refuse_second_order, sanitised, with_value


@dataclass
class _System:
    """The symmetric system at one solution; everything packed over [z, mu, x] (B, 2 n + k)."""

    slope: Tensor  # dL/ds with a graph
    point: Tensor  # s, the leaf of that graph
    active: Active
    diagonal: Tensor  # (B, k) curvature that the active constraint and the damping add
    scale: Tensor  # (B, 2 n + k): s = scale * scaled s
    sizes: tuple[int, int, int]
    bad: Tensor
    counts: Evaluations

    def tangent(self, w: Tensor) -> Tensor:
        z, mu, x = w.split(self.sizes, dim=1)
        return torch.cat([z, mu, self.active.project(x)], dim=1)

    def product(self, w: Tensor) -> Tensor:
        """Scaled T (K + C) T w."""
        self.counts.adjoint_hvp += 1
        w = self.tangent(w) * self.scale
        with torch.enable_grad():
            out = torch.autograd.grad(self.slope, self.point, w, retain_graph=True)[0]
        z, mu, x = out.split(self.sizes, dim=1)
        out = torch.cat([z, mu, x + self.diagonal * w[:, -self.sizes[2] :]], dim=1)
        return self.tangent(out * self.scale)


class _KKTFunction(torch.autograd.Function):
    """Identity onto s*; backward solves K w = -g and hands w to the taped dL/ds."""

    @staticmethod
    def forward(ctx: Any, slope: Tensor, point: Tensor, system: _System, adjoint: KKT) -> Tensor:
        ctx.save_for_backward(slope)
        ctx.system, ctx.adjoint = dataclasses.replace(system, slope=slope.detach()), adjoint
        return point.detach().clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        refuse_second_order("KKT")
        system = dataclasses.replace(ctx.system, slope=ctx.saved_tensors[0])
        g = grads[0].masked_fill(system.bad[:, None], 0.0)
        right = system.tangent(-g * system.scale)
        w, system.counts.adjoint_residual, _ = minres(
            system.product, right, rtol=ctx.adjoint.rtol, max_steps=ctx.adjoint.max_steps
        )
        return system.tangent(w) * system.scale, None, None, None


@dataclass(frozen=True)
class KKT(AbstractAdjoint):
    """The exact gradient of any outer loss on ``z``, ``x``, ``multiplier`` and ``value``.

    rtol, max_steps: of the MINRES solve (relative residual per sample; Hessian-vector products). In training 1e-3
    and a few dozen products are enough; for a gradient check take 1e-10 and a thousand. damping: curvature added to the
    x block, in units of the measured curvature sigma kappa (``Solution.scaling``): 0 is exact, a large one holds x*
    constant, as ``Implicit`` does, and between the two the gradient holds for longer steps of the outer training. The
    cell and the objective must be twice differentiable by autograd.
    """

    rtol: float = 1e-4
    max_steps: int = 200
    damping: float = 0.0

    def __post_init__(self) -> None:
        check_number("KKT.rtol", self.rtol, 0.0)
        check_integer("KKT.max_steps", self.max_steps, 1)
        check_number("KKT.damping", self.damping, 0.0)

    def attach(self, problem: Problem, solution: Solution) -> Solution:
        assert solution.multiplier is not None
        zspec, xspec = Spec.of(solution.z), Spec.of(solution.x)
        bad = solution.status == int(Status.NONFINITE)
        z, mu, x = (sanitised(detach(t), bad) for t in (solution.z, solution.multiplier, solution.x))
        s = torch.cat([zspec.pack(z), zspec.pack(mu), xspec.pack(x)], dim=1).requires_grad_()
        sizes = (zspec.size, zspec.size, xspec.size)
        slope = self._slope(problem, solution, s, sizes)
        if not slope.requires_grad or not reaches_beyond(slope, {id(s)}):
            return with_value(problem, solution, frozenset(), "KKT")

        # K of the linear system, restricted to what may move at the active constraints.
        gradient = slope.detach()[:, -xspec.size :]
        active = problem.prox.bind(solution.x).active(xspec.pack(x), gradient)
        curvature, scale = active.curvature(gradient) + self._stiffness(solution), self._scale(solution, s, sizes)
        system = _System(slope, s, active, curvature, scale, sizes, bad, solution.evaluations)

        zs, ms, xs = _KKTFunction.apply(slope, s, system, self).split(sizes, dim=1)
        parts = {"z": zspec.unpack(zs), "multiplier": zspec.unpack(ms), "x": xspec.unpack(xs)}
        return with_value(problem, dataclasses.replace(solution, **parts), frozenset(parts), "KKT")

    @staticmethod
    def _slope(problem: Problem, solution: Solution, s: Tensor, sizes: tuple[int, int, int]) -> Tensor:
        """dL/ds at s = [z, mu, x] (B, D), with a graph; one call of the cell."""
        zspec, xspec = Spec.of(solution.z), Spec.of(solution.x)
        zs, ms, xs = s.split(sizes, dim=1)
        ztree, xtree = zspec.unpack(zs), xspec.unpack(xs)
        image = zspec.pack(problem.cell(ztree, xtree))
        solution.evaluations.cell += 1
        lagrangian = problem.value(ztree, xtree, s.shape[0]) + (ms * (image - zs)).sum(1)
        return torch.autograd.grad(lagrangian.sum(), s, create_graph=True)[0]

    def _stiffness(self, solution: Solution) -> float | Tensor:
        """What the damping adds to the curvature in x, a number or (B, 1)."""
        if solution.scaling is None or not self.damping:
            return self.damping
        sigma, kappa = solution.scaling
        return self.damping * sigma * kappa

    @staticmethod
    def _scale(solution: Solution, s: Tensor, sizes: tuple[int, int, int]) -> Tensor:
        if solution.scaling is None:
            return torch.ones_like(s)
        sigma, kappa = solution.scaling
        # With S = diag(1, sigma, 1 / sqrt(kappa)) / sqrt(sigma) every block of S K S is of order one.
        root = sigma.sqrt()
        blocks = [1 / root, root, 1 / (root * kappa.sqrt())]
        return torch.cat([b.expand(-1, n) for b, n in zip(blocks, sizes, strict=True)], dim=1)
