"""What stands beside the pixels comes out again: captions, rights, the meaning of the numbers, texts."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from jiio.tasks.frame.files import read_image
from jiio.tasks.images.encode import write_picture
from jiio.tasks.images.formats import SUFFIXES_OF, formats, suffixes
from jiio.tasks.images.notes import Notes
from jiio.tasks.images.pictures import Picture, read_picture
from picture_cases import numbers, picture_of, saved

XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6" dc:rights="mine"/></x:xmpmeta>'
IPTC = b"\x1c\x02\x78\x00\x05hello"
CHROMA = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)


def info() -> PngImagePlugin.PngInfo:
    made = PngImagePlugin.PngInfo()
    made.add(b"gAMA", (100_000).to_bytes(4, "big"))
    made.add(b"cHRM", b"".join(round(100_000 * value).to_bytes(4, "big") for value in CHROMA))
    made.add_text("Title", "a harbour")
    made.add_itxt("Author", "Zoë")
    return made


@pytest.mark.parametrize("bits", (8, 16))
def test_what_the_numbers_of_a_png_mean_and_its_texts(tmp_path, bits):
    saved(tmp_path / "a.png", Image.fromarray(numbers(3, 8)), pnginfo=info())
    picture = read_picture("x", tmp_path / "a.png")
    write_picture("--output", tmp_path / "b.png", Picture(picture.path, picture.pixels, bits=bits, notes=picture.notes))
    with Image.open(tmp_path / "b.png") as image:
        image.load()
        assert image.info["gamma"] == 1.0 and image.info["chromaticity"] == pytest.approx(CHROMA)
        assert getattr(image, "text", {}) == {"Title": "a harbour", "Author": "Zoë"}


@pytest.mark.parametrize("source", ("a.jpg", "a.tif", "a.png", "a.webp"))
@pytest.mark.parametrize("target", ("b.jpg", "b.tif", "b.png", "b.webp"))
def test_captions_and_rights_go_from_kind_to_kind(tmp_path, source, target):
    picture = picture_of(numbers(3, 8, (16, 16)))
    told = Notes(xmp=XMP, iptc=IPTC, comment=b"hi")
    write_picture("x", tmp_path / source, Picture(picture.path, picture.pixels, notes=told))
    write_picture("x", tmp_path / target, read_picture("x", tmp_path / source))
    notes = read_picture("x", tmp_path / target).notes
    assert notes.xmp is not None and b'rights="mine"' in notes.xmp and b'"6"' not in notes.xmp  # it lies upright now
    both = {Path(source).suffix, Path(target).suffix}
    assert notes.iptc == (IPTC if both <= {".jpg", ".tif"} else None)
    assert notes.comment == (b"hi" if both == {".jpg"} else None)


def test_every_suffix_of_pillow_is_one_of_ours():
    Image.init()
    registered = {suffix for suffix, kind in Image.registered_extensions().items() if kind in (*formats(), "MPO")}
    assert registered <= suffixes() and set(formats()) <= set(SUFFIXES_OF)


@pytest.mark.parametrize("name", ("a.jfif", "a.jpe", "a.avif", "a.jp2", "a.dib"))
def test_other_kinds_come_back_as_they_were(tmp_path, name):
    ramp = np.linspace(0, 255, 32 * 32).reshape(32, 32).astype(np.uint8)
    kinds = {".jfif": "JPEG", ".jpe": "JPEG", ".dib": "DIB"}
    colours = Image.fromarray(np.stack([ramp, ramp.T, ramp[::-1]], 2))
    if Path(name).suffix == ".avif" and "AVIF" not in formats():
        pytest.skip("this Pillow has no AVIF")
    saved(tmp_path / name, colours, **({"format": kinds[Path(name).suffix]} if Path(name).suffix in kinds else {}))
    picture = read_picture("x", tmp_path / name)
    assert np.abs(picture.pixels - np.moveaxis(np.asarray(colours), 2, 0) / 255).mean() < 0.02
    if name != "a.dib":
        write_picture("x", tmp_path / f"b{name}", picture)
        assert np.abs(read_picture("x", tmp_path / f"b{name}").pixels - picture.pixels).mean() < 0.02


def test_heic_with_its_plugin_and_a_sentence_without(tmp_path):
    if "HEIF" not in formats():
        pytest.skip("needs pillow-heif")
    saved(tmp_path / "a.heic", Image.fromarray(numbers(3, 8, (64, 64))), quality=90)
    assert read_picture("x", tmp_path / "a.heic").pixels.shape == (3, 64, 64)


def test_without_a_console(tmp_path, monkeypatch):
    saved(tmp_path / "a.png", Image.fromarray(numbers(3, 8)))
    monkeypatch.setattr(sys, "stderr", None)
    assert read_picture("x", tmp_path / "a.png").kind == "colour, 8 bit"


def test_threads_do_not_take_standard_error_from_each_other(tmp_path, capfd):
    saved(tmp_path / "a.tif", Image.fromarray(numbers(3, 8, (64, 64))))
    threads = [
        threading.Thread(target=lambda: [read_image("x", tmp_path / "a.tif", channels=3) for _ in range(30)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stderr.write("heard")
    sys.stderr.flush()
    assert capfd.readouterr().err.endswith("heard")
