"""The estimate of the noise level: where the answer is known, on photographs, and where there is none."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from jiio import ArgumentError
from jiio.outputs.seeds import generator
from jiio.tasks.frame.files import read_image
from jiio.tasks.maps.base import random_mask
from jiio.tasks.restore.noise import COARSE, JPEG, WHITE, estimate_sigma, noise_level
from jiio.tasks.restore.noise_jpeg import MOST, left_of_noise, most_noise, noise_before


def noisy(clean: torch.Tensor, sigma: float, *, seed: int = 0) -> torch.Tensor:
    return clean + sigma * torch.randn(clean.shape, generator=generator(seed))


def stored(image: torch.Tensor) -> torch.Tensor:
    """As an 8-bit file keeps it."""
    return (255 * image).round().clamp(0, 255) / 255


def scene(channels: int = 1, size: int = 128) -> torch.Tensor:
    """A ramp, an edge, and a busy corner."""
    rows, columns = torch.linspace(0, 1, size)[:, None], torch.linspace(0, 1, size)
    image = 0.3 + 0.2 * rows + 0.2 * (columns > 0.4) + 0.2 * ((rows > 0.6) & (columns > 0.6)) * torch.sin(150 * columns)
    return image.expand(1, channels, -1, -1)


@pytest.mark.parametrize("sigma", [0.01, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("clean", [torch.full((1, 1, 128, 128), 0.5), scene()], ids=["flat", "scene"])
def test_white_noise_on_simple_pictures(sigma, clean):
    assert estimate_sigma(noisy(clean, sigma)) == pytest.approx(sigma, rel=0.05)


def test_the_estimate_scales_with_the_picture_and_ignores_its_brightness():
    image = noisy(scene(), 0.05)
    assert estimate_sigma(0.5 * image + 0.1) == pytest.approx(0.5 * estimate_sigma(image), rel=1e-3)


def test_pictures_without_noise():
    assert estimate_sigma(torch.full((1, 1, 40, 40), 0.3)) == 0.0
    assert estimate_sigma(torch.linspace(0, 1, 64).expand(1, 3, 64, 64)) < 1e-4
    assert estimate_sigma(stored(scene())) < 0.6 / 255  # rounding to 8 bits is noise of 0.29 levels


@pytest.mark.parametrize(
    "image", [torch.full((1, 1, 64, 64), torch.nan), scene().new_zeros(0, 1, 64, 64), scene().repeat(2, 1, 1, 1)]
)
def test_the_level_is_that_of_one_picture_of_finite_numbers(image):
    with pytest.raises(ArgumentError, match="image: expected one picture"):
        noise_level(image)


def test_colour_is_the_root_mean_square_of_the_channels():
    image = scene(3) + torch.tensor([0.02, 0.05, 0.08]).view(1, 3, 1, 1) * torch.randn(
        1, 3, 128, 128, generator=generator(0)
    )
    assert estimate_sigma(image) == pytest.approx(((0.02**2 + 0.05**2 + 0.08**2) / 3) ** 0.5, rel=0.05)


def test_saturated_parts_say_nothing_about_the_noise():
    """Half the picture burnt out: there the noise is clipped away, and the estimate must not come from there."""
    clean = scene().clone()
    clean[..., :64] = 1.5
    assert estimate_sigma(stored(noisy(clean, 0.05))) == pytest.approx(0.05, rel=0.1)


def test_missing_pixels_are_no_texture():
    mask = torch.ones(1, 1, 128, 128)
    mask[..., 30:60, 20:90] = 0.0
    image = noisy(torch.full((1, 3, 128, 128), 0.5), 0.05)
    assert estimate_sigma(mask * image, mask) == pytest.approx(0.05, rel=0.05)


def test_large_pictures_are_sampled():
    image = noisy(scene(size=1100), 0.04)
    assert estimate_sigma(image) == pytest.approx(0.04, rel=0.03)


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        (torch.rand(1, 1, 8, 8), None),
        (torch.rand(1, 1, 3, 500), None),
        (torch.rand(1, 1, 64, 64), random_mask(1, 64, 64, missing=0.5, generator=generator(0))),
        (torch.rand(64, 64), None),
    ],
)
def test_where_there_is_nothing_to_estimate_from(image, mask):
    with pytest.raises(ArgumentError, match="expected"):
        estimate_sigma(image, mask)


def test_photographs(data_root):
    """Mean error over the first four of Set12, in grey levels; scikit-image's wavelet estimate is off by 1.2 at 5."""
    paths = sorted((data_root / "denoising" / "Set12").glob("*.png"))[:4]
    if not paths:
        pytest.skip("needs denoising/Set12")
    for sigma, limit in ((5, 0.5), (25, 0.6), (50, 1.5)):
        errors = []
        for path in paths:
            clean = torch.from_numpy(read_image("image", path, channels=1)).permute(2, 0, 1)[None]
            errors.append(abs(255 * estimate_sigma(noisy(clean, sigma / 255)) - sigma))
        assert sum(errors) / len(errors) < limit


