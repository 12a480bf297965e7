"""Pictures come in as they stand in the file, and go out as the same kind; what cannot be read is a sentence."""

from __future__ import annotations

import dataclasses
import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from tasks.encode import WRITTEN, OutputError, bands, check_fits, natural_suffix, stored, write_picture
from tasks.files import InputError
from tasks.pictures import Picture, read_picture

HEIGHT, WIDTH = 9, 12


def numbers(count: int, bits: int, shape: tuple[int, int] = (HEIGHT, WIDTH), seed: int = 0) -> np.ndarray:
    """Random values (H, W, K) that are no greys."""
    draw = np.random.default_rng(seed)
    return draw.integers(0, 2**bits, (*shape, count)).astype(np.uint8 if bits == 8 else np.uint16)


def picture_of(values: np.ndarray, path: str = "a.png", **more) -> Picture:
    """The picture of values (H, W, K), with alpha where K is 2 or 4."""
    count = values.shape[2]
    colours = count - (count in (2, 4))
    pixels = np.moveaxis(values[:, :, :colours], 2, 0) / np.float32(np.iinfo(values.dtype).max)
    alpha = values[:, :, -1].copy() if count > colours else None
    return Picture(Path(path), pixels.astype(np.float32), alpha, 8 * values.itemsize, **more)


def png(values: np.ndarray, *, chunks: dict[bytes, bytes] | None = None) -> bytes:
    """A plain 16-bit PNG by the letter of the specification; an oracle that shares nothing with what it tests."""
    height, width, count = values.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[count]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    more = b"".join(chunk(name, data) for name, data in (chunks or {}).items())
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + more + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


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


def saved(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


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
    if kind.name not in ("JPEG", "WEBP"):  # these two lose some
        assert np.abs(again.pixels - picture.pixels).max() <= 0.501 / (2**again.bits - 1)


def test_values_beyond_the_range_are_cut_off(tmp_path):
    pixels = np.linspace(-0.5, 1.5, 80, dtype=np.float32).reshape(1, 8, 10)
    write_picture("--output", tmp_path / "a.png", Picture(Path("a.png"), pixels))
    assert np.abs(read_picture("pictures", tmp_path / "a.png").pixels - pixels.clip(0, 1)).max() <= 0.501 / 255


def small(mode: str) -> Image.Image:
    return Image.new(mode, (16, 16))


def frames(path: Path, kind: str) -> None:
    one, two = (Image.fromarray(numbers(3, 8, (16, 16), seed)) for seed in (1, 2))
    one.save(path, kind, save_all=True, append_images=[two])


def planar(path: Path) -> None:
    tifffile.imwrite(path, np.moveaxis(numbers(3, 16), 2, 0), photometric="rgb", planarconfig="separate")


def associated(path: Path) -> None:
    tifffile.imwrite(path, numbers(4, 16), photometric="rgb", extrasamples=["assocalpha"])


# name of the file, how it is made, words of the sentence
UNREADABLE: list[tuple[str, Callable[[Path], object], str]] = [
    ("cmyk.jpg", lambda p: saved(p, small("CMYK")), "CMYK. Convert it to RGB"),
    ("cmyk.tif", lambda p: saved(p, small("CMYK")), "CMYK. Convert it to RGB"),
    ("lab.tif", lambda p: saved(p, small("LAB")), "the colours LAB"),
    ("float.tif", lambda p: saved(p, small("F")), "floating-point"),
    ("integer.tif", lambda p: saved(p, small("I")), "32-bit numbers"),
    ("frames.gif", lambda p: frames(p, "GIF"), "2 frames"),
    ("frames.png", lambda p: frames(p, "PNG"), "2 frames"),
    ("frames.webp", lambda p: frames(p, "WEBP"), "2 frames"),
    ("pages.tif", lambda p: frames(p, "TIFF"), "2 pages"),
    ("planes.tif", planar, "in an order that is not known"),
    ("associated.tif", associated, "in an order that is not known"),
    ("deep.ppm", lambda p: p.write_bytes(b"P6 8 8 65535\n" + bytes(384)), "in an order that is not known"),
    ("bits.ppm", lambda p: p.write_bytes(b"P6 8 8 1023\n" + bytes(384)), "in an order that is not known"),
    ("text.png", lambda p: p.write_text("hello"), "none of them"),
    ("page.jpg", lambda p: p.write_text("<html></html>"), "none of them"),
    ("photo.heic", lambda p: p.write_bytes(b"\0\0\0\x18ftypheic" + bytes(99)), "HEIC"),
    ("drawing.eps", lambda p: p.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "none of them"),
    ("raw.nef", lambda p: saved(p, small("RGB"), format="TIFF"), "raw file of a camera"),
    ("raw.tif", lambda p: saved(p, small("RGB"), tiffinfo={50706: b"\1\4\0\0"}), "raw file of a camera"),
    ("tiny.png", lambda p: saved(p, Image.new("RGB", (1, 1))), "with 1 x 1"),
    ("narrow.png", lambda p: saved(p, Image.new("RGB", (7, 900))), "with 7 x 900"),
    ("bomb.png", lambda p: saved(p, Image.new("1", (20_000, 6_000))), "at most 100,000,000 pixels"),
    ("huge.png", lambda p: p.write_bytes(png_header(60_000, 60_000)), "too many pixels"),
    ("empty.png", lambda p: p.write_bytes(b""), "zero bytes"),
    ("head.png", lambda p: p.write_bytes(png_header(16, 16)), "not an image that can be read"),
    ("folder.png", lambda p: p.mkdir(), "the folder"),
    ("absent.png", lambda p: None, "cannot be opened"),
]


def png_header(width: int, height: int) -> bytes:
    data = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + data + struct.pack(">I", zlib.crc32(data)) + b"\0\0\0\x09IDAT"


@pytest.mark.parametrize(("name", "make", "words"), UNREADABLE, ids=[case[0] for case in UNREADABLE])
def test_what_cannot_be_read_is_a_sentence(tmp_path, name, make, words, capfd):
    make(tmp_path / name)
    with pytest.raises(InputError) as caught:
        read_picture("pictures", tmp_path / name)
    assert words in str(caught.value) and str(tmp_path / name) in str(caught.value)
    assert capfd.readouterr() == ("", "")  # libtiff likes to talk


def samples() -> dict[str, bytes]:
    """Whole files of every kind."""
    found = {}
    image = Image.fromarray(numbers(3, 8, (16, 16)))
    for kind in ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "GIF", "PPM"):
        buffer = io.BytesIO()
        image.save(buffer, kind)
        found[kind] = buffer.getvalue()
    found["PNG16"] = png(numbers(3, 16, (16, 16)))
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, numbers(3, 16, (16, 16)), photometric="rgb", compression="zlib", predictor=2)
    found["TIFF16"] = buffer.getvalue()
    return found


