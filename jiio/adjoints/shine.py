"""SHINE: the backward pass from what the forward solve has learnt (Ramzi, Mannel, Bai, Starck, Ciuciu and Moreau 2022).

A quasi-Newton solver builds an estimate H of (I - J)^-1 on its way to z*. Transposed it answers the linear system of
the adjoint, u = H^T g, without a single product with the cell's Jacobian. How good that is depends on what the solver
happened to look at: H is right along the differences it has seen, and nothing says that g lies among them. So

- where |u| is much longer than |g| the estimate is thrown away, sample by sample, and u = g (Jacobian-free);
- some steps of the same method on (I - J^T) u = g, begun from u and H^T, refine it, at one product each. Every
  such step is an adjoint secant: it makes H^T right along one more direction, the one in which u is still wrong.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..arithmetic import Arithmetic
from ..checks import GradientError, check_integer, check_number, fail
from ..layout import Tree
from ..problem import Cell, Problem
from ..solution import Solution
from ..solvers import AbstractSolver
from ..solvers.base import damping_of
from ..solvers.inverse import Inverse
from ..solvers.keeper import SecantKeeper
from .implicit import AbstractTransposed

LONGEST = 1e3  # residuals that a refining step may be long, as in Broyden's method


@dataclass(frozen=True)
class SHINE(AbstractTransposed):
    """The gradient of :func:`jiio.equilibrium` from the inverse that its solver estimated; Anderson or Broyden alone.

    refine: steps on the adjoint system that begin from it, one VJP each; 0 costs none. fallback: the estimate is used
    where |u| <= fallback |g|, and Jacobian-free where not (the paper's 1.8; infinity: always used). The solver's memory
    is what there is to share: where it is short, less is. Samples do not depend on their batch mates.
    """

    refine: int = 0
    fallback: float = 1.8

    def __post_init__(self) -> None:
        check_integer("SHINE.refine", self.refine, 0)
        if not (isinstance(self.fallback, float) and self.fallback == math.inf):
            check_number("SHINE.fallback", self.fallback, 0.0)

    def of(self, solver: AbstractSolver) -> SHINE:
        """A copy that keeps what ``solver`` learns. Raises GradientError for a solver that learns nothing."""
        if type(solver).inverse is AbstractSolver.inverse:
            solver.inverse(None)
        shared = copy.copy(self)
        object.__setattr__(shared, "keeper", SecantKeeper(solver, damping_of(solver.damping, "z")))
        return shared

    def attach(self, problem: Problem, solution: Solution) -> Solution:
        remedy = "There the multiplier solves the adjoint system already: take Envelope(), KKT() or Implicit()."
        fail("adjoint", "one for a joint solve", "SHINE()", remedy, GradientError)

    def attach_equilibrium(self, cell: Cell, x: Tree, solution: Solution) -> Solution:
        if self.keeper is None or self.keeper.found is None:
            remedy = "Give SHINE() to jiio.equilibrium, which lets it see the solve."
            fail("adjoint", "one that has seen the forward solve", "SHINE() by itself", remedy, GradientError)
        return super().attach_equilibrium(cell, x, solution)

    def solve_transposed(
        self, transposed: Callable[[Tensor], Tensor | None], g: Tensor, arithmetic: Arithmetic
    ) -> tuple[Tensor, Tensor | None]:
        assert self.keeper is not None and self.keeper.found is not None
        estimate = self.keeper.found.transposed
        with Arithmetic.around(g).full():
            u = estimate(g)
            kept = torch.isfinite(u).all(1) & (u.norm(dim=1) <= self.fallback * g.norm(dim=1))
            u = torch.where(kept[:, None], u, g)
            if self.refine:
                u = self._refined(transposed, g, u, estimate.only(kept))
        return u, None

    def _refined(
        self, transposed: Callable[[Tensor], Tensor | None], g: Tensor, u: Tensor, estimate: Inverse
    ) -> Tensor:
        """``refine`` steps of Broyden's method on (I - J^T) u = g from u, the estimate growing with each."""

        def product(v: Tensor) -> Tensor:
            with torch.enable_grad():
                pulled = transposed(v)
            return v if pulled is None else v - pulled.detach()

        residual = g - product(u)
        for left in range(self.refine - 1, -1, -1):
            step = estimate(residual)
            long = ~(step.norm(dim=1) <= LONGEST * residual.norm(dim=1))
            step = torch.where(long[:, None], residual, step)
            u = u + step
            if left:
                moved = product(step)
                estimate = estimate.learnt(step, moved)
                residual = residual - moved
        return u
