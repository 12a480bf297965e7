"""Pictures come in as they stand in the file, and go out as the same kind."""

from __future__ import annotations

import dataclasses
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from jiio.tasks.frame.files import InputError
from jiio.tasks.images.encode import WRITTEN, bands, natural_suffix, stored, write_picture
from jiio.tasks.images.pictures import Picture, read_picture
from picture_cases import HEIGHT, WIDTH, numbers, picture_of, png, saved


def unpacked(data: bytes, count: int, shape: tuple[int, int]) -> np.ndarray:
    """The values of a 16-bit PNG whose rows are stored plainly or as differences to the row above."""
    raw, place = b"", 8
    while place < len(data):
        (length,) = struct.unpack(">I", data[place : place + 4])
        if data[place + 4 : place + 8] == b"IDAT":
            raw += data[place + 8 : place + 8 + length]
        place += 12 + length
    lines = np.frombuffer(zlib.decompress(raw), np.uint8).reshape(shape[0], -1)
    assert set(lines[:, 0]) <= {0, 2}
    rows = [np.zeros(lines.shape[1] - 1, np.uint8)]
    for line in lines:
        rows.append(line[1:] + (rows[-1] if line[0] == 2 else 0))
    return np.stack(rows[1:]).view(">u2").reshape(*shape, count).astype(np.uint16)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from((1, 2, 3, 4)),
    st.sampled_from((8, 16)),
    st.integers(8, 20),
    st.integers(8, 20),
    st.sampled_from((".png", ".tif")),
    st.integers(0, 1000),
)
def test_what_is_written_is_read_again_to_the_last_bit(tmp_path_factory, count, bits, height, width, suffix, seed):
    path = tmp_path_factory.mktemp("pictures") / f"a{suffix}"
    values = numbers(count, bits, (height, width), seed)
    picture = picture_of(values, str(path))
    write_picture("--output", path, picture)
    again = read_picture("pictures", path)
    deep = bits == 16 and not (suffix == ".tif" and count == 2)  # a kind that Pillow cannot read
    assert again.bits == (16 if deep else 8)
    assert np.array_equal(stored(again, again.bits), values if deep or bits == 8 else np.rint(values / 257))
    assert again.pixels.dtype == np.float32 and again.pixels.shape == picture.pixels.shape
    assert again.kind == dataclasses.replace(picture, bits=again.bits).kind


@pytest.mark.parametrize("count", (1, 2, 3, 4))
def test_a_16_bit_png_of_somebody_else(tmp_path, count):
    values = numbers(count, 16)
    path = tmp_path / "a.png"
    path.write_bytes(png(values))
    picture = read_picture("pictures", path)
    assert picture.bits == 16 and np.array_equal(stored(picture, 16), values)
    assert picture.pixels == pytest.approx(np.moveaxis(values[:, :, : picture.pixels.shape[0]], 2, 0) / 65535, abs=1e-7)


@pytest.mark.parametrize("count", (1, 2, 3, 4))
def test_our_16_bit_png_is_what_the_specification_says(tmp_path, count):
    values = numbers(count, 16, (300, 10))  # more rows than are compressed at a time
    write_picture("--output", tmp_path / "a.png", picture_of(values))
    data = (tmp_path / "a.png").read_bytes()
    assert np.array_equal(unpacked(data, count, (300, 10)), values)
    with Image.open(tmp_path / "a.png") as image:  # Pillow checks the sums of all pieces
        image.load()
        assert image.size == (10, 300)


