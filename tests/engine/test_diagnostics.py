"""The diagnostics against dense linear algebra and known answers."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import jiio
from helpers import central, gap, relative
from problems import CASES, DOUBLE, TIGHT, make


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=seeded(seed))


def rotations() -> Tensor:
    blocks = [torch.tensor([[0.0, -r], [r, 0.0]], dtype=DOUBLE) for r in torch.linspace(0.1, 0.9, 15).tolist()]
    return torch.block_diag(*blocks)


def jordan() -> Tensor:
    return 0.7 * torch.eye(12, dtype=DOUBLE) + torch.diag(torch.ones(11, dtype=DOUBLE), 1) * 0.3


MATRICES = {
    "gaussian": draw(0, 20, 20) / 20**0.5,
    "larger than the memory": draw(1, 80, 80) / 80**0.5,
    "symmetric": (draw(2, 40, 40) + draw(2, 40, 40).T) / 12,
    "negative": -torch.diag(torch.linspace(0.1, 0.8, 30, dtype=DOUBLE)),
    "complex pairs": rotations(),
    "not normal": torch.diag(torch.linspace(-0.8, 0.9, 50, dtype=DOUBLE)) + 0.1 * torch.triu(draw(3, 50, 50), 1),
    "jordan": jordan(),
    "nilpotent": torch.diag(torch.ones(9, dtype=DOUBLE), 1),
    "rank one": torch.outer(draw(4, 15), draw(5, 15)) / 15,
    "zero": torch.zeros(6, 6, dtype=DOUBLE),
    "one number": torch.tensor([[-0.4]], dtype=DOUBLE),
}


@pytest.mark.parametrize("name", MATRICES)
def test_spectral_radius_equals_dense_eigenvalues(name: str) -> None:
    matrix = MATRICES[name]
    n = matrix.shape[0]
    exact = float(torch.linalg.eigvals(matrix).abs().max())
    found = jiio.spectral_radius(lambda z, x: z @ matrix.T + x, draw(6, 3, n), draw(7, 3, n), generator=seeded())
    # A Jordan block of size k turns rounding eps into eps ** (1 / k); "nilpotent" is one of size 10.
    slack = 0.1 if name in ("nilpotent", "jordan") else 2e-2 * exact + 1e-12
    assert gap(found, torch.full((3,), exact, dtype=DOUBLE)) <= slack


def test_spectral_radius_is_per_sample_and_takes_trees() -> None:
    case = make(3, act="tanh", batch=4, n=12, radius=1.4)
    x = draw(1, 4, 4) * torch.tensor([[0.1], [1.0], [3.0], [10.0]], dtype=DOUBLE)
    z = draw(2, 4, 12)
    exact = []
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda t, i=i: case.cell(t[None], x[i : i + 1])[0], z[i])
        exact.append(float(torch.linalg.eigvals(jacobian).abs().max()))
    found = jiio.spectral_radius(case.cell, z, x, generator=seeded())
    assert gap(found, torch.tensor(exact, dtype=DOUBLE)) < 1e-6
    assert max(exact) > 3 * min(exact)

    def cell(z, x):
        out = case.cell(torch.cat([z["a"].flatten(1), z["b"]], 1), x[0])
        return {"a": out[:, :6].reshape(-1, 2, 3), "b": out[:, 6:]}

    tree = {"a": z[:, :6].reshape(4, 2, 3), "b": z[:, 6:]}
    assert gap(jiio.spectral_radius(cell, tree, (x,), generator=seeded()), found) < 1e-10
    assert not found.requires_grad


def test_spectral_radius_predicts_plain_iteration() -> None:
    """The error of plain iteration shrinks by the spectral radius a step."""
    case = make(3, act="tanh", batch=1, radius=0.9)
    x = draw(1, 1, 4)
    z = jiio.equilibrium(case.cell, x, case.z0, tolerance=TIGHT).z
    radius = float(jiio.spectral_radius(case.cell, z, x))
    moving, lengths = z + 1e-3 * draw(2, 1, 10), []
    for _ in range(25):
        moving = case.cell(moving, x)
        lengths.append(float((moving - z).norm()))
    rate = (lengths[24] / lengths[9]) ** (1 / 15)
    assert abs(rate - radius) < 0.05 * radius


def test_spectral_radius_of_special_cells() -> None:
    x = draw(0, 2, 3)
    assert not jiio.spectral_radius(lambda z, x: x, x, x).any()
    broken = jiio.spectral_radius(lambda z, x: z * x, x, torch.tensor([[1.0, 2.0, 3.0], [1.0, math.nan, 1.0]]).double())
    assert abs(float(broken[0]) - 3.0) < 1e-9 and math.isnan(float(broken[1]))
    single = jiio.spectral_radius(lambda z, x: 0.5 * z, x.float(), x.float())
    assert single.dtype == torch.float32 and gap(single, torch.full((2,), 0.5)) < 1e-5
    with torch.no_grad():
        assert gap(jiio.spectral_radius(lambda z, x: 0.5 * z, x, x), torch.full((2,), 0.5, dtype=DOUBLE)) < 1e-9


def test_generator_makes_it_repeatable() -> None:
    case = CASES["tanh"]
    z, x = draw(0, 3, 10), draw(1, 3, 4)
    for function in (jiio.spectral_radius, jiio.jacobian_penalty):
        runs = [function(case.cell, z, x, generator=seeded(s)) for s in (1, 1, 2)]
        assert torch.equal(runs[0], runs[1]) and not torch.equal(runs[0], runs[2])


def test_jacobian_penalty_estimates_the_frobenius_norm() -> None:
    case = CASES["tanh"]
    z, x = draw(0, 3, 10), draw(1, 3, 4)
    exact = torch.stack(
        [
            torch.autograd.functional.jacobian(lambda t, i=i: case.cell(t[None], x[i : i + 1])[0], z[i]).square().sum()
            for i in range(3)
        ]
    )
    found = jiio.jacobian_penalty(case.cell, z, x, probes=4000, generator=seeded())
    assert bool(((found - exact / 10).abs() < 0.05 * exact / 10).all())
    # For an orthogonal J the estimate is |e|^2 / d whatever J is: one probe has the right mean.
    flip = jiio.jacobian_penalty(lambda z, x: -z, draw(2, 200, 50), draw(3, 200, 1), generator=seeded())
    assert abs(float(flip.mean()) - 1) < 0.05
    assert not jiio.jacobian_penalty(lambda z, x: x, z[:, :4], x).any()


def test_jacobian_penalty_is_differentiable() -> None:
    case = CASES["tanh"]
    z, x = draw(0, 3, 10), draw(1, 3, 4)
    direction = draw(2, 10, 10)

    def penalty(weight: Tensor) -> Tensor:
        return jiio.jacobian_penalty(case.with_(W=weight).cell, z, x, probes=2, generator=seeded()).sum()

    weight = case.W.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(penalty(weight), weight)
    assert relative(float((gradient * direction).sum()), central(penalty, case.W, direction)) < 1e-7
    with torch.no_grad():
        assert not penalty(weight).requires_grad


@pytest.mark.parametrize("adjoint", [jiio.Implicit(tolerance=TIGHT), jiio.Unrolled()], ids=["Implicit", "Unrolled"])
def test_jacobian_penalty_at_an_equilibrium_with_a_graph(adjoint: jiio.AbstractAdjoint) -> None:
    """With a graph the movement of the equilibrium counts; detached it does not, as in the paper."""
    case = CASES["tanh"]
    x, direction = draw(1, 3, 4), draw(2, 10, 10)

    def penalty(weight: Tensor, method: jiio.AbstractAdjoint, attached: bool = True) -> Tensor:
        cell = case.with_(W=weight).cell
        z = jiio.equilibrium(cell, x, case.z0, adjoint=method, tolerance=TIGHT, max_steps=300).z
        return jiio.jacobian_penalty(cell, z if attached else z.detach(), x, generator=seeded()).sum()

    weight = case.W.clone().requires_grad_()
    (total,) = torch.autograd.grad(penalty(weight, adjoint), weight)
    expected = central(lambda w: penalty(w, jiio.Detached()), case.W, direction)
    assert relative(float((total * direction).sum()), expected) < 1e-6
    (partial,) = torch.autograd.grad(penalty(weight, adjoint, attached=False), weight)
    assert gap(partial, total) > 1e-3


def test_jacobian_penalty_brings_the_jacobian_down() -> None:
    case = CASES["tanh"]
    weight = (case.W * 2).requires_grad_()
    optimiser = torch.optim.Adam([weight], 0.02)
    sizes = []
    for step in range(40):
        z = jiio.equilibrium(case.with_(W=weight).cell, draw(1, 3, 4), case.z0).z.detach()
        loss = jiio.jacobian_penalty(case.with_(W=weight).cell, z, draw(1, 3, 4), generator=seeded(step)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        sizes.append(float(torch.linalg.matrix_norm(weight.detach())))
    assert sizes[-1] < 0.75 * sizes[0]


def test_adjoint_error_of_exact_and_truncated_adjoints() -> None:
    case = CASES["tanh"]
    x = draw(1, 3, 4)
    for adjoint in (jiio.Implicit(tolerance=TIGHT), jiio.Unrolled(), jiio.Phantom(200, 1.0)):
        error = jiio.adjoint_error(case.cell, x, adjoint, case.z0, generator=seeded())
        assert error.cosine.shape == error.length.shape == (3,)
        assert gap(error.cosine, torch.ones(3, dtype=DOUBLE)) < 1e-9 and gap(error.length, error.cosine) < 1e-6
    rough = jiio.adjoint_error(case.cell, x, jiio.Phantom(1, 1.0), case.z0, generator=seeded())
    assert bool((rough.cosine < 0.99).all()) and bool((rough.cosine > 0).all())
    # JFB with half the damping points the same way and is half as long.
    half = jiio.adjoint_error(case.cell, x, jiio.Phantom(1, 0.5), case.z0, generator=seeded())
    assert gap(half.cosine, rough.cosine) < 1e-9 and gap(2 * half.length, rough.length) < 1e-9


def test_adjoint_error_with_a_given_cotangent_and_parameters() -> None:
    case = CASES["tanh"]
    x, g = draw(1, 3, 4), draw(2, 3, 10)
    z = jiio.equilibrium(case.cell, x, case.z0, tolerance=TIGHT).z
    slope = 1 - z**2
    exact, jfb = [], []
    for i in range(3):
        jacobian = slope[i][:, None] * case.W
        u = torch.linalg.solve(torch.eye(10, dtype=DOUBLE) - jacobian.T, g[i])
        exact.append(case.U.T @ (slope[i] * u))
        jfb.append(case.U.T @ (slope[i] * g[i]))
    exact_x, jfb_x = torch.stack(exact), torch.stack(jfb)
    error = jiio.adjoint_error(case.cell, x, jiio.Phantom(1, 1.0), case.z0, cotangent=g)
    assert gap(error.cosine, torch.cosine_similarity(exact_x, jfb_x, dim=1)) < 1e-8
    assert gap(error.length, jfb_x.norm(dim=1) / exact_x.norm(dim=1)) < 1e-8
    weight = case.W.clone().requires_grad_()
    whole = jiio.adjoint_error(
        case.with_(W=weight).cell, x, jiio.Implicit(tolerance=TIGHT), case.z0, parameters=[weight], cotangent=g
    )
    assert whole.cosine.shape == () and abs(float(whole.cosine) - 1) < 1e-9 and weight.grad is None
    none = jiio.adjoint_error(case.cell, x, jiio.Implicit(), case.z0, cotangent=0 * g)
    assert bool(none.cosine.isnan().all()) and bool(none.length.isnan().all())


def test_adjoint_error_works_on_models_in_single_precision() -> None:
    torch.manual_seed(0)
    cell = jiio.models.ConvCell(4, expansion=1, groups=2, activation="silu")
    u = torch.randn(2, 4, 4, 4, generator=seeded())
    errors = {
        name: jiio.adjoint_error(cell, u, adjoint, parameters=list(cell.parameters()), generator=seeded())
        for name, adjoint in {"implicit": jiio.Implicit(), "phantom": jiio.Phantom(3, 1.0)}.items()
    }
    assert float(errors["implicit"].cosine) > 0.99999 and abs(float(errors["implicit"].length) - 1) < 1e-3
    assert 0.3 < float(errors["phantom"].cosine) < float(errors["implicit"].cosine)


def test_dependence_on_z0() -> None:
    case = CASES["tanh"]
    unique = jiio.dependence_on_z0(case.cell, draw(1, 3, 4), case.z0, generator=seeded())
    assert unique.shape == (3,) and float(unique.max()) < 1e-10

    # Sample 0 has one equilibrium; samples 1 and 2 have two, +-z with z = tanh(2 z).
    def cell(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(torch.tensor([[0.5], [2.0], [2.0]], dtype=DOUBLE) * z) + x

    found = jiio.dependence_on_z0(
        cell,
        torch.zeros(3, 1, dtype=DOUBLE),
        torch.full((3, 1), 0.1, dtype=DOUBLE),
        starts=6,
        scale=2.0,
        generator=seeded(),
        solver=jiio.Picard(),
    )
    assert float(found[0]) < 1e-4 and gap(found[1:], torch.full((2,), 2.0, dtype=DOUBLE)) < 1e-6
    again = [jiio.dependence_on_z0(case.cell, draw(1, 3, 4), case.z0, generator=seeded(4)) for _ in range(2)]
    assert torch.equal(again[0], again[1])


def test_dependence_on_z0_says_nan_where_nothing_converged() -> None:
    gain = torch.tensor([[0.5], [3.0]], dtype=DOUBLE)
    found = jiio.dependence_on_z0(
        lambda z, x: gain * z + x, torch.ones(2, 3, dtype=DOUBLE), torch.zeros(2, 3, dtype=DOUBLE), solver=jiio.Picard()
    )
    assert float(found[0]) < 1e-10 and math.isnan(float(found[1]))
