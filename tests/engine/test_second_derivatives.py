"""Second derivatives are right to 1e-5, or a typed error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import jiio
from helpers import (
    gap,
    weights_like,
)
from problems import (
    CASES,
    IMPLICIT,
    KKT,
    TIGHT,
    Case,
)


def losses(adjoint: jiio.AbstractAdjoint, case: Case, fields: str) -> dict[str, Callable[[Tensor], Tensor]]:
    """Scalar functions of a bias (in the cell) or of a matrix (in the objective alone)."""

    def value(name: str) -> Callable[[Tensor], Tensor]:
        def function(p: Tensor) -> Tensor:
            solution = case.with_(**{name: p}).solve(adjoint=adjoint, max_steps=600)
            return sum((getattr(solution, f) ** 2).sum() for f in fields.split())  # type: ignore[return-value]

        return function

    return {name: value(name) for name in ("b", "C", "y")}


FIELDS = {"Envelope": "value", "Implicit": "z value", "KKT": "z x multiplier value", "Phantom": "z value"}


@pytest.mark.parametrize(
    "adjoint", [jiio.Envelope(), IMPLICIT, KKT, jiio.Phantom(), jiio.Phantom(kind="neumann")], ids=str
)
def test_second_derivatives_of_a_joint_solve_are_refused(adjoint: jiio.AbstractAdjoint) -> None:
    case = CASES["softplus, smooth loss"]
    for field in FIELDS[type(adjoint).__name__].split():
        for name, function in losses(adjoint, case, field).items():
            p = getattr(case, name).clone().requires_grad_()
            loss = function(p)
            if not loss.requires_grad:  # z of a first-order adjoint does not see the objective
                assert name != "b" and field == "z"
                continue
            with pytest.raises(jiio.SecondDerivativeError, match="Unrolled"):
                torch.autograd.grad(loss, p, create_graph=True)
            with pytest.raises(jiio.SecondDerivativeError):
                function(p).backward(create_graph=True)


def test_second_derivatives_are_refused_where_only_the_objective_has_parameters() -> None:
    """The cell is a constant map then, but its equilibrium still moves with the parameters of the objective."""
    case = CASES["softplus, smooth loss"]
    for adjoint in (jiio.Envelope(), IMPLICIT, KKT, jiio.Phantom(), jiio.Phantom(kind="neumann")):
        matrix = case.C.clone().requires_grad_()
        solution = case.with_(C=matrix).solve(adjoint=adjoint)
        with pytest.raises(jiio.SecondDerivativeError):
            torch.autograd.grad(solution.value.sum(), matrix, create_graph=True)
        solution = case.with_(C=matrix).solve(adjoint=adjoint)
        first = torch.autograd.grad(solution.value.sum(), matrix)[0]
        r = solution.z.detach() @ case.C.T - case.y
        assert gap(first, torch.tanh(r).T @ solution.z.detach()) < 1e-9


@pytest.mark.parametrize("adjoint", [jiio.Implicit(), jiio.Phantom(), jiio.Phantom(kind="neumann")], ids=str)
def test_second_derivatives_of_an_equilibrium_are_refused(adjoint: jiio.AbstractAdjoint) -> None:
    case = CASES["tanh"]
    for through in ("b", "x"):
        p = (case.b if through == "b" else weights_like(case.x0)).clone().requires_grad_()

        def loss(p: Tensor, through: str = through) -> Tensor:
            cell = case.with_(b=p).cell if through == "b" else case.cell
            x = case.x0 if through == "b" else p
            return (jiio.equilibrium(cell, x, case.z0, adjoint=adjoint).z ** 2).sum()

        with pytest.raises(jiio.SecondDerivativeError):
            torch.autograd.grad(loss(p), p, create_graph=True)
        with pytest.raises(jiio.SecondDerivativeError):
            torch.autograd.functional.hessian(loss, p.detach())


def test_unrolled_second_derivatives_are_right() -> None:
    case = CASES["softplus, smooth loss"].rows(slice(0, 2))

    def z_of(b: Tensor) -> Tensor:
        cell = case.with_(b=b).cell
        return jiio.equilibrium(
            cell, case.x0 + 0.3, case.z0, adjoint=jiio.Unrolled(), tolerance=TIGHT, max_steps=500, on_failure="raise"
        ).z

    def joint_of(b: Tensor, prox: jiio.AbstractProx) -> Tensor:
        s = case.with_(b=b).solve(prox, adjoint=jiio.Unrolled())
        return (s.z**3).sum() + (s.x**3).sum() + s.value.sum()

    functions: dict[str, Callable[[Tensor], Tensor]] = {
        "equilibrium": lambda b: (z_of(b) ** 3).sum(),
        "free": lambda b: joint_of(b, jiio.Identity()),
        "ball": lambda b: joint_of(b, jiio.L2Ball(0.2)),
        "box and ball": lambda b: joint_of(b, jiio.Intersection(jiio.L2Ball(0.3), jiio.Box(-0.2, 0.2))),
    }
    direction = weights_like(case.b)
    for name, function in functions.items():
        b = case.b.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(function(b), b, create_graph=True)
        (found,) = torch.autograd.grad((gradient * direction).sum(), b)
        # The first derivative is right (tested above), so its difference quotient is the reference.
        ends = []
        for h in (1e-4, -1e-4):
            at = (case.b + h * direction).requires_grad_()
            ends.append(torch.autograd.grad(function(at), at)[0])
        expected = (ends[0] - ends[1]) / 2e-4
        assert gap(found, expected) < 1e-5 * float(expected.abs().max()), name
