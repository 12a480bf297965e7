"""Problem: the cell f(z, x), the objective l(z, x) and the prox on x."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from .checks import ArgumentError, CellError, check_callable, check_instance, fail
from .layout import Spec, Tree, check_tree
from .persample import rows_of
from .prox import AbstractProx, Identity

Cell = Callable[[Any, Any], Any]
Objective = Callable[[Any, Any], Tensor]


class ExplicitCell:
    """z = G(x) as a cell (z, x) -> z that does not look at z, so that every adjoint serves it too."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self.explicit = function
        self.module = getattr(function, "module", function)

    def __call__(self, z: Tree, x: Tree) -> Tree:
        return self.explicit(x)


@dataclass(frozen=True)
class Problem:
    """Minimise objective(z, x) + prox over x, where z = cell(z, x); every sample of the batch is its own problem.

    cell: (z, x) -> z, a tree like z. If it offers ``initial_state(x)``, z0 may be left out. objective: (z, x) ->
    (B,), one number per sample (a *sum* over the sample, not a mean over the batch). prox: an
    :class:`jiio.AbstractProx`.
    """

    cell: Cell
    objective: Objective
    prox: AbstractProx = field(default_factory=Identity)

    def __post_init__(self) -> None:
        check_callable("Problem.cell", self.cell, "(z, x) -> z")
        check_callable("Problem.objective", self.objective, "(z, x) -> tensor of shape (B,)")
        check_instance("Problem.prox", self.prox, AbstractProx)

    @staticmethod
    def explicit(function: Callable[[Any], Any], objective: Objective, prox: AbstractProx | None = None) -> Problem:
        """The problem of a feed-forward z = function(x): :func:`jiio.solve` eliminates the state (L-BFGS on x).

        function: x -> z, a tree with the batch first. objective: (z, x) -> (B,). prox: on x, none by default. Its
        solver, rule and units are its own; a sample that ends at a kink of the function has the status KINK.
        """
        check_callable("Problem.function", function, "x -> z")
        return Problem(ExplicitCell(function), objective, Identity() if prox is None else prox)

    def rows(self, index: Tensor, x: Tree) -> Problem | None:
        """The problem of the samples ``index`` (k,) of x, a tree of the batch; None where a part sees all at once.

        Cell and objective are asked for their own ``rows(index)``: the models of :mod:`jiio.models` and
        :class:`jiio.PerSample` have it. A solve uses it to go on without the samples that have ended.
        """
        cell, objective = rows_of(self.cell, index), rows_of(self.objective, index)
        if cell is None or objective is None:
            return None
        prox = self.prox.rows(index, x)
        return None if prox is None else Problem(cell, objective, prox)

    def value(self, z: Tree, x: Tree, batch: int) -> Tensor:
        """objective(z, x) of trees (B, ...), checked to be (B,). batch: B."""
        value = self.objective(z, x)
        if not isinstance(value, Tensor) or value.shape != (batch,):
            remedy = "Sum over each sample, not over the batch."
            fail("objective", f"one number per sample, a tensor of shape ({batch},)", value, remedy, CellError)
        if not value.is_floating_point():
            fail("objective", "floating-point values", value, error=CellError)
        return value

    def total(self, z: Tree, x: Tree, batch: int) -> Tensor:
        """What a solve minimises at z and x, trees (B, ...): objective plus the prior of the prox, (B,). batch: B."""
        value = self.value(z, x, batch)
        return value if self.prox.is_set else value + self.prox.bind(x).penalty(Spec.of(x).pack(x))


def initial_state(cell: Cell, x: Tree, z0: Tree | None, like: Tensor) -> Tree:
    """``z0`` if given, else what the cell offers; checked against x's batch, dtype and device."""
    if z0 is None:
        offer = getattr(cell, "initial_state", None)
        if offer is None:
            remedy = "Pass z0, for example torch.zeros(B, n), or give the cell an initial_state(x) method."
            fail("z0", "an initial state", "None, and the cell has no initial_state", remedy, ArgumentError)
        z0 = offer(x)
    return check_tree("z0", z0, like.shape[0], like)
