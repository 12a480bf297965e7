"""TIFF files beyond 8 bits, and the range of stored numbers: every type, byte order and meaning, read and written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from jiio.tasks.frame.files import InputError, read_image
from jiio.tasks.frame.pixels import Span, used_span
from jiio.tasks.images.encode import WRITTEN, write_picture
from jiio.tasks.images.header import read_header
from jiio.tasks.images.pictures import read_picture
from picture_cases import numbers

DRAW = np.random.default_rng(0)
UNIT = np.concatenate([[0.0, 1.0], DRAW.random(898)]).reshape(30, 30)


def written(path: Path, values: np.ndarray, **options) -> Path:
    tifffile.imwrite(path, values, **options)
    return path


def of_type(kind: str, high: float) -> np.ndarray:
    values = UNIT * high
    return values.astype(kind) if kind.startswith("float") else np.rint(values).astype(kind)


@pytest.mark.parametrize("order", ("<", ">"))
@pytest.mark.parametrize(
    ("kind", "high"),
    [
        *(("uint16", 2**bits - 1) for bits in (8, 10, 12, 14, 16)),
        *(("int16", 4095), ("int32", 255), ("int32", 2**24 - 1), ("uint32", 2**32 - 1), ("int8", 127)),
        *(("float32", 1.0), ("float32", 255.0), ("float64", 65535.0), ("float16", 1.0), ("float32", 0.07)),
    ],
)
def test_every_type_is_read_by_its_range_and_written_as_it_was(tmp_path, kind, high, order):
    values = of_type(kind, high)
    path = written(tmp_path / "a.tif", values, byteorder=order)
    picture = read_picture("pictures", path)
    most = 0.07 if high == 0.07 else 255 if kind == "int8" else high
    assert np.abs(picture.pixels[0] - UNIT * high / most).max() < 0.6 / min(high / most * most, 500) + 1e-3 * (
        high <= 1
    )
    assert np.abs(read_image("x", path, channels=1)[:, :, 0] - picture.pixels[0]).max() < 1e-6

    write_picture("--output", tmp_path / "b.tif", picture)
    again = tifffile.imread(tmp_path / "b.tif")
    assert again.dtype == values.dtype.newbyteorder("=") and np.allclose(again, values, rtol=0, atol=1e-7 * most)


@pytest.mark.parametrize("options", ({}, {"compression": "zlib", "predictor": 2}, {"tile": (16, 16)}), ids=str)
@pytest.mark.parametrize("order", ("<", ">"))
@pytest.mark.parametrize(("kind", "bits"), (("uint8", 8), ("uint16", 16), ("uint32", 32)))
def test_white_is_zero(tmp_path, kind, bits, order, options):
    values = np.rint(UNIT * (2**bits - 1)).astype(kind)
    path = written(tmp_path / "a.tif", (2**bits - 1) - values, photometric="miniswhite", byteorder=order, **options)
    for pixels in (read_picture("x", path).pixels[0], read_image("x", path, channels=1)[:, :, 0]):
        assert np.abs(pixels - UNIT).max() < 0.6 / 255


@pytest.mark.parametrize("compression", ("tiff_lzw", "packbits", "tiff_adobe_deflate"))
def test_white_is_zero_in_what_pillow_unpacks(tmp_path, compression):
    values = numbers(1, 16, (16, 16))[:, :, 0]
    Image.fromarray(65535 - values).save(tmp_path / "a.tif", compression=compression, tiffinfo={262: 0})
    assert read_picture("x", tmp_path / "a.tif").pixels[0] == pytest.approx(values / 65535, abs=1e-6)
    assert read_image("x", tmp_path / "a.tif", channels=1)[:, :, 0] == pytest.approx(values / 65535, abs=1e-6)


def test_twelve_bits_of_white_is_zero_keep_their_range(tmp_path):
    values = np.rint(UNIT * 4095).astype(np.uint16)
    picture = read_picture("x", written(tmp_path / "a.tif", values, photometric="miniswhite"))
    assert picture.pixels[0] == pytest.approx(1 - values / 4095, abs=1e-6)
    assert picture.span == Span(61440, 65535, "uint16")


def test_negative_numbers_go_from_the_least_to_the_greatest(tmp_path):
    values = np.rint(UNIT * 3000 - 1000).astype(np.int16)
    picture = read_picture("x", written(tmp_path / "a.tif", values))
    assert picture.span == Span(-1000, 2000, "int16") and picture.kind == "grey, 16 bit signed"
    write_picture("--output", tmp_path / "b.png", picture)  # has no signed numbers
    assert read_picture("x", tmp_path / "b.png").pixels == pytest.approx(picture.pixels, abs=1e-4)


def test_colours_in_planes_and_opacity_that_was_multiplied_in(tmp_path):
    values = numbers(3, 16)
    planes = written(tmp_path / "p.tif", np.moveaxis(values, 2, 0), photometric="rgb", planarconfig="separate")
    assert np.array_equal(np.rint(read_picture("x", planes).pixels * 65535), np.moveaxis(values, 2, 0))

    alpha = np.full((*values.shape[:2], 1), 40000, np.uint16)
    stored = np.concatenate([np.rint(values * (40000 / 65535)).astype(np.uint16), alpha], 2)
    picture = read_picture("x", written(tmp_path / "a.tif", stored, photometric="rgb", extrasamples=["assocalpha"]))
    assert np.abs(picture.pixels * 65535 - np.moveaxis(values, 2, 0)).max() < 2
    assert picture.alpha is not None and (picture.alpha == 40000).all()


@pytest.mark.parametrize("bits", (8, 16))
@pytest.mark.parametrize("first", (False, True))
def test_a_thumbnail_beside_the_picture_is_none(tmp_path, bits, first):
    values, small = numbers(3, bits, (40, 40)), numbers(3, bits, (10, 10), 1)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for kind, pixels in ((1, small), (0, values)) if first else ((0, values), (1, small)):
            file.write(pixels, photometric="rgb", subfiletype=kind)
    picture = read_picture("x", tmp_path / "a.tif")
    assert np.array_equal(np.rint(picture.pixels * (2**bits - 1)), np.moveaxis(values, 2, 0))


def test_what_stands_beside_the_pixels_of_a_scan_is_kept(tmp_path):
    tags = [(271, 2, None, "A microscope", True), (274, 3, 1, 6, True), (700, 1, 9, b"<x:xmp/>\n", True)]
    path = written(
        *(tmp_path / "a.tif", UNIT[:20].astype(np.float32)),
        extratags=tags,
        resolution=(300, 200),
        resolutionunit="INCH",
        metadata=None,
    )
    picture = read_picture("x", path)
    assert picture.pixels.shape == (1, 30, 20) and picture.dpi == pytest.approx((200, 300))
    assert picture.exif is not None and picture.exif[271] == "A microscope" and picture.notes.xmp == b"<x:xmp/>\n"


def test_a_scan_that_is_cut_off_is_refused(tmp_path):
    data = written(tmp_path / "a.tif", UNIT.astype(np.float32), rowsperstrip=4).read_bytes()
    (tmp_path / "b.tif").write_bytes(data[: len(data) - 600])
    with pytest.raises(InputError):
        read_picture("x", tmp_path / "b.tif")


@pytest.mark.parametrize("kind", ("uint16", "int16", "int32", "uint32", "float32", "float64"))
def test_the_header_says_what_reading_finds(tmp_path, kind):
    path = written(tmp_path / "a.tif", of_type(kind, 255))
    header, picture = read_header(path), read_picture("x", path)
    assert header is not None and (header.bits, header.numbers) == (picture.bits, 1)
    (tiff,) = (one for one in WRITTEN if one.name == "TIFF")
    assert tiff.bits(picture) == picture.bits


def test_ranges_of_floating_point_numbers():
    def range_of(values):
        span = used_span("x", Path("a"), np.array(values, np.float32))
        return span.low, span.high

    assert range_of([-0.1, 1.1]) == (0, 1)  # noise goes beyond
    assert range_of([-10, 280]) == (0, 255)
    assert range_of([3, 3000]) == (0, 4095)
    assert range_of([0, 40]) == (0, 40)  # neither
    assert range_of([-1000, 2000]) == (-1000, 2000)
    assert range_of([7, 7]) == (7, 8)
    assert used_span("x", Path("a"), np.zeros((3, 3), np.uint16)).high == 65535
