"""Blur and downsampling against SciPy, torch and kernels by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage

from jiio import ArgumentError
from jiio.outputs.seeds import generator
from jiio.tasks.maps import convolution
from jiio.tasks.maps.compressed import compressed, dct_matrix
from jiio.tasks.maps.convolution import blur, downsample, good_length
from jiio.tasks.maps.kernels import bicubic_kernel, gaussian_kernel, given_kernel, motion_kernel

SCIPY_MODES = {"circular": "wrap", "symmetric": "reflect", "replicate": "nearest"}


def random_kernel(seed: int, height: int, width: int) -> torch.Tensor:
    return torch.randn(height, width, generator=generator(seed), dtype=torch.float64)


@pytest.mark.parametrize("boundary", SCIPY_MODES)
@pytest.mark.parametrize("taps", [(3, 3), (4, 5), (2, 2), (1, 6), (11, 13), (12, 10)])
def test_blur_is_scipys_convolution(boundary, taps):
    """Also where a side is even, and what counts as its centre a convention."""
    x = torch.randn(2, 3, 21, 18, generator=generator(1), dtype=torch.float64)
    kernel = random_kernel(0, *taps)
    expected = ndimage.convolve(x.numpy(), kernel.numpy()[None, None], mode=SCIPY_MODES[boundary])
    torch.testing.assert_close(blur(kernel, (21, 18), boundary=boundary).A(x), torch.from_numpy(expected))


def test_a_valid_blur_is_the_inside_of_any_other():
    x = torch.randn(1, 1, 24, 20, generator=generator(1), dtype=torch.float64)
    for taps in ((3, 5), (10, 11)):
        kernel = random_kernel(0, *taps)
        linear = blur(kernel, (24, 20), boundary="valid")
        whole, y = blur(kernel, (24, 20)).A(x), linear.A(x)
        assert y.shape[2:] == linear.measured == (25 - taps[0], 21 - taps[1])
        top, left = (taps[0] - 1) // 2, (taps[1] - 1) // 2
        inside = whole[..., top : top + y.shape[2], left : left + y.shape[3]]
        torch.testing.assert_close(y, inside)
        start = linear.start(y)
        assert torch.equal(start[..., top : top + y.shape[2], left : left + y.shape[3]], y)
        assert torch.equal(start[..., 0, left], y[..., 0, 0])  # the nearest measured value


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    taps=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    size=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    boundary=st.sampled_from(convolution.BOUNDARIES),
)
def test_dot_test_of_any_kernel(seed, taps, size, boundary):
    """Also kernels larger than the image, which see the same pixel several times."""
    if boundary == "valid" and (taps[0] > size[0] or taps[1] > size[1]):
        return
    linear = blur(random_kernel(seed, *taps), size, boundary=boundary)
    x = torch.randn(2, 3, *size, generator=generator(seed, "x"), dtype=torch.float64)
    y = torch.randn(2, 3, *linear.measured, generator=generator(seed, "y"), dtype=torch.float64)
    image = linear.A(x)
    assert abs((image * y).sum() - (x * linear.A_adjoint(y)).sum()) <= 1e-12 * (image.norm() * y.norm() + 1)
    assert float(image.norm()) <= linear.norm_bound(x) * float(x.norm()) * (1 + 1e-12)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("size", [(48, 36), (50, 37), (47, 49)])
def test_downsampling_is_torchs_away_from_the_border(factor, size):
    """torch (and Pillow) renormalise at the border, MATLAB mirrors; inside they are one."""
    x = torch.rand(1, 3, *size, generator=generator(0), dtype=torch.float64)
    y = downsample(factor, size).A(x)
    assert y.shape[2:] == (math.ceil(size[0] / factor), math.ceil(size[1] / factor))
    divisible = x[..., : size[0] // factor * factor, : size[1] // factor * factor]
    expected = torch.nn.functional.interpolate(divisible, scale_factor=1 / factor, mode="bicubic", antialias=True)
    inside = (..., slice(2, expected.shape[2] - 2), slice(2, expected.shape[3] - 2))
    torch.testing.assert_close(y[inside], expected[inside], atol=1e-6, rtol=0.0)


def test_downsampling_keeps_a_constant_and_the_place_of_a_ramp():
    ramp = torch.arange(40.0, dtype=torch.float64).expand(1, 1, 31, 40)
    for factor in (2, 3, 4):
        linear = downsample(factor, (31, 40))
        torch.testing.assert_close(linear.A(torch.ones_like(ramp)), torch.ones(1, 1, *linear.measured).double())
        centres = factor * torch.arange(linear.measured[1]) + (factor - 1) / 2
        torch.testing.assert_close(linear.A(ramp)[0, 0, 3, 2:-2], centres[2:-2].double())
        inside = (0, 0, 9, slice(16, 22))  # values that no border reaches
        torch.testing.assert_close(linear.start(linear.A(ramp))[inside], ramp[inside], atol=1e-5, rtol=0.0)


def test_the_bicubic_kernel_by_hand():
    """Keys' weights for a factor of 2: distances 1/4, 3/4, 5/4, 7/4 of the cubic with a = -1/2, times 1/2."""
    line = bicubic_kernel(2).sum(0)
    half = torch.tensor([111, 29, -9, -3]) / 256  # 0.8671875 / 2 and so on, by hand
    torch.testing.assert_close(line, torch.cat([half.flip(0), half]).double())
    assert bicubic_kernel(3).shape == (11, 11) and float(bicubic_kernel(3).sum()) == pytest.approx(1.0)


