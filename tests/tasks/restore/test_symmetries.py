"""The mean over the symmetries of the square: the group, the turned maps, and what the mean is equal to."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import jiio
from jiio.checks import ArgumentError
from jiio.models import ImagePrior, ImagePriorConfig
from jiio.outputs.seeds import generator
from jiio.tasks.maps.base import Denoise, LinearMap
from jiio.tasks.maps.corruption import Downsampling, GaussianBlur, MotionBlur, RandomHoles
from jiio.tasks.restore.base import AbstractRestorer
from jiio.tasks.restore.imagespace import ImageRestorer
from jiio.tasks.restore.symmetries import SYMMETRIES, SymmetricRestorer, turn, turn_back, turned
from toy_restorer import SmoothRestorer


@given(st.integers(0, 7), st.integers(1, 5), st.integers(1, 5))
def test_turning_back_undoes_turning(which, height, width):
    x = torch.arange(float(2 * height * width)).view(1, 2, height, width)
    assert torch.equal(turn_back(turn(x, which), which), x)


def test_the_eight_symmetries_are_different_and_closed():
    x = torch.arange(9.0).view(1, 1, 3, 3)
    made = {tuple(turn(x, which).flatten().tolist()) for which in range(8)}
    assert len(made) == 8
    again = {tuple(turn(turn(x, a), b).flatten().tolist()) for a in range(8) for b in range(8)}
    assert again == made


@pytest.mark.parametrize("which", range(8))
@pytest.mark.parametrize(
    "corruption", [GaussianBlur(width=1.0), MotionBlur(length=5, angle=30.0), Downsampling(2), RandomHoles(0.4)]
)
def test_a_turned_map_measures_the_same_and_keeps_its_adjoint(which, corruption):
    operator = corruption.draw(1, 8, 12, generator=generator(0, "map"))
    draw = torch.Generator().manual_seed(1)
    x = torch.rand(1, 1, 8, 12, generator=draw, dtype=torch.float64)
    y = operator.A(x)
    y_turned, map_turned = turned(y, operator, which)
    torch.testing.assert_close(map_turned.A(turn(x, which)), y_turned)
    other = torch.rand(y_turned.shape, generator=draw, dtype=torch.float64)
    left = (map_turned.A(turn(x, which)) * other).sum()
    right = (turn(x, which) * map_turned.A_adjoint(other)).sum()
    torch.testing.assert_close(left, right)
    torch.testing.assert_close(turn_back(map_turned.start(y_turned), which), operator.start(y))
    torch.testing.assert_close(turn_back(map_turned.keep(y_turned, turn(x, which)), which), operator.keep(y, x))
    assert map_turned.sigma == operator.sigma
    assert map_turned.norm_bound(turn(x, which)) == pytest.approx(operator.norm_bound(x))


def symmetric_case() -> tuple[AbstractRestorer, Tensor, LinearMap]:
    operator = GaussianBlur(width=1.0, sigma=0.01).draw(1, 12, 8, generator=generator(0, "map"))
    x = torch.rand(1, 1, 12, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return SmoothRestorer(1).double(), operator.A(x), operator


def test_one_symmetry_is_the_restorer_itself():
    restorer, y, operator = symmetric_case()
    assert torch.equal(SymmetricRestorer(restorer, 1).restore(y, operator).image, restorer.restore(y, operator).image)


def test_a_restorer_without_a_taste_for_directions_gains_nothing():
    # Squared differences weigh the same after any turn, so all eight solves have one answer.
    restorer, y, operator = symmetric_case()
    mean, alone = SymmetricRestorer(restorer, 8).restore(y, operator), restorer.restore(y, operator)
    torch.testing.assert_close(mean.image, alone.image, rtol=0, atol=1e-3)
    assert mean.converged.all() and mean.evaluations > 7 * alone.evaluations and mean.vjps > 7 * alone.vjps


@pytest.mark.parametrize("count", SYMMETRIES)
def test_the_mean_of_gradient_steps_is_the_gradient_step_of_the_mean_energy(count):
    torch.manual_seed(0)
    prior = ImagePrior(ImagePriorConfig(features=4, wide=4, depth=1)).double()
    x = torch.rand(1, 1, 8, 12, dtype=torch.float64, requires_grad=True)
    level = torch.full((1,), 0.1, dtype=torch.float64)
    energy = 0.0
    for which in SYMMETRIES[count]:
        residual, _, _ = prior.unrolled(turn(x, which), level, 100)
        energy = energy + 0.5 * residual.square().sum() / count
    (gradient,) = torch.autograd.grad(energy, x)  # type: ignore[arg-type]
    settings = {"max_steps": 100, "tolerance": jiio.Tolerance(1e-10, 1e-10), "on_failure": "ignore"}
    done = SymmetricRestorer(ImageRestorer(prior), count).restore(x.detach(), Denoise(0.1), **settings)
    torch.testing.assert_close(done.image, (x - gradient).detach(), rtol=0, atol=1e-8)


@pytest.mark.parametrize("which", [1, 6])
def test_all_eight_make_the_mean_commute_with_turning(which):
    torch.manual_seed(0)
    restorer = SymmetricRestorer(ImageRestorer(ImagePrior(ImagePriorConfig(features=4, wide=4, depth=1)).double()), 8)
    y = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    before, after = restorer.restore(turn(y, which), Denoise(0.1)), restorer.restore(y, Denoise(0.1))
    torch.testing.assert_close(before.image, turn(after.image, which), rtol=0, atol=1e-10)


def test_another_count_gets_a_sentence():
    with pytest.raises(ArgumentError, match="1, 2, 4 or 8"):
        SymmetricRestorer(SmoothRestorer(1), 3)
