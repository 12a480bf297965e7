"""The interface of an adjoint, the guard against silently wrong second derivatives, and ``Detached``."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..checks import GradientError, SecondDerivativeError, fail
from ..layout import Tree, map_tree, rows
from ..metric import Metric
from ..problem import Cell, Problem
from ..solution import Solution, Status
from ..solvers import AbstractSolver
from ..solvers.keeper import SecantKeeper


@dataclass(frozen=True)
class AbstractAdjoint(ABC):
    """Takes a finished solve and attaches gradients to some of its fields."""

    taped = False  # the solve itself is recorded by autograd
    keeper: ClassVar[SecantKeeper | None] = None  # of what the solver learns, where that is wanted

    def of(self, solver: AbstractSolver) -> AbstractAdjoint:
        """The adjoint of one plain solve by ``solver``; itself, unless it has to see that solve."""
        return self

    def inside(self, metric: Metric | None) -> AbstractAdjoint:
        """The adjoint of one joint solve in a metric; itself, unless it can use it."""
        return self

    @abstractmethod
    def attach(self, problem: Problem, solution: Solution) -> Solution:
        """A finished ``solution`` with gradients for a joint solve; ``problem.cell`` is called once with a tape."""

    def attach_equilibrium(self, cell: Cell, x: Tree, solution: Solution) -> Solution:
        """A finished ``solution`` with gradients for a plain equilibrium z = cell(z, x), also with respect to x."""
        remedy = "An equilibrium has no objective; use Implicit(), Phantom(), Unrolled() or Detached()."
        fail("adjoint", "one for a plain equilibrium", f"{type(self).__name__}()", remedy, GradientError)


@dataclass(frozen=True)
class Detached(AbstractAdjoint):
    """No gradients: every field is a constant."""

    def attach(self, problem: Problem, solution: Solution) -> Solution:
        return solution

    def attach_equilibrium(self, cell: Cell, x: Tree, solution: Solution) -> Solution:
        return solution


class _FirstOrderOnly(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, name: str, bad: Tensor | None) -> Tensor:
        ctx.name, ctx.bad = name, bad
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        refuse_second_order(ctx.name)
        g = grads[0] if ctx.bad is None else grads[0].masked_fill(rows(ctx.bad, grads[0]), 0.0)
        return g, None, None


def refuse_second_order(name: str) -> None:
    """Raise inside a backward pass that is itself being recorded."""
    if torch.is_grad_enabled():
        remedy = (
            "Second derivatives through this adjoint would be silently wrong; use Unrolled(), whose second derivatives "
            "are those of the iterates."
        )
        came = "a backward pass with create_graph=True"
        fail(name, "a first derivative", came, remedy, SecondDerivativeError)


def first_order_only(tree: Tree, name: str, bad: Tensor | None = None) -> Tree:
    """The same tree; a second derivative through it raises, and no gradient passes for the samples in ``bad`` (B,)."""
    return map_tree(lambda leaf: _FirstOrderOnly.apply(leaf, name, bad) if leaf.requires_grad else leaf, tree)


def reaches_beyond(output: Tensor, own: set[int]) -> bool:
    """Whether the graph of ``output`` ends in a tensor other than those whose ids are in ``own``."""
    seen: set[Any] = set()
    stack: list[Any] = [output.grad_fn]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) not in own:
            return True
        stack.extend(parent for parent, _ in node.next_functions)
    return False


def sanitised(tree: Tree, bad: Tensor) -> Tree:
    """The same tree with the rows of failed samples (B,) zero, so that 0 * NaN does not reach the parameters."""
    if not bool(bad.any()):
        return tree
    return map_tree(lambda leaf: leaf.masked_fill(rows(bad, leaf), 0.0), tree)


def with_value(problem: Problem, solution: Solution, differentiable: frozenset[str], guard: str = "") -> Solution:
    """``value`` recomputed from the attached z and x, so that it carries their gradients.

    guard: the adjoint whose second derivatives are refused. Its own node does not see a path from the objective
    straight to its parameters, along which the movement of z and x would be missing.
    """
    value = problem.total(solution.z, solution.x, solution.value.shape[0])
    if not value.requires_grad:
        return dataclasses.replace(solution, differentiable=differentiable)
    value = first_order_only(value, guard) if guard else value
    bad = solution.status == int(Status.NONFINITE)
    value = torch.where(bad, solution.value.detach(), value)
    return dataclasses.replace(solution, value=value, differentiable=differentiable | {"value"})