def test_a_gaussian_kernel_has_its_width():
    kernel = gaussian_kernel(1.6)
    assert kernel.shape == (15, 15) and float(kernel.sum()) == pytest.approx(1.0)
    places = torch.arange(15, dtype=torch.float64) - 7
    assert float((kernel.sum(0) * places.square()).sum()) == pytest.approx(1.6**2, rel=2e-3)
    assert gaussian_kernel(1.6, side=25).shape == (25, 25)


@pytest.mark.parametrize(("length", "angle"), [(9.0, 0.0), (9.0, 90.0), (15.0, 30.0), (7.5, -50.0), (0.5, 10.0)])
def test_a_motion_kernel_has_its_length_and_direction(length, angle):
    kernel = motion_kernel(length, angle)
    side = kernel.shape[0]
    assert kernel.shape == (side, side) and side % 2 == 1 and float(kernel.sum()) == pytest.approx(1.0)
    torch.testing.assert_close(kernel, kernel.flip(0, 1))  # symmetric about its centre
    places = torch.arange(side, dtype=torch.float64) - side // 2
    right, up = places[None, :], -places[:, None]
    slope = math.radians(angle)
    across = -right * math.sin(slope) + up * math.cos(slope)
    along = right * math.cos(slope) + up * math.sin(slope)
    spread = float((kernel * along.square()).sum())
    assert spread == pytest.approx(length**2 / 12, abs=0.26)  # of a uniform segment; bilinear weights add up to 1/4
    assert float((kernel * across.square()).sum()) <= 0.26


def test_a_motion_to_the_right_by_whole_pixels_is_a_row():
    kernel = motion_kernel(8.0, 0.0)
    torch.testing.assert_close(kernel[4, 1:-1], torch.full((7,), 1 / 8, dtype=torch.float64))
    torch.testing.assert_close(kernel[4, [0, -1]], torch.full((2,), 1 / 16, dtype=torch.float64))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: gaussian_kernel(1.0, side=4),
        lambda: gaussian_kernel(-1.0),
        lambda: motion_kernel(1e9, 0.0),
        lambda: given_kernel(torch.zeros(3, 3)),
        lambda: given_kernel(torch.tensor([[1.0, -0.1]])),
        lambda: given_kernel(torch.tensor([[1.0, float("nan")]])),
        lambda: given_kernel(torch.ones(256, 1)),
        lambda: given_kernel(torch.ones(3)),
        lambda: blur(torch.ones(3), (8, 8)),
        lambda: blur(torch.ones(3, 3), (8, 0)),
        lambda: blur(torch.ones(9, 3), (8, 8), boundary="valid"),
        lambda: blur(torch.ones(3, 3), (8, 8), boundary="zero"),
        lambda: downsample(2, (8, 8)).A_adjoint(torch.zeros(1, 1, 8, 8)),
        lambda: downsample(2, (8, 8)).start(torch.zeros(1, 1, 8, 8)),
        lambda: compressed((8, 8), 0.5, generator=generator(0)).A_adjoint(torch.zeros(1, 1, 8, 8)),
    ],
)
def test_bad_values_are_refused(wrong):
    with pytest.raises(ArgumentError, match="expected"):
        wrong()


def test_good_lengths():
    for n in range(1, 400):
        rest = good_length(n)
        assert n <= rest <= 1.2 * n + 2
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        assert rest == 1


def test_the_cosine_transform_is_scipys():
    x = torch.randn(7, 10, generator=generator(0), dtype=torch.float64)
    rows, columns = (dct_matrix(n, torch.float64, x.device) for n in x.shape)
    torch.testing.assert_close(rows @ x @ columns.T, torch.from_numpy(fft.dctn(x.numpy(), norm="ortho")))


def test_compressed_measurements_are_orthonormal_and_spread_the_image():
    linear = compressed((12, 15), 0.4, generator=generator(3))
    y = torch.randn(2, 3, 72, generator=generator(1), dtype=torch.float64)
    torch.testing.assert_close(linear.A(linear.A_adjoint(y)), y)
    bright = linear.A(torch.ones(1, 1, 12, 15, dtype=torch.float64))
    assert float(bright.abs().max()) < 6.0  # without the signs one coefficient would be sqrt(180) = 13.4, the others 0
    assert len(np.unique(linear.places)) == 72
