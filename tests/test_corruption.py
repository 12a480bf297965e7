"""Linear maps: adjoints, noise, masks that are functions of their seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from jiio import ArgumentError
from tasks.corruption import (
    AbstractCorruption,
    BoxHole,
    Denoise,
    GaussianNoise,
    Inpaint,
    RandomHoles,
    box_mask,
    random_mask,
)
from tasks.seeds import generator

CORRUPTIONS: list[AbstractCorruption] = [
    GaussianNoise(0.2),
    BoxHole(3),
    BoxHole(2, sigma=0.1),
    RandomHoles(0.4),
    RandomHoles(0.0),
    RandomHoles(1.0),
]


def named(corruption: AbstractCorruption) -> str:
    return repr(corruption)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=named)
@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    batch=st.integers(1, 3),
    channels=st.sampled_from([1, 3]),
    height=st.integers(3, 9),
    width=st.integers(3, 9),
)
def test_dot_test(corruption, seed, batch, channels, height, width):
    random = generator(seed)
    shape = (batch, channels, height, width)
    x = torch.randn(shape, generator=random, dtype=torch.float64)
    linear = corruption.draw(batch, height, width, generator=random)
    image = linear.A(x)
    y = torch.randn(image.shape, generator=random, dtype=torch.float64)
    left, right = (image * y).sum(), (x * linear.A_adjoint(y)).sum()
    assert image.dtype == torch.float64
    assert abs(left - right) <= 1e-12 * (image.norm() * y.norm() + 1)


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=named)
def test_the_map_is_linear(corruption):
    x, other = torch.randn(2, 3, 1, 8, 8, generator=generator(0), dtype=torch.float64)
    linear = corruption.draw(3, 8, 8, generator=generator(1))
    torch.testing.assert_close(linear.A(2.0 * x - 3.0 * other), 2.0 * linear.A(x) - 3.0 * linear.A(other))


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=named)
def test_a_measurement_is_a_function_of_its_seed_and_leaves_the_image_alone(corruption):
    x = torch.rand(4, 1, 12, 12, generator=generator(0))
    before = x.clone()

    def measured(seed):
        return corruption.draw(4, 12, 12, generator=generator(seed, "map")).measure(x, generator(seed, "noise"))

    assert torch.equal(measured(5), measured(5))
    assert torch.equal(x, before)
    if corruption not in (RandomHoles(0.0), RandomHoles(1.0)):
        assert not torch.equal(measured(5), measured(6))


def test_noise_has_the_level_that_was_asked_for():
    x = torch.full((8, 1, 50, 50), 0.5)
    noise = Denoise(0.3).measure(x, generator(1)) - x
    assert abs(float(noise.std()) - 0.3) < 0.006  # 20,000 numbers: three standard errors are 0.0045
    assert abs(float(noise.mean())) < 0.007


def test_noise_falls_on_kept_pixels_only():
    mask = random_mask(2, 10, 10, missing=0.5, generator=generator(0))
    y = Inpaint(mask, 0.2).measure(torch.rand(2, 3, 10, 10, generator=generator(1)), generator(2))
    assert bool((y[(mask == 0).expand_as(y)] == 0).all())
    assert float(y[(mask == 1).expand_as(y)].std()) > 0.2


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32), height=st.integers(4, 12), width=st.integers(4, 12), side=st.integers(1, 4))
def test_a_box_is_one_square_inside_the_image(seed, height, width, side):
    mask = box_mask(3, height, width, side=side, generator=generator(seed))
    assert mask.shape == (3, 1, height, width)
    for one in mask[:, 0]:
        rows, columns = (one == 0).any(1).nonzero(), (one == 0).any(0).nonzero()
        assert int((one == 0).sum()) == side * side
        assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == side - 1


def test_a_box_reaches_every_place():
    mask = box_mask(400, 4, 5, side=3, generator=generator(0))
    assert {(int(m.any(1).float().argmin()), int(m.any(0).float().argmin())) for m in mask[:, 0]} != set()
    corners = {tuple((m[0] == 0).nonzero()[0].tolist()) for m in mask}
    assert corners == {(row, column) for row in range(2) for column in range(3)}


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**32), missing=st.floats(0.0, 1.0))
def test_random_holes_are_exactly_as_many_as_asked_for(seed, missing):
    mask = random_mask(2, 7, 9, missing=missing, generator=generator(seed))
    assert set(mask.unique().tolist()) <= {0.0, 1.0}
    assert (mask == 0).flatten(1).sum(1).tolist() == [round(missing * 63)] * 2


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Denoise(-0.1),
        lambda: Denoise(float("nan")),
        lambda: GaussianNoise(float("inf")),
        lambda: BoxHole(0),
        lambda: RandomHoles(1.5),
        lambda: box_mask(1, 8, 8, side=9, generator=generator(0)),
    ],
)
def test_bad_values_are_refused(wrong):
    with pytest.raises(ArgumentError, match="expected"):
        wrong()
