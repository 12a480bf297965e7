"""One picture: damage as its owner puts it, the noise that was estimated, the error to be expected, and the page."""

from __future__ import annotations

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import jiio
from jiio.outputs.seeds import generator
from jiio.tasks.frame.files import InputError
from jiio.tasks.images.encode import write_picture
from jiio.tasks.images.pictures import Picture
from jiio.tasks.maps.base import Denoise, LinearMap
from jiio.tasks.maps.kernels import gaussian_kernel
from jiio.tasks.restore.base import AbstractRestorer, Restoration
from jiio.tasks.restore.confidence import NEAR, expected_error
from jiio.tasks.restore.photos.damage import Blurred, Coarse, Marked, Masked, Noise, parse_blur, parse_colour
from jiio.tasks.restore.photos.one import LEVELS, enlarged, restore_photo
from jiio.tasks.restore.photos.page import Subject, photo_page
from jiio.tasks.restore.photos.views import SHOWN, local_contrast, places, richest
from jiio.tasks.restore.tiles import Window, restore_tiled
from toy_restorer import SmoothRestorer


def noisy(height: int = 48, width: int = 64, channels: int = 1, sigma: float = 20 / LEVELS) -> Picture:
    draw = np.random.default_rng(0)
    rows, columns = np.linspace(0, 3, height)[:, None], np.linspace(0, 4, width)
    clean = 0.5 + 0.2 * np.sin(rows + np.arange(channels)[:, None, None]) * np.cos(columns)
    return Picture(Path("a.png"), (clean + sigma * draw.standard_normal(clean.shape)).astype(np.float32))


class Shrink(AbstractRestorer):
    """x = c y, as an equilibrium."""

    channels = 1

    def __init__(self, c: float) -> None:
        super().__init__()
        self.c = c

    def restore(self, y: Tensor, operator: LinearMap, **settings: Any) -> Restoration:
        solution = jiio.equilibrium(lambda z, x: 0.5 * z + 0.5 * self.c * x, y, y, **settings)
        assert isinstance(solution.z, Tensor)
        return Restoration.of(solution.z, solution)


@pytest.mark.parametrize("c", (1.0, 0.8))
def test_the_expected_error_has_a_closed_form_where_the_restorer_is_linear(c):
    sigma, level = 0.1, 0.5
    image = torch.full((1, 1, 200, 200), level)
    settings = {"tolerance": jiio.Tolerance(1e-7, 1e-6), "draws": 6}
    values = expected_error(Shrink(c), image, Denoise(sigma), **settings)
    assert values.shape == (1, 1, 200, 200)
    expected = (c * c * sigma**2 + (1 - c) ** 2 * level**2) ** 0.5
    assert float(values.square().mean().sqrt()) == pytest.approx(expected, rel=0.01)
    assert float(values.std()) < 0.2 * expected  # averaged over draws and neighbours
    again = expected_error(Shrink(c), image, Denoise(sigma), **settings)
    assert torch.equal(values, again)
    assert not torch.equal(values, expected_error(Shrink(c), image, Denoise(sigma), seed=1, **settings))


def test_the_expected_error_is_that_of_the_noise_of_each_draw():
    """One draw, written out."""
    image, operator = torch.rand(1, 1, 40, 40, generator=generator(3)), Denoise(0.1)
    y = operator.measure(image, generator(0, "confidence", 0))
    square = (restore_tiled(SmoothRestorer(1), y, operator).image - image).square()[0, 0].double()
    values = expected_error(SmoothRestorer(1), image, operator, draws=1)[0, 0]
    half = NEAR // 2
    for row, column in ((10, 20), (30, 5)):
        near = square[row - half : row + half + 1, column - half : column + half + 1]
        assert float(values[row, column]) == pytest.approx(float(near.mean()) ** 0.5, rel=1e-3)