@pytest.mark.parametrize(
    "options",
    (
        {},
        {"byteorder": ">"},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": 2},
        {"compression": "zlib", "predictor": 2, "byteorder": ">"},
        {"tile": (16, 16)},
        {"rowsperstrip": 2},
        {"rowsperstrip": 2, "compression": "zlib"},
    ),
    ids=str,
)
@pytest.mark.parametrize("count", (1, 3, 4))
def test_a_16_bit_tiff_of_somebody_else(tmp_path, options, count):
    values = numbers(count, 16)
    options = options | ({"extrasamples": ["unassalpha"]} if count == 4 else {})
    shaped = values[:, :, 0] if count == 1 else values
    tifffile.imwrite(tmp_path / "a.tif", shaped, photometric="minisblack" if count == 1 else "rgb", **options)
    picture = read_picture("pictures", tmp_path / "a.tif")
    assert picture.bits == 16 and np.array_equal(stored(picture, 16), values)


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize(("suffix", "bits"), ((".png", 8), (".jpg", 8), (".tif", 8), (".webp", 8), (".png", 16)))
def test_every_orientation_comes_out_upright(tmp_path, turn, suffix, bits):
    exif = Image.Exif()
    exif[274] = turn
    path = tmp_path / f"a{suffix}"
    if bits == 16:
        data = exif.tobytes().removeprefix(b"Exif\0\0")
        values = numbers(3, 16)
        path.write_bytes(png(values, chunks={b"eXIf": data}))
        low = Image.fromarray((values >> 8).astype(np.uint8))
    else:
        saved(path, Image.fromarray(numbers(3, 8)), exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
        with Image.open(path) as image:
            low = image.convert("RGB") if suffix != ".tif" else Image.fromarray(numbers(3, 8))
    low.getexif()[274] = turn
    expected = np.asarray(ImageOps.exif_transpose(low))
    picture = read_picture("pictures", path)
    assert np.array_equal(stored(picture, bits) >> (bits - 8), expected)
    write_picture("--output", tmp_path / f"b{suffix}", picture)
    with Image.open(tmp_path / f"b{suffix}") as image:
        assert image.getexif().get(274, 1) == 1
        assert image.size == expected.shape[1::-1]


def test_what_is_true_of_the_restored_picture_too_is_kept(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[271], exif[274], exif[306] = "A camera", 6, "2024:05:01 10:00:00"
    folder = {0x829A: TiffImagePlugin.IFDRational(1, 60), 0x9003: "2024:05:01 10:00:00"}
    exif.get_ifd(0x8769).update(folder)
    exif[0x8769] = folder  # Pillow 11 knows this way only
    saved(tmp_path / "a.jpg", Image.fromarray(numbers(3, 8)), exif=exif, icc_profile=profile, dpi=(300, 200))
    picture = read_picture("pictures", tmp_path / "a.jpg")
    assert picture.dpi == (200, 300)  # turned with the picture
    for name in ("b.jpg", "b.png", "b.webp", "b.tif"):
        write_picture("--output", tmp_path / name, picture)
        with Image.open(tmp_path / name) as image:
            again, inside = image.getexif(), image.getexif().get_ifd(0x8769)
            assert again.get(271) == "A camera" and again.get(274, 1) == 1
            if name != "b.tif":
                assert float(inside[0x829A]) == pytest.approx(1 / 60) and inside[0x9003] == "2024:05:01 10:00:00"
            assert image.info["icc_profile"] == profile
            if name != "b.webp":
                assert image.info["dpi"] == pytest.approx((200, 300), abs=0.1)
    for name in ("c.png", "c.tif"):  # 16 bits
        write_picture("--output", tmp_path / name, dataclasses.replace(picture, bits=16))
        again = read_picture("pictures", tmp_path / name)
        assert again.icc == profile and again.dpi == pytest.approx((200, 300), abs=0.1) and again.bits == 16


def test_a_broken_exif_block_is_dropped(tmp_path):
    values = numbers(3, 16)
    (tmp_path / "a.png").write_bytes(png(values, chunks={b"eXIf": b"MM\0*\xff\xff\xff\xff nonsense"}))
    picture = read_picture("pictures", tmp_path / "a.png")
    assert picture.exif is None and np.array_equal(stored(picture, 16), values)


def palette(colours: list[int]) -> Image.Image:
    image = Image.fromarray(np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(HEIGHT, WIDTH) % 4)
    image.putpalette(colours)
    return image


def test_palettes_bits_and_colours_that_stand_for_transparency(tmp_path):
    colours = [10, 20, 30, 200, 20, 30, 90, 91, 92, 255, 255, 0]
    image = palette(colours)
    expected = np.array(colours, np.uint8).reshape(4, 3)[np.asarray(image)]
    for name in ("a.png", "a.gif", "a.bmp", "a.tif"):
        picture = read_picture("pictures", saved(tmp_path / name, image))
        assert picture.kind == "colour, 8 bit" and np.array_equal(stored(picture, 8), expected)
    picture = read_picture("pictures", saved(tmp_path / "b.png", image, transparency=1))
    assert picture.alpha is not None
    assert np.array_equal(picture.alpha, np.where(np.asarray(image) == 1, 0, 255))
    assert np.array_equal(stored(picture, 8)[:, :, :3], expected)
    bits = np.asarray(image) % 2 == 1
    for name in ("c.png", "c.pbm", "c.tif", "c.bmp"):
        picture = read_picture("pictures", saved(tmp_path / name, Image.fromarray(bits)))
        assert picture.kind == "grey, 8 bit" and np.array_equal(picture.pixels[0], bits.astype(np.float32))
    grey = Image.fromarray(np.asarray(image))
    picture = read_picture("pictures", saved(tmp_path / "d.png", grey, transparency=2))
    assert picture.kind == "grey, 8 bit, alpha" and picture.alpha is not None
    assert np.array_equal(picture.alpha == 0, np.asarray(grey) == 2)


@pytest.mark.parametrize("count", (1, 3))
def test_a_transparent_colour_of_16_bits(tmp_path, count):
    values = numbers(count, 16)
    one = values[3, 4]
    (tmp_path / "a.png").write_bytes(png(values, chunks={b"tRNS": one.astype(">u2").tobytes()}))
    picture = read_picture("pictures", tmp_path / "a.png")
    assert picture.alpha is not None and picture.alpha[3, 4] == 0
    assert int((picture.alpha == 65535).sum()) == HEIGHT * WIDTH - 1
    assert np.array_equal(stored(picture, 16)[:, :, :-1], values)


@pytest.mark.parametrize("bits", (1, 2, 4, 8))
def test_a_transparent_grey_of_few_bits(tmp_path, bits):
    values = np.random.default_rng(0).integers(0, 2**bits, (8, 16, 1))
    one = int(values[0, 0, 0])
    (tmp_path / "a.png").write_bytes(png(values, chunks={b"tRNS": one.to_bytes(2, "big")}, bits=bits))
    picture = read_picture("pictures", tmp_path / "a.png")
    assert picture.alpha is not None and np.array_equal(picture.alpha == 0, values[:, :, 0] == one)
    assert np.allclose(picture.pixels[0], values[:, :, 0] / (2**bits - 1))


def test_colours_that_are_all_greys_are_one_grey_and_are_written_as_colours(tmp_path):
    grey = numbers(1, 8)[:, :, 0]
    for image in (Image.fromarray(grey).convert("RGB"), Image.merge("RGBA", [Image.fromarray(grey)] * 4)):
        picture = read_picture("pictures", saved(tmp_path / "a.png", image))
        assert len(picture.pixels) == 1 and picture.tripled and bands(picture) == len(image.mode)
        write_picture("--output", tmp_path / "b.png", picture)
        with Image.open(tmp_path / "b.png") as again:
            assert again.mode == image.mode and np.array_equal(np.asarray(again), np.asarray(image))


def test_the_first_picture_of_a_camera_with_two_lenses(tmp_path):
    left, right = (Image.fromarray(numbers(3, 8, (32, 40), seed)) for seed in (1, 2))
    left.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[right], quality=100, subsampling=0)
    with Image.open(tmp_path / "a.jpg") as image:
        assert image.format == "MPO" and getattr(image, "n_frames", 1) == 2
    picture = read_picture("pictures", tmp_path / "a.jpg")
    assert picture.format == "JPEG" and np.abs(stored(picture, 8).astype(int) - np.asarray(left)).mean() < 3


def test_the_suffix_is_that_of_the_picture_where_it_can_be_written():
    colour, deep, clear = numbers(3, 8), numbers(3, 16), numbers(4, 8)
    for values, path, kind, suffix in (
        (colour, "a.png", "PNG", ".png"),
        (colour, "a.JPG", "JPEG", ".JPG"),
        (colour, "a.jpeg", "JPEG", ".jpeg"),
        (colour, "a.png", "JPEG", ".jpg"),  # a name that lies
        (colour, "a.gif", "GIF", ".png"),
        (clear, "a.gif", "GIF", ".png"),
        (deep, "a.tiff", "TIFF", ".tiff"),
        (numbers(2, 16), "a.tiff", "TIFF", ".png"),
        (numbers(1, 8), "a.pbm", "PPM", ".pgm"),
        (numbers(1, 16), "a.pgm", "PPM", ".pgm"),
        (colour, "a.pnm", "PPM", ".ppm"),
        (colour, "a", "WEBP", ".webp"),
    ):
        assert natural_suffix(picture_of(values, path, format=kind)) == suffix


@pytest.mark.parametrize("kind", WRITTEN, ids=lambda kind: kind.name)
@pytest.mark.parametrize("count", (1, 2, 3, 4))
@pytest.mark.parametrize("bits", (8, 16))
def test_every_kind_keeps_what_it_can_and_says_what_it_cannot(tmp_path, kind, count, bits):
    picture = picture_of(numbers(count, bits, (16, 24)))
    path = tmp_path / f"a{kind.suffixes[0]}"
    if picture.alpha is not None and not kind.alpha:
        with pytest.raises(InputError, match="transparency"):
            write_picture("--output", path, picture)
        assert not path.exists()
        return
    write_picture("--output", path, picture)
    again = read_picture("pictures", path)
    assert again.bits == kind.bits(picture) and (again.alpha is None) == (picture.alpha is None)
    if picture.alpha is not None and again.alpha is not None:
        assert np.array_equal(again.alpha, picture.alpha if again.bits == bits else np.rint(picture.alpha / 257))
    if kind.name not in ("JPEG", "WEBP", "AVIF"):  # these lose some
        assert np.abs(again.pixels - picture.pixels).max() <= 0.501 / (2**again.bits - 1)


def test_values_beyond_the_range_are_cut_off(tmp_path):
    pixels = np.linspace(-0.5, 1.5, 80, dtype=np.float32).reshape(1, 8, 10)
    write_picture("--output", tmp_path / "a.png", Picture(Path("a.png"), pixels))
    assert np.abs(read_picture("pictures", tmp_path / "a.png").pixels - pixels.clip(0, 1)).max() <= 0.501 / 255
