"""Every prox is the argmin it says it is: against quadratic programs, the variational inequality, and itself."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from torch import Tensor

import jiio
from helpers import constrained, gap, smooth_prior
from problems import DOUBLE

N = 5


def draw(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)) * scale


def positive(seed: int, *shape: int, scale: float = 1.0) -> Tensor:
    return torch.rand(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed)) * scale


# name -> prox for a batch of 3 samples with 5 numbers, from a seed; sets first
SETS: dict[str, Callable[[int], jiio.AbstractProx]] = {
    "identity": lambda s: jiio.Identity(),
    "box": lambda s: jiio.Box(-0.4, 0.7),
    "boxes": lambda s: jiio.Box(-positive(s, 3, N), positive(s + 1, N)),
    "L2": lambda s: jiio.L2Ball(0.8),
    "L2 centred": lambda s: jiio.L2Ball(positive(s, 3), center=draw(s + 1, 3, N)),
    "Linf": lambda s: jiio.LinfBall(0.6),
    "Linf centred": lambda s: jiio.LinfBall(positive(s, 3), center=draw(s + 1, N)),
    "L1": lambda s: jiio.L1Ball(0.9),
    "L1 centred": lambda s: jiio.L1Ball(positive(s, 3, scale=2.0), center=draw(s + 1, 3, N)),
    "simplex": lambda s: jiio.Simplex(1.3),
    "box, L2": lambda s: jiio.Intersection(jiio.Box(-0.3, 0.5), jiio.L2Ball(0.6)),
    "box off centre, L2": lambda s: jiio.Intersection(
        jiio.L2Ball(1.0, center=draw(s, 3, N, scale=0.3)), jiio.Box(-0.2, 0.6)
    ),
    "box beside the centre, L2": lambda s: jiio.Intersection(jiio.Box(0.1, 0.9), jiio.L2Ball(0.5)),
    "box, L1": lambda s: jiio.Intersection(jiio.Box(-0.3, 0.5), jiio.L1Ball(0.8, center=draw(s, N, scale=0.1))),
    "box, Linf, L1": lambda s: jiio.Intersection(jiio.Box(-0.3, 2.0), jiio.LinfBall(0.4), jiio.L1Ball(0.9)),
    "box, Linf": lambda s: jiio.Intersection(jiio.Box(-0.3, 0.5), jiio.LinfBall(0.4, center=draw(s, N, scale=0.2))),
    "L1, L2": lambda s: jiio.Intersection(jiio.L1Ball(0.9), jiio.L2Ball(0.6), rounds=2000),
    "two L2": lambda s: jiio.Intersection(
        jiio.L2Ball(0.8), jiio.L2Ball(0.7, center=draw(s, N, scale=0.2)), jiio.Box(-1.0, 1.0), rounds=2000
    ),
    "nested": lambda s: jiio.Intersection(jiio.Intersection(jiio.Box(-0.3, 0.5), jiio.L2Ball(0.6)), jiio.LinfBall(0.4)),
}
PRIORS: dict[str, Callable[[int], jiio.AbstractProx]] = {
    "soft": lambda s: jiio.SoftThreshold(0.4),
    "softs": lambda s: jiio.SoftThreshold(positive(s, 3, N)),
    "quadratic": lambda s: jiio.QuadraticPrior(0.7),
    "quadratics": lambda s: jiio.QuadraticPrior(positive(s, N), center=draw(s + 1, 3, N)),
}
ALL = {**SETS, **PRIORS}

# |excess| that counts as none: Dykstra stops at a few units of rounding.
EXACT = 1e-13


@pytest.mark.parametrize("name", ALL)
def test_prox_is_the_argmin(name: str) -> None:
    """argmin g(u) + |u - x|^2 / (2 step) by sequential quadratic programming."""
    step = 0.6

    def program(prox: jiio.AbstractProx, x: Tensor, sample: int) -> Tensor:
        prior, here = smooth_prior(prox, sample), x[sample].numpy()

        def distance(u: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = prior(u)
            return value + 0.5 * float((u - here) @ (u - here)) / step, slope + (u - here) / step

        return torch.from_numpy(constrained(distance, np.zeros(N), prox, sample))

    for seed in range(2):
        prox, x = ALL[name](seed), draw(seed + 50, 3, N, scale=1.5)
        found = prox(x, step)
        for i in range(3):
            assert gap(found[i], program(prox, x, i)) < 2e-6, (name, seed, i)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(list(SETS)), seed=st.integers(0, 10**6), size=st.floats(1e-3, 1e3))
def test_projection_satisfies_the_variational_inequality(name: str, seed: int, size: float) -> None:
    """<x - P(x), u - P(x)> <= 0 for every feasible u: this alone characterises the projection."""
    prox = SETS[name](seed)
    x = draw(seed + 2, 3, N, scale=size)
    p = prox(x)
    slack = 1e-11 * (1 + size) ** 2
    for k in range(5):
        u = prox(draw(seed + 3 + k, 3, N))
        assert bool((((x - p) * (u - p)).sum(1) <= slack).all()), name


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(list(SETS)), seed=st.integers(0, 10**6), size=st.floats(1e-3, 1e3))
@example(name="Linf centred", seed=0, size=0.25)  # centre + (x - centre) is not x
def test_projection_is_feasible_idempotent_and_the_identity_inside(name: str, seed: int, size: float) -> None:
    prox, x = SETS[name](seed), draw(seed + 2, 3, N, scale=size)
    p = prox(x)
    assert float(prox.violation(p).max()) <= EXACT * (1 + size)
    assert gap(prox(p), p) <= 10 * EXACT * (1 + size)
    assert torch.equal(prox.violation(x) == 0, (x == p).all(1)) or float(prox.violation(x).max()) < EXACT * (1 + size)
    shrunk = prox(0.999 * p + 0.001 * prox(torch.zeros_like(x)))
    assert gap(shrunk, 0.999 * p + 0.001 * prox(torch.zeros_like(x))) <= 10 * EXACT * (1 + size)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(list(ALL)), seed=st.integers(0, 10**6), step=st.floats(1e-3, 1e2))
def test_prox_is_firmly_nonexpansive(name: str, seed: int, step: float) -> None:
    """|P x - P y|^2 <= <P x - P y, x - y>."""
    prox = ALL[name](seed)
    x, y = draw(seed + 2, 3, N, scale=2.0), draw(seed + 3, 3, N, scale=2.0)
    moved = prox(x, step) - prox(y, step)
    assert bool(((moved * moved).sum(1) <= (moved * (x - y)).sum(1) + 1e-10).all()), name


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(list(PRIORS)), seed=st.integers(0, 10**6), step=st.floats(1e-2, 1e1))
def test_prior_satisfies_its_optimality_condition(name: str, seed: int, step: float) -> None:
    """No nearby u has a smaller g(u) + |u - x|^2 / (2 step), with g from ``penalty``: the two belong together."""
    prox, x = PRIORS[name](seed), draw(seed + 2, 3, N)
    bound = prox.bind(x)

    def total(u: Tensor) -> Tensor:
        return bound.penalty(u) + (u - x).square().sum(1) / (2 * step)

    best = prox(x, step)
    for k in range(8):
        assert bool((total(best + draw(seed + k, 3, N, scale=10.0 ** -(k // 2))) >= total(best) - 1e-12).all())


@pytest.mark.parametrize("name", ["L2 centred", "L1 centred", "box, L2", "box, L1", "L1, L2", "box off centre, L2"])
def test_projection_never_hears_of_the_other_samples(name: str) -> None:
    if name == "L2 centred":
        prox, parts = jiio.L2Ball(positive(0, 40), center=draw(1, 40, N)), None
    elif name == "L1 centred":
        prox, parts = jiio.L1Ball(positive(0, 40), center=draw(1, 40, N)), None
    else:
        parts = SETS[name](0)
        prox = parts if name != "box off centre, L2" else jiio.Intersection(jiio.L2Ball(0.9), jiio.Box(-0.2, 0.6))
    for dtype in (torch.float32, DOUBLE):
        x = (draw(2, 40, N) * torch.logspace(-3, 3, 40, dtype=DOUBLE)[:, None]).to(dtype)
        bound = prox.bind(x)
        whole = bound.apply(x, 1.0)
        for i in range(0, 40, 7):
            row = slice(i, i + 1)
            single = prox
            if parts is None:
                single = type(prox)(prox.radius[row], center=prox.center[row])  # type: ignore[attr-defined]
            assert torch.equal(single(x[row]), whole[row]), (name, dtype, i)


@pytest.mark.parametrize("name", ["L2", "L2 centred", "L1", "L1 centred", "box, L2", "box, L1", "box off centre, L2"])
def test_projection_has_first_and_second_derivatives(name: str) -> None:
    """They are what ``Unrolled`` differentiates."""
    prox = SETS[name](3)
    x = draw(11, 3, N, scale=1.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: prox(t), (x,))
    assert torch.autograd.gradgradcheck(lambda t: prox(t), (x,))


def test_large_projections_stay_exact_in_single_precision() -> None:
    x = draw(0, 4, 5000).float()
    for prox in (jiio.L1Ball(3.0), jiio.L2Ball(0.5), jiio.Intersection(jiio.L2Ball(4.0), jiio.Box(-0.05, 0.5))):
        single, double = prox(x), prox(x.double())
        assert gap(single.double(), double) < 2e-5
        assert float(prox.violation(single).max()) < 2e-5


def test_tree_arguments_follow_the_tree() -> None:
    x = {"a": draw(0, 3, 2), "b": (draw(1, 3, 3, 1),)}
    box = jiio.Box({"a": torch.zeros(2, dtype=DOUBLE), "b": (torch.full((3, 1), 0.1, dtype=DOUBLE),)}, 1.0)
    inside = box(x)
    assert torch.equal(inside["a"], x["a"].clamp(0, 1)) and torch.equal(inside["b"][0], x["b"][0].clamp(0.1, 1))
    ball = jiio.L2Ball(0.5)(x)  # the norm runs over the whole sample
    norms = (ball["a"].square().sum(1) + ball["b"][0].square().sum((1, 2))).sqrt()
    assert gap(norms, torch.full((3,), 0.5, dtype=DOUBLE)) < 1e-12


def test_nan_stays_in_its_sample() -> None:
    for name, make in ALL.items():
        x = draw(0, 3, N)
        clean = make(0)(x.clone())
        x[1, 2] = float("nan")
        spoilt = make(0)(x)
        assert torch.equal(spoilt[[0, 2]], clean[[0, 2]]), name


def test_active_set_of_a_ball_and_a_box() -> None:
    x = torch.tensor([[0.3, 0.4], [0.1, 0.1]], dtype=DOUBLE)
    outward = torch.tensor([[-1.0, -1.0], [-1.0, -1.0]], dtype=DOUBLE)
    active = jiio.L2Ball(0.5).bind(x).active(x, outward)
    w = torch.ones(2, 2, dtype=DOUBLE)
    tangent = active.project(w)
    assert abs(float(tangent[0] @ x[0])) < 1e-15 and torch.equal(tangent[1], w[1])
    # gradient + force * x = 0 along x: force = (0.3 + 0.4) / 0.25
    assert gap(active.curvature(outward), torch.tensor([[2.8, 2.8], [0.0, 0.0]], dtype=DOUBLE)) < 1e-14
    held = jiio.Box(-1.0, torch.tensor([0.3, 0.9], dtype=DOUBLE)).bind(x).active(x, outward)
    assert held.free.tolist() == [[False, True], [True, True]]
    assert bool(held.free.all()) is False and bool(jiio.Box(-1.0, 0.4).bind(x).active(x, -outward).free.all())


def test_curvature_of_two_surfaces_that_meet_askew() -> None:
    """The multipliers solve one small system; taken one by one they would be wrong."""
    x = torch.tensor([[0.5, 0.2, 0.1]], dtype=DOUBLE)
    one, two = x[0], x[0] - torch.tensor([0.4, -0.5, 0.0], dtype=DOUBLE)
    forces = 0.7, 1.3
    gradient = -(forces[0] * one + forces[1] * two)[None]
    both = jiio.Intersection(
        jiio.L2Ball(float(one.norm())),
        jiio.L2Ball(float(two.norm()), center=torch.tensor([0.4, -0.5, 0.0], dtype=DOUBLE)),
    )
    active = both.bind(x).active(x, gradient)
    assert gap(active.curvature(gradient), torch.full((1, 3), sum(forces), dtype=DOUBLE)) < 1e-12
    w = active.project(draw(0, 1, 3))
    assert abs(float(w[0] @ one)) < 1e-12 and abs(float(w[0] @ two)) < 1e-12


def test_active_set_of_a_simplex() -> None:
    """A zero is held as long as it would cost more than what is there costs."""
    x = torch.tensor([[0.4, 0.6, 0.0, 0.0]], dtype=DOUBLE)
    active = jiio.Simplex().active(x, torch.tensor([[1.0, 1.0, 2.0, 0.5]], dtype=DOUBLE))
    assert active.free.tolist() == [[True, True, False, True]]
    assert abs(float(active.project(draw(0, 1, 4)).sum())) < 1e-15
    assert not bool(jiio.Simplex().active(x, torch.tensor([[1.0, 1.0, 2.0, 3.0]], dtype=DOUBLE)).free[0, 2:].any())
