"""Threat models: projections against an independent oracle, directions, random starts, rounding; and the objectives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.optimize
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from jiio.attacks import (
    DLR,
    CrossEntropy,
    Margin,
    MultiViewThreat,
    TargetedCrossEntropy,
    TargetedDLR,
    TargetedMargin,
    ThreatModel,
    margin,
)

NORMS = ["linf", "l2", "l1"]
ORDER = {"linf": math.inf, "l2": 2, "l1": 1}


def images(count: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 1, 3, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def nearest(point: np.ndarray, x: np.ndarray, norm: str, radius: float) -> np.ndarray:
    """The nearest allowed point by sequential quadratic programming, delta = p - q with p, q >= 0."""
    n = len(x)

    def value(u: np.ndarray) -> tuple[float, np.ndarray]:
        d = u[:n] - u[n:] + x - point
        return 0.5 * float(d @ d), np.concatenate([d, -d])

    fold = np.concatenate([np.eye(n), -np.eye(n)], 1)
    rules = [
        {"type": "ineq", "fun": lambda u: x + fold @ u, "jac": lambda u: fold},
        {"type": "ineq", "fun": lambda u: 1 - x - fold @ u, "jac": lambda u: -fold},
    ]
    if norm == "l1":
        rules.append({"type": "ineq", "fun": lambda u: np.array([radius - u.sum()])})
    if norm == "l2":
        rules.append({"type": "ineq", "fun": lambda u: np.array([radius**2 - (fold @ u) @ (fold @ u)])})
    top = radius if norm == "linf" else None
    start = np.full(2 * n, 1e-3)
    options = {"maxiter": 500, "ftol": 1e-16}
    done = scipy.optimize.minimize(
        value, start, jac=True, method="SLSQP", bounds=[(0, top)] * (2 * n), constraints=rules, options=options
    )
    return x + fold @ done.x


@pytest.mark.parametrize("norm", NORMS)
def test_projection_is_the_nearest_allowed_point(norm: str) -> None:
    x, threat = images(), ThreatModel(norm, 0.3)
    point = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=x.dtype)
    found = threat.project(point, x)
    for i in range(len(x)):
        expected = nearest(point[i].flatten().numpy(), x[i].flatten().numpy(), norm, 0.3)
        assert np.abs(found[i].flatten().numpy() - expected).max() < 1e-6


@settings(max_examples=60, deadline=None)
@given(
    norm=st.sampled_from(NORMS),
    radius=st.floats(1e-3, 20.0),
    scale=st.floats(1e-3, 50.0),
    seed=st.integers(0, 10_000),
    single=st.booleans(),
)
def test_every_projection_is_allowed_to_rounding(
    norm: str, radius: float, scale: float, seed: int, single: bool
) -> None:
    dtype = torch.float32 if single else torch.float64
    x, threat = images(3, seed, dtype), ThreatModel(norm, radius)
    draw = torch.Generator().manual_seed(seed)
    point = x + scale * torch.randn(x.shape, generator=draw, dtype=dtype)
    for found in (threat.project(point, x), threat.retract(point, x), threat.random_start(x, draw)):
        assert bool((threat.violation(found, x) <= threat.slack(x)).all())
    assert float((threat.project(point, x) - point).norm()) <= float((threat.retract(point, x) - point).norm()) * (
        1 + 1e-5
    )


@pytest.mark.parametrize("norm", NORMS)
def test_the_violation_is_measured(norm: str) -> None:
    x, threat = torch.full((1, 1, 3, 3), 0.5, dtype=torch.float64), ThreatModel(norm, 0.2)
    delta = torch.zeros_like(x)
    delta[0, 0, 1, 1] = 0.3
    assert threat.violation(x + delta, x).tolist() == pytest.approx([0.1])
    assert threat.distance(x + delta, x).tolist() == pytest.approx([0.3])
    assert threat.violation(x + 0.6 * (delta > 0), x).tolist() == pytest.approx([0.4])  # the ball, not the box
    assert float(threat.violation(x, x)) == 0.0


@pytest.mark.parametrize("norm", NORMS)
def test_the_steepest_direction_has_norm_one_and_grows_fastest(norm: str) -> None:
    g = torch.randn(5, 1, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    threat = ThreatModel(norm, 1.0)
    found = threat.steepest(g, sparsity=0.01).flatten(1)
    assert torch.linalg.vector_norm(found, ORDER[norm], dim=1).tolist() == pytest.approx([1.0] * 5)
    dual = {"linf": 1, "l2": 2, "l1": math.inf}[norm]
    gain = (found * g.flatten(1)).sum(1)
    assert torch.allclose(gain, torch.linalg.vector_norm(g.flatten(1), dual, dim=1))
    assert bool((threat.steepest(torch.zeros_like(g)) == 0).all())


def test_a_radius_for_every_sample() -> None:
    x = torch.full((3, 1, 3, 3), 0.5, dtype=torch.float64)
    threat = ThreatModel("l2", torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    point = x + 1.0
    assert threat.distance(threat.project(point, x), x).tolist() == pytest.approx([0.1, 0.2, 0.3])
    later = threat.select(torch.tensor([2, 0]))
    assert later.distance(later.project(point[:2], x[:2]), x[:2]).tolist() == pytest.approx([0.3, 0.1])
    assert ThreatModel.joined([threat, later]).radius.tolist() == pytest.approx([0.1, 0.2, 0.3, 0.3, 0.1])  # type: ignore[union-attr]


def test_bounds_per_channel() -> None:
    bounds = (torch.tensor([0.0, -1.0]), torch.tensor([1.0, 0.0]))
    x = torch.stack([torch.full((2, 3, 3), 0.9), torch.full((2, 3, 3), 0.1)])
    x[:, 1] -= 1.0
    threat = ThreatModel("linf", 0.5, bounds)
    threat.check(x)
    moved = threat.project(x + 2.0, x)
    assert float(moved[:, 0].max()) == 1.0 and float(moved[:, 1].max()) == 0.0
    assert bool((threat.violation(moved, x) <= threat.slack(x)).all())


def test_a_ball_per_view() -> None:
    x = torch.full((2, 5), 0.5, dtype=torch.float64)
    threat = MultiViewThreat("l2", (0.3, 0.0), sizes=(2, 3))  # type: ignore[arg-type]
    moved = threat.project(x + 1.0, x)
    assert moved[:, 2:].tolist() == x[:, 2:].tolist()
    assert (moved - x)[:, :2].norm(dim=1).tolist() == pytest.approx([0.3, 0.3])
    prox = threat.prox(x)
    assert torch.allclose(prox(x + 1.0), moved)
    assert bool((prox.violation(moved) < 1e-12).all()) and float(prox.violation(x + 1.0).min()) > 0.1
    assert threat.scaled(2.0).radius == (0.6, 0.0)
    both = MultiViewThreat("linf", 0.1, sizes=(2, 3))
    assert both.only(1).radius == (0.0, 0.1)
    start = both.random_start(x, torch.Generator().manual_seed(0))
    assert bool((both.violation(start, x) <= both.slack(x)).all())


# -- objectives


SCORES = torch.tensor([[3.0, 1.0, 2.0, 0.0], [0.5, 0.7, 0.1, 0.2]], dtype=torch.float64)
LABELS, TARGETS = torch.tensor([0, 3]), torch.tensor([1, 2])
EXPECTED = {
    CrossEntropy(): [math.log(sum(math.exp(v - 3) for v in (3, 1, 2, 0))), None],
    Margin(): [-1.0, 0.5],
    DLR(): [-1.0 / 2.0, 0.5 / 0.5],
    TargetedMargin(): [-2.0, -0.1],
    TargetedDLR(): [-2.0 / (3.0 - 0.5), -0.1 / (0.7 - 0.15)],
    TargetedCrossEntropy(): [-2.0 - math.log(sum(math.exp(v - 3) for v in (3, 1, 2, 0))), None],
}


def test_no_step_of_l1_is_spent_on_a_pixel_that_the_box_holds() -> None:
    """The largest slopes point out of the box; the step goes to the largest of the others."""
    point = torch.tensor([[1.0, 0.0, 0.5, 1.0]])
    gradient = torch.tensor([[9.0, -8.0, 1.0, -2.0]])
    found = ThreatModel("l1", 1.0).steepest(gradient, point, sparsity=0.25)
    assert torch.equal(found, torch.tensor([[0.0, 0.0, 0.0, -1.0]]))


@pytest.mark.parametrize("objective", EXPECTED, ids=lambda o: type(o).__name__)
def test_objectives_have_their_published_values(objective) -> None:
    found = objective(SCORES, LABELS, TARGETS if objective.targeted else None)
    for value, expected in zip(found.tolist(), EXPECTED[objective], strict=True):
        assert expected is None or value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("objective", EXPECTED, ids=lambda o: type(o).__name__)
def test_objectives_are_per_sample_and_differentiable(objective) -> None:
    scores = SCORES.clone().requires_grad_()
    value = objective(scores, LABELS, TARGETS)
    assert value.shape == (2,)
    (grad,) = torch.autograd.grad(value[0], scores)
    assert bool((grad[1] == 0).all()) and bool((grad[0] != 0).any())


def test_the_margin_of_nan_is_infinite() -> None:
    scores = SCORES.clone()
    scores[0, 2] = float("nan")
    assert margin(scores, LABELS).tolist() == [math.inf, pytest.approx(0.5)]
    assert margin(SCORES, LABELS).tolist() == pytest.approx([-1.0, 0.5])
    assert torch.allclose(CrossEntropy()(SCORES, LABELS), F.cross_entropy(SCORES, LABELS, reduction="none"))