def test_a_file_of_eight_bits(tmp_path):
    Image.fromarray((255 * stored(noisy(scene(), 0.06)))[0, 0].round().to(torch.uint8).numpy()).save(tmp_path / "a.png")
    read = torch.from_numpy(read_image("image", tmp_path / "a.png", channels=1)).permute(2, 0, 1)[None]
    assert estimate_sigma(read) == pytest.approx(0.06, rel=0.05)


def in_jpeg(image: torch.Tensor, quality: int) -> tuple[torch.Tensor, list[int]]:
    """The picture after JPEG, and the steps of its luma."""
    buffer = io.BytesIO()
    values = (255 * stored(image))[0].round().to(torch.uint8).permute(1, 2, 0).numpy()
    Image.fromarray(values[:, :, 0] if values.shape[2] == 1 else values).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as file:
        pixels = np.asarray(file, np.float32) / 255
        steps = list(file.quantization[0])  # type: ignore[attr-defined]
    return torch.from_numpy(pixels.reshape(*values.shape)).permute(2, 0, 1)[None], steps


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize(("width", "value"), ((16, 200), (16, 250), (40, 254), (64, 255), (64, 16)))
def test_a_frame_that_never_had_noise_does_not_count(channels, width, value):
    image = stored(noisy(scene(channels), 25 / 255))
    framed = torch.nn.functional.pad(image, (width,) * 4, value=value / 255)
    assert estimate_sigma(framed) == pytest.approx(25 / 255, rel=0.06)


def test_nor_does_a_sticker_with_a_ramp_or_what_is_transparent():
    image = stored(noisy(scene(size=192), 20 / 255))
    image[..., 8:120, 8:160] = stored(torch.linspace(0.4, 0.9, 152).expand(112, 152))
    assert estimate_sigma(image) == pytest.approx(20 / 255, rel=0.08)


def test_a_clean_drawing_on_plain_ground_stays_clean():
    image = torch.full((1, 1, 192, 192), 0.98)
    rows = torch.arange(96.0)
    image[..., 48:144, 48:144] = 0.5 + 0.25 * torch.sin(0.4 * rows[:, None]) * torch.cos(0.3 * rows + 0.02 * rows**2)
    assert estimate_sigma(stored(image)) < 1.5 / 255


@pytest.mark.parametrize("quality", (90, 75, 50))
@pytest.mark.parametrize("channels", (1, 3))
def test_noise_that_went_through_jpeg(quality, channels):
    clean = scene(channels, 256) + 0.05 * torch.linspace(0, 1, 256)
    image, steps = in_jpeg(noisy(clean, 12 / 255), quality)
    level = noise_level(image, steps=steps)
    assert level.sigma == pytest.approx(12 / 255, rel=0.25)
    assert quality > 75 or level.believed == JPEG
    assert noise_level(in_jpeg(scene(channels, 256), quality)[0], steps=steps).sigma < 2.5 / 255


def test_grain_is_told_from_white_noise():
    coarse = torch.nn.functional.avg_pool2d(torch.randn(1, 1, 258, 258, generator=generator(0)), 3, 1)
    level = noise_level(scene(size=256) + 12 / 255 * coarse / coarse.std())
    assert level.believed == COARSE and level.sigma == pytest.approx(12 / 255, rel=0.2) and level.white < 6 / 255
    assert noise_level(noisy(scene(size=256), 12 / 255)).believed == WHITE


def test_texture_that_is_nowhere_flat_is_not_taken_for_grain():
    skimage = pytest.importorskip("skimage.data")
    grass = torch.from_numpy(skimage.grass()[:256, :256] / 255.0)[None, None]
    assert noise_level(grass).believed == WHITE and estimate_sigma(grass) < 8 / 255


@pytest.mark.parametrize("quality", (95, 75, 50))
@pytest.mark.parametrize("sigma", (5.0, 12.0, 30.0))
def test_what_jpeg_leaves_of_noise(quality, sigma):
    """Against noise that really went through it."""
    values = 128 / 255 + sigma / 255 * torch.randn(1, 1, 512, 512, generator=generator(1))
    image, steps = in_jpeg(values, quality)
    left = left_of_noise(sigma, steps)
    assert left == pytest.approx(255 * float(image.std()), rel=0.05)
    assert noise_before(left, steps) == pytest.approx(sigma, rel=1e-3)


@pytest.mark.parametrize("quality", (90, 60))
def test_high_frequencies_bound_the_noise_before_jpeg(quality):
    """Noise alone reads as itself; a texture smoother than noise as much less than its size; a drawing says nothing."""
    everywhere = torch.ones(256, 256, dtype=torch.bool)
    image, steps = in_jpeg(0.5 + 12 / 255 * torch.randn(1, 1, 256, 256, generator=generator(2)), quality)
    assert most_noise(255 * image[0, 0], everywhere, steps) == pytest.approx(12.0, rel=0.1)

    smooth = torch.nn.functional.avg_pool2d(torch.randn(1, 1, 260, 260, generator=generator(3)), 5, 1)
    image, steps = in_jpeg(0.5 + 12 / 255 * smooth / smooth.std(), quality)
    assert most_noise(255 * image[0, 0], everywhere, steps) < 7.5
    assert noise_level(image, steps=steps).sigma < 7.5 / 255

    assert most_noise(torch.full((64, 64), 128.0), everywhere[:64, :64], steps) == MOST
