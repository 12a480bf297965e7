"""The exact gradient of a joint solve: under every prox, against the unrolled one, and against dense matrices."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import jiio
from helpers import (
    along,
    gap,
    multiplier,
    relative,
    slope,
    weights_like,
)
from problems import CASES, DOUBLE, IMPLICIT, KKT, PUSH, TIGHT, Case

PROX: dict[str, jiio.AbstractProx] = {
    "none": jiio.Identity(),
    "box": jiio.Box(-0.3, 0.25),
    "L1 ball": jiio.L1Ball(0.6),
    "L2 ball": jiio.L2Ball(0.5),
    "L2 balls": jiio.L2Ball(torch.tensor([0.3, 0.4, 9.0]), center=torch.full((4,), 0.1)),
    "Linf ball": jiio.LinfBall(0.3),
    "box and L2 ball": jiio.Intersection(jiio.Box(-0.25, 0.3), jiio.L2Ball(0.4)),
    "two L2 balls": jiio.Intersection(jiio.L2Ball(0.4), jiio.L2Ball(0.4, center=torch.tensor([0.2, -0.1, 0.1, 0.1]))),
    "soft threshold": jiio.SoftThreshold(0.3),
    "quadratic prior": jiio.QuadraticPrior(0.4, center=torch.full((4,), 0.1)),
}
NAMES = ("W", "U", "C", "y")


def outer(case: Case, solution: jiio.Solution) -> Tensor:
    clean = weights_like(case.y, 9)
    return ((solution.z @ CASES["tanh"].C.T - clean) ** 2).sum() + 0.1 * (solution.x**3).sum()


@pytest.mark.parametrize("prox", PROX)
def test_kkt_under_every_prox(prox: str) -> None:
    """Parameters of the cell and of the objective, and the targets."""
    case = CASES["tanh"]
    start = case.solve(PROX[prox], solver=jiio.Anderson(memory=20)).x
    leaves_ = {n: getattr(case, n).clone().requires_grad_() for n in NAMES}
    parameters, taped = list(leaves_.values()), case.with_(**leaves_)

    def solve(adjoint: jiio.AbstractAdjoint) -> jiio.Solution:
        return taped.solve(PROX[prox], x0=start, adjoint=adjoint, solver=jiio.Anderson(memory=20))

    def both() -> tuple[Tensor, Tensor]:
        s = solve(jiio.Detached())
        return outer(case, s), s.value.sum()

    expected, value, direction = along(both, parameters, 3e-5)
    assert relative(slope(outer(case, solve(KKT)), parameters, direction), expected) < 1e-5
    for adjoint in (jiio.Envelope(), KKT, IMPLICIT):
        assert relative(slope(solve(adjoint).value.sum(), parameters, direction), value) < 1e-5, adjoint


@pytest.mark.parametrize("prox", ["none", "L2 ball", "box", "L1 ball", "box and L2 ball", "soft threshold"])
def test_kkt_equals_unrolled(prox: str) -> None:
    case = CASES["softplus, smooth loss"]
    found = []
    for adjoint in (KKT, jiio.Unrolled()):
        weight, y = case.W.clone().requires_grad_(), case.y.clone().requires_grad_()
        solution = case.with_(W=weight, y=y).solve(PROX[prox], adjoint=adjoint)
        loss = outer(case, solution) + solution.value.square().sum() + multiplier(solution).square().sum()
        found.append(torch.autograd.grad(loss, (weight, y)))
    for kkt, unrolled in zip(*found, strict=True):
        assert gap(kkt, unrolled) < 1e-6 * float(kkt.abs().max())


@pytest.mark.parametrize("prox", ["none", "L2 ball"])
def test_kkt_and_unrolled_pass_gradcheck(prox: str) -> None:
    case = CASES["softplus, smooth loss"].rows(slice(0, 2))
    for adjoint in (KKT, jiio.Unrolled()):

        def fields(bias: Tensor, y: Tensor, adjoint: jiio.AbstractAdjoint = adjoint) -> tuple[Tensor, ...]:
            s = case.with_(b=bias, y=y).solve(PROX[prox], adjoint=adjoint)
            return s.z, s.x, multiplier(s), s.value

        inputs = case.b.clone().requires_grad_(), case.y.clone().requires_grad_()
        assert torch.autograd.gradcheck(fields, inputs, eps=1e-5, atol=1e-6, rtol=1e-5, fast_mode=True)


def test_implicit_is_first_order_and_exact_where_the_input_cannot_move() -> None:
    """At a vertex x* is locally constant, so that holding it fixed is right; inside it is not, as is documented."""
    results = {}
    for name, case, prox in (("vertex", PUSH, jiio.LinfBall(0.2)), ("inside", CASES["tanh"], jiio.Identity())):
        for adjoint in (IMPLICIT, KKT):
            weight = case.W.clone().requires_grad_()
            solution = case.with_(W=weight).solve(prox, adjoint=adjoint)
            results[name, type(adjoint).__name__] = torch.autograd.grad((solution.z**3).sum(), weight)[0]
    assert gap(results["vertex", "Implicit"], results["vertex", "KKT"]) < 1e-9
    assert gap(results["inside", "Implicit"], results["inside", "KKT"]) > 1e-2


def test_default_adjoints_are_good_in_single_precision() -> None:
    case = CASES["tanh"]
    exact: Tensor | None = None
    for dtype, adjoint in ((DOUBLE, KKT), (torch.float32, jiio.KKT())):
        typed = case.to(dtype)
        weight = typed.W.clone().requires_grad_()
        solution = typed.with_(W=weight).solve(
            jiio.L2Ball(0.5), adjoint=adjoint, tolerance=TIGHT if dtype == DOUBLE else jiio.Tolerance()
        )
        loss = (solution.z**3).sum() + (solution.x**3).sum()
        gradient = torch.autograd.grad(loss, weight)[0].double()
        exact = gradient if exact is None else exact
        assert float((gradient - exact).norm() / exact.norm()) < 5e-3


# -- the matrix K


def hessian(case: Case, s: Tensor) -> Tensor:
    """K = d2L / d(z, mu, x)2 of one sample, dense."""
    n = case.W.shape[0]

    def lagrangian(s: Tensor) -> Tensor:
        z, mu, x = s[None, :n], s[None, n : 2 * n], s[None, 2 * n :]
        return (case.objective(z, x) + (mu * (case.cell(z, x) - z)).sum(1))[0]

    matrix = torch.autograd.functional.hessian(lagrangian, s)
    assert isinstance(matrix, Tensor)
    return matrix


@pytest.mark.parametrize("name", ["linear", "tanh", "softplus, smooth loss", "barely contracting"])
def test_inertia_certifies_the_minimum(name: str) -> None:
    case = CASES[name]
    solution = case.solve()
    n = case.W.shape[0]
    for i in range(case.batch):
        s = torch.cat([solution.z[i], multiplier(solution)[i], solution.x[i]])
        values = torch.linalg.eigvalsh(hessian(case.rows(slice(i, i + 1)), s))
        assert int((values < 0).sum()) == n and float(values.abs().min()) > 1e-6


@pytest.mark.parametrize("name", ["linear", "softplus, smooth loss"])
def test_k_maps_the_multiplier_to_the_slope_of_the_objective(name: str) -> None:
    """K (0, mu, 0) = -(dl/dz, 0, 0) where the objective does not see x (and at x* in any case in the other blocks)."""
    case = CASES[name].with_(ridge=0.0)
    # Without the ridge the optimum fits y as well as it can; there are fewer unknowns than targets.
    solution = case.solve(max_steps=5000)
    n = case.W.shape[0]
    for i in range(case.batch):
        one = case.rows(slice(i, i + 1))
        s = torch.cat([solution.z[i], multiplier(solution)[i], solution.x[i]])
        v = torch.cat(
            [torch.zeros(n, dtype=DOUBLE), multiplier(solution)[i], torch.zeros(case.U.shape[1], dtype=DOUBLE)]
        )
        z = solution.z[i : i + 1].clone().requires_grad_()
        slope_z = torch.autograd.grad(one.objective(z, solution.x[i : i + 1]).sum(), z)[0][0]
        expected = torch.cat([-slope_z, torch.zeros_like(v[n:])])
        assert gap(hessian(one, s) @ v, expected) < 1e-8


@pytest.mark.parametrize("prox", ["none", "L2 ball", "box"])
def test_kkt_equals_the_dense_solve(prox: str) -> None:
    """dLo/dtheta = d/dtheta <w, dL/ds>, K w = -dLo/ds in the tangent space, all of it dense."""
    case = CASES["tanh"]
    bias = case.b.clone().requires_grad_()
    solution = case.with_(b=bias).solve(PROX[prox], adjoint=KKT)
    total = torch.zeros_like(bias)
    n, k = case.W.shape[0], case.U.shape[1]
    for i in range(case.batch):
        one = case.rows(slice(i, i + 1))
        z, mu, x = (t[i].detach() for t in (solution.z, multiplier(solution), solution.x))
        s = torch.cat([z, mu, x])
        matrix = hessian(one, s)
        assert solution.gradient is not None
        gradient = solution.gradient[i]
        basis = torch.eye(k, dtype=DOUBLE)
        if prox == "L2 ball":
            assert abs(float(x.norm()) - 0.5) < 1e-9
            force = -float(gradient @ x) / 0.25
            matrix[2 * n :, 2 * n :] += force * torch.eye(k, dtype=DOUBLE)
            basis = torch.linalg.svd(x[None])[2][1:].T
        elif prox == "box":
            basis = basis[:, (x > -0.3) & (x < 0.25)]
        space = torch.block_diag(torch.eye(2 * n, dtype=DOUBLE), basis)
        right = -torch.cat([3 * z**2, torch.zeros_like(mu), 3 * x**2])
        w = space @ torch.linalg.solve(space.T @ matrix @ space, space.T @ right)
        fresh = case.b.clone().requires_grad_()
        sample, leaf = one.with_(b=fresh), s.clone().requires_grad_()
        zs, ms, xs = leaf[None, :n], leaf[None, n : 2 * n], leaf[None, 2 * n :]
        lagrangian = sample.objective(zs, xs).sum() + (ms * (sample.cell(zs, xs) - zs)).sum()
        (stationarity,) = torch.autograd.grad(lagrangian, leaf, create_graph=True)
        total += torch.autograd.grad((stationarity * w).sum(), fresh)[0]
    found = torch.autograd.grad((solution.z**3).sum() + (solution.x**3).sum(), bias)[0]
    assert gap(found, total) < 1e-8
