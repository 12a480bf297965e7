"""PSNR and SSIM against scikit-image, and what scikit-image has no word for."""

from __future__ import annotations

import math

import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from jiio import ArgumentError
from jiio.outputs.seeds import generator
from jiio.tasks.images.metrics import psnr, ssim


@pytest.fixture(params=[1, 3])
def pair(request):
    clean = torch.rand(4, request.param, 24, 20, generator=generator(0))
    return clean, (clean + 0.1 * torch.randn(clean.shape, generator=generator(1))).clamp(0, 1)


def test_psnr_agrees_with_scikit_image(pair):
    clean, noisy = pair
    expected = [
        peak_signal_noise_ratio(a.double().numpy(), b.double().numpy(), data_range=1.0)
        for a, b in zip(clean, noisy, strict=True)
    ]
    torch.testing.assert_close(psnr(noisy, clean), torch.tensor(expected, dtype=torch.float64))


def test_psnr_of_a_known_error():
    clean = torch.full((2, 1, 8, 8), 0.5)
    assert psnr(clean + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1), clean).tolist() == pytest.approx([20.0, 40.0], 1e-5)


def test_psnr_inside_a_mask_looks_nowhere_else():
    clean = torch.rand(2, 3, 8, 8, generator=generator(0))
    hole = torch.zeros(2, 1, 8, 8)
    hole[:, :, :4] = 1.0
    restored = clean + 0.1 * hole + 5.0 * (1.0 - hole)
    assert psnr(restored, clean, mask=hole).tolist() == pytest.approx([20.0, 20.0], 1e-5)


def test_psnr_of_equal_images_and_of_an_empty_mask():
    clean = torch.rand(1, 1, 8, 8, generator=generator(0))
    assert psnr(clean, clean).tolist() == [math.inf]
    assert math.isnan(float(psnr(clean, clean, mask=torch.zeros(1, 1, 8, 8))))


def test_ssim_agrees_with_scikit_image(pair):
    clean, noisy = pair
    expected = [
        structural_similarity(
            b.permute(1, 2, 0).double().numpy(),
            a.permute(1, 2, 0).double().numpy(),
            data_range=1.0,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(clean, noisy, strict=True)
    ]
    torch.testing.assert_close(ssim(noisy, clean), torch.tensor(expected, dtype=torch.float64))
    assert bool((ssim(noisy, clean) < 0.99).all())


def test_ssim_is_that_of_the_paper():
    """Wang et al. (2004), equation 13, written out with an 11-pixel Gaussian window, away from the border."""
    a, b = torch.rand(2, 1, 1, 32, 32, generator=generator(3), dtype=torch.float64)
    places = torch.arange(11, dtype=torch.float64) - 5
    line = torch.exp(-places.square() / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2).view(1, 1, 11, 11)
    mean = lambda x: torch.nn.functional.conv2d(x, window)  # noqa: E731
    ma, mb = mean(a), mean(b)
    va, vb, vab = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    local = (2 * ma * mb + c1) * (2 * vab + c2) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
    assert float(ssim(a, b)) == pytest.approx(float(local.mean()), abs=1e-9)


def test_ssim_of_equal_images_is_one(pair):
    torch.testing.assert_close(ssim(pair[0], pair[0]), torch.ones(4, dtype=torch.float64))


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_other_shapes_are_refused(measure):
    with pytest.raises(ArgumentError, match="shape"):
        measure(torch.zeros(1, 1, 12, 12), torch.zeros(1, 1, 12, 13))
    with pytest.raises(ArgumentError):
        measure(torch.zeros(12, 12), torch.zeros(12, 12))


def test_ssim_refuses_images_smaller_than_its_window():
    with pytest.raises(ArgumentError, match="11 x 11"):
        ssim(torch.zeros(1, 1, 10, 12), torch.zeros(1, 1, 10, 12))
