"""The symmetric linear system at the solution of a joint solve, in units in which its blocks are of order one.

K is the Hessian of the Lagrangian over s = [z, mu, x], restricted to what may move at the active constraints; to the
block of x come the curvature of those constraints and the damping. What it is for: :mod:`.kkt`, :mod:`.levenberg`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..layout import Spec, detach
from ..problem import Problem
from ..prox import Active
from ..solution import Evaluations, Solution, Status
from .base import sanitised


@dataclass
class System:
    """The symmetric system at one solution; everything packed over [z, mu, x] (B, 2 n + k)."""

    slope: Tensor  # dL/ds with a graph, also to the weights
    point: Tensor  # s, the leaf of that graph
    active: Active
    diagonal: Tensor  # (B, k) curvature that the active constraint and the damping add
    stiffness: float | Tensor  # what of it is the damping, a number or (B, 1)
    scale: Tensor  # (B, 2 n + k): s = scale * scaled s
    sizes: tuple[int, int, int]
    bad: Tensor
    counts: Evaluations

    @classmethod
    def at(cls, problem: Problem, solution: Solution, damping: float = 0.0) -> System:
        """At a solution with a multiplier; one call of the cell. damping: as in :class:`KKT`."""
        zspec, xspec = Spec.of(solution.z), Spec.of(solution.x)
        sizes = (zspec.size, zspec.size, xspec.size)
        bad = solution.status == int(Status.NONFINITE)
        assert solution.multiplier is not None
        z, mu, x = (sanitised(detach(t), bad) for t in (solution.z, solution.multiplier, solution.x))
        point = torch.cat([zspec.pack(z), zspec.pack(mu), xspec.pack(x)], dim=1).requires_grad_()
        slope = slope_at(problem, solution, point)

        # Restricted to what may move at the active constraints.
        gradient = slope.detach()[:, -xspec.size :]
        active = problem.prox.bind(solution.x).active(xspec.pack(x), gradient)
        added, scale = stiffness(damping, solution), units(solution, point, sizes)
        curvature = active.curvature(gradient) + added
        return cls(slope, point, active, curvature, added, scale, sizes, bad, solution.evaluations)

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


def slope_at(problem: Problem, solution: Solution, s: Tensor) -> Tensor:
    """dL/ds at s = [z, mu, x] (B, D), in the layout of ``solution``, with a graph; one call of the cell."""
    zspec, xspec = Spec.of(solution.z), Spec.of(solution.x)
    zs, ms, xs = s.split((zspec.size, zspec.size, xspec.size), dim=1)
    ztree, xtree = zspec.unpack(zs), xspec.unpack(xs)
    with torch.enable_grad():
        image = zspec.pack(problem.cell(ztree, xtree))
        solution.evaluations.cell += 1
        lagrangian = problem.value(ztree, xtree, s.shape[0]) + (ms * (image - zs)).sum(1)
        return torch.autograd.grad(lagrangian.sum(), s, create_graph=True)[0]


def stiffness(damping: float, solution: Solution) -> float | Tensor:
    """What the damping adds to the curvature in x, a number or (B, 1)."""
    if solution.scaling is None or not damping:
        return damping
    sigma, kappa = solution.scaling
    return damping * sigma * kappa


def units(solution: Solution, s: Tensor, sizes: tuple[int, int, int]) -> Tensor:
    """The scale of s (B, D), with which every block of the system is of order one."""
    if solution.scaling is None:
        return torch.ones_like(s)
    sigma, kappa = solution.scaling
    # With S = diag(1, sigma, 1 / sqrt(kappa)) / sqrt(sigma) every block of S K S is of order one.
    root = sigma.sqrt()
    blocks = [1 / root, root, 1 / (root * kappa.sqrt())]
    return torch.cat([b.expand(-1, n) for b, n in zip(blocks, sizes, strict=True)], dim=1)
