"""Pictures that are refused in a sentence, damaged, or cut off by a kill or a full disk."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from jiio.tasks.frame.files import InputError
from jiio.tasks.frame.outputs import OutputError
from jiio.tasks.images.encode import check_fits, write_picture
from jiio.tasks.images.pictures import Picture, read_picture
from picture_cases import numbers, picture_of, png, saved


def small(mode: str) -> Image.Image:
    return Image.new(mode, (16, 16))


def frames(path: Path, kind: str) -> None:
    one, two = (Image.fromarray(numbers(3, 8, (16, 16), seed)) for seed in (1, 2))
    one.save(path, kind, save_all=True, append_images=[two])


# name of the file, how it is made, words of the sentence
UNREADABLE: list[tuple[str, Callable[[Path], object], str]] = [
    ("cmyk.jpg", lambda p: saved(p, small("CMYK")), "CMYK. Convert it to RGB"),
    ("cmyk.tif", lambda p: saved(p, small("CMYK")), "CMYK. Convert it to RGB"),
    ("lab.tif", lambda p: saved(p, small("LAB")), "the colours LAB"),
    ("nan.tif", lambda p: tifffile.imwrite(p, np.full((9, 9), np.nan, np.float32)), "Replace them first"),
    ("complex.tif", lambda p: tifffile.imwrite(p, np.ones((9, 9), np.complex64)), "real numbers"),
    (
        "two.tif",
        lambda p: tifffile.imwrite(p, numbers(2, 16), photometric="minisblack", planarconfig="contig"),
        "2 numbers per pixel",
    ),
    ("cmyk16.tif", lambda p: tifffile.imwrite(p, numbers(4, 16), photometric="separated"), "SEPARATED"),
    ("frames.gif", lambda p: frames(p, "GIF"), "2 frames"),
    ("frames.png", lambda p: frames(p, "PNG"), "2 frames"),
    ("frames.webp", lambda p: frames(p, "WEBP"), "2 frames"),
    ("pages.tif", lambda p: frames(p, "TIFF"), "2 pages"),
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
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    dead, random = ended.pid, "0123abcd"
    mine = [f".a.png.{dead}-{random}.jiio-part", f".a[.png.{dead}-{random}.jiio-part"]
    others = [
        f".b.png.{dead}-{random}.jiio-part",  # of another file
        f".a.png.{os.getpid()}-{random}.jiio-part",  # whose writer lives
        f".a.png.old.{dead}-{random}.jiio-part",
        ".a.png.123.part",  # of another program
    ]
    for name in (*mine, *others):
        (tmp_path / name).write_bytes(b"half")
    write_picture("--output", tmp_path / "a.png", picture_of(numbers(3, 8)))
    write_picture("--output", tmp_path / "a[.png", picture_of(numbers(3, 8)))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*others, "a.png", "a[.png"])


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        write_picture("--output", tmp_path / "a.png", picture_of(numbers(3, 8)))
    assert (tmp_path / "a.png").read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1
