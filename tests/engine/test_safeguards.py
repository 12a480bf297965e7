"""One test for each safeguard of a solve and of its exact gradient, which fails where the safeguard is taken out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import jiio
from helpers import gap
from jiio.operators import JointMap, Scales

DOUBLE = torch.float64
EYE = torch.eye(3, dtype=DOUBLE)


def test_the_residual_is_that_of_a_full_step_also_where_steps_are_short() -> None:
    """A step shortened to nothing moves nothing; the residual must not follow it."""
    problem = jiio.Problem(lambda z, x: x, lambda z, x: (z - 1).square().sum(1))
    zero = torch.zeros(2, 3, dtype=DOUBLE)
    operator = JointMap(problem, jiio.GradientStep(0.5), zero, zero, 1.0, False)
    operator.scales = Scales.given((torch.tensor(2.0), torch.tensor(1.0)), zero)
    v = torch.cat([zero, -EYE.new_ones(2, 3), zero], dim=1)
    full = operator(v).residual
    for _ in range(30):
        operator.slower(torch.tensor([True, False]))
    assert gap(operator(v).residual, full) < 1e-12 and float(full[0, 2]) > 0.1


def test_the_residual_of_the_input_is_in_units_of_the_state() -> None:
    """x moves by q / (sigma kappa); times sqrt(kappa) it is what the state would move by."""
    problem = jiio.Problem(lambda z, x: x, lambda z, x: z.square().sum(1) + 3 * x.sum(1))
    zero = torch.zeros(1, 4, dtype=DOUBLE)
    operator = JointMap(problem, jiio.GradientStep(0.5), zero, zero, 1.0, False)
    operator.scales = Scales.given((torch.tensor(2.0), torch.tensor(16.0)), zero)
    point = operator(operator.scales.pack(zero, zero, zero))
    assert gap(point.residual, torch.tensor([[0.0, 0.0, 3 / (2 * 16) * 4]])) < 1e-12


def test_a_mixed_point_is_feasible_again_and_goes_downhill() -> None:
    """Acceleration knows neither the ball nor where down is."""
    problem = jiio.Problem(lambda z, x: x, lambda z, x: (z - 3).square().sum(1), jiio.L2Ball(1.0))
    zero = torch.zeros(2, 4, dtype=DOUBLE)
    operator = JointMap(problem, jiio.GradientStep(0.5), zero, zero, 1.0, False)
    v = operator.scales.pack(zero, -6 + zero, zero)
    point = operator(v)
    mixed = operator.scales.pack(zero, zero, torch.tensor([[5.0], [-0.1]], dtype=DOUBLE) + zero)
    assert gap(operator.parts(operator.project(mixed))[2][0], torch.full((4,), 0.5)) < 1e-12
    taken = operator.descend(v, mixed, point)
    assert gap(taken[0], mixed[0]) == 0 and gap(taken[1], point.image[1]) == 0


def test_the_curvature_has_a_floor() -> None:
    """A linear objective has none; without a floor the first step would go to infinity."""
    problem = jiio.Problem(lambda z, x: x, lambda z, x: z.sum(1) + 1e-12 * z.square().sum(1), jiio.L2Ball(1.0))
    zero = torch.zeros(1, 3, dtype=DOUBLE)
    solution = jiio.solve(problem, zero, zero)
    # A hundredth of |l_z| = sqrt(3) over the length that a state near zero is taken to have, 0.01 an entry.
    assert solution.scaling is not None and float(solution.scaling[0]) == pytest.approx(1.0, rel=1e-6)
    assert gap(solution.x, torch.full((1, 3), -(3**-0.5), dtype=DOUBLE)) < 1e-4


def test_a_regulariser_adds_its_own_curvature() -> None:
    """kappa = gain^2 + l_xx / sigma, of z = x / 2 and |z|^2 + 3 |x|^2: 1/4 + 6 / 2."""
    problem = jiio.Problem(lambda z, x: 0.5 * x, lambda z, x: z.square().sum(1) + 3 * x.square().sum(1))
    ones = torch.ones(1, 3, dtype=DOUBLE)
    sigma, kappa = jiio.solve(problem, ones, ones).scaling or (ones, ones)
    assert float(sigma) == pytest.approx(2.0) and float(kappa) == pytest.approx(3.25)


@pytest.mark.parametrize("adjoint", [jiio.KKT(), jiio.Implicit(), jiio.Phantom(), jiio.Envelope()], ids=str)
def test_a_sample_without_numbers_gives_no_gradient(adjoint: jiio.AbstractAdjoint) -> None:
    """The gradient with a NaN sample in the batch is that of the others alone, whatever weighs on the bad one."""
    y = torch.tensor([[0.1, 0.2, 0.3], [0.3, -0.2, 0.1], [0.2, 0.2, 0.2]], dtype=DOUBLE)

    def slope(rows: list[int]) -> Tensor:
        w, b = (0.5 * EYE).requires_grad_(), torch.zeros(3, dtype=DOUBLE, requires_grad=True)
        zero = torch.zeros(len(rows), 3, dtype=DOUBLE)
        x0 = zero.clone()
        x0[[i for i, row in enumerate(rows) if row == 1]] = float("nan")
        problem = jiio.Problem(
            lambda z, x: torch.tanh(z @ w + x + b), lambda z, x: (z - y[rows]).square().sum(1) + x.square().sum(1)
        )
        tight = jiio.Tolerance(1e-11, 1e-11)
        solution = jiio.solve(problem, x0, zero, adjoint=adjoint, tolerance=tight, on_failure="ignore")
        loss = solution.value.sum()
        for part in (solution.z, solution.x):
            loss = loss + (part * 3.0).sum() if part.requires_grad else loss
        loss.backward()
        assert w.grad is not None and b.grad is not None
        return torch.cat([w.grad, b.grad[None]])  # of b also where the state is zero

    assert gap(slope([0, 1, 2]), slope([0, 2])) < 1e-6


SETS = [(jiio.L1Ball, 2.0), (jiio.L2Ball, 2.0)]


@pytest.mark.parametrize("ball, radius", SETS)
def test_inside_a_ball_everything_may_move(ball: type, radius: float) -> None:
    x = torch.tensor([[0.5, 0.0, 0.0]], dtype=DOUBLE)
    active = ball(radius).bind(x).active(x, torch.ones_like(x))
    w = torch.tensor([[1.0, 2.0, 3.0]], dtype=DOUBLE)
    assert bool(active.free.all()) and gap(active.project(w), w) == 0
    assert float(active.curvature(-x).abs().max()) == 0


@pytest.mark.parametrize("ball", [jiio.L1Ball, jiio.L2Ball])
def test_on_the_boundary_it_binds_only_where_the_gradient_pushes_outward(ball: type) -> None:
    x = torch.tensor([[0.6, 0.4, 0.0]], dtype=DOUBLE)
    size = x.abs().sum() if ball is jiio.L1Ball else x.norm()
    prox, w = ball(float(size)), torch.tensor([[1.0, 2.0, 3.0]], dtype=DOUBLE)
    inward = prox.active(x, x.sign())  # minus the gradient points into the ball
    outward = prox.active(x, -x.sign())
    assert gap(inward.project(w), w) == 0
    assert gap(outward.project(w), w) > 0.1
    normal = x.sign() if ball is jiio.L1Ball else x
    assert abs(float((outward.project(w) * normal).sum())) < 1e-12


@pytest.mark.parametrize("dtype, apart", [(DOUBLE, 1e-6), (torch.float32, 1e-3)])
def test_what_is_near_a_constraint_does_not_touch_it(dtype: torch.dtype, apart: float) -> None:
    """Touching is meant to rounding: a point a thousand roundings inside may move."""
    x = torch.tensor([[1.0 - apart, 0.0]], dtype=dtype)
    g = torch.tensor([[-1.0, 0.0]], dtype=dtype)
    w = torch.ones_like(x)
    for prox in (jiio.Box(-1.0, 1.0), jiio.L2Ball(1.0), jiio.L1Ball(1.0), jiio.LinfBall(1.0)):
        assert gap(prox.active(x, g).project(w), w) == 0
        on = torch.tensor([[1.0, 0.0]], dtype=dtype)
        assert float(prox.active(on, g).project(w)[0, 0].abs()) < 1e-6


@pytest.mark.parametrize("ball, radius", SETS)
def test_the_exact_gradient_at_a_solution_inside_a_ball(ball: type, radius: float) -> None:
    """Where the ball does not bind, it is the gradient without it."""
    y = torch.tensor([[0.3, 0.0, -0.2]], dtype=DOUBLE)
    grads = []
    for prox in (jiio.Identity(), ball(radius)):
        w = (0.5 * EYE).requires_grad_()
        problem = jiio.Problem(
            lambda z, x, w=w: torch.tanh(z @ w + x), lambda z, x: (z - y).square().sum(1) + x.square().sum(1), prox
        )
        zero, tight = torch.zeros(1, 3, dtype=DOUBLE), jiio.Tolerance(1e-11, 1e-11)
        exact = jiio.KKT(rtol=1e-12, max_steps=300)
        (jiio.solve(problem, zero, zero, adjoint=exact, tolerance=tight).x * torch.arange(1.0, 4.0)).sum().backward()
        grads.append(w.grad)
    assert gap(grads[0], grads[1]) < 1e-7


def test_a_solver_with_a_short_memory_does_not_claim_more_than_it_has() -> None:
    """Anderson of type I with a single difference; residuals by another computation."""
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        a = torch.randn(2, 2, dtype=DOUBLE, generator=draw)
        b = torch.randn(4, 2, dtype=DOUBLE, generator=draw)
        solution = jiio.equilibrium(
            lambda z, x, a=a, b=b: torch.tanh(z @ a + b),
            torch.zeros(4, 1, dtype=DOUBLE),
            torch.zeros(4, 2, dtype=DOUBLE),
            solver=jiio.Anderson(memory=1, kind="I"),
            on_failure="ignore",
        )
        left = (torch.tanh(solution.z @ a + b) - solution.z).square().mean(1).sqrt()
        allowed = 1e-6 + 1e-4 * solution.z.square().mean(1).sqrt()
        assert bool((left <= 1.01 * allowed)[solution.converged].all())
