"""The guarantees of the two cells of vectors: how far the dense and the monotone cell contract."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

import jiio
from helpers import gap
from jiio import models
from jiio.models.cells.monotone import norm_bound


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


# -- the dense cell


@pytest.mark.parametrize("scaling", ["none", "weight", "spectral"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus", "silu", "gelu"])
def test_dense_cell_contracts_at_the_start(scaling: str, activation: str) -> None:
    cell = models.DenseCell(16, scaling=scaling, activation=activation, gain=0.7).double()
    assert cell.contraction == pytest.approx(0.7, rel=1e-5)
    u = torch.randn(200, 16, dtype=torch.float64)
    z, w = torch.randn_like(u), torch.randn_like(u)
    ratio = (cell(z, u) - cell(w, u)).norm(dim=1) / (z - w).norm(dim=1)
    assert float(ratio.detach().max()) <= cell.contraction


def test_spectral_scaling_survives_large_weights_and_the_others_do_not_claim_to() -> None:
    cells = {scaling: models.DenseCell(16, scaling=scaling).double() for scaling in ("none", "weight", "spectral")}
    with torch.no_grad():
        for cell in cells.values():
            for parameter in cell.parameters():
                parameter.mul_(50.0)
    assert cells["spectral"].contraction <= 0.8 + 1e-6
    for scaling in ("none", "weight"):
        assert cells[scaling].contraction > 1
        assert cells[scaling].lipschitz == float("inf")


# -- the monotone cell


def wild(n: int, m: float, scale: float, number: int, activation: str = "relu") -> models.MonotoneCell:
    """A monotone cell with factors far from their initial values."""
    generator = torch.Generator().manual_seed(number)
    cell = models.MonotoneCell(n, m=m, activation=activation).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return cell


HYPOTHESIS = settings(max_examples=40, deadline=None)
drawn = given(
    n=st.integers(1, 24),
    m=st.floats(0.01, 5.0),
    scale=st.floats(0.0, 30.0),
    number=st.integers(0, 10**6),
    activation=st.sampled_from(["relu", "softplus", "tanh"]),
)


@HYPOTHESIS
@drawn
def test_monotone_contraction_is_at_most_the_claimed(
    n: int, m: float, scale: float, number: int, activation: str
) -> None:
    cell = wild(n, m, scale, number, activation)
    s = cell.operator.detach()
    assert float(norm_bound(s)) >= float(torch.linalg.matrix_norm(s, 2)) * (1 - 1e-9)
    assert float(torch.linalg.eigvalsh((s + s.t()) / 2).min()) >= m * (1 - 1e-6) - 1e-9 * scale**2 * n
    assert cell.contraction < 1 or m / float(norm_bound(s)) < 1e-7
    u = torch.randn(32, n, dtype=torch.float64)
    z, w = torch.randn_like(u), torch.randn_like(u)
    # The worst direction of the linear part, which random pairs rarely meet.
    step = cell.step.detach()[:-1].t()
    worst = torch.linalg.svd(step).Vh[0]
    assert float((step @ worst).norm()) <= cell.contraction * (1 + 1e-9)
    ratio = (cell(z, u) - cell(w, u)).norm(dim=1) / (z - w).norm(dim=1)
    assert float(ratio.detach().max()) <= cell.contraction * (1 + 1e-9)


@settings(HYPOTHESIS, max_examples=15)
@given(n=st.integers(2, 12), m=st.floats(0.3, 2.0), scale=st.floats(0.0, 0.5), number=st.integers(0, 10**6))
def test_monotone_equilibrium_is_unique_and_lipschitz(n: int, m: float, scale: float, number: int) -> None:
    cell = wild(n, m, scale, number)
    u = torch.randn(6, n, dtype=torch.float64)
    fine = {"tolerance": jiio.Tolerance(1e-10, 1e-10), "max_steps": 3000, "solver": jiio.Picard()}
    with torch.no_grad():
        z = jiio.equilibrium(cell, u, **fine, on_failure="ignore").z
        far = jiio.equilibrium(cell, u, 10 * torch.randn_like(u), **fine, on_failure="ignore").z
        assert gap(z, far) < 1e-5
        w = torch.eye(n, dtype=torch.float64) - cell.operator
        assert gap(z, torch.relu(z @ w.t() + u)) < 1e-5  # the equation of the paper, free of the step size
        shift = torch.randn_like(u)
        moved = jiio.equilibrium(cell, u + shift, **fine, on_failure="ignore").z
        assert float(((moved - z).norm(dim=1) / shift.norm(dim=1)).max()) <= cell.lipschitz * (1 + 1e-4)


def test_monotone_gradient_does_not_depend_on_the_step_size() -> None:
    cell = wild(6, 0.5, 0.3, 1)
    u = torch.randn(4, 6, dtype=torch.float64)
    fine = {"tolerance": jiio.Tolerance(1e-12, 1e-12), "max_steps": 500}
    adjoint = jiio.Implicit(tolerance=jiio.Tolerance(1e-12, 1e-12), max_steps=500)
    jiio.equilibrium(cell, u, adjoint=adjoint, **fine).z.square().sum().backward()
    parameter = next(cell.parameters())
    a, b = (part.clone().requires_grad_() for part in parameter.detach())

    def plain(z: Tensor, u: Tensor) -> Tensor:  # a fixed step in place of the cell's
        s = 0.5 * torch.eye(6, dtype=torch.float64) + a.t() @ a - b + b.t()
        return torch.relu(z - 0.11 * (z @ s.t() - u))

    jiio.equilibrium(plain, u, torch.zeros_like(u), adjoint=adjoint, **fine).z.square().sum().backward()
    assert parameter.grad is not None and a.grad is not None and b.grad is not None
    assert torch.allclose(parameter.grad, torch.stack((a.grad, b.grad)), atol=1e-8)
