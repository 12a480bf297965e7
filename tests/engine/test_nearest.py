"""Projections onto intersections are the nearest point: against quadratic programs, far from the set and near."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio import ArgumentError

DOUBLE = torch.float64
L1, L2, Box = jiio.L1Ball, jiio.L2Ball, jiio.Box


def quadratic_program(x: np.ndarray, r1: float, r2: float, c1: np.ndarray, c2: np.ndarray, box: float) -> np.ndarray:
    """The nearest point by SLSQP, the L1 norm split into parts: u = c1 + p - q; distances in units of the way there."""
    n, size = len(x), 1 + np.abs(x).max()

    def point(w: np.ndarray) -> np.ndarray:
        return c1 + w[:n] - w[n:]

    rows = [{"type": "ineq", "fun": lambda w: r1 - w.sum(), "jac": lambda w: -np.ones(2 * n)}]
    if np.isfinite(r2):
        rows.append({"type": "ineq", "fun": lambda w: r2**2 - ((point(w) - c2) ** 2).sum()})
    if np.isfinite(box):
        rows.append({"type": "ineq", "fun": lambda w: box - point(w)})
        rows.append({"type": "ineq", "fun": lambda w: box + point(w)})
    best = None
    for seed in range(2):
        start = np.random.default_rng(seed).uniform(0, 0.1 * r1 / n, 2 * n)
        found = scipy.optimize.minimize(
            lambda w: ((point(w) - x) ** 2).sum() / size,
            start,
            jac=lambda w: 2 / size * np.concatenate([point(w) - x, x - point(w)]),
            bounds=[(0, None)] * (2 * n),
            constraints=rows,
            method="SLSQP",
            options={"ftol": 1e-15, "maxiter": 500},
        )
        if best is None or found.fun < best.fun:
            best = found
    assert best is not None
    return point(best.x)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("size", [0.5, 3.0])
@pytest.mark.parametrize("kind", ["L1 L2", "L1 Box", "L1 L2 Box", "L1 L2 apart"])
def test_the_nearest_point(kind: str, size: float, dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(len(kind))
    for n in (2, 5) if dtype == DOUBLE else (4,):
        x = (size * torch.randn(2, n, generator=draw, dtype=DOUBLE)).to(dtype)
        c2 = (0.1 * torch.randn(2, n, generator=draw, dtype=DOUBLE)).to(dtype) if kind == "L1 L2 apart" else x * 0
        sets: list[jiio.AbstractProx] = [L1(1.0)]
        sets += [L2(0.7, center=c2)] if "L2" in kind else []
        sets += [Box(-0.4, 0.4)] if "Box" in kind else []
        prox = jiio.Intersection(*sets)
        found = prox(x)
        assert float(prox.violation(found).max()) <= 8 * torch.finfo(dtype).eps
        for i in range(2):
            radii = (1.0, 0.7 if "L2" in kind else np.inf)
            box = 0.4 if "Box" in kind else np.inf
            point, center = x[i].double().numpy(), c2[i].double().numpy()
            want = quadratic_program(point, *radii, np.zeros(n), center, box)
            near, other = (float(np.linalg.norm(p - point)) for p in (found[i].double().numpy(), want))
            assert near <= other * (1 + 1e-6) + 1e-6
            assert gap(found[i].double(), torch.from_numpy(want)) < 2e-3


def test_a_small_ball_seen_from_far_away() -> None:
    """Numbers at 2^20 are a sixteenth apart in single precision, and what is wanted is a difference of them."""
    x = 2.0**20 - torch.tensor([[0.0, 0.0625, 0.125]])
    want = torch.tensor([[0.0, -0.0625, -0.125]]) + (1 + 0.1875) / 3
    assert gap(jiio.L1Ball(1.0)(x), want) < 1e-6


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_newton_does_not_go_round(dtype: torch.dtype) -> None:
    x = torch.tensor([[-2.6, -2.8], [-2.8, -2.6]], dtype=dtype)
    found = jiio.Intersection(L1(0.7), Box(-0.7, 0.7))(x)
    assert gap(found, torch.tensor([[-0.25, -0.45], [-0.45, -0.25]], dtype=dtype)) < 1e-6


def condition(prox: jiio.AbstractProx, x: Tensor, draw: torch.Generator, size: float) -> Tensor:
    """max over feasible q of (x - p)(q - p) / |x - p|: at most 0 at the nearest point p, in the units of the set."""
    p = prox(x).double()
    way = (x.double() - p) / (x.double() - p).norm(dim=1, keepdim=True).clamp_min(1e-12)
    worst = torch.full((len(x),), -float("inf"), dtype=DOUBLE)
    for _ in range(8):
        q = prox((size * torch.randn(x.shape, generator=draw, dtype=DOUBLE)).to(x)).double()
        worst = torch.maximum(worst, (way * (q - p)).sum(1))
    return worst


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
def test_the_variational_inequality_on_random_sets(dtype: torch.dtype) -> None:
    draw = torch.Generator().manual_seed(0)
    for k in range(15):
        n, r = int(torch.randint(1, 12, (), generator=draw)), float(torch.rand((), generator=draw)) + 0.01
        x = (torch.randn(3, n, generator=draw, dtype=DOUBLE) * 10 ** (k % 5 - 1)).to(dtype)
        for prox in (
            L1(r),
            jiio.Intersection(L1(r), Box(-0.3 * r, 0.6 * r)),
            jiio.Intersection(L1(r), L2(0.7 * r)),
            jiio.Intersection(L1(r), L2(0.6 * r), Box(-0.3 * r, 0.6 * r)),
            jiio.Intersection(L2(r), Box(-0.3 * r, 0.6 * r)),
        ):
            # The rounding of x itself, seen from the set.
            rounding = 40 * torch.finfo(dtype).eps * r * (1 + n**0.5)
            assert float(condition(prox, x, draw, r).max()) <= rounding, (prox, float(x.abs().max()))


def test_a_solve_ends_at_the_bottom_of_both_balls() -> None:
    """With a nearly linear objective the best point of L1 and L2 ball is a thresholded, scaled direction."""
    y, r = torch.tensor([[3.0, 2.0, 1.0, 0.5]], dtype=DOUBLE), 0.01
    prox, zero = jiio.Intersection(L1(1.3 * r), L2(r)), torch.zeros(1, 4, dtype=DOUBLE)
    problem = jiio.Problem(lambda z, x: 0.5 * z + 0.5 * x, lambda z, x: (z - y).square().sum(1), prox)
    solution = jiio.solve(problem, zero, zero, tolerance=jiio.Tolerance(1e-9, 1e-9), max_steps=500)
    low, high = 0.0, 3.0
    for _ in range(100):
        middle = (low + high) / 2
        u = (y - middle).clamp_min(0)
        low, high = (middle, high) if float((u / u.norm() * r).sum()) > 1.3 * r else (low, middle)
    u = (y - high).clamp_min(0)
    assert float((solution.x * y).sum()) > 0.999 * float((u / u.norm() * r * y).sum())


def test_its_derivative_is_that_of_the_nearest_point() -> None:
    """Directional derivatives against differences, at a point where both balls and a bound hold."""
    prox = jiio.Intersection(L1(1.0), L2(0.7), Box(-0.6, 0.5))
    draw = torch.Generator().manual_seed(2)
    x = (2 * torch.randn(3, 5, generator=draw, dtype=DOUBLE)).requires_grad_()
    weights, v = (torch.randn(3, 5, generator=draw, dtype=DOUBLE) for _ in range(2))
    (found,) = torch.autograd.grad((prox(x) * weights).sum(), x)
    h = 1e-6
    want = ((prox(x.detach() + h * v) - prox(x.detach() - h * v)) * weights).sum() / (2 * h)
    assert abs(float((found * v).sum() - want)) < 1e-5 * (1 + abs(float(want)))


@pytest.mark.parametrize("low, high", [(np.inf, np.inf), (-np.inf, -np.inf)])
def test_boxes_without_a_point_are_refused(low: float, high: float) -> None:
    with pytest.raises(ArgumentError, match="infinity"):
        Box(low, high)
    with pytest.raises(ArgumentError, match="infinity"):
        Box(torch.full((3,), low), torch.full((3,), high))(torch.zeros(2, 3))


@pytest.mark.parametrize("ball", [L1, L2, jiio.LinfBall])
def test_centres_at_infinity_are_refused(ball: type) -> None:
    with pytest.raises(ArgumentError, match="finite"):
        ball(1.0, center=torch.tensor([0.0, np.inf]))(torch.zeros(2, 2))


def test_balls_that_do_not_meet_are_refused() -> None:
    far = torch.full((2, 3), 5.0)
    with pytest.raises(ArgumentError, match="sets that meet"):
        jiio.Intersection(L1(1.0), L2(1.0, center=far))(torch.zeros(2, 3))
