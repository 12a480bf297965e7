"""Where the multiplier does not reach the input: plateaus and dead units are looked beyond, minima are believed."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import jiio
from jiio.operators import JointMap, Scales

DOUBLE = torch.float64
ALLOWED = torch.tensor([1e-4], dtype=DOUBLE)
PRICE = 5.0  # l_z of a second state that nothing moves: a multiplier that does not reach the input


def dead(z: Tensor, x: Tensor) -> Tensor:
    return torch.relu(0.5 * z + x)


def fit(z: Tensor, x: Tensor) -> Tensor:
    return (z - 1).square().sum(1) + 0.1 * x.square().sum(1)


@pytest.mark.parametrize("start", [-1.0, -0.1, -1e-3, 0.3])
def test_units_that_are_off_are_not_the_end(start: float) -> None:
    """Off, the objective is 0.1 x^2, whose minimum is the kink, and on the far side of that it falls: z = 2 x, and the
    bottom is at 4 (2 x - 1) + 0.2 x = 0.
    """
    x0 = torch.tensor([[start], [0.5]], dtype=DOUBLE)
    found = jiio.solve(jiio.Problem(dead, fit), x0, torch.zeros_like(x0), on_failure="ignore")
    assert bool(found.converged[1])
    assert float((found.x - 4 / 8.2)[found.converged].abs().max()) < 1e-2


def constant(z: Tensor, x: Tensor) -> Tensor:
    """The first state is the input, the second is 1."""
    return torch.cat([x, torch.ones_like(x)], dim=1)


def two_valleys(z: Tensor, x: Tensor) -> Tensor:
    """Near 1, and near -1 a deeper one."""
    return (z[:, 0].square() - 1).square() + 0.3 * z[:, 0] + PRICE * z[:, 1]


def plateau(z: Tensor, x: Tensor) -> Tensor:
    """Next to flat, then a step down: at 2.6 for who stands at 3."""
    return 1e-3 * z[:, 0] + torch.sigmoid(20 * (z[:, 0] - 2.6)) + PRICE * z[:, 1]


def gorge(z: Tensor, x: Tensor) -> Tensor:
    """Next to flat, a gorge at 1.8, and a wall behind it."""
    deep = (-((z[:, 0] - 1.8) / 0.25).square()).exp()
    return 1e-4 * z[:, 0] - deep + 10 * torch.relu(1.5 - z[:, 0]).square() + PRICE * z[:, 1]


def asked(
    objective: Callable[[Tensor, Tensor], Tensor], at: float, allowed: float, kappa: float = 1.0
) -> tuple[bool, int, Tensor, JointMap]:
    """Whether the claim of a point is refused, the evaluations that it took, and where it goes on. kappa: squared gain
    that had been measured.
    """
    x = torch.tensor([[at]], dtype=DOUBLE)
    z = constant(x, x)
    problem = jiio.Problem(constant, objective, jiio.Box(-400.0, 400.0))
    operator = JointMap(problem, jiio.GradientStep(), x, z, 1.0, False)
    operator.scales = Scales.given((torch.tensor(1.0), torch.tensor(kappa)), x)
    mu = operator.packed.slopes(z, x)[0]
    v = operator.scales.pack(z, mu, x)
    point, before = operator(v), operator.evaluations.cell
    yes = torch.ones(1, dtype=torch.bool)
    v, again = operator.renew(v, point, yes, torch.full((1,), allowed, dtype=DOUBLE))
    return bool(again), operator.evaluations.cell - before, v, operator


@pytest.mark.parametrize(
    "objective, at, probes, there",
    [(two_valleys, 0.9607, 1, None), (plateau, 3.0, 1, 2.32), (gorge, 3.0, 3, 1.82)],
)
def test_from_near_to_far_as_long_as_it_does_not_rise(
    objective: Callable[[Tensor, Tensor], Tensor], at: float, probes: int, there: float | None
) -> None:
    """Behind a ridge lies somebody else's valley; a plateau is crossed; a gorge before a wall is not stepped over. Who
    is refused begins anew at the lower point, in units that are measured there: gain 1, and the state at once right.
    """
    again, evaluations, v, operator = asked(objective, at, 2e-3)
    assert again == (there is not None) and evaluations == 2 * probes + 2 * again
    z, mu, x, _ = operator.parts(v)
    assert float(x) == pytest.approx(there or at, abs=0.02)
    assert float(z[0, 0]) == pytest.approx(float(x)) and float(mu[0, 1]) == PRICE
    if again:
        assert float(operator.scales.kappa) < 1.01 and bool(operator.plain)


@pytest.mark.parametrize("far, refused", [(300.0, True), (1.0, False)])
def test_a_curvature_that_is_gone_says_nothing(far: float, refused: bool) -> None:
    """log cosh: at 300 a slope of 1 without a curvature, where units of the bottom would let a step move by 1. The
    tolerance of the state is worth 71 there, not what a curvature of 1 would make of its square; 300 are left to fall.
    """
    again, evaluations, _, _ = asked(lambda z, x: z[:, 0].cosh().log(), far, 10.0)
    assert again == refused and (evaluations > 0) == refused


@pytest.mark.parametrize("kappa, refused", [(1e-8, True), (1e-2, False)])
def test_units_of_a_plateau_do_not_hide_it(kappa: float, refused: bool) -> None:
    """Where the gain that was measured moves the state, for all of x, by less than its tolerance, nothing is lost
    beside it: looked at as far as twice the size of x, and not as far as a plateau may reach in such units.
    """
    again, _, v, operator = asked(plateau, 3.0, 0.02, kappa)
    assert again == refused
    assert float(operator.parts(v)[2]) == pytest.approx(3 - 6 / 9 if refused else 3.0)


def test_a_state_that_jumps_is_looked_at_nearer() -> None:
    """A unit that is off in front of a weight of a hundred: at the first look the state overshoots, and the Lagrangian
    rises; nearer it falls.
    """

    def cell(z: Tensor, x: Tensor) -> Tensor:
        return torch.relu(-0.7 * z + 100 * x)

    problem = jiio.Problem(cell, lambda z, x: 0.5 * (z - 0.38).square().sum(1) + 0.05 * x.square().sum(1))
    x = torch.tensor([[-1e-15]], dtype=DOUBLE)
    zero = torch.zeros_like(x)
    operator = JointMap(problem, jiio.GradientStep(), x, zero, 1.0, False)
    operator.scales = Scales.given((torch.tensor(1.0), torch.tensor(1.0)), x)
    v = operator.scales.pack(zero, zero - 0.38, x)
    _, again = operator.renew(v, operator(v), torch.ones(1, dtype=torch.bool), ALLOWED)
    assert bool(again)


@pytest.mark.parametrize("off, times, refused", [(1e-4, 3.0, False), (1e-4, 1e3, False), (0.004, 1e3, True)])
def test_how_far_units_are_believed_without_a_call(off: float, times: float, refused: bool) -> None:
    """As far as the multiplier still reaches the input. z = x: the objective falls by 2 off^2 an input, to x = 1/2."""
    problem = jiio.Problem(lambda z, x: 0.5 * z + 0.5 * x, lambda z, x: (z - 1).square().sum(1) + x.square().sum(1))
    x = torch.full((1, 2), 0.5, dtype=DOUBLE) + off
    operator = JointMap(problem, jiio.GradientStep(), x, x, 1.0, False)
    operator.scales = Scales.given((torch.tensor(2.0), torch.tensor(2.0 * times)), x)
    v = operator.scales.pack(x, 4 * (x - 1), x)
    point, before = operator(v), operator.evaluations.cell
    _, again = operator.renew(v, point, torch.ones(1, dtype=torch.bool), ALLOWED / 100)
    assert bool(again) == refused and (operator.evaluations.cell > before + 1) == refused
    if refused:  # the unit is then 2 s^2 + 2, the state having gone s = 1/2 of the way that it will go
        assert float(operator.scales.sigma * operator.scales.kappa) == pytest.approx(2.5)


def test_standing_still_to_rounding_is_not_uphill() -> None:
    """At a vertex an accelerated step moves the input by rounding alone; which way decides nothing."""
    problem = jiio.Problem(lambda z, x: x, lambda z, x: (z - 3).square().sum(1), jiio.L1Ball(0.3))
    x = torch.tensor([[0.3, 0.0]], dtype=DOUBLE)
    operator = JointMap(problem, jiio.GradientStep(0.5), x, x, 1.0, False)
    v = operator.scales.pack(x, x - 6, x)
    point = operator(v)
    for change, kept in ((1e-16, True), (1e-6, False)):
        moved = torch.tensor([[0.3 - change, 0.0]], dtype=DOUBLE)
        assert float((moved - x).abs().max()) > 0
        mixed = operator.scales.pack(x + 1, x - 5, moved)
        assert torch.equal(operator.descend(v, mixed, point), mixed if kept else point.image)
