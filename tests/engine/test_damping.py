"""Levenberg's damping of the exact outer gradient: its two ends, and finite differences of what it stands for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
import problems
from helpers import along, gap, inner, slope, weights_like
from problems import CASES, DOUBLE, KKT

CASE = CASES["tanh"]
ONE = torch.ones((), dtype=DOUBLE)


def damped(damping: float) -> jiio.KKT:
    return jiio.KKT(rtol=1e-12, max_steps=3000, damping=damping)


def gradient(adjoint: jiio.AbstractAdjoint, field: str = "z", prox: jiio.AbstractProx | None = None) -> list[Tensor]:
    """Of an outer loss on one field, with respect to the weights of the cell."""
    case = CASE.with_(W=CASE.W.clone().requires_grad_(), b=CASE.b.clone().requires_grad_())
    tree = getattr(case.solve(prox, adjoint=adjoint), field)
    return list(torch.autograd.grad(inner(tree, weights_like(tree)), [case.W, case.b]))


def test_without_damping_it_is_exact() -> None:
    assert gap(gradient(damped(1e-13)), gradient(KKT)) < 1e-9


def test_with_much_it_holds_the_input_as_the_implicit_gradient_does() -> None:
    assert gap(gradient(damped(1e8)), gradient(problems.IMPLICIT)) < 1e-6
    assert gap(gradient(damped(1e8), "x"), [torch.zeros_like(CASE.W), torch.zeros_like(CASE.b)]) < 1e-6


def test_in_between_it_is_neither() -> None:
    some = gradient(damped(1.0))
    assert gap(some, gradient(KKT)) > 1e-3 and gap(some, gradient(problems.IMPLICIT)) > 1e-3


@pytest.mark.parametrize("field", ["z", "x"])
@pytest.mark.parametrize("prox", [None, jiio.L2Ball(0.5), jiio.Box(-0.3, 0.25)], ids=["free", "ball", "box"])
def test_it_agrees_with_finite_differences_of_the_held_problem(field: str, prox: jiio.AbstractProx | None) -> None:
    """x* of l + delta / 2 |x - x_bar|^2 with x_bar constant, at x_bar = x* of l, re-solved."""
    delta, scaling = 0.7, (2.0 * ONE, 3.0 * ONE)  # so that damping 0.7 stands for a curvature of 4.2
    case = CASE.with_(b=CASE.b.clone().requires_grad_())
    middle = CASE.solve(prox).x

    def objective(z: Tensor, x: Tensor) -> Tensor:
        return case.objective(z, x) + 0.5 * delta * 6.0 * (x - middle).square().sum(1)

    held: dict[str, Any] = {"tolerance": problems.TIGHT, "max_steps": 3000, "adjoint": jiio.Detached()}

    def losses() -> tuple[Tensor]:
        problem = jiio.Problem(case.cell, objective, jiio.Identity() if prox is None else prox)
        tree = getattr(jiio.solve(problem, middle, case.z0, **held), field)
        return (inner(tree, weights_like(tree)),)

    tree = getattr(case.solve(prox, adjoint=damped(delta), scaling=scaling), field)
    expected, direction = along(losses, [case.b])
    assert slope(inner(tree, weights_like(tree)), [case.b], direction) == pytest.approx(expected, rel=1e-5)


def test_it_is_in_units_of_the_problem() -> None:
    """A hundredfold objective is the same problem: the same damping is the same gradient."""
    case = CASE.with_(W=CASE.W.clone().requires_grad_())
    grads = []
    for factor in (1.0, 100.0):
        problem = jiio.Problem(case.cell, lambda z, x, factor=factor: factor * case.objective(z, x))
        options: dict[str, Any] = {"tolerance": problems.TIGHT, "max_steps": 3000, "adjoint": damped(0.5)}
        z = jiio.solve(problem, case.x0, case.z0, **options).z
        grads.append(torch.autograd.grad(inner(z, weights_like(z)), case.W)[0])
    assert gap(*grads) < 1e-7


def test_a_negative_damping_is_refused() -> None:
    with pytest.raises(jiio.ArgumentError, match=r"KKT\.damping: expected"):
        jiio.KKT(damping=-1.0)