def test_the_expected_error_tells_where_the_restorer_errs():
    """The toy smooths edges away: there the error is, and there it is to be expected."""
    clean = torch.zeros(1, 1, 96, 96)
    clean[:, :, 24:72, 24:72] = 1.0
    operator = Denoise(0.05)
    y = operator.measure(clean, generator(5))
    restored = restore_tiled(SmoothRestorer(1, weight=4.0), y, operator).image
    expected = expected_error(SmoothRestorer(1, weight=4.0), restored, operator)
    error = torch.nn.functional.avg_pool2d((restored - clean).square(), NEAR, stride=1, padding=NEAR // 2).sqrt()
    assert float(torch.corrcoef(torch.stack([expected.flatten(), error.flatten()]))[0, 1]) > 0.7


def test_the_estimate_of_the_noise_and_its_floor():
    done = restore_photo(noisy(96, 96), SmoothRestorer(1))
    assert done.job.estimated and done.job.sigma * LEVELS == pytest.approx(20, rel=0.15)
    flat = Picture(Path("a.png"), np.full((1, 64, 64), 0.5, np.float32))
    for bits in (8, 16):
        done = restore_photo(dataclasses.replace(flat, bits=bits), SmoothRestorer(1))
        assert done.job.sigma == pytest.approx(1 / (2**bits - 1) / 12**0.5)  # what rounding to whole numbers leaves
    done = restore_photo(flat, SmoothRestorer(1), sigma=0.25)
    assert done.job.sigma == 0.25 and not done.job.estimated


@pytest.mark.parametrize(
    ("text", "shape"), (("gaussian:1.6", (15, 15)), ("motion:7,0", (9, 9)), ("gaussian:0.5", (5, 5)))
)
def test_the_kernel_that_is_meant(text, shape):
    blurred = parse_blur(text)
    assert tuple(blurred.kernel.shape) == shape and float(blurred.kernel.sum()) == pytest.approx(1)
    assert text in blurred.words and blurred.overlap % 8 == 0 and blurred.overlap >= 64 + shape[0]


def test_colours_that_are_meant():
    assert parse_colour("#ff8000") == Marked((255, 128, 0)) and parse_colour("7") == Marked((7, 7, 7))
    for text in ("ff8000", "#ff80", "#gg8000", "256", "-1", "", "#"):
        with pytest.raises(InputError, match="--missing"):
            parse_colour(text)


def test_a_blurred_picture_is_the_middle_of_a_larger_scene():
    picture, kernel = noisy(), torch.zeros(3, 6, dtype=torch.float64)
    kernel[1, 3] = 1.0  # one bright pixel at the centre: no blur at all
    damage = Blurred("none", kernel)
    operator = damage.operator(picture, 0.01)
    scene = torch.rand(1, 1, 50, 69, generator=generator(0))
    assert float((damage.finish(picture, scene) - operator.A(scene)).abs().max()) < 1e-6


def test_a_mask_is_white_where_pixels_are_kept(tmp_path):
    values = np.zeros((48, 64), np.uint8)
    values[:, 10:] = 200
    Image.fromarray(values).save(tmp_path / "mask.png")
    damage = Masked.read(tmp_path / "mask.png")
    picture = noisy()
    known = damage.known(picture)
    assert known is not None and torch.equal(known[0, 0] == 1, torch.from_numpy(values == 200))
    assert torch.equal(
        damage.measurement(picture), damage.operator(picture, 0.1).A(torch.from_numpy(picture.pixels)[None])
    )


def test_alpha_grows_with_the_picture():
    alpha = np.array([[0, 100], [200, 65535]], np.uint16).repeat(4, 0).repeat(4, 1)
    assert enlarged(alpha, 1) is alpha
    large = enlarged(alpha, 3)
    assert large.dtype == np.uint16 and large.shape == (24, 24) and large[0, 0] == 0 and large[-1, -1] == 65535


def test_a_colour_prior_for_a_grey_picture_is_refused():
    with pytest.raises(InputError, match="for grey pictures"):
        restore_photo(noisy(), SmoothRestorer(3), sigma=0.1)


def test_the_line_says_where_a_kind_of_file_has_fewer_bits():
    from jiio.tasks.images.encode import BY_SUFFIX

    done = restore_photo(dataclasses.replace(noisy(), bits=16), SmoothRestorer(1), sigma=0.1)
    assert "grey, 16 bit;" in done.line(BY_SUFFIX[".png"])
    assert "grey, 16 bit (written with 8: JPEG);" in done.line(BY_SUFFIX[".jpg"])


# ----------------------------------------------------------------------------------------------------------------------
# The page


class Reader(HTMLParser):
    """Collects what a page loads, and checks that every element is closed."""

    VOID = frozenset(("meta", "img", "input", "br"))

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data if self.open and self.open[-1] != "style" else ""


def read(text: str) -> tuple[Reader, list[Image.Image]]:
    page = Reader(text)
    pictures = []
    for source in page.sources:
        found = re.fullmatch(r"data:image/(png|jpeg);base64,([A-Za-z0-9+/=]+)", source)
        assert found, source[:80]  # nothing is loaded from anywhere
        image = Image.open(io.BytesIO(base64.b64decode(found[2])))
        image.load()
        assert image.format == found[1].upper()
        pictures.append(image)
    assert "http" not in text and "url(" not in text
    return page, pictures


def subject(picture: Picture, *, channels: int = 1, damage=Noise(), expected: bool = False, **options) -> Subject:  # noqa: B008
    restorer = SmoothRestorer(channels)
    done = restore_photo(picture, restorer, damage=damage, sigma=0.08, **options)
    settings = {key: value for key, value in options.items() if key == "max_steps"}
    values = done.expected_error(restorer, draws=1, **settings) if expected else None
    return Subject(picture, done, restorer, "toy", torch.device("cpu"), values, settings)


def test_the_page_shows_everything_and_loads_nothing():
    made = subject(noisy(130, 170, 3), channels=3, expected=True)
    page, pictures = read(photo_page(made, "jiio restore a.png --report r.html"))
    for words in (
        "a.png, restored",
        "170 x 130 pixels, colour, 8 bit. Damage: nothing but noise. Noise: 20.4 grey levels (of 255), as given.",
        "Nowhere: it met its tolerance.",
        "How sure the result is",
        "the start",
        "2 steps",
        f"{made.done.tiled.evaluations}",
        "jiio restore a.png --report r.html",
        "residual of each block",
        "the objective is from its last value",
    ):
        assert words in page.words, words
    before, after = (np.asarray(image).astype(float) for image in pictures[:2])
    assert before.shape == after.shape == (130, 170, 3)
    assert np.abs(before - 255 * made.before.pixels.clip(0, 1).transpose(1, 2, 0)).max() <= 0.51
    assert np.abs(after - 255 * made.done.picture.pixels.clip(0, 1).transpose(1, 2, 0)).max() <= 0.51


def test_the_page_frames_the_tiles_that_did_not_converge():
    made = subject(noisy(200, 300), tile=128, max_steps=3)
    page, _ = read(photo_page(made, "jiio"))
    assert f"Framed: {len(made.done.tiled.tiles)} of {len(made.done.tiled.tiles)} tiles" in page.words


@pytest.mark.parametrize(
    "damage",
    (Coarse(3), Blurred("blur", gaussian_kernel(1.0)), Marked((0, 0, 0))),
    ids=("coarse", "blurred", "marked"),
)
def test_a_page_for_every_damage(damage):
    picture = noisy(60, 50, 3)
    picture.pixels[:, 20:24, 20:30] = 0
    made = subject(picture, channels=3, damage=damage, max_steps=20)
    page, pictures = read(photo_page(made, "jiio"))
    assert damage.words in page.words
    assert pictures[0].size == pictures[1].size == made.done.picture.pixels.shape[:0:-1]


@pytest.mark.slow
def test_a_large_picture_is_shown_smaller_and_the_maps_thinned():
    made = subject(noisy(1300, 2 * SHOWN + 10), tile=512, max_steps=2)
    page, pictures = read(photo_page(made, "jiio"))
    assert max(pictures[0].size) == SHOWN and pictures[0].format == "JPEG" and "Shown at 50% of its size" in page.words
    assert "One pixel in 3 of each row and column is shown." in page.words


def test_a_name_cannot_break_the_page():
    picture = dataclasses.replace(noisy(), path=Path("<b>&\"'.png"))
    page, _ = read(photo_page(subject(picture, max_steps=5), "jiio '<script>'"))
    assert "<b>&\"'.png, restored" in page.words and "<script>" in page.words


def test_the_window_with_most_of_something():
    values = np.zeros((50, 70))
    values[30:40, 40:50] = 1.0
    window = richest(values, (16, 16))
    assert window is not None and window.top <= 30 and window.top + 16 >= 40 and window.left + 16 >= 50
    other = richest(values, (16, 16), window)
    assert other is not None and (other.top + 16 <= window.top or other.left + 16 <= window.left or other.top >= 46)
    assert richest(values, (50, 70)) == Window(0, 0, 50, 70) and richest(values, (50, 70), window) is None
    assert places(50, 16) == [0, 4, 8, 12, 16, 20, 24, 28, 32, 34] and places(7, 7) == [0]
    edges = local_contrast(values[None])
    assert edges.shape == (50, 70) and edges[35, 45] == 0 and edges[29, 45] == 1 and edges[35, 39] == 1


def test_a_page_of_a_tiny_picture():
    page, _ = read(photo_page(subject(noisy(8, 8)), "jiio"))
    assert "8 x 8 pixels" in page.words


def test_the_profile_travels_with_the_pictures_of_the_page(tmp_path):
    picture = dataclasses.replace(noisy(), icc=b"a profile")
    write_picture("test", tmp_path / "a.png", picture)
    _, pictures = read(photo_page(subject(picture, max_steps=5), "jiio"))
    assert pictures[0].info["icc_profile"] == b"a profile"
