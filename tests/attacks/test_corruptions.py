"""Common corruptions: each family does what its definition says, on any size and channels, and is drawn again alike."""

from __future__ import annotations

import colorsys
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from jiio.attacks import corrupt
from jiio.attacks.corruptions import kinds
from jiio.attacks.corruptions.families import FAMILIES, SEVERITIES
from jiio.attacks.corruptions.fields import disk, plasma, streak, zoomed
from jiio.checks import ArgumentError, ArgumentTypeError


def pictures(*shape: int) -> Tensor:
    """Smooth waves with a border, in [0, 1]."""
    count, channels, height, width = shape
    down, right = torch.linspace(0, 3, height)[:, None], torch.linspace(0, 2, width)
    one = 0.5 + 0.3 * torch.sin(2 * down + right) + 0.15 * (right > 1)
    scale = torch.linspace(1.0, 0.6, channels)[:, None, None] * torch.linspace(0.8, 1.0, count)[:, None, None, None]
    return (one * scale).clamp(0, 1)


SQUARE = pictures(2, 3, 32, 32)


def draw() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shape", [(1, 1, 28, 28), (1, 3, 7, 12), (1, 4, 33, 9), (1, 3, 100, 97)])
def test_any_size_and_channels(family: str, shape: tuple[int, ...]) -> None:
    x = pictures(*shape)
    for severity in (1, 5):
        changed = corrupt(x, family, severity)
        assert changed.shape == x.shape and changed.dtype == x.dtype
        assert float(changed.min()) >= 0.0 and float(changed.max()) <= 1.0
        assert torch.allclose(changed * 255, (changed * 255).round(), atol=1e-3)
    assert not torch.equal(changed, x)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_picture_is_corrupted_alike_wherever_it_stands(family: str) -> None:
    both = corrupt(SQUARE, family, 3, seed=5)
    alone = corrupt(SQUARE[1:], family, 3, seed=5, first=1)
    assert torch.equal(both[1:], alone)
    drawn = family not in ("defocus_blur", "zoom_blur", "brightness", "contrast", "pixelate", "jpeg_compression")
    assert torch.equal(both, corrupt(SQUARE, family, 3, seed=6)) != drawn


# Of these a stronger one may change less: kinds of elasticity, of glass and of frost, and grids that fit by chance.
APART = ("glass_blur", "elastic_transform", "frost", "jpeg_compression", "pixelate")


@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in APART])
@pytest.mark.parametrize("side", [32, 112])
def test_the_first_severity_changes_least(family: str, side: int) -> None:
    x = pictures(1, 3, side, side)
    far = [float((corrupt(x, family, s) - x).square().mean()) for s in SEVERITIES]
    assert far[0] == min(far) and far[4] > far[0]


def test_noise_has_the_moments_of_its_levels() -> None:
    flat = torch.full((1, 3, 64, 64), 0.5)  # a small picture: the levels of CIFAR-10-C
    for severity, sigma in zip(SEVERITIES, (0.04, 0.06, 0.08, 0.09, 0.10), strict=True):
        noise = corrupt(flat, "gaussian_noise", severity) - flat
        assert abs(float(noise.mean())) < 4 * sigma / 110 and float(noise.std()) == pytest.approx(sigma, rel=0.05)
    for severity, photons in zip(SEVERITIES, (500, 250, 100, 75, 50), strict=True):
        noise = corrupt(flat, "shot_noise", severity) - flat
        assert float(noise.var()) == pytest.approx(0.5 / photons, rel=0.1)
    for severity, amount in zip(SEVERITIES, (0.01, 0.02, 0.03, 0.05, 0.07), strict=True):
        changed = corrupt(flat, "impulse_noise", severity)
        lost = (changed - flat).abs() > 0.1
        assert float(lost.float().mean()) == pytest.approx(amount, rel=0.35)
        assert set(changed[lost].tolist()) == {0.0, 1.0}


def test_contrast_brightness_and_pixels_by_hand() -> None:
    x = SQUARE[0].double().numpy()
    means = x.mean((1, 2), keepdims=True)
    assert np.allclose(kinds.contrast(x, (0.3,), draw(), 1.0), 0.3 * x + 0.7 * means)

    brighter = kinds.brightness(x, (0.2,), draw(), 1.0)
    for i, j in ((0, 0), (10, 20), (31, 5)):
        hue, saturation, value = colorsys.rgb_to_hsv(*x[:, i, j])
        assert np.allclose(brighter[:, i, j], colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1.0)))

    blocks = kinds.pixelate(x, (0.5,), draw(), 1.0)
    mean = x.reshape(3, 16, 2, 16, 2).mean((2, 4))
    assert np.allclose(blocks, mean.repeat(2, 1).repeat(2, 2), atol=1e-6)


