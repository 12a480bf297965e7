"""JPEG artefacts, and several damages at once: what the options mean together, what is believed, what is refused."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import camera

from jiio.tasks.cli import main
from jiio.tasks.images.jpeg import Rounding
from jiio.tasks.images.pictures import Picture, read_picture
from jiio.tasks.maps.base import Denoise
from jiio.tasks.maps.several import Composed
from jiio.tasks.restore import load as loading
from jiio.tasks.restore.load import load_restorer
from jiio.tasks.restore.photos.damage import Coarse, Masked, Noise, parse_blur
from jiio.tasks.restore.photos.one import Job, restore_photo
from jiio.tasks.restore.photos.options import RestoreOptions
from jiio.tasks.restore.photos.request import Request
from jiio.tasks.restore.photos.rounded import Rounded, by_the_file, parse_jpeg
from jiio.tasks.restore.photos.several import Several
from jiio.tasks.restore.rounded import jpeg_map
from jiio.tasks.restore.symmetries import turn, turn_back, turned
from restore_cases import grey, toy
from toy_restorer import SmoothRestorer

CLEAN = camera()[96:192, 176:272]


@pytest.fixture
def here(monkeypatch, tmp_path):
    monkeypatch.setattr(loading, "load_restorer", toy)
    monkeypatch.chdir(tmp_path)


def jpeg(name: str, clean: np.ndarray, quality: int, **how) -> None:
    Image.fromarray(clean).save(name, "JPEG", quality=quality, **how)


def psnr(pixels: np.ndarray) -> float:
    return float(-10 * np.log10(np.square(pixels.clip(0, 1) - CLEAN / 255).mean()))


@pytest.mark.parametrize("quality", (20, 50))
def test_a_jpeg_file_is_taken_for_what_it_is_and_comes_nearer_to_the_truth(here, capsys, monkeypatch, quality):
    monkeypatch.setattr(loading, "load_restorer", load_restorer)
    jpeg("a.jpg", CLEAN, quality)
    assert main(["restore", "a.jpg", "--output", "b.png"]) == 0
    assert f"JPEG of quality {quality} (as in the file)" in capsys.readouterr().out
    before, after = (psnr(read_picture("x", Path(name)).pixels[0]) for name in ("a.jpg", "b.png"))
    assert after > before + 0.3


def test_noise_before_jpeg_is_explained_in_the_same_units():
    """Frequencies and map in units of the same errors: the decoded picture is explained to the last bit."""
    noise = np.random.default_rng(0).normal(0, 2, (*CLEAN.shape, 3))
    buffer = io.BytesIO()
    Image.fromarray((CLEAN[:, :, None] + noise).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=50)
    with Image.open(buffer) as image:
        rounding = Rounding.of(image)
        picture = Picture(Path("a.jpg"), (np.asarray(image) / np.float32(255)).transpose(2, 0, 1), rounding=rounding)
    job = Job.of(picture, Rounded(), 2 / 255, 3)
    left = job.operator.A(torch.from_numpy(picture.pixels)[None]) - job.y
    assert float(left.square().mean().sqrt()) < 0.3 * job.operator.sigma


@pytest.mark.parametrize("sigma", (0.0, 12.0))
def test_blocks_are_believed_where_they_say_more_and_white_noise_where_that_does(sigma):
    """In a JPEG file of a clean picture the frequencies are what was lost; in that of a noisy one the solve through
    them would be decibels behind a plain step at the right level.
    """
    noise = np.random.default_rng(0).normal(0, sigma, CLEAN.shape)
    buffer = io.BytesIO()
    Image.fromarray((CLEAN + noise).clip(0, 255).round().astype(np.uint8)).save(buffer, "JPEG", quality=80)
    with Image.open(buffer) as image:
        rounding = Rounding.of(image)
        picture = Picture(Path("a.jpg"), np.asarray(image)[None] / np.float32(255), rounding=rounding)
    assert rounding is not None

    restorer = load_restorer("--weights", "prior-grey")
    seen = torch.from_numpy(picture.pixels)[None]
    blocks = jpeg_map(seen, rounding, sigma / 255)
    assert blocks.level is not None
    by_blocks = psnr(restorer.restore(blocks.decoded(seen), blocks, on_failure="ignore").image[0, 0].numpy())
    by_pixels = psnr(restorer.restore(seen, Denoise(blocks.level), on_failure="ignore").image[0, 0].numpy())
    chosen = psnr(restore_photo(picture, restorer, damage=Rounded(), sigma=sigma / 255).picture.pixels[0])

    assert (by_pixels > by_blocks + 1.0) == (sigma > 0)
    assert chosen == pytest.approx(max(by_blocks, by_pixels), abs=0.05)


def test_what_is_believed_of_a_former_jpeg(here, capsys):
    jpeg("a.jpg", camera()[:256, :256], 40)
    Image.open("a.jpg").save("a.png")
    for words, told in ((["auto"], "quality 40 (estimated)"), (["30"], "quality 30 (given)")):
        assert main(["restore", "a.png", "--overwrite", "--jpeg", *words]) == 0
        assert told in capsys.readouterr().out
    grey("clean.png", camera()[:256, :256])
    assert main(["restore", "clean.png", "--jpeg", "auto"]) == 2
    assert "shows no blocks" in capsys.readouterr().err
    assert main(["restore", "a.jpg", "--jpeg", "off"]) == 0 and "JPEG" not in capsys.readouterr().out


def test_a_fine_jpeg_counts_as_it_is():
    found = {}
    for quality in (60, 96):
        buffer = io.BytesIO()
        Image.fromarray(CLEAN).save(buffer, "JPEG", quality=quality)
        with Image.open(buffer) as image:
            found[quality] = by_the_file(Picture(Path("x"), CLEAN[None] / 255, rounding=Rounding.of(image)))
    assert isinstance(found[60], Rounded) and found[96] is None
    assert parse_jpeg("off") is None and parse_jpeg("7") == Rounded(7)


def test_colours_and_the_grey_restorer_of_a_colour_file(here, capsys):
    colour = np.stack([CLEAN, CLEAN // 2, 255 - CLEAN], 2)
    jpeg("a.jpg", colour, 30)
    assert main(["restore", "a.jpg", "--output", "b.png"]) == 0
    assert np.asarray(Image.open("b.png")).shape == colour.shape


@pytest.mark.parametrize("first", (parse_blur("motion:5,30"), Coarse(2)))
@pytest.mark.parametrize("then", ("holes", "jpeg"))
def test_two_damages_at_once_explain_the_picture(first, then):
    """The restored scene, measured again, is the picture where it was measured."""
    keep = np.random.default_rng(0).random((96, 96)) > 0.2
    damage = Several(first, Masked(Path("m.png"), keep) if then == "holes" else Rounded(60))
    picture = Picture(Path("a.png"), (CLEAN[None] / 255).astype(np.float32))
    done = restore_photo(picture, SmoothRestorer(1, weight=0.01), damage=damage, sigma=0.01, tile=128)
    assert isinstance(done.job.operator, Composed) and first.words in damage.words
    assert done.picture.pixels.shape[1:] == (96 * first.factor, 96 * first.factor)
    again = done.job.operator.A(done.tiled.image) - done.job.y
    assert float(again.abs().mean()) < 0.03
    assert not done.unchanged


def test_a_restorer_of_noise_alone_takes_a_jpeg_file_as_it_is(tmp_path):
    jpeg(str(tmp_path / "a.jpg"), CLEAN, 30)
    picture = read_picture("x", tmp_path / "a.jpg")
    for weights, symmetries, kind in (("direct-grey", 1, Noise), ("direct-grey", 2, Noise), ("prior-grey", 2, Rounded)):
        request = Request.of(RestoreOptions(("a.jpg",), weights=weights, symmetries=symmetries))
        assert isinstance(request.damage_of(picture), kind)


def test_symmetries_do_not_change_what_is_known_of_a_jpeg_file(tmp_path):
    picture = Picture(Path("a.png"), (CLEAN[None, :32, :48] / 255).astype(np.float32))
    operator, y = Rounded(30).operator(picture, 0.0), Rounded(30).measurement(picture)
    _, turned_map = turned(y, operator, 3)
    assert turned_map.level == operator.level
    x, step = torch.rand(1, 1, 48, 32), torch.tensor(2.0)
    assert torch.allclose(turned_map.nearest(x, y, step), turn(operator.nearest(turn_back(x, 3), y, step), 3))


def test_fast_takes_fewer_evaluations(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    grey("a.png", CLEAN[:48, :48])
    calls = []
    for fast in (False, True):
        request = Request.of(RestoreOptions(("a.png",), blur="gaussian:1", fast=fast))
        calls.append(request.restore(read_picture("x", Path("a.png"))).tiled.evaluations)
    assert calls[1] < calls[0]


@pytest.mark.parametrize(
    "words",
    (
        ["--blur", "gaussian:1", "--upscale", "2"],
        ["--jpeg", "40", "--missing", "0"],
        ["--jpeg", "0"],
        ["--jpeg", "good"],
        ["--restorer", "direct", "--jpeg", "40"],
    ),
)
def test_what_cannot_be_is_one_sentence(here, capsys, words):
    grey("a.png", CLEAN)
    assert main(["restore", "a.png", *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "Traceback" not in said
