"""Every sample is its own problem: alone or in company, beside a NaN, in any order, scale and unit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from helpers import (
    gap,
    multiplier,
    nested,
)
from jiio import Status
from problems import (
    ADJOINTS,
    CASES,
    CLOSE,
    DOUBLE,
    Case,
    mixed,
    per_sample,
)


@pytest.mark.parametrize(
    "prox", [jiio.Identity(), jiio.L2Ball(0.5), jiio.SoftThreshold(0.05)], ids=lambda p: type(p).__name__
)
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(DOUBLE, jiio.Tolerance(1e-9, 1e-9)), (torch.float32, jiio.Tolerance(1e-6, 1e-6))]
)
def test_solve_alone_and_in_company(dtype: torch.dtype, tolerance: jiio.Tolerance, prox: jiio.AbstractProx) -> None:
    case = mixed(dtype)
    whole = case.solve(prox, tolerance=tolerance, max_steps=600)
    assert int(whole.steps.max()) > 1.6 * int(whole.steps.min())  # the batch is mixed indeed
    for i in range(32) if dtype == DOUBLE and prox.is_set else range(0, 32, 5):
        alone = case.rows(slice(i, i + 1)).solve(prox, tolerance=tolerance, max_steps=600)
        for name in ("z", "x", "multiplier"):
            inside, outside = getattr(whole, name)[i], getattr(alone, name)[0]
            bound = 1e-6 if dtype == DOUBLE else 1e-4 * max(1.0, float(outside.abs().max()))
            assert float((inside - outside).abs().max()) < bound, (i, name)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_equilibrium_alone_and_in_company(dtype: torch.dtype) -> None:
    case = mixed(dtype)
    x = (torch.randn(32, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(2)) * 3).to(dtype)
    options: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-6, 1e-6), "on_failure": "raise"}
    if dtype == DOUBLE:
        options["tolerance"] = jiio.Tolerance(1e-9, 1e-9)
    whole = jiio.equilibrium(case.cell, x, case.z0, **options)
    for i in range(32):
        alone = jiio.equilibrium(case.cell, x[i : i + 1], case.z0[i : i + 1], **options)
        assert gap(alone.z[0], whole.z[i]) < (1e-6 if dtype == DOUBLE else 1e-4)
        assert abs(int(alone.steps[0]) - int(whole.steps[i])) <= (1 if dtype == DOUBLE else 2)


def with_gradients(
    case: Case, x0: Tensor, adjoint: jiio.AbstractAdjoint, rows: Tensor
) -> tuple[jiio.Solution, list[Tensor]]:
    """A solve, and the parameter gradients of a loss over some of its samples."""
    parameters = [case.W.clone().requires_grad_(), case.U.clone().requires_grad_(), case.b.clone().requires_grad_()]
    taped = case.with_(W=parameters[0], U=parameters[1], b=parameters[2])
    solution = taped.solve(
        jiio.L2Ball(0.5), x0=x0, adjoint=adjoint, tolerance=CLOSE, max_steps=400, on_failure="ignore"
    )
    loss = solution.value[rows].sum()
    if "z" in solution.differentiable:
        loss = loss + solution.z[rows].square().sum()
    return solution, list(torch.autograd.grad(loss, parameters))


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=str)
def test_a_nan_sample_changes_nothing_for_the_others(adjoint: jiio.AbstractAdjoint) -> None:
    case = mixed()
    others = torch.arange(32) != 11
    clean, expected = with_gradients(case, case.x0, adjoint, others)
    spoilt = case.x0
    spoilt[11, 1] = float("nan")
    broken, gradients = with_gradients(case, spoilt, adjoint, others)
    assert broken.status[11] == Status.NONFINITE
    assert bool((broken.status[others] == Status.CONVERGED).all())
    for name in ("z", "x", "multiplier", "value", "steps", "residual"):
        assert torch.equal(getattr(broken, name)[others], getattr(clean, name)[others]), name
    for g, e in zip(gradients, expected, strict=True):
        assert gap(g, e) < 1e-8
    # Even a loss over the whole batch, as anyone would write it, keeps finite gradients for the parameters of the cell.
    _, gradients = with_gradients(case, spoilt, adjoint, torch.ones(32, dtype=torch.bool))
    assert all(bool(g.isfinite().all()) for g in gradients)


@pytest.mark.parametrize("adjoint", ADJOINTS, ids=str)
def test_a_nan_target_changes_nothing_for_the_others(adjoint: jiio.AbstractAdjoint) -> None:
    """The parameters of the cell, that is; those of the objective meet the NaN in its own graph, out of reach."""
    case = mixed()
    others = torch.arange(32) != 11
    clean, expected = with_gradients(case, case.x0, adjoint, others)
    y = case.y.clone()
    y[11, 0] = float("nan")
    broken, gradients = with_gradients(case.with_(y=y), case.x0, adjoint, others)
    assert broken.status[11] == Status.NONFINITE and bool(broken.converged[others].all())
    assert torch.equal(broken.x[others], clean.x[others]) and torch.equal(broken.z[others], clean.z[others])
    assert bool(broken.x.isfinite().all())
    for g, e in zip(gradients, expected, strict=True):
        assert gap(g, e) < 1e-8


@pytest.mark.parametrize("adjoint", [jiio.Implicit(), jiio.Phantom(), jiio.Phantom(kind="neumann")], ids=str)
def test_a_nan_sample_in_an_equilibrium(adjoint: jiio.AbstractAdjoint) -> None:
    case = mixed()
    clean = torch.randn(32, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(2))
    others = torch.arange(32) != 4
    results = []
    for spoil in (False, True):
        x = clean.clone()
        if spoil:
            x[4] = float("inf")
            x[4, 0] = float("nan")
        x.requires_grad_()
        weight = case.W.clone().requires_grad_()
        solution = jiio.equilibrium(case.with_(W=weight).cell, x, case.z0, adjoint=adjoint, on_failure="ignore")
        gradients = torch.autograd.grad(solution.z[others].square().sum(), (weight, x))
        results.append((solution, gradients))
    (good, expected), (bad, gradients) = results
    assert bad.status[4] == Status.NONFINITE and bool(bad.converged[others].all())
    assert torch.equal(bad.z[others], good.z[others]) and torch.equal(bad.steps[others], good.steps[others])
    assert gap(gradients[0], expected[0]) < 1e-10 and gap(gradients[1][others], expected[1][others]) < 1e-10


def test_permuting_the_batch_permutes_the_answer() -> None:
    case, order = mixed(), torch.randperm(32, generator=torch.Generator().manual_seed(5))
    first = case.solve(jiio.L1Ball(0.6), tolerance=CLOSE)
    second = case.rows(order).solve(jiio.L1Ball(0.6), tolerance=CLOSE)
    assert gap(first.x[order], second.x) < 1e-6 and gap(multiplier(first)[order], multiplier(second)) < 1e-6


# -- scales


@pytest.mark.parametrize("scale", [1e-4, 1e-2, 1e2, 1e4])
@pytest.mark.parametrize("prox", [jiio.Identity(), jiio.L2Ball(0.5)], ids=["free", "ball"])
def test_scale_of_the_objective_does_not_matter(scale: float, prox: jiio.AbstractProx) -> None:
    case = CASES["tanh"]
    plain = case.solve(prox, tolerance=CLOSE)
    problem = jiio.Problem(case.cell, lambda z, x: scale * case.objective(z, x), prox)
    scaled = jiio.solve(problem, case.x0, case.z0, tolerance=CLOSE, on_failure="raise")
    assert gap(scaled.x, plain.x) < 1e-6
    assert gap(multiplier(scaled) / scale, multiplier(plain)) < 1e-6
    assert bool(((scaled.steps - plain.steps).abs() <= 10).all())


@pytest.mark.parametrize("unit", [1e-3, 1e-1, 1e1, 1e3])
@pytest.mark.parametrize("bounded", [False, True])
def test_units_of_the_input_do_not_matter(unit: float, bounded: bool) -> None:
    case = CASES["tanh"]
    scaled = case.with_(U=case.U / unit, ridge=case.ridge / unit**2)
    plain = case.solve(jiio.Box(-0.3, 0.3) if bounded else None, tolerance=CLOSE)
    other = scaled.solve(jiio.Box(-0.3 * unit, 0.3 * unit) if bounded else None, tolerance=CLOSE)
    assert gap(other.x / unit, plain.x) < 1e-6 and gap(other.z, plain.z) < 1e-6
    assert bool(((other.steps - plain.steps).abs() <= 10).all())


def test_raw_gradient_units_solve_the_same_problem() -> None:
    case = CASES["tanh"]
    expected = nested("tanh", "L2 ball")
    for curvature in (2.0, per_sample(1.0, 2.0, 4.0)):
        rule = jiio.GradientStep(0.5, curvature=curvature)
        assert gap(case.solve(jiio.L2Ball(0.5), rule=rule, tolerance=CLOSE).x, expected) < 1e-5