SAMPLES = samples()


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(sorted(SAMPLES)), st.data())
def test_a_damaged_file_is_read_or_refused_and_nothing_else(tmp_path_factory, kind, data):
    whole = SAMPLES[kind]
    if data.draw(st.booleans(), "cut"):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 1), "length")]
    else:
        changed = bytearray(whole)
        for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=6), "places"):
            changed[place] = data.draw(st.integers(0, 255), "byte")
        damaged = bytes(changed)
    path = tmp_path_factory.mktemp("pictures") / "a.png"
    path.write_bytes(damaged)
    try:
        picture = read_picture("pictures", path)
    except InputError as error:
        assert str(error).startswith("pictures: ") and "\n" not in str(error)
    else:
        assert picture.pixels.shape[0] in (1, 3) and 0 <= picture.pixels.min() <= picture.pixels.max() <= 1


def test_half_a_picture_is_refused(tmp_path, capfd):
    for kind, whole in SAMPLES.items():
        path = tmp_path / kind
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InputError):
            read_picture("pictures", path)
    assert capfd.readouterr() == ("", "")  # libtiff likes to talk
    os.write(2, b"heard")
    assert capfd.readouterr().err == "heard"


def test_names_that_do_not_do():
    with pytest.raises(InputError, match=r"ends in one of \.png"):
        check_fits("--output", Path("a.gif"), picture_of(numbers(3, 8)))
    with pytest.raises(InputError, match="JPEG cannot keep"):
        check_fits("--output", Path("a.jpg"), picture_of(numbers(4, 8)))


def test_a_picture_too_wide_for_its_kind(tmp_path, capfd):
    wide = Picture(Path("a.png"), np.zeros((1, 8, 70_000), np.float32))
    for name in ("a.jpg", "a.webp"):
        with pytest.raises(InputError, match="cannot be written as"):
            write_picture("--output", tmp_path / name, wide)
    assert list(tmp_path.iterdir()) == [] and capfd.readouterr() == ("", "")


def test_what_a_killed_run_left_is_taken_away_and_nothing_else(tmp_path):
    for name in (".a.png.123.part", ".b.png.123.part", ".a[.png.1.part"):
        (tmp_path / name).write_bytes(b"half")
    write_picture("--output", tmp_path / "a.png", picture_of(numbers(3, 8)))
    write_picture("--output", tmp_path / "a[.png", picture_of(numbers(3, 8)))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.png.123.part", "a.png", "a[.png"]


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tasks.files.os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_picture("--output", tmp_path / "a.png", picture_of(numbers(3, 8)))
    assert (tmp_path / "a.png").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
