"""CONVERGED is said of the bottom, not of a slope that looks flat in the units of the start."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import jiio

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


def test_where_there_are_no_steps_left_nothing_is_called_converged() -> None:
    problem = jiio.Problem(halves, lambda z, x: (6.0 * (z - Y).square().sum(1)).exp())
    for steps in range(2, 30):
        solution = jiio.solve(problem, FAR, FAR, max_steps=steps, on_failure="ignore")
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
