"""The likelihood of a kernel from a spectrum: white noise, closed forms of gains, scenes drawn from the model."""

from __future__ import annotations

import math

import pytest
import torch

from jiio.outputs.seeds import generator
from jiio.tasks.maps.kernels import gaussian_kernel, motion_kernel
from jiio.tasks.maps.shapes import Shape, gains, likeliest
from jiio.tasks.maps.spectrum import POWER, Spectrum

SIGMA = 0.01


def scene(kernel: torch.Tensor | None, side: int = 128, seed: int = 0) -> torch.Tensor:
    """A Gaussian field with the power that scenes have, blurred, with noise: the model to the letter."""
    grid = torch.meshgrid(*[torch.fft.fftfreq(side, dtype=torch.float64)] * 2, indexing="ij")
    far = torch.hypot(*grid)
    far[0, 0] = 1.0
    draw = generator(seed)
    white = torch.fft.fft2(torch.randn(side, side, generator=draw, dtype=torch.float64))
    field = white * 0.02 * far ** (-POWER / 2)
    gain = 1.0 if kernel is None else torch.fft.fft2(kernel, s=(side, side))
    noise = SIGMA * torch.randn(side, side, generator=draw, dtype=torch.float64)
    return torch.fft.ifft2(field * gain).real + noise


def test_white_noise_has_its_variance_in_every_bin():
    spectrum = Spectrum.of(0.3 + 0.1 * torch.randn(96, 120, generator=generator(0), dtype=torch.float64))
    mean = float((spectrum.power * spectrum.count).sum() / spectrum.count.sum())
    assert mean == pytest.approx(0.01, rel=0.05)
    assert float(spectrum.count.sum()) == pytest.approx(96 * 120 * math.pi * (0.25 - 0.025**2) / 2, rel=0.02)
    assert spectrum.below(0.2).count.sum() < 0.2 * spectrum.count.sum()


@pytest.mark.parametrize("shape", [Shape(width=1.4), Shape(11.0, 30.0), Shape(7.0, 135.0)])
def test_closed_gains_are_those_of_the_kernels(shape):
    spectrum = Spectrum.of(scene(None, 64))
    assert float((gains([shape], spectrum) - spectrum.gain(shape.kernel())).abs().max()) < 0.05


@pytest.mark.parametrize("shape", [Shape(width=1.3), Shape(9.0, 60.0), Shape(13.0, 160.0)])
def test_a_blur_is_found_where_the_model_is_true(shape):
    found, cost, _ = likeliest(Spectrum.of(scene(shape.kernel())), SIGMA, longest=15)
    assert (found.length > 0) == (shape.length > 0) and not found.none
    assert found.length == pytest.approx(shape.length, abs=0.5) and found.width == pytest.approx(shape.width, abs=0.15)
    assert abs((found.angle - shape.angle + 90) % 180 - 90) < 6
    assert math.isfinite(cost)


def test_no_blur_is_no_blur_and_the_image_integrated_out_pays_for_a_narrow_kernel():
    """The fit alone, without the logarithm, would not tell a sharp kernel from the true one."""
    assert likeliest(Spectrum.of(scene(None)), SIGMA, longest=11)[0].none
    spectrum = Spectrum.of(scene(gaussian_kernel(1.5)))
    kernels = [gaussian_kernel(1.5), torch.ones(1, 1, dtype=torch.float64), gaussian_kernel(3.0), motion_kernel(9, 0)]
    cost = spectrum.cost(torch.cat([spectrum.gain(kernel) for kernel in kernels]), SIGMA)[0]
    assert bool((cost[1:] > cost[0] + 100).all())


def test_a_kernel_and_its_mirror_image_are_alike():
    spectrum, kernel = Spectrum.of(scene(None, 64)), torch.rand(5, 7, generator=generator(1), dtype=torch.float64)
    assert torch.allclose(spectrum.gain(kernel), spectrum.gain(kernel.flip(0, 1)))
    assert torch.allclose(spectrum.gain(torch.ones(1, 1)), torch.ones(1, dtype=torch.float64))


def test_words_are_those_that_the_command_takes():
    assert Shape(width=1.62).words == "gaussian:1.6" and Shape(10.62, 34.6).words == "motion:10.6,35"
    assert Shape(width=0.5).none and Shape(2.0, 10.0).none and not Shape(3.0, 10.0).none
