"""CONVERGED is said of the bottom, not of a slope that looks flat in the units of the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import jiio
from jiio.operators import JointMap, Scales
from jiio.operators.renewal import renewed
from jiio.operators.scales import Local

DOUBLE = torch.float64
Y = torch.tensor([[0.5, -0.4], [0.3, 0.2]], dtype=DOUBLE)
FAR = torch.tensor([[-1.0, 1.0], [1.0, -0.5]], dtype=DOUBLE)


def halves(z: Tensor, x: Tensor) -> Tensor:
    return 0.5 * z + 0.5 * x


@pytest.mark.parametrize("steepness", [1.0, 3.0, 6.0])
def test_a_curvature_that_falls_on_the_way(steepness: float) -> None:
    """exp(steepness |z - y|^2): the curvature falls by up to ten orders of magnitude on the way to y."""
    problem = jiio.Problem(halves, lambda z, x: (steepness * (z - Y).square().sum(1)).exp())
    solution = jiio.solve(problem, FAR, FAR, max_steps=500)
    assert float((solution.x - Y).abs().max()) < 1e-3
    assert float(solution.value.max()) < 1 + 1e-4


def test_each_sample_is_looked_at_for_itself() -> None:
    problem = jiio.Problem(halves, lambda z, x: (6.0 * (z - Y[: len(z)]).square().sum(1)).exp())
    alone = jiio.solve(problem, FAR[:1], FAR[:1], max_steps=500)
    both = jiio.solve(problem, FAR, FAR, max_steps=500)
    assert int(alone.steps[0]) == int(both.steps[0])
    assert float((alone.x - both.x[:1]).abs().max()) < 1e-12


@pytest.mark.parametrize("every", [1, 1000])
def test_where_there_are_no_steps_left_nothing_is_called_converged(every: int) -> None:
    problem = jiio.Problem(halves, lambda z, x: (6.0 * (z - Y).square().sum(1)).exp())
    for steps in range(2, 30, 3):
        tolerance = jiio.Tolerance(check_every=every)
        solution = jiio.solve(problem, FAR, FAR, max_steps=steps, tolerance=tolerance, on_failure="ignore")
        done = solution.converged
        assert float((solution.x - Y)[done].abs().sum()) < 1e-2


def test_a_start_in_saturation_under_a_constraint() -> None:
    """tanh is flat at the start, so no gain can be measured; the ball brings x back to where it is not."""
    draw = torch.Generator().manual_seed(0)
    U = torch.randn(3, 6, dtype=DOUBLE, generator=draw)
    problem = jiio.Problem(
        lambda z, x: torch.tanh(0.5 * z + x @ U), lambda z, x: (z - 0.2).square().sum(1), jiio.L2Ball(0.7)
    )
    zero = torch.zeros(4, 3, dtype=DOUBLE)
    x0 = 60 * torch.randn(4, 3, dtype=DOUBLE, generator=draw)
    best = jiio.solve(problem, zero, torch.zeros(4, 6, dtype=DOUBLE), max_steps=1000).value
    found = jiio.solve(problem, x0, torch.zeros(4, 6, dtype=DOUBLE), max_steps=1000, on_failure="ignore")
    assert bool(found.converged.any())
    assert float((found.value / best)[found.converged].max()) < 1.01


def saturated() -> tuple[Tensor, ...]:
    """W, U, targets and a start thirty times too large."""
    draw = torch.Generator().manual_seed(0)
    shapes = ((6, 6), (3, 6), (8, 6), (8, 3), (8, 3), (8, 3))
    parts = [torch.randn(*shape, dtype=DOUBLE, generator=draw) for shape in shapes]
    return 0.6 * torch.linalg.qr(parts[0]).Q, parts[1], 0.5 * parts[2], 30 * parts[5]


W, U, TARGET, SATURATED = saturated()
WEIGHTS = torch.tensor([1.0, *[1e-4] * 5], dtype=DOUBLE)


@pytest.mark.parametrize(
    "objective",
    [
        lambda z, x: (3 * (z - TARGET).square().sum(1)).exp() + 0.01 * x.square().sum(1),
        lambda z, x: (z - TARGET).square() @ WEIGHTS + 0.1 * x.square().sum(1),
        lambda z, x: (z - TARGET).square().sum(1) + 0.1 * x.square().sum(1),
    ],
    ids=["exponential", "weak valley", "square"],
)
def test_a_start_in_saturation_without_a_constraint(objective: Callable[[Tensor, Tensor], Tensor]) -> None:
    """Deep in the flat part of tanh: who is called converged there has nothing left to fall to along the gradient, as
    far as the objective does not rise.
    """

    def cell(z: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(z @ W + x @ U)

    zero = torch.zeros(8, 6, dtype=DOUBLE)
    found = jiio.solve(jiio.Problem(cell, objective), SATURATED, zero, max_steps=100, on_failure="ignore")
    leaf = found.x.detach().requires_grad_()

    def value(x: Tensor) -> Tensor:
        z = zero
        for _ in range(60):
            z = cell(z, x)
        return objective(z, x)

    here = value(leaf)
    (g,) = torch.autograd.grad(here.sum(), leaf)
    size, steep = leaf.norm(dim=1, keepdim=True), g.norm(dim=1, keepdim=True)
    way = size / steep.clamp_min(1e-300)
    told = found.converged & ((size * steep)[:, 0] > 1e-6 * here.abs())  # else the slope is rounding
    assert bool(told.any())
    for share in torch.logspace(-4, -0.3, 16, dtype=DOUBLE):
        fall = here - value(leaf - share * way * g)
        told = told & (fall >= -1e-9 * here.abs())
        assert bool((fall <= 0.02 * here.abs())[told].all())


def test_a_refused_claim_leaves_the_point_where_it_is() -> None:
    """New units are another measure of the same place, for those that asked alone."""
    problem = jiio.Problem(halves, lambda z, x: (z - Y).square().sum(1))
    operator = JointMap(problem, jiio.GradientStep(), FAR, FAR, 1.0, False)
    operator.scales = Scales.given((torch.full((2, 1), 1e9), torch.ones(2, 1)), FAR)
    v = operator.scales.pack(FAR, 2 * (FAR - Y), FAR)
    point = operator(v)
    operator.steep = torch.full((2,), 1e3, dtype=DOUBLE)
    fresh, again = operator.renew(v, point, torch.tensor([True, False]), torch.full((2,), 1e-4, dtype=DOUBLE))
    assert again.tolist() == [True, False] and float(operator.scales.sigma[1]) == 1e9
    assert float(operator.scales.sigma[0]) == pytest.approx(2.0)
    for part, old in zip(operator.parts(fresh)[:3], (FAR, 2 * (FAR - Y), FAR), strict=True):
        assert float((part - old).abs().max()) < 1e-12


@pytest.mark.parametrize(("off", "changed"), [(1e-4, False), (0.5, True)])
def test_a_parabola_gets_other_units_only_where_there_is_still_a_way_to_fall(off: float, changed: bool) -> None:
    """Ten thousand times steeper one way: along the flat one the curvature is another, and nearly nothing is left."""
    bends = torch.tensor([1e4, 1.0], dtype=DOUBLE)
    problem = jiio.Problem(halves, lambda z, x: (z - Y).square() @ bends)
    x = Y + off * torch.tensor([0.0, 1.0], dtype=DOUBLE)
    operator = JointMap(problem, jiio.GradientStep(), x, x, 1.0, False)
    operator.scales = Scales.given((torch.tensor(2e4), torch.tensor(1.0)), x)
    v = operator.scales.pack(x, 4 * bends * (x - Y), x)
    operator.steep = torch.full((2,), 1e3, dtype=DOUBLE)
    asked, allowed = torch.tensor([True, False]), torch.full((2,), 1e-3, dtype=DOUBLE)
    _, again = renewed(operator, v, operator(v), asked, allowed, Local(operator.packed, x, x))
    assert again.tolist() == [changed, False]
    assert float(operator.scales.sigma[0]) == pytest.approx(2.0 if changed else 2e4)


@pytest.mark.parametrize("kappa, falls", [(1e8, True), (0.25, False)])
def test_a_slope_hidden_by_its_units_is_seen(kappa: float, falls: bool) -> None:
    """In units that are far too large every step is nothing; at the optimum there is nothing to see."""
    problem = jiio.Problem(halves, lambda z, x: (z - Y).square().sum(1) + x.square().sum(1))
    best = Y / 2
    x = best + (0.1 if falls else 0.0)
    operator = JointMap(problem, jiio.GradientStep(), x, x, 1.0, False)
    operator.scales = Scales.given((torch.tensor(2.0), torch.tensor(kappa)), x)
    v = operator.scales.pack(x, 4 * (x - Y), x)
    point = operator(v)
    before = operator.evaluations.cell
    done, allowed = torch.tensor([True, False]), torch.full((2,), 1e-5, dtype=DOUBLE)
    _, again = operator.renew(v, point, done, allowed)
    assert again.tolist() == [falls, False] and float(operator.scales.kappa[1]) == kappa
    assert (operator.evaluations.cell > before) == falls
    if falls:  # 2 s^2 + 2, the state having gone s = 1/2 of the way that it will go
        assert float(operator.scales.sigma[0] * operator.scales.kappa[0]) == pytest.approx(2.5)


def test_after_some_refusals_the_units_stay_and_the_claim_is_refused_all_the_same() -> None:
    problem = jiio.Problem(halves, lambda z, x: (z - Y).square().sum(1))
    x = Y + 0.3
    operator = JointMap(problem, jiio.GradientStep(), x, x, 1.0, False)
    operator.scales = Scales.given((torch.tensor(2.0), torch.tensor(1e8)), x)
    operator.looks = torch.tensor([7.0, 8.0], dtype=DOUBLE)
    v = operator.scales.pack(x, 4 * (x - Y), x)
    allowed = torch.full((2,), 1e-5, dtype=DOUBLE)
    fresh, again = operator.renew(v, operator(v), torch.ones(2, dtype=torch.bool), allowed)
    assert again.tolist() == [True, True] and operator.looks.tolist() == [8, 8]
    assert float(operator.scales.kappa[0]) < 10 and float(operator.scales.kappa[1]) == 1e8
    # Who gets other units begins anew, nearer to Y; who does not stays.
    there = operator.parts(fresh)[2]
    assert float((there - x)[1].abs().max()) < 1e-12
    assert bool(((there - Y)[0].abs() < 0.3).all())


def test_a_start_with_given_units_is_not_settled() -> None:
    """With mu = 0 the gradient in x would be that of the regulariser alone: nothing, at x = 0."""
    problem = jiio.Problem(halves, lambda z, x: (z - Y).square().sum(1) + x.square().sum(1))
    zero = torch.zeros(2, 2, dtype=DOUBLE)
    units = torch.tensor(2.0), torch.tensor(1.0)
    both: tuple[dict[str, Any], ...] = ({"scaling": units}, {"rule": jiio.GradientStep(curvature=4.0)})
    for options in both:
        found = jiio.solve(problem, zero, zero, trace=True, on_failure="ignore", **options)
        assert found.trace is not None and float(found.trace.residual[0, :, 2].min()) > 1e-2
        assert float((found.x - Y / 2).abs().max()) < 1e-3


@pytest.mark.parametrize("scale", [1e-30, 1e-25, 1e-12, 1.0, 1e20, 1e36])
def test_the_scale_of_the_objective_does_not_matter_in_single_precision(scale: float) -> None:
    y, x0 = Y.float(), FAR.float()
    problem = jiio.Problem(halves, lambda z, x: scale * ((z - y).square().sum(1) + x.square().sum(1)))
    solution = jiio.solve(problem, x0, x0)
    assert float((solution.x - y / 2).abs().max()) < 1e-3


def test_an_ordinary_fit_pays_nothing_for_it() -> None:
    """Where the curvature stays, no step is added."""
    calls = [0]

    def objective(z: Tensor, x: Tensor) -> Tensor:
        calls[0] += 1
        return (z - Y).square().sum(1) + x.square().sum(1)

    solution = jiio.solve(jiio.Problem(halves, objective), FAR, FAR, adjoint=jiio.Detached())
    assert bool(solution.converged.all())
    # One for every evaluation of the cell; three for the curvatures at the start.
    assert calls[0] <= solution.evaluations.cell + 6
