"""Maps one after the other: adjoint, windows, the nearest explanation, and the door in Python."""

from __future__ import annotations

import pytest
import torch

import jiio
from jiio.tasks.maps.base import Denoise, Inpaint, LinearMap, random_mask
from jiio.tasks.maps.convolution import blur, downsample
from jiio.tasks.maps.jpeg import Jpeg
from jiio.tasks.maps.kernels import motion_kernel
from jiio.tasks.maps.physics import Circulant, Diagonal, as_map
from jiio.tasks.maps.probing import adjoint_gap
from jiio.tasks.maps.several import Composed, composed

KERNEL = motion_kernel(5, 30)
SIZE = (48, 64)


def mask(height: int, width: int) -> Inpaint:
    return Inpaint(random_mask(1, height, width, missing=0.3, generator=torch.Generator().manual_seed(0)), 0.02)


def seen(operator: LinearMap) -> tuple[int, int]:
    return tuple(operator.A(torch.zeros(1, 1, *SIZE)).shape[2:])  # type: ignore[return-value]


def blurred_with_holes() -> LinearMap:
    first = blur(KERNEL, SIZE, boundary="valid")
    return composed(first, mask(*seen(first)))


def reduced_with_holes() -> LinearMap:
    first = downsample(2, SIZE)
    return composed(first, mask(*seen(first)))


def blurred_in_jpeg() -> LinearMap:
    first = blur(KERNEL, SIZE, boundary="valid")
    return composed(first, Jpeg.of(0.01 + torch.rand(1, 8, 8).double(), seen(first)))


MADE = (blurred_with_holes, reduced_with_holes, blurred_in_jpeg)


@pytest.mark.parametrize("make", MADE)
def test_adjoints_and_windows_of_what_is_composed(make):
    operator = make()
    assert isinstance(operator, Composed) and operator.sigma == operator.then.sigma
    x = torch.rand(1, 1, *SIZE).double()
    y = operator.A(x)
    assert adjoint_gap(operator.A, operator.A_adjoint, x, y) < 1e-9
    for window in ((8, 16, 40, 40), (0, 0, 32, 64)):
        top, left, height, width = window
        part = operator.window(*window)
        assert torch.allclose(part.A(x[..., top : top + height, left : left + width]), operator.window_of(y, *window))


@pytest.mark.parametrize(
    "operator",
    (
        Denoise(0.1),
        mask(*SIZE),
        Diagonal(torch.rand(1, 1, *SIZE).double()),
        Circulant(torch.fft.rfft2(torch.rand(1, 1, *SIZE).double() / 100)),
        blur(KERNEL, SIZE, boundary="valid"),
        downsample(2, SIZE),
        Jpeg.of(0.1 + torch.rand(1, 8, 8).double(), SIZE),
        Jpeg.of(0.1 + torch.rand(3, 8, 8).double(), SIZE, (2, 2)),
        *(make() for make in MADE),
    ),
    ids=lambda operator: type(operator).__name__,
)
def test_the_nearest_explanation_is_where_its_gradient_is_zero(operator):
    """u - x + step A*(A u - y) = 0, to the share of it that there was at x."""
    channels = len(operator.errors) if isinstance(operator, Jpeg) else 1
    x = torch.rand(2, channels, *SIZE, generator=torch.Generator().manual_seed(1)).double()
    y = operator.A(torch.rand(x.shape, generator=torch.Generator().manual_seed(2)).double())
    step = torch.tensor([0.5, 4.0], dtype=torch.float64).view(-1, 1, 1, 1)
    u = operator.nearest(x, y, step)
    left = u - x + step * operator.A_adjoint(operator.A(u) - y)
    before = step * operator.A_adjoint(operator.A(x) - y)
    assert bool((left.flatten(1).norm(dim=1) <= 0.011 * before.flatten(1).norm(dim=1)).all())


def test_a_list_of_maps_is_a_map_in_python():
    first = blur(KERNEL, SIZE, boundary="valid")
    holes = mask(*seen(first))
    y = holes.A(first.A(torch.rand(1, 1, *SIZE)))
    ours = as_map([first, holes], y)
    theirs = as_map([first.A, lambda x: holes.A(x)], y, sigma=0.02, shape=(1, *SIZE))
    assert isinstance(ours, Composed) and ours.sigma == 0.02
    x = torch.rand(1, 1, *SIZE)
    assert torch.allclose(ours.A(x), theirs.A(x), atol=1e-6)
    for bad in ([], [first, 3]):
        with pytest.raises(jiio.ArgumentError, match="physics"):
            as_map(bad, y)


def test_what_is_missing_carries_no_noise() -> None:
    operator = blurred_with_holes()
    y = operator.measure(torch.rand(1, 1, *SIZE), torch.Generator().manual_seed(0))
    holes = mask(*y.shape[2:]).mask == 0
    assert bool((y[holes.expand_as(y)] == 0).all()) and float(y.abs().sum()) > 0
