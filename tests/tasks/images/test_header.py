"""The header of a picture says what reading it will find."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jiio.tasks.images.encode import WRITTEN, bands, natural_suffix, suffix_of, write_picture
from jiio.tasks.images.header import read_header
from jiio.tasks.images.pictures import Picture, read_picture

DRAW = np.random.default_rng(0)


def agree(path: Path) -> None:
    header, picture = read_header(path), read_picture("test", path)
    assert header is not None
    assert (header.format, header.bits) == (picture.format, picture.bits)
    assert header.numbers == bands(picture) and header.alpha == (picture.alpha is not None)
    assert suffix_of(header) == natural_suffix(picture)


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.name)
@pytest.mark.parametrize("colours", (1, 3))
@pytest.mark.parametrize("bits", (8, 16))
@pytest.mark.parametrize("clear", (False, True))
def test_of_every_kind_that_is_written(tmp_path, kind, colours, bits, clear):
    if clear and not kind.alpha:
        pytest.skip("has no transparency")
    alpha = DRAW.integers(0, 2**bits, (12, 16)).astype(np.uint8 if bits == 8 else np.uint16) if clear else None
    picture = Picture(Path("a"), DRAW.random((colours, 12, 16), np.float32), alpha, bits)
    for suffix in kind.suffixes:
        path = tmp_path / f"a{suffix}"
        write_picture("test", path, picture)
        agree(path)


@pytest.mark.parametrize(
    ("mode", "name", "options"),
    [
        ("1", "a.png", {}),
        ("P", "a.png", {}),
        ("P", "a.gif", {}),
        ("P", "b.gif", {"transparency": 3}),
        ("L", "a.png", {"transparency": 3}),
        ("RGB", "a.png", {"transparency": (1, 2, 3)}),
        ("RGB", "lie.jpg", {"format": "PNG"}),
        ("LA", "a.tif", {}),
        ("RGBA", "a.tif", {}),
        ("I;16", "a.png", {}),
        ("I;16", "a.tif", {}),
        ("1", "a.pbm", {}),
        ("L", "noname", {"format": "WEBP"}),
    ],
)
def test_of_somebody_elses_pictures(tmp_path, mode, name, options):
    Image.fromarray(DRAW.integers(0, 256, (12, 16), np.uint8)).convert(mode).save(tmp_path / name, **options)
    agree(tmp_path / name)


def test_what_is_no_picture_has_none(tmp_path):
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "empty.png").touch()
    os.mkfifo(tmp_path / "pipe.png")
    for name in ("text.png", "empty.png", "pipe.png", "absent.png", "."):
        assert read_header(tmp_path / name) is None
