"""Restoring by tiles gives what restoring at once gives, and the account adds up."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import jiio
from jiio.checks import ArgumentError
from jiio.outputs.seeds import generator
from jiio.tasks.maps.base import Denoise, Inpaint, LinearMap
from jiio.tasks.maps.compressed import compressed
from jiio.tasks.maps.convolution import blur, downsample
from jiio.tasks.maps.corruption import random_mask
from jiio.tasks.maps.kernels import gaussian_kernel, motion_kernel
from jiio.tasks.restore.base import AbstractRestorer, Restoration
from jiio.tasks.restore.tiles import STEP, restore_tiled, strips
from toy_restorer import SmoothRestorer

HEIGHT, WIDTH = 74, 98
SETTINGS: dict[str, Any] = {"tolerance": jiio.Tolerance(1e-5, 1e-4), "max_steps": 200}


def scene(height: int = HEIGHT, width: int = WIDTH, channels: int = 1) -> Tensor:
    """Smooth shapes with edges, (1, C, H, W)."""
    rows, columns = torch.arange(height)[:, None] / height, torch.arange(width) / width
    waves = 0.5 + 0.2 * torch.sin(20 * rows) * torch.cos(15 * columns) + 0.2 * ((rows - 0.4) ** 2 < 0.05)
    return torch.stack([waves + 0.05 * i * columns for i in range(channels)])[None]


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 3000), st.integers(4, 64), st.integers(1, 32))
def test_the_weights_of_every_pixel_sum_to_one(size, tile, overlap):
    tile, overlap = STEP * tile, STEP * min(overlap, tile // 2)
    found = strips(size, tile, overlap)
    total = torch.zeros(size, dtype=torch.float64)
    for i, strip in enumerate(found):
        assert strip.start % STEP == 0 and 0 <= strip.first < strip.last <= strip.length <= tile + STEP - 1
        assert strip.start + strip.length <= size and bool(((strip.weight >= 0) & (strip.weight <= 1)).all())
        # a margin is thrown away, except at the border of the picture
        assert strip.first >= overlap // 4 if i else strip.start + strip.first == 0
        rest = strip.length - strip.last
        assert rest >= overlap // 4 if i < len(found) - 1 else rest == 0
        total[strip.start + strip.first : strip.start + strip.last] += strip.weight
    assert float((total - 1).abs().max()) < 1e-6
    assert len({strip.length for strip in found[:-1]}) <= 1  # one shape for the solver
    assert len(found) <= max(1, math.ceil((size - overlap) / (tile - overlap)))  # no more than needed


MAPS: dict[str, LinearMap] = {
    "noise": Denoise(0.1),
    "half missing": Inpaint(random_mask(1, HEIGHT, WIDTH, missing=0.5, generator=generator(1)), 0.05),
    "Gaussian blur": blur(gaussian_kernel(1.0), (HEIGHT, WIDTH), boundary="valid", sigma=0.02),
    "motion blur": blur(motion_kernel(5, 30), (HEIGHT, WIDTH), boundary="valid", sigma=0.02),
    "a third of the pixels": downsample(3, (HEIGHT, WIDTH), sigma=0.02),
}


@pytest.mark.parametrize("operator", MAPS.values(), ids=MAPS)
def test_tiled_and_at_once_differ_by_no_grey_level(operator):
    y = operator.measure(scene(), generator(0, "noise"))
    restorer = SmoothRestorer(1, weight=1.0)
    whole = restore_tiled(restorer, y, operator, tile=512, overlap=64, **SETTINGS)
    tiled = restore_tiled(restorer, y, operator, tile=64, overlap=32, **SETTINGS)
    assert len(whole.tiles) == 1 < len(tiled.tiles)
    assert whole.image.shape == tiled.image.shape == (1, 1, HEIGHT, WIDTH)
    assert float((whole.image - tiled.image).abs().max()) < 1 / 255
    assert float((whole.image - y).abs().max()) > 0.05 if y.shape == whole.image.shape else True  # it did something


def test_without_a_margin_the_seams_would_show():
    operator = MAPS["Gaussian blur"]
    y = operator.measure(scene(), generator(0, "noise"))
    whole = restore_tiled(SmoothRestorer(1, weight=1.0), y, operator, tile=512, overlap=64, **SETTINGS)
    tiled = restore_tiled(SmoothRestorer(1, weight=1.0), y, operator, tile=64, overlap=8, **SETTINGS)
    assert float((whole.image - tiled.image).abs().max()) > 1 / 255  # what the test above would then find


def test_where_the_tiles_lie_does_not_matter():
    operator, y = Denoise(0.1), Denoise(0.1).measure(scene(), generator(0))
    images = [
        restore_tiled(SmoothRestorer(1), y, operator, tile=tile, overlap=overlap, **SETTINGS).image
        for tile, overlap in ((64, 32), (72, 24))
    ]
    assert max(float((image - images[0]).abs().max()) for image in images) < 1 / 255


def test_the_account_adds_up():
    operator, y = Denoise(0.1), Denoise(0.1).measure(scene(channels=3), generator(0))
    seen: list[tuple[Any, int]] = []
    done = restore_tiled(
        SmoothRestorer(3), y, operator, tile=64, overlap=32, progress=lambda *a: seen.append(a), max_steps=9
    )
    assert [tile for tile, _ in seen] == list(done.tiles) and {total for _, total in seen} == {len(done.tiles)}
    assert done.image.shape == y.shape
    single = []
    with torch.no_grad():
        for window in (tile.window for tile in done.tiles):
            part, measured = operator.window(*window), operator.window_of(y, *window)
            single.append(SmoothRestorer(3).restore(measured, part, max_steps=9, on_failure="ignore"))
    assert done.evaluations == sum(one.evaluations for one in single)
    assert done.vjps == sum(one.vjps for one in single)
    assert [tile.steps for tile in done.tiles] == [int(one.solution.steps.max()) for one in single]
    residuals = [float(one.residual.max()) for one in single]
    assert [tile.residual for tile in done.tiles] == pytest.approx(residuals, rel=1e-3)


def test_tiles_that_do_not_converge_are_counted_and_nobody_is_warned():
    operator, y = Denoise(0.1), Denoise(0.1).measure(scene(), generator(0))
    done = restore_tiled(SmoothRestorer(1), y, operator, tile=64, overlap=32, max_steps=3)
    assert done.converged == 0 and all(tile.residual > 0 for tile in done.tiles)


class Breaking(AbstractRestorer):
    """Returns NaN where the window has a bright pixel."""

    channels = 1

    def restore(self, y: Tensor, operator: LinearMap, **settings: Any) -> Restoration:
        done = SmoothRestorer(1).restore(y, operator, **settings)
        done.image[y > 2] = math.nan
        return done


def test_a_window_whose_solve_breaks_down_stays_as_it_was():
    y = scene()
    y[0, 0, 12, 14] = 5.0
    done = restore_tiled(Breaking(), y, Denoise(0.1), tile=64, overlap=16)
    broken = [tile for tile in done.tiles if not tile.converged]
    assert len(broken) == 1 and broken[0].residual == math.inf and broken[0].window[:2] == (0, 0)
    assert bool(torch.isfinite(done.image).all()) and float(done.image[0, 0, 12, 14]) == 5.0
    assert torch.equal(done.image[0, 0, :24, :20], y[0, 0, :24, :20])


def test_a_map_that_is_not_local_is_restored_at_once_or_refused():
    operator = compressed((48, 48), 0.5, sigma=0.05, generator=generator(0))
    y = operator.measure(scene(48, 48), generator(1))
    assert len(restore_tiled(SmoothRestorer(1), y, operator).tiles) == 1
    with pytest.raises(ArgumentError, match="acts locally"):
        restore_tiled(SmoothRestorer(1), y, operator, tile=32, overlap=16)


@pytest.mark.parametrize(
    ("options", "words"),
    (
        ({"tile": 100}, "tile: expected a multiple of 8"),
        ({"tile": 24}, "at least 32"),
        ({"tile": 64.0}, "whole number"),
        ({"overlap": 60}, "overlap: expected a multiple of 8"),
        ({"overlap": 0}, "at least 8"),
        ({"tile": 96, "overlap": 56}, "at most half of the tile"),
    ),
)
def test_tiles_that_cannot_be(options, words):
    with pytest.raises(jiio.checks.JiioError, match=words):
        restore_tiled(SmoothRestorer(1), scene(), Denoise(0.1), **options)


MEMORY = """
import resource, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, "tests")
import jiio
from jiio.tasks.restore.photos.one import restore_photo
from jiio.tasks.images.pictures import Picture
from toy_restorer import SmoothRestorer
import jiio.tasks.images.encode
import numpy as np, pathlib

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

small = Picture(pathlib.Path("a.png"), np.random.default_rng(0).random((3, 64, 64), dtype=np.float32))
restore_photo(small, SmoothRestorer(3), sigma=0.1, max_steps=3)
before = peak()
pixels = np.random.default_rng(0).random((3, 3000, 4000), dtype=np.float32)
picture = Picture(pathlib.Path("a.png"), pixels, bits=16)
done = restore_photo(picture, SmoothRestorer(3), max_steps=4)
jiio.tasks.images.encode.write_picture("--output", pathlib.Path(sys.argv[1]), done.picture)
print(peak() - before, len(done.tiled.tiles))
"""


@pytest.mark.slow
def test_twelve_megapixels_fit_into_two_gibibytes(tmp_path):
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "b.png")]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    grown, tiles = map(int, done.stdout.split())
    assert tiles > 100 and grown < 2 << 30, f"{grown / 2**30:.2f} GiB"
