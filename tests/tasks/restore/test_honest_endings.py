"""Guesses that do not explain the picture, pictures that stay as they are, thin holes, scratches, low light."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jiio.tasks.cli import main
from jiio.tasks.images.pictures import Picture, read_picture
from jiio.tasks.maps.convolution import blur
from jiio.tasks.maps.kernels import gaussian_kernel, motion_kernel
from jiio.tasks.restore import load as loading
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.restore.photos.damage import Masked, parse_blur
from jiio.tasks.restore.photos.one import restore_photo
from jiio.tasks.restore.photos.scratches import find_scratches
from jiio.tasks.restore.photos.thin import fill_thin, thin_holes
from jiio.tasks.restore.stabilise import NoiseCurve, Stabiliser
from restore_cases import grey, photo, toy
from toy_restorer import SmoothRestorer

DRAW = np.random.default_rng(0)


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "load_restorer", toy)
    monkeypatch.chdir(tmp_path)


def scene(side: int = 96) -> np.ndarray:
    """Edges and shades, (H, W)."""
    rows, columns = np.mgrid[:side, :side] / side
    return (0.3 + 0.3 * rows + 0.3 * ((columns - 0.5) ** 2 + (rows - 0.5) ** 2 < 0.1)).astype(np.float32)


def test_a_level_far_from_what_the_picture_says_is_a_warning(here, capsys):
    photo(height=64, width=64)  # noise of 20
    for given, code in (("20", 0), ("15", 0), ("3", 3), ("80", 3)):
        assert main(["restore", "a.png", "--sigma", given, "--overwrite"]) == code
        assert ("warning: a.png: the noise in it reads" in capsys.readouterr().err) == (code == 3)
        assert Path("a-restored.png").exists()


def test_a_picture_that_stays_as_it_is_says_so(here, capsys, monkeypatch):
    monkeypatch.setattr(loading, "load_restorer", load_restorer)
    grey("a.png", 255 * scene())
    assert main(["restore", "a.png"]) == 0
    assert "nearly unchanged" in capsys.readouterr().out


@pytest.mark.parametrize(("guess", "doubtful"), (("gaussian:1.6", False), ("motion:9,0", True), ("gaussian:4", True)))
def test_a_wrong_blur_is_doubted_and_the_right_one_is_not(guess, doubtful):
    from skimage.data import camera

    operator = blur(gaussian_kernel(1.6), (112, 112), boundary="valid")
    y = operator.A(torch.from_numpy(camera()[90:202, 170:282] / 255.0)[None, None])[0, 0].numpy().astype(np.float32)
    y = np.rint((y + 2 / 255 * DRAW.standard_normal(y.shape)) * 255).astype(np.float32) / 255
    prior = load_restorer("--weights", "prior-grey")
    done = restore_photo(Picture(Path("a.png"), y[None]), prior, damage=parse_blur(guess), max_steps=30)
    assert bool(done.doubts) == doubtful
    assert not doubtful or "does not explain the picture" in done.doubts[0]


def scratched() -> tuple[np.ndarray, np.ndarray]:
    """A picture with bright lines, and where they are."""
    holes = np.zeros((192, 192), bool)
    holes[20:22, 5:90] = holes[120:123, 90:190] = True
    holes[np.arange(150), np.arange(150)] = holes[np.arange(150), np.arange(150) + 1] = True
    return np.where(holes, 0.97, scene(192) - 0.1).astype(np.float32), holes


def test_thin_holes_are_continued_smoothly_and_wide_ones_left_to_the_prior():
    picture, holes = scratched()
    wide = holes.copy()
    wide[150:175, 5:30] = True
    assert thin_holes(holes).sum() == holes.sum()
    assert not thin_holes(DRAW.random((192, 192)) < 0.5).any()  # missing pixels all over are no scratches

    filled, known = fill_thin(picture[None], ~wide)
    assert not known[150:175, 5:30].any() and np.abs(filled[0] - scene(192) + 0.1)[holes & known].mean() < 0.02
    done = restore_photo(Picture(Path("a.png"), picture[None]), SmoothRestorer(1), damage=Masked(Path("m.png"), ~holes))
    assert done.tiled.evaluations == 0 and done.tiled.converged == 1
    assert np.array_equal(done.picture.pixels[0][~holes], picture[~holes])
    assert np.abs(done.picture.pixels[0] - scene(192) + 0.1).mean() < 0.01


def test_scratches_are_found_written_and_mended(here, capsys):
    picture, holes = scratched()
    found = find_scratches(picture[None])
    assert (found & holes).sum() > 0.6 * holes.sum() and found.sum() < 2 * holes.sum()
    assert not find_scratches(scene(192)[None]).any() and find_scratches(1 - picture[None]).any()  # dark ones as well

    grey("a.png", 255 * picture)
    assert main(["restore", "a.png", "--find-scratches", "mask.png"]) == 0
    assert "--mask takes it" in capsys.readouterr().out
    assert np.abs(read_picture("x", Path("a-restored.png")).pixels[0] - scene(192) + 0.1).mean() < 0.01
    assert np.array_equal(np.asarray(Image.open("mask.png")) == 0, found)
    grey("clean.png", 255 * scene(192))
    assert main(["restore", "clean.png", "--find-scratches", "none.png"]) == 2 and not Path("none.png").exists()


def poisson(peak: float, clean: np.ndarray) -> np.ndarray:
    return (DRAW.poisson(peak * clean) / peak).clip(0, 1).astype(np.float32)


def test_the_noise_of_each_brightness_is_read_off():
    """Against the closed form of photons, sqrt(v / peak)."""
    ramp = np.tile(np.linspace(0.04, 0.85, 400, dtype=np.float32), (300, 1))
    curve = NoiseCurve.of(torch.from_numpy(poisson(200, ramp)))
    assert curve is not None and curve.varies
    inside = (curve.value > 0.15) & (curve.value < 0.75)
    assert curve.sigma[inside] == pytest.approx(np.sqrt(curve.value[inside] / 200), rel=0.15)
    white = NoiseCurve.of(torch.from_numpy(ramp + 0.03 * DRAW.standard_normal(ramp.shape).astype(np.float32)))
    assert white is not None and not white.varies and white.sigma == pytest.approx(0.03, rel=0.15)


@pytest.mark.parametrize("level", (0.1, 0.3, 0.7))
def test_the_way_back_is_that_of_the_mean(level):
    """Flat patches: the mean of the stabilised values comes back as the mean, not below it as by a plain inverse."""
    ramp = np.tile(np.linspace(0.05, 0.9, 400, dtype=np.float32), (300, 1))
    stable = Stabiliser.of(poisson(30, ramp)[None])
    assert stable is not None
    flat = stable.forth(poisson(30, np.full((1, 200, 200), level)))
    back = float(stable.back(np.full((1, 1, 1), flat.mean(), np.float32))[0, 0, 0])
    assert back == pytest.approx(level, abs=0.006)
    assert 0.8 < float(flat.std()) / stable.sigma < 1.2


def test_low_light_on_the_command_line(here, capsys):
    rows = np.linspace(0.1, 0.9, 160)[:, None] * np.ones(160)
    grey("a.png", 255 * poisson(30, rows))
    assert main(["restore", "a.png", "--noise", "poisson"]) == 0
    assert "by brightness" in capsys.readouterr().out
    assert np.abs(read_picture("x", Path("a-restored.png")).pixels[0] - rows).mean() < 0.05
    for words in (
        ["--noise", "poisson", "--sigma", "3"],
        ["--noise", "poisson", "--upscale", "2"],
        ["--noise", "pink"],
    ):
        assert main(["restore", "a.png", "--overwrite", *words]) == 2


def test_a_wrong_motion_in_a_folder_ends_with_code_3(here, capsys, monkeypatch):
    operator = blur(motion_kernel(9, 30), (96, 96), boundary="valid")
    y = operator.A(torch.from_numpy(scene())[None, None])[0, 0].numpy()
    Path("in").mkdir()
    grey("in/a.png", np.rint(255 * y))
    monkeypatch.setattr(loading, "load_restorer", load_restorer)
    assert main(["restore", "in", "--blur", "motion:15,120", "--max-steps", "20"]) == 3
    assert "warning: in/a.png" in capsys.readouterr().err and Path("in-restored/a.png").exists()