def test_fog_hides_by_the_published_formula() -> None:
    x, thick = SQUARE[0].double().numpy(), 1.5
    mist = plasma(32, 32, 2.0, draw())
    wanted = (x + thick * mist) * x.max() / (x.max() + thick)
    assert np.allclose(kinds.fog(x, (thick, 2.0), draw(), 1.0), wanted)


def test_jpeg_is_what_a_program_reads() -> None:
    eight = (SQUARE[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(eight).save(file, "JPEG", quality=58)
    wanted = torch.from_numpy(np.asarray(Image.open(file)).copy()).permute(2, 0, 1) / 255
    assert torch.allclose(corrupt(SQUARE[:1], "jpeg_compression", 3)[0], wanted, atol=1e-6)


@pytest.mark.parametrize("family", ["defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "elastic_transform"])
def test_a_blur_leaves_what_is_flat(family: str) -> None:
    flat = torch.full((1, 3, 40, 30), 102 / 255)
    for severity in SEVERITIES:
        assert torch.allclose(corrupt(flat, family, severity), flat)


def test_glass_puts_neighbours_in_the_place_of_pixels() -> None:
    ramp = np.tile(np.arange(20.0), (1, 20, 1)) / 20
    moved = kinds.glass_blur(ramp, (1e-3, 1, 1), draw(), 1.0) * 20 - ramp * 20
    inside = moved[0, 1:-1, 1:-1]
    assert set(np.round(inside, 6).ravel().tolist()) == {0.0, -1.0} and 0.4 < -inside.mean() < 0.6
    assert np.allclose(moved[0, 0], 0.0) and np.allclose(moved[0, :, -1], 0.0)


def test_elastic_without_levels_is_the_identity() -> None:
    x = SQUARE[0].double().numpy()
    assert np.allclose(kinds.elastic_transform(x, (0.0, 1.0, 0.0), draw(), 1.0), x)
    sheared = kinds.elastic_transform(x, (0.0, 1.0, 3.0), draw(), 1.0)
    assert np.abs(sheared - x).max() > 0.05


def test_kernels_and_zoom() -> None:
    for kernel in (disk(3, 0.1), disk(10, 0.5), streak(10, 3, 30), streak(2.5, 1.0, -120)):
        assert kernel.sum() == pytest.approx(1.0) and kernel.min() >= 0
    assert (disk(3, 0.01) > 1e-6).sum() == 29  # lattice points within 3

    # Half a Gaussian along its angle: the weights of whole steps, and the mean on that line.
    across = streak(2, 1.5, 0.0)
    middle = across.shape[0] // 2
    wanted = np.exp(-(np.arange(5.0) ** 2) / 4.5)
    assert np.allclose(across[middle, middle : middle + 5], wanted / wanted.sum()) and across[:middle].sum() == 0
    turned = streak(6, 4, 30.0)
    down, right = ((turned * axis).sum() - turned.shape[0] // 2 for axis in np.indices(turned.shape))
    assert down / right == pytest.approx(np.tan(np.pi / 6), rel=1e-6)

    line = np.linspace(0, 1, 9)[None]
    assert np.allclose(zoomed(np.repeat(line, 9, 0), 2.0)[0], 0.5 + (line[0] - 0.5) / 2)
    field = plasma(13, 20, 2.0, draw())
    assert field.shape == (13, 20) and field.min() >= 0 and field.max() <= 1 and field.std() > 0.05


@pytest.mark.parametrize(
    ("images", "family", "severity", "words", "error"),
    [
        (SQUARE, "rain", 1, "family", ArgumentError),
        (SQUARE, "fog", 6, "from 1 to 5", ArgumentError),
        (SQUARE, "fog", 0, "severity", ArgumentError),
        (SQUARE * 255, "fog", 1, "values from 0 to 1", ArgumentError),
        (torch.rand(3, 20), "fog", 1, "pictures", ArgumentError),
        (SQUARE.numpy(), "fog", 1, "images", ArgumentTypeError),
    ],
)
def test_bad_input_in_a_sentence(images, family: str, severity: int, words: str, error: type[Exception]) -> None:
    with pytest.raises(error, match=words):
        corrupt(images, family, severity)
