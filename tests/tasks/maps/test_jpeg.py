"""What a JPEG file keeps, as a linear map: adjoint, windows, the encoder's own numbers, errors read off the file."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import camera
from torch import Tensor

import jiio
from jiio.tasks.images.jpeg import Rounding
from jiio.tasks.maps.jpeg import Jpeg
from jiio.tasks.restore.rounded import COARSE, former_quality, jpeg_map, left_of_rounding, plain_map, steps_of

SHAPES = ((1, (1, 1)), (3, (1, 1)), (3, (2, 2)), (3, (1, 2)))
WINDOWS = ((8, 16, 40, 56), (24, 40, 51, 51), (3, 5, 40, 33))


def uneven(channels: int, coarse: tuple[int, int]) -> Jpeg:
    errors = 0.1 + torch.rand(channels, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    return Jpeg.of(errors, (75, 91), coarse)


def through_jpeg(clean: np.ndarray, quality: int) -> tuple[Tensor, Rounding]:
    """Decoded, (1, C, H, W) in [0, 1], and what the file says."""
    buffer = io.BytesIO()
    Image.fromarray(clean).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        found = Rounding.of(image)
        pixels = torch.from_numpy(np.asarray(image) / np.float32(255))
    assert found is not None
    return (pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1))[None], found


def scene(channels: int, height: int = 104, width: int = 120) -> np.ndarray:
    """Shades, edges and a little texture, away from black and white."""
    draw = np.random.default_rng(0)
    rows, columns = np.mgrid[:height, :width] / height
    grey = 0.35 + 0.2 * rows + 0.2 * ((columns - 0.6) ** 2 + (rows - 0.5) ** 2 < 0.1) + 0.02 * draw.random(rows.shape)
    planes = np.stack([grey, 0.9 * grey, 1.1 * grey], 2) if channels == 3 else grey
    return np.rint(255 * planes).astype(np.uint8)


@pytest.mark.parametrize(("channels", "coarse"), SHAPES)
def test_the_adjoint_is_exact_whole_and_in_windows(channels, coarse):
    whole = uneven(channels, coarse)
    source = torch.Generator().manual_seed(1)
    for operator in (whole, *(whole.window(*window) for window in WINDOWS)):
        x = torch.randn(2, channels, *operator.size, generator=source).double()
        y = torch.randn(2, channels, *operator.measured, generator=source).double()
        assert float((operator.A(x) * y).sum()) == pytest.approx(float((x * operator.A_adjoint(y)).sum()), rel=1e-9)


@pytest.mark.parametrize(("channels", "coarse"), SHAPES)
def test_a_window_measures_what_the_whole_does(channels, coarse):
    whole, x = uneven(channels, coarse), torch.rand(1, channels, 75, 91).double()
    y = whole.A(x)
    for top, left, height, width in WINDOWS:
        part = whole.window(top, left, height, width)
        mine = part.A(x[..., top : top + height, left : left + width])
        assert torch.equal(
            mine != 0, part.window_of(whole.window_of(y, top, left, height, width), 0, 0, *part.size) != 0
        )
        assert torch.allclose(mine, whole.window_of(y, top, left, height, width))


@pytest.mark.parametrize("channels", (1, 3))
def test_the_start_is_the_decoded_picture(channels):
    smooth = torch.nn.functional.interpolate(torch.rand(1, channels, 5, 5).double(), size=(75, 91), mode="bicubic")
    operator = uneven(channels, (2, 2))
    assert float((operator.start(operator.A(smooth)) - smooth).abs().max()) < (0.05 if channels == 3 else 1e-9)


@pytest.mark.parametrize("channels", (1, 3))
@pytest.mark.parametrize("quality", (10, 50, 75))
def test_the_frequencies_of_a_decoded_file_are_multiples_of_its_steps(channels, quality):
    """Chroma too, which the decoder has interpolated."""
    picture, rounding = through_jpeg(scene(channels), quality)
    assert rounding.luma == Rounding.at(quality).luma and rounding.quality == quality
    assert channels == 1 or rounding == Rounding.at(quality)
    found = 255 * plain_map(picture, rounding).decoded(picture)
    for plane, steps in enumerate(steps_of(rounding, channels)):
        skip = [8 * step if plane else 8 for step in rounding.coarse]
        multiples = found[0, plane].unfold(0, 8, skip[0]).unfold(1, 8, skip[1]).double() / steps
        multiples[..., 0, 0] -= 0.0 if plane else 1024 / steps[0, 0]
        assert float((multiples - multiples.round()).abs().mean()) < 0.05


def test_errors_of_rounding_have_closed_forms():
    steps = torch.full((1, 1), 12.0, dtype=torch.float64)
    assert float(left_of_rounding(torch.ones(1, 1), steps)) == pytest.approx(12.0)  # even over a cell
    few = [float(left_of_rounding(torch.full((1, 1), share).double(), steps)) for share in (0.5, 0.1, 0.001)]
    assert few == sorted(few, reverse=True) and few[-1] < 0.3


@pytest.mark.parametrize("quality", (20, 60))
def test_the_error_that_is_read_off_is_near_the_true_one(quality):
    clean = camera()[64:256, 96:288]
    picture, rounding = through_jpeg(clean, quality)
    true = float((picture - torch.from_numpy(clean / np.float32(255))).square().mean().sqrt())
    assert 0.6 < (jpeg_map(picture, rounding, 0.0).level or 0.0) / COARSE / true < 1.7


def test_a_former_jpeg_is_recognised_and_a_clean_picture_is_not():
    clean = camera()[64:256, 96:288]
    for quality in (15, 40, 80):
        assert abs((former_quality(through_jpeg(clean, quality)[0]) or 0) - quality) <= 2
    assert former_quality(torch.from_numpy(clean / np.float32(255))[None, None]) is None


def test_tables_of_a_turned_picture():
    rounding = Rounding(tuple(range(1, 65)), tuple(range(1, 65)), (1, 2))
    assert rounding.turned(1, (13, 13)) is rounding and rounding.turned(3, (13, 16)) is None
    turned = rounding.turned(6, (16, 32))
    assert turned is not None and turned.luma[1] == 9 and turned.coarse == (2, 1)


def test_bad_tables_are_refused():
    for errors, coarse in ((torch.ones(8, 8), (1, 1)), (torch.zeros(1, 8, 8), (1, 1)), (torch.ones(3, 8, 8), (3, 1))):
        with pytest.raises(jiio.ArgumentError):
            Jpeg.of(errors, (16, 16), coarse)
