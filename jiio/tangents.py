"""Forward-mode derivatives of an equilibrium (``torch.autograd.forward_ad``).

The tangent of z* = f(z*, x) solves dz = J_z dz + J_x dx + J_theta dtheta: the fixed point of the tangent of one call of
f at (z*, x), with whatever tangents x and the parameters carry. It is found by the solver of the equilibrium itself.
"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Any

import torch
import torch.autograd.forward_ad as forward
from torch import Tensor

from .checks import ConvergenceError, ConvergenceWarning
from .iterate import Recorder, iterate
from .layout import Spec, Tree, map_tree
from .operators import EquilibriumMap
from .persample import rows_of
from .problem import Cell
from .settings import SolveSettings
from .solution import Solution, Status


def level_is_open() -> bool:
    """Whether forward-mode derivatives are being taken."""
    return forward._current_level >= 0


def primal(tree: Tree) -> Tree:
    """The same tree without its tangents; a graph for reverse mode goes on."""
    return map_tree(lambda t: forward.unpack_dual(t).primal if isinstance(t, Tensor) else t, tree)


class Primal:
    """A cell whose results carry no tangents, for the solve itself."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell

    def __getattr__(self, name: str) -> Any:
        if name == "cell":
            raise AttributeError(name)
        return getattr(self.cell, name)

    def rows(self, index: Tensor) -> Primal | None:
        """The samples ``index`` (k,) alone, where the cell offers that."""
        part = rows_of(self.cell, index)
        return None if part is None else Primal(part)

    def __call__(self, z: Tree, x: Tree) -> Tree:
        return primal(self.cell(z, x))


def with_tangent(cell: Cell, x: Tree, solution: Solution, settings: SolveSettings) -> Solution:
    """The same solution, whose z carries the tangent that ``x`` and the parameters of ``cell`` give it."""
    spec = Spec.of(solution.z)
    z = spec.pack(solution.z)
    start = _tangent(cell, x, z.detach(), torch.zeros_like(z), spec)
    if not bool(start.any()):
        return solution

    # Scaled to one per sample, so that the tolerance is relative.
    size = torch.linalg.vector_norm(start, dim=1, keepdim=True) / start.shape[1] ** 0.5
    size = torch.where(size > 0, size, torch.ones_like(size))
    with torch.no_grad():
        operator = EquilibriumMap(
            lambda t, _: _tangent(cell, x, z.detach(), t * size, spec) / size, x, start / size, settings.solver.damping
        )
        arguments = (settings.tolerance, settings.max_steps, Recorder(False, False))
        outcome = iterate(operator, settings.solver, start / size, *arguments)
    solution.evaluations.cell += 1 + operator.evaluations.cell
    _complain(int((outcome.status != int(Status.CONVERGED)).sum()), settings.on_failure)

    dual = forward.make_dual(z, outcome.v * size)
    return dataclasses.replace(solution, z=spec.unpack(dual))


@torch.no_grad()
def _tangent(cell: Cell, x: Tree, z: Tensor, t: Tensor, spec: Spec) -> Tensor:
    """The tangent (B, D) of f at (z, x) where z has the tangent t (B, D), both packed."""
    out = forward.unpack_dual(spec.pack(cell(spec.unpack(forward.make_dual(z, t)), x))).tangent
    return torch.zeros_like(z) if out is None else out


def _complain(failed: int, on_failure: str) -> None:
    """Warn or raise where tangents did not converge."""
    if not failed or on_failure == "ignore":
        return
    words = f"The forward-mode tangents of {failed} samples did not converge. Raise max_steps or loosen the tolerance."
    if on_failure == "raise":
        raise ConvergenceError(words)
    warnings.warn(words, ConvergenceWarning, stacklevel=4)
